/* SPDX-License-Identifier: MIT */
/* Lengths in front of messages from which something was cut are written anew, as
   varints of ten bytes, since they are known only behind the message. */
#include "onnx/outline.h"

#include <string.h>

#include "base/ctx.h"
#include "base/status.h"
#include "onnx/wire.h"

enum { WINDOW = 4096, HEAD_MOST = 20, LENGTH_BYTES = 10, N_LEVELS = 3 };

/* ModelProto.graph, GraphProto.initializer, TensorProto.raw_data. */
static const uint32_t path[N_LEVELS] = {7, 5, 9};

typedef struct scan {
    gc_outline *o;
    const gc_source *source;
    gc_error *err;
    unsigned char *window; /* `held` bytes of the source at `from` */
    uint64_t from, pos;
    size_t held;
    bool odd;
} scan;

/* ---- arrays that grow ---- */

static bool grow(gc_ctx *ctx, void *array, size_t used, size_t wanted, size_t *capacity, size_t size)
{
    void *old, *more;
    if (wanted <= *capacity) {
        return true;
    }
    if (wanted > SIZE_MAX / 2 / size) {
        return false;
    }
    size_t room = wanted < *capacity * 2 ? *capacity * 2 : wanted + 16;
    memcpy(&old, array, sizeof old);
    more = gc_mem_alloc_raw(ctx, room, size);
    if (more == NULL) {
        return false;
    }
    if (used > 0) {
        memcpy(more, old, used * size);
    }
    gc_mem_free(ctx, old);
    memcpy(array, &more, sizeof more);
    *capacity = room;
    return true;
}

static gc_status add_cut(scan *s, uint64_t bytes)
{
    gc_outline *o = s->o;
    if (!grow(o->ctx, &o->cuts, o->n_cuts, o->n_cuts + 1, &o->cap_cuts, sizeof *o->cuts)) {
        return GC_NOMEM(s->err);
    }
    o->cuts[o->n_cuts++] = (gc_cut){o->used, s->pos, bytes};
    return GRADCAM_OK;
}

static gc_status add_anchor(scan *s)
{
    gc_outline *o = s->o;
    if (!grow(o->ctx, &o->anchors, o->n_anchors, o->n_anchors + 1, &o->cap_anchors, sizeof *o->anchors)) {
        return GC_NOMEM(s->err);
    }
    o->anchors[o->n_anchors++] = (gc_anchor){o->used, s->pos};
    return GRADCAM_OK;
}

/* ---- reading ---- */

static bool in_window(const scan *s, uint64_t n)
{
    return s->pos >= s->from && s->pos - s->from <= s->held && n <= s->held - (s->pos - s->from);
}

/* The next n bytes, at most a window, come into the window. */
static gc_status look(scan *s, size_t n)
{
    if (!in_window(s, n)) {
        uint64_t left = gc_source_size(s->source) - s->pos;
        s->from = s->pos;
        s->held = left < WINDOW ? (size_t)left : WINDOW;
        return gc_source_read(s->source, s->from, s->window, s->held, s->err);
    }
    return GRADCAM_OK;
}

/* The next n bytes go into the outline as they are. */
static gc_status copy(scan *s, uint64_t n)
{
    gc_outline *o = s->o;
    if (n > SIZE_MAX - o->used || !grow(o->ctx, &o->data, o->used, o->used + (size_t)n, &o->size, 1)) {
        return GC_NOMEM(s->err);
    }
    if (in_window(s, n)) {
        memcpy(o->data + o->used, s->window + (s->pos - s->from), (size_t)n);
    } else {
        GC_TRY(gc_source_read(s->source, s->pos, o->data + o->used, (size_t)n, s->err));
    }
    o->used += (size_t)n;
    s->pos += n;
    return GRADCAM_OK;
}

/* ---- writing ---- */

static gc_status put(scan *s, const unsigned char *bytes, size_t n)
{
    gc_outline *o = s->o;
    if (!grow(o->ctx, &o->data, o->used, o->used + n, &o->size, 1)) {
        return GC_NOMEM(s->err);
    }
    memcpy(o->data + o->used, bytes, n);
    o->used += n;
    return GRADCAM_OK;
}

