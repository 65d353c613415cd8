/* SPDX-License-Identifier: MIT */
#include "onnx/tensor_pb.h"

#include <math.h>
#include <string.h>

#include "base/ctx.h"
#include "base/size.h"
#include "base/status.h"
#include "onnx/wire.h"
#include "tensor/tensor.h"

/* TensorProto.DataType */
enum {
    PB_FLOAT = 1,
    PB_UINT8 = 2,
    PB_INT8 = 3,
    PB_UINT16 = 4,
    PB_INT16 = 5,
    PB_INT32 = 6,
    PB_INT64 = 7,
    PB_BOOL = 9,
    PB_FLOAT16 = 10,
    PB_DOUBLE = 11,
    PB_UINT32 = 12,
    PB_UINT64 = 13,
    PB_BFLOAT16 = 16
};

/* TensorProto.DataLocation */
enum { LOCATION_EXTERNAL = 1 };

/* Field numbers of TensorProto. */
enum {
    F_DIMS = 1,
    F_TYPE = 2,
    F_SEGMENT = 3,
    F_FLOAT = 4,
    F_INT32 = 5,
    F_STRING = 6,
    F_INT64 = 7,
    F_NAME = 8,
    F_RAW = 9,
    F_DOUBLE = 10,
    F_UINT64 = 11,
    F_EXTERNAL = 13,
    F_LOCATION = 14
};

typedef struct pb_type {
    const char *name;
    gc_dtype dtype;    /* 0: refused */
    uint32_t raw_size; /* bytes of one element in raw_data */
    uint32_t field;    /* the typed field */
} pb_type;

static const pb_type types[] = {{"undefined", 0, 0, 0},
                                {"float", GRADCAM_F32, 4, F_FLOAT},
                                {"uint8", GRADCAM_U8, 1, F_INT32},
                                {"int8", GRADCAM_I32, 1, F_INT32},
                                {"uint16", GRADCAM_I32, 2, F_INT32},
                                {"int16", GRADCAM_I32, 2, F_INT32},
                                {"int32", GRADCAM_I32, 4, F_INT32},
                                {"int64", GRADCAM_I64, 8, F_INT64},
                                {"string", 0, 0, 0},
                                {"bool", GRADCAM_BOOL, 1, F_INT32},
                                {"float16", GRADCAM_F32, 2, F_INT32},
                                {"double", GRADCAM_F32, 8, F_DOUBLE},
                                {"uint32", GRADCAM_I64, 4, F_UINT64},
                                {"uint64", GRADCAM_I64, 8, F_UINT64},
                                {"complex64", 0, 0, 0},
                                {"complex128", 0, 0, 0},
                                {"bfloat16", GRADCAM_F32, 2, F_INT32},
                                {"float8e4m3fn", 0, 0, 0},
                                {"float8e4m3fnuz", 0, 0, 0},
                                {"float8e5m2", 0, 0, 0},
                                {"float8e5m2fnuz", 0, 0, 0},
                                {"uint4", 0, 0, 0},
                                {"int4", 0, 0, 0},
                                {"float4e2m1", 0, 0, 0}};

#define N_TYPES (sizeof types / sizeof types[0])

/* What the message says, before any memory is taken. */
typedef struct pb_tensor {
    const char *name;
    const unsigned char *base;
    gc_error *err;
    const gc_outline *outline;
    const gc_cut *cut; /* where raw_data is, unless in the message */
    gc_field raw;
    gc_external_ref external;
    int64_t shape[GRADCAM_MAX_DIMS];
    int64_t numel;
    uint64_t type;
    uint64_t location;
    uint64_t counts[F_UINT64 + 1]; /* elements in each typed field */
    int32_t ndim;
    int32_t n_raw; /* raw_data fields that are not empty */
} pb_tensor;

gc_dtype gc_onnx_dtype(uint64_t data_type)
{
    return data_type < N_TYPES ? types[data_type].dtype : 0;
}

const char *gc_onnx_dtype_name(uint64_t data_type)
{
    return data_type < N_TYPES ? types[data_type].name : "unknown";
}

static gc_status refuse(const pb_tensor *t, const unsigned char *at, gc_status status, const char *why)
{
    (void)gc_fail(t->err, status, "tensor '%.200s': %s", t->name, why);
    if (t->err && at) {
        t->err->offset = (uint64_t)(at - t->base);
    }
    return status;
}

