/* SPDX-License-Identifier: MIT */
/* The location, the offset and the length are text in an untrusted file.  The
   same checks stand before the host's callback and before the model's folder. */
#include "onnx/external.h"

#include <string.h>

#include "base/beside.h"
#include "base/status.h"

enum { LOCATION_MOST = 1023 };

enum { SEEN_LOCATION = 1, SEEN_OFFSET = 2, SEEN_LENGTH = 4 };

void gc_external_end(gc_external *x)
{
    gc_beside_close(x->folder);
    x->folder = NULL;
}

/* Digits alone: no sign, no space, no overflow. */
static bool read_decimal(const unsigned char *p, size_t n, uint64_t *value)
{
    uint64_t v = 0;
    for (size_t k = 0; k < n; k++) {
        uint64_t digit = (uint64_t)p[k] - '0';
        if (digit > 9 || v > (UINT64_MAX - digit) / 10) {
            return false;
        }
        v = v * 10 + digit;
    }
    *value = v;
    return n > 0;
}

static uint32_t key_bit(const gc_field *key)
{
    static const char *const keys[] = {"location", "offset", "length"};
    for (uint32_t k = 0; k < 3; k++) {
        if (key->n == strlen(keys[k]) && memcmp(key->p, keys[k], key->n) == 0) {
            return 1u << k;
        }
    }
    return 0;
}

gc_status gc_external_entry(gc_external_ref *ref, const gc_field *f, const char *tensor, gc_error *err)
{
    gc_wire w = gc_wire_make(f->p, f->n);
    gc_field field, key, value;
    int more;
    memset(&key, 0, sizeof key);
    memset(&value, 0, sizeof value);
    while ((more = gc_wire_next(&w, &field)) > 0) {
        if (field.type == GC_WIRE_BYTES && field.number == 1) {
            key = field;
        } else if (field.type == GC_WIRE_BYTES && field.number == 2) {
            value = field;
        }
    }
    uint32_t bit = more < 0 ? 0 : key_bit(&key);
    if (more < 0 || (ref->seen & bit) != 0) {
        return gc_fail(err, GRADCAM_E_FORMAT, "tensor '%.200s': an entry of external_data is malformed or given twice",
                       tensor);
    }
    ref->seen |= bit;
    if (bit == SEEN_LOCATION) {
        ref->location = value.p;
        ref->n_location = value.n;
    } else if (bit != 0 && !read_decimal(value.p, value.n, bit == SEEN_OFFSET ? &ref->offset : &ref->length)) {
        return gc_fail(err, GRADCAM_E_FORMAT, "tensor '%.200s': %s of external_data is not a number of bytes", tensor,
                       bit == SEEN_OFFSET ? "the offset" : "the length");
    }
    return GRADCAM_OK;
}

/* Relative, downwards, the same on every system: components between single
   slashes, none of them "..", without backslash, colon or NUL. */
static bool is_beneath(const unsigned char *p, size_t n)
{
    size_t from = 0;
    if (n == 0 || n > LOCATION_MOST || memchr(p, 0, n) || memchr(p, '\\', n) || memchr(p, ':', n)) {
        return false;
    }
    for (size_t k = 0; k <= n; k++) {
        if (k == n || p[k] == '/') {
            size_t length = k - from;
            if (length == 0 || (length == 2 && p[from] == '.' && p[from + 1] == '.')) {
                return false;
            }
            from = k + 1;
        }
    }
    return true;
}

static gc_status checked_location(const gc_external_ref *ref, char *location, const char *tensor, gc_error *err)
{
    if (!is_beneath(ref->location, ref->n_location)) {
        return gc_fail(err, GRADCAM_E_FORMAT,
                       "tensor '%.150s': its external_data names no file beneath the model's folder: '%.*s'", tensor,
                       (int)(ref->n_location < 150 ? ref->n_location : 150),
                       ref->location == NULL ? "" : (const char *)ref->location);
    }
    memcpy(location, ref->location, ref->n_location);
    location[ref->n_location] = '\0';
    return GRADCAM_OK;
}

/* What the file offers, where there is a file and not a callback. */
static gc_status check_file(gc_external *x, const gc_external_ref *ref, const char *location, uint64_t bytes,
                            const char *tensor, gc_error *err)
{
    uint64_t size = 0;
    if (x->path == NULL) {
        return gc_fail(err, GRADCAM_E_UNSUPPORTED,
                       "tensor '%.150s': its data are in '%.150s'; give gc_load_options.read_external, or load the "
                       "model with gc_net_load_file",
                       tensor, location);
    }
    if (x->folder == NULL) {
        GC_TRY(gc_beside_open(x->ctx, x->path, &x->folder, err));
    }
    GC_TRY(gc_beside_find(x->folder, location, &size, err));
    if (ref->offset > size || bytes > size - ref->offset) {
        return gc_fail(err, GRADCAM_E_FORMAT,
                       "tensor '%.150s': %llu bytes at %llu reach beyond the end of '%.150s', which has %llu", tensor,
                       (unsigned long long)bytes, (unsigned long long)ref->offset, location, (unsigned long long)size);
    }
    return GRADCAM_OK;
}

gc_status gc_external_check(gc_external *x, const gc_external_ref *ref, uint64_t bytes, const char *tensor,
                            gc_error *err)
{
    char location[LOCATION_MOST + 1];
    GC_TRY(checked_location(ref, location, tensor, err));
    if ((ref->seen & SEEN_LENGTH) != 0 && ref->length != bytes) {
        return gc_fail(err, GRADCAM_E_FORMAT,
                       "tensor '%.200s': its external_data has %llu bytes but its shape needs %llu", tensor,
                       (unsigned long long)ref->length, (unsigned long long)bytes);
    }
    if (ref->offset > UINT64_MAX - bytes) {
        return gc_fail(err, GRADCAM_E_FORMAT, "tensor '%.200s': offset and length of its external_data overflow",
                       tensor);
    }
    bool hosted = x->options != NULL && x->options->read_external != NULL;
    return hosted ? GRADCAM_OK : check_file(x, ref, location, bytes, tensor, err);
}

gc_status gc_external_read(gc_external *x, const gc_external_ref *ref, void *dst, size_t bytes, const char *tensor,
                           gc_error *err)
{
    char location[LOCATION_MOST + 1];
    if (bytes == 0) {
        return GRADCAM_OK;
    }
    if (x->folder != NULL) {
        return gc_beside_read(x->folder, ref->offset, dst, bytes, err);
    }
    GC_TRY(checked_location(ref, location, tensor, err));
    int32_t code = x->options->read_external(x->options->external_user, location, ref->offset, dst, bytes);
    if (code != 0) {
        (void)gc_fail(err, GRADCAM_E_CALLBACK, "tensor '%.150s': read_external returned %ld for '%.150s'", tensor,
                      (long)code, location);
        if (err != NULL) {
            err->user_code = code;
        }
        return GRADCAM_E_CALLBACK;
    }
    return GRADCAM_OK;
}
