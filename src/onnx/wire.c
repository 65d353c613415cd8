/* SPDX-License-Identifier: MIT */
#include "onnx/wire.h"

#include <string.h>

enum { WIRE_GROUP = 3, WIRE_GROUP_END = 4 };

gc_wire gc_wire_make(const unsigned char *p, size_t n)
{
    static const unsigned char nothing[1] = {0};
    gc_wire w;
    w.p = n ? p : nothing;
    w.end = w.p + n;
    return w;
}

static bool read_varint(gc_wire *w, uint64_t *value)
{
    uint64_t v = 0;
    unsigned k;
    for (k = 0; k < 10 && w->p < w->end; ++k) {
        unsigned char byte = *w->p++;
        if (k == 9 && byte > 1) {
            return false;
        }
        v |= (uint64_t)(byte & 0x7f) << (7 * k);
        if (!(byte & 0x80)) {
            *value = v;
            return true;
        }
    }
    return false;
}

static bool read_fixed(gc_wire *w, unsigned n, uint64_t *value)
{
    uint64_t v = 0;
    unsigned k;
    if ((size_t)(w->end - w->p) < n) {
        return false;
    }
    for (k = 0; k < n; ++k) {
        v |= (uint64_t)w->p[k] << (8 * k);
    }
    w->p += n;
    *value = v;
    return true;
}

static bool read_tag(gc_wire *w, gc_field *f)
{
    uint64_t tag = 0;
    f->at = w->p;
    if (!read_varint(w, &tag) || tag > UINT32_MAX || (tag >> 3) == 0) {
        return false;
    }
    f->number = (uint32_t)(tag >> 3);
    f->type = (uint32_t)(tag & 7);
    return true;
}

/* The content of a field that is not a group. */
static bool read_content(gc_wire *w, gc_field *f)
{
    f->p = w->p;
    f->n = 0;
    f->value = 0;
    switch (f->type) {
    case GC_WIRE_VARINT: return read_varint(w, &f->value);
    case GC_WIRE_64: return read_fixed(w, 8, &f->value);
    case GC_WIRE_32: return read_fixed(w, 4, &f->value);
    case GC_WIRE_BYTES:
        if (!read_varint(w, &f->value) || f->value > (uint64_t)(w->end - w->p)) {
            return false;
        }
        f->p = w->p;
        f->n = (size_t)f->value;
        w->p += f->n;
        return true;
    default: return false;
    }
}

bool gc_wire_head(gc_wire *w, gc_field *f)
{
    if (!read_tag(w, f)) {
        return false;
    }
    f->p = w->p;
    f->n = 0;
    return f->type == GC_WIRE_BYTES ? read_varint(w, &f->value) : read_content(w, f);
}

/* Skips to the end of the group that was just opened; counts, not recursive. */
static bool skip_group(gc_wire *w)
{
    size_t depth = 1;
    gc_field f;
    while (depth > 0) {
        if (!read_tag(w, &f)) {
            return false;
        }
        if (f.type == WIRE_GROUP) {
            ++depth;
        } else if (f.type == WIRE_GROUP_END) {
            --depth;
        } else if (!read_content(w, &f)) {
            return false;
        }
    }
    return true;
}

int gc_wire_next(gc_wire *w, gc_field *f)
{
    while (w->p < w->end) {
        if (!read_tag(w, f)) {
            return -1;
        }
        if (f->type != WIRE_GROUP) {
            return read_content(w, f) ? 1 : -1;
        }
        if (!skip_group(w)) {
            return -1;
        }
    }
    return 0;
}

bool gc_wire_count(gc_wire w, uint32_t number, uint32_t type, size_t *count)
{
    gc_field f;
    size_t n = 0;
    int more;
    while ((more = gc_wire_next(&w, &f)) > 0) {
        n += f.number == number && f.type == type;
    }
    *count = n;
    return more == 0;
}

bool gc_scalars_begin(gc_scalars *s, const gc_field *f, uint32_t type)
{
    s->type = type;
    s->value = f->value;
    s->single = f->type == type;
    s->w = gc_wire_make(f->p, f->type == GC_WIRE_BYTES ? f->n : 0);
    return s->single || f->type == GC_WIRE_BYTES;
}

int gc_scalars_next(gc_scalars *s, uint64_t *value)
{
    bool ok;
    if (s->single) {
        s->single = 0;
        *value = s->value;
        return 1;
    }
    if (s->w.p >= s->w.end) {
        return 0;
    }
    if (s->type == GC_WIRE_VARINT) {
        ok = read_varint(&s->w, value);
    } else {
        ok = read_fixed(&s->w, s->type == GC_WIRE_64 ? 8 : 4, value);
    }
    return ok ? 1 : -1;
}

int64_t gc_bits_i64(uint64_t v)
{
    int64_t r;
    memcpy(&r, &v, sizeof r);
    return r;
}

int32_t gc_bits_i32(uint64_t v)
{
    uint32_t low = (uint32_t)(v & UINT32_MAX);
    int32_t r;
    memcpy(&r, &low, sizeof r);
    return r;
}

float gc_bits_f32(uint64_t v)
{
    uint32_t low = (uint32_t)(v & UINT32_MAX);
    float r;
    memcpy(&r, &low, sizeof r);
    return r;
}

double gc_bits_f64(uint64_t v)
{
    double r;
    memcpy(&r, &v, sizeof r);
    return r;
}