static uint32_t scalar_wire(uint32_t field)
{
    switch (field) {
    case F_FLOAT: return GC_WIRE_32;
    case F_DOUBLE: return GC_WIRE_64;
    default: return GC_WIRE_VARINT;
    }
}

static gc_status read_dims(pb_tensor *t, const gc_field *f)
{
    gc_scalars s;
    uint64_t v = 0;
    int more = 0;
    if (!gc_scalars_begin(&s, f, GC_WIRE_VARINT)) {
        return GRADCAM_OK;
    }
    while ((more = gc_scalars_next(&s, &v)) > 0) {
        if (t->ndim == GRADCAM_MAX_DIMS) {
            return refuse(t, f->at, GRADCAM_E_UNSUPPORTED, "more than 8 dimensions are not supported");
        }
        if (v > INT64_MAX) {
            return refuse(t, f->at, GRADCAM_E_FORMAT, "a dimension is negative; export the model again");
        }
        t->shape[t->ndim++] = (int64_t)v;
    }
    return more < 0 ? refuse(t, f->at, GRADCAM_E_FORMAT, "the dims field is malformed") : GRADCAM_OK;
}

static gc_status count_scalars(pb_tensor *t, const gc_field *f)
{
    gc_scalars s;
    uint64_t v = 0;
    int more = 0;
    if (f->number == F_STRING) {
        t->counts[F_STRING] += f->type == GC_WIRE_BYTES;
        return GRADCAM_OK;
    }
    if (!gc_scalars_begin(&s, f, scalar_wire(f->number))) {
        return GRADCAM_OK;
    }
    while ((more = gc_scalars_next(&s, &v)) > 0) {
        ++t->counts[f->number];
    }
    return more < 0 ? refuse(t, f->at, GRADCAM_E_FORMAT, "a data field is malformed (length or varint)") : GRADCAM_OK;
}

static gc_status read_raw(pb_tensor *t, const gc_field *f)
{
    const gc_cut *cut = f->type == GC_WIRE_BYTES && f->n == 0 ? gc_outline_cut(t->outline, f->p) : NULL;
    if (f->type != GC_WIRE_BYTES || (f->n == 0 && cut == NULL)) {
        return GRADCAM_OK;
    }
    if (t->n_raw++) {
        return refuse(t, f->at, GRADCAM_E_FORMAT, "raw_data is given twice; export the model again");
    }
    t->raw = *f;
    if (cut != NULL) {
        t->cut = cut;
        t->raw.n = (size_t)cut->bytes; /* below max_bytes, or no size of memory was enough */
    }
    return GRADCAM_OK;
}

static gc_status scan_field(pb_tensor *t, const gc_field *f)
{
    switch (f->number) {
    case F_DIMS: return read_dims(t, f);
    case F_TYPE: t->type = f->type == GC_WIRE_VARINT ? f->value : t->type; return GRADCAM_OK;
    case F_SEGMENT:
        return refuse(t, f->at, GRADCAM_E_UNSUPPORTED, "segmented tensors are not supported; export in one piece");
    case F_FLOAT:
    case F_INT32:
    case F_STRING:
    case F_INT64:
    case F_DOUBLE:
    case F_UINT64: return count_scalars(t, f);
    case F_RAW: return read_raw(t, f);
    case F_LOCATION: t->location = f->type == GC_WIRE_VARINT ? f->value : t->location; return GRADCAM_OK;
    case F_EXTERNAL: return f->type == GC_WIRE_BYTES ? gc_external_entry(&t->external, f, t->name, t->err) : GRADCAM_OK;
    default: return GRADCAM_OK;
    }
}

/* The name first, so that every message has it. */
static void find_name(gc_wire w, char *name, size_t cap)
{
    gc_field f;
    while (gc_wire_next(&w, &f) > 0) {
        if (f.number == F_NAME && f.type == GC_WIRE_BYTES && f.n > 0) {
            size_t n = f.n < cap - 1 ? f.n : cap - 1;
            memcpy(name, f.p, n);
            name[n] = 0;
        }
    }
}