static void set_length(unsigned char *at, uint64_t length)
{
    for (int k = 0; k < LENGTH_BYTES; k++) {
        at[k] = (unsigned char)((length >> (7 * k) & 0x7f) | (k < LENGTH_BYTES - 1 ? 0x80 : 0));
    }
}

static gc_status message(scan *s, uint64_t end, int level);

/* The field whose head of `head` bytes is next: its tag, and the content
   without what is cut. */
static gc_status shorten(scan *s, const gc_field *f, size_t head, int level)
{
    static const unsigned char empty[LENGTH_BYTES] = {0};
    const unsigned char *tag = s->window + (s->pos - s->from);
    size_t n = 0;
    while (tag[n] >= 0x80) {
        n++;
    }
    GC_TRY(put(s, tag, n + 1));
    s->pos += head;
    bool last = level == N_LEVELS - 1;
    GC_TRY(put(s, empty, last ? 1 : LENGTH_BYTES));
    size_t begin = s->o->used;
    if (last) {
        GC_TRY(add_cut(s, f->value));
        s->pos += f->value;
    } else {
        GC_TRY(add_anchor(s));
        GC_TRY(message(s, s->pos + f->value, level + 1));
        set_length(s->o->data + begin - LENGTH_BYTES, s->o->used - begin);
    }
    return add_anchor(s);
}

/* The fields up to `end`.  No deeper than N_LEVELS. */
static gc_status message(scan *s, uint64_t end, int level)
{
    while (s->pos < end && !s->odd) {
        size_t most = end - s->pos < HEAD_MOST ? (size_t)(end - s->pos) : HEAD_MOST;
        gc_field f;
        GC_TRY(look(s, most));
        const unsigned char *p = s->window + (s->pos - s->from);
        gc_wire w = gc_wire_make(p, most);
        if (!gc_wire_head(&w, &f) || (f.type == GC_WIRE_BYTES && f.value > end - s->pos - (uint64_t)(w.p - p))) {
            s->odd = true; /* whoever reads the whole says what is wrong */
            return GRADCAM_OK;
        }
        bool large = f.type == GC_WIRE_BYTES && f.number == path[level] && f.value >= GC_OUTLINE_LEAST;
        size_t head = (size_t)(w.p - p);
        GC_TRY(large ? shorten(s, &f, head, level) : copy(s, head + (f.type == GC_WIRE_BYTES ? f.value : 0)));
    }
    return GRADCAM_OK;
}

void gc_outline_free(gc_outline *o)
{
    gc_mem_free(o->ctx, o->data);
    gc_mem_free(o->ctx, o->cuts);
    gc_mem_free(o->ctx, o->anchors);
}

gc_status gc_outline_read(gc_ctx *ctx, const gc_source *source, gc_outline *out, bool *whole, gc_error *err)
{
    scan s;
    memset(&s, 0, sizeof s);
    memset(out, 0, sizeof *out);
    *whole = gc_source_size(source) < GC_OUTLINE_LEAST || gc_source_bytes(source) != NULL;
    if (*whole) {
        return GRADCAM_OK;
    }
    out->ctx = ctx;
    s.o = out;
    s.source = source;
    s.err = err;
    s.window = gc_mem_alloc_raw(ctx, WINDOW, 1);
    gc_status status = s.window == NULL ? GC_NOMEM(err) : message(&s, gc_source_size(source), 0);
    gc_mem_free(ctx, s.window);
    if (status != GRADCAM_OK || s.odd) {
        gc_outline_free(out);
        memset(out, 0, sizeof *out);
    }
    *whole = s.odd;
    return status;
}

const gc_cut *gc_outline_cut(const gc_outline *o, const unsigned char *place)
{
    size_t low = 0, high = o == NULL ? 0 : o->n_cuts;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (o->data + o->cuts[middle].at == place) {
            return &o->cuts[middle];
        }
        if (o->data + o->cuts[middle].at < place) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

uint64_t gc_outline_place(const gc_outline *o, uint64_t at)
{
    size_t k = o == NULL ? 0 : o->n_anchors;
    while (k > 0 && o->anchors[k - 1].at > at) {
        k--;
    }
    return k == 0 ? at : o->anchors[k - 1].from + (at - o->anchors[k - 1].at);
}