static gc_status check_shape(pb_tensor *t)
{
    int64_t n = 1;
    int32_t k;
    bool empty = false;
    for (k = 0; k < t->ndim; ++k) {
        empty = empty || t->shape[k] == 0;
    }
    for (k = 0; k < t->ndim; ++k) {
        if (t->shape[k] != 0 && !gc_mul_ok(n, t->shape[k], &n)) {
            return refuse(t, t->base, GRADCAM_E_FORMAT, "the product of the dimensions overflows");
        }
    }
    t->numel = empty ? 0 : n;
    return GRADCAM_OK;
}

static gc_status check_type(const pb_tensor *t)
{
    if (t->location > LOCATION_EXTERNAL) {
        return refuse(t, t->base, GRADCAM_E_FORMAT, "data_location is neither DEFAULT nor EXTERNAL");
    }
    if (gc_onnx_dtype(t->type) == 0) {
        (void)gc_fail(t->err, GRADCAM_E_UNSUPPORTED,
                      "tensor '%.200s': element type %s (data_type %lld) is not supported; convert it to float32",
                      t->name, gc_onnx_dtype_name(t->type), (long long)gc_bits_i64(t->type));
        return GRADCAM_E_UNSUPPORTED;
    }
    return GRADCAM_OK;
}

/* How many of the places for data are filled. */
static int count_sources(const pb_tensor *t)
{
    int sources = t->n_raw + (t->location == LOCATION_EXTERNAL);
    for (uint32_t k = 0; k <= F_UINT64; ++k) {
        sources += t->counts[k] != 0;
    }
    return sources;
}

static gc_status check_count(const pb_tensor *t)
{
    const pb_type *type = &types[t->type];
    uint64_t have = t->counts[type->field];
    int sources = count_sources(t);
    if (sources > 1) {
        return refuse(t, t->base, GRADCAM_E_FORMAT, "more than one data field is filled; export the model again");
    }
    if (t->location == LOCATION_EXTERNAL) {
        return GRADCAM_OK; /* counted in bytes, by gc_external_check */
    }
    if (t->n_raw && t->raw.n % type->raw_size != 0) {
        return refuse(t, t->raw.at, GRADCAM_E_FORMAT, "raw_data is not a multiple of the element size");
    }
    have = t->n_raw ? t->raw.n / type->raw_size : have;
    if (sources == 1 && have == 0) {
        return refuse(t, t->base, GRADCAM_E_FORMAT, "the data is in a field that does not fit the element type");
    }
    if (have != (uint64_t)t->numel) {
        (void)gc_fail(t->err, GRADCAM_E_FORMAT,
                      "tensor '%.200s': has %llu elements of data but its shape needs %lld; the file is damaged",
                      t->name, (unsigned long long)have, (long long)t->numel);
        return GRADCAM_E_FORMAT;
    }
    return GRADCAM_OK;
}

static float half_to_float(uint64_t bits)
{
    uint32_t h = (uint32_t)(bits & 0xffff);
    uint32_t sign = (h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 31u;
    uint32_t mantissa = h & 0x3ffu;
    if (exponent == 0) {
        float v = ldexpf((float)mantissa, -24);
        return sign ? -v : v;
    }
    exponent = exponent == 31 ? 255 : exponent + 112;
    return gc_bits_f32(sign | exponent << 23 | mantissa << 13);
}

static void put_f32(uint64_t type, void *data, size_t i, uint64_t v)
{
    float *dst = data;
    switch (type) {
    case PB_FLOAT: dst[i] = gc_bits_f32(v); break;
    case PB_DOUBLE: {
        double d = gc_bits_f64(v);
        /* out of float's range: infinity, without undefined conversion */
        dst[i] = d > 3.4028235677973366e38 ? HUGE_VALF : d < -3.4028235677973366e38 ? -HUGE_VALF : (float)d;
        break;
    }
    case PB_FLOAT16: dst[i] = half_to_float(v); break;
    default: dst[i] = gc_bits_f32((v & 0xffff) << 16); break;
    }
}

/* Stores the integer; false when it is outside the range of the type. */
static bool put_int(uint64_t type, void *data, size_t i, int64_t v)
{
    static const struct {
        int64_t low, high;
    } range[N_TYPES] = {[PB_UINT8] = {0, 255},
                        [PB_INT8] = {-128, 127},
                        [PB_UINT16] = {0, 65535},
                        [PB_INT16] = {-32768, 32767},
                        [PB_INT32] = {INT32_MIN, INT32_MAX},
                        [PB_INT64] = {INT64_MIN, INT64_MAX},
                        [PB_BOOL] = {INT64_MIN, INT64_MAX},
                        [PB_UINT32] = {0, UINT32_MAX},
                        [PB_UINT64] = {0, INT64_MAX}};
    if (v < range[type].low || v > range[type].high) {
        return false;
    }
    switch (types[type].dtype) {
    case GRADCAM_I64: ((int64_t *)data)[i] = v; break;
    case GRADCAM_I32: ((int32_t *)data)[i] = (int32_t)v; break;
    case GRADCAM_U8: ((uint8_t *)data)[i] = (uint8_t)v; break;
    default: ((uint8_t *)data)[i] = v != 0; break;
    }
    return true;
}

/* The bits of one element of raw_data, sign-extended where the type is signed. */
static int64_t raw_int(uint64_t type, uint64_t v)
{
    switch (type) {
    case PB_INT8: return (int64_t)(v ^ 0x80u) - 0x80;
    case PB_INT16: return (int64_t)(v ^ 0x8000u) - 0x8000;
    case PB_INT32: return gc_bits_i32(v);
    default: return gc_bits_i64(v);
    }
}

/* The file's bytes are the machine's. */
static bool as_stored(uint64_t type)
{
    const uint16_t one = 1;
    unsigned char first;
    memcpy(&first, &one, 1);
    return first == 1 && (type == PB_FLOAT || type == PB_INT64);
}

/* `from` may be `data` itself where both have elements of one size. */
static gc_status fill_raw(const pb_tensor *t, const unsigned char *from, void *data)
{
    size_t size = types[t->type].raw_size;
    size_t n = (size_t)t->numel;
    size_t i, k;
    bool ok = true;
    if (as_stored(t->type)) {
        memmove(data, from, n * size);
        return GRADCAM_OK;
    }
    for (i = 0; i < n && ok; ++i) {
        const unsigned char *p = from + i * size;
        uint64_t v = 0;
        for (k = 0; k < size; ++k) {
            v |= (uint64_t)p[k] << (8 * k);
        }
        if (types[t->type].dtype == GRADCAM_F32) {
            put_f32(t->type, data, i, v);
        } else {
            ok = put_int(t->type, data, i, raw_int(t->type, v));
        }
    }
    return ok ? GRADCAM_OK : refuse(t, t->raw.at, GRADCAM_E_UNSUPPORTED, "an unsigned value does not fit int64");
}

static gc_status fill_field(const pb_tensor *t, const gc_field *f, void *data, size_t *done)
{
    gc_scalars s;
    uint64_t v = 0;
    if (!gc_scalars_begin(&s, f, scalar_wire(f->number))) {
        return GRADCAM_OK;
    }
    while (*done < (size_t)t->numel && gc_scalars_next(&s, &v) > 0) {
        bool ok = true;
        if (types[t->type].dtype == GRADCAM_F32) {
            put_f32(t->type, data, *done, v);
        } else {
            ok = put_int(t->type, data, *done, f->number == F_INT32 ? gc_bits_i32(v) : gc_bits_i64(v));
        }
        if (!ok) {
            return refuse(t, f->at, GRADCAM_E_FORMAT, "a value is outside the range of the element type");
        }
        ++*done;
    }
    return GRADCAM_OK;
}

static gc_status fill_typed(const pb_tensor *t, gc_wire w, void *data)
{
    size_t done = 0;
    gc_field f;
    while (gc_wire_next(&w, &f) > 0) {
        if (f.number == types[t->type].field) {
            GC_TRY(fill_field(t, &f, data, &done));
        }
    }
    return GRADCAM_OK;
}

static gc_status read_outside(const pb_tensor *t, gc_external *external, void *dst, size_t bytes)
{
    return t->cut != NULL ? gc_source_read(external->source, t->cut->from, dst, bytes, t->err)
                          : gc_external_read(external, &t->external, dst, bytes, t->name, t->err);
}

/* Without a second copy in memory where the elements keep their size. */
static gc_status fill_outside(const pb_tensor *t, gc_external *external, void *data)
{
    size_t size = types[t->type].raw_size, bytes = (size_t)t->numel * size;
    bool in_place = size == gc_dtype_size(types[t->type].dtype);
    unsigned char *raw = in_place ? data : gc_mem_alloc_raw(external->ctx, bytes + 1, 1);
    if (raw == NULL) {
        return GC_NOMEM(t->err);
    }
    gc_status status = read_outside(t, external, raw, bytes);
    status = status == GRADCAM_OK ? fill_raw(t, raw, data) : status;
    if (!in_place) {
        gc_mem_free(external->ctx, raw);
    }
    return status;
}

/* The bytes in memory, and in the file where the type is widened from there. */
static gc_status check_size(const pb_tensor *t, uint64_t max_bytes)
{
    const pb_type *type = &types[t->type];
    size_t here = gc_dtype_size(type->dtype);
    uint64_t size = here > type->raw_size ? here : type->raw_size;
    uint64_t most = max_bytes < SIZE_MAX / 2 ? max_bytes : SIZE_MAX / 2;
    if ((uint64_t)t->numel > most / size) {
        (void)gc_fail(t->err, GRADCAM_E_LIMIT,
                      "tensor '%.200s': with it the weights need more than gc_load_options.max_bytes; raise it if the "
                      "model is trusted",
                      t->name);
        return GRADCAM_E_LIMIT;
    }
    return GRADCAM_OK;
}

/* Large floats that lie in the source as they would in memory. */
static bool stays(const gc_external *external, const pb_tensor *t)
{
    return external->on_demand && t->type == PB_FLOAT && as_stored(t->type) && t->n_raw == 1 &&
           t->raw.n >= GC_OUTLINE_LEAST && (t->cut != NULL || gc_source_bytes(external->source) != NULL);
}

static void leave(const gc_external *external, const pb_tensor *t, gc_tensor *made)
{
    made->absent = 1;
    made->source = external->source;
    made->source_at = t->cut != NULL ? t->cut->from : (uint64_t)(t->raw.p - gc_source_bytes(external->source));
}

static gc_status make(gc_external *external, const pb_tensor *t, gc_wire w, gc_tensor **out)
{
    gc_tensor_desc desc;
    gc_tensor *made = NULL;
    gc_status status = GRADCAM_OK;
    bool staying = stays(external, t);
    memset(&desc, 0, sizeof desc);
    desc.dtype = types[t->type].dtype;
    desc.ndim = t->ndim;
    memcpy(desc.shape, t->shape, sizeof desc.shape);
    GC_TRY(gc_tensor_new(external->ctx, &desc, staying ? GC_DATA_ABSENT : GC_DATA_RAW, &made, t->err));
    if (staying) {
        leave(external, t, made);
    } else if (t->location == LOCATION_EXTERNAL || t->cut != NULL) {
        status = fill_outside(t, external, made->data);
    } else {
        status = t->n_raw ? fill_raw(t, t->raw.p, made->data) : fill_typed(t, w, made->data);
    }
    if (status != GRADCAM_OK) {
        gc_tensor_unref(made);
        return status;
    }
    *out = made;
    return GRADCAM_OK;
}

gc_status gc_onnx_tensor(gc_external *external, uint64_t max_bytes, const unsigned char *p, size_t n, char *name,
                         size_t name_cap, gc_tensor **out, gc_error *err)
{
    gc_wire w = gc_wire_make(p, n);
    gc_wire scan = w;
    pb_tensor t;
    gc_field f;
    int more;
    memset(&t, 0, sizeof t);
    find_name(w, name, name_cap);
    t.name = name;
    t.base = w.p;
    t.outline = external->outline;
    t.err = err;
    while ((more = gc_wire_next(&scan, &f)) > 0) {
        GC_TRY(scan_field(&t, &f));
    }
    if (more < 0) {
        return refuse(&t, scan.p, GRADCAM_E_FORMAT, "the message is malformed; the file is damaged");
    }
    GC_TRY(check_type(&t));
    GC_TRY(check_shape(&t));
    GC_TRY(check_count(&t));
    GC_TRY(check_size(&t, max_bytes));
    if (t.location == LOCATION_EXTERNAL) { /* the product is below max_bytes */
        GC_TRY(gc_external_check(external, &t.external, (uint64_t)t.numel * types[t.type].raw_size, name, err));
    }
    return make(external, &t, w, out);
}
