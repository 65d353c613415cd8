/* SPDX-License-Identifier: MIT */
/* Reductions over axes, ArgMax and ArgMin.  Row-major tensors, but for the mean
   over all pixels of a channels-last image. */
#include <math.h>
#include <string.h>

#include "tensor/walk.h"
#include "ops/spatial_mean.h"

enum { R_MEAN, R_SUM, R_MAX, R_MIN, R_PROD, R_L1, R_L2, R_LOGSUM, R_LSE, R_SQUARE };

/* Kept and reduced dimensions of the input, neighbours joined. */
typedef struct reduction {
    int32_t n_kept;
    int32_t n_gone;
    int64_t kept[GRADCAM_MAX_DIMS];
    int64_t kept_step[GRADCAM_MAX_DIMS];
    int64_t gone[GRADCAM_MAX_DIMS];
    int64_t gone_step[GRADCAM_MAX_DIMS];
    int64_t outputs;
    int64_t count; /* elements that make one output */
} reduction;

static gc_status find_axes(gc_op_call *c, bool *gone)
{
    int64_t axes[GRADCAM_MAX_DIMS];
    int32_t count = 0;
    int32_t ndim = c->in[0]->ndim;
    const gc_attr_value *attr = gc_attr_find(&c->attrs, "axes", GRADCAM_ATTR_INTS);
    if (c->n_in > 1 && c->in[1] != NULL) {
        GC_TRY(gc_op_const_ints(c, 1, axes, GRADCAM_MAX_DIMS, &count));
    } else if (attr != NULL) {
        if (attr->count > GRADCAM_MAX_DIMS) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "too many axes");
        }
        count = (int32_t)attr->count;
        for (int32_t i = 0; i < count; i++) {
            axes[i] = attr->ints[i];
        }
    }
    bool all = count == 0 && gc_attr_int(&c->attrs, "noop_with_empty_axes", 0) == 0;
    for (int32_t d = 0; d < GRADCAM_MAX_DIMS; d++) {
        gone[d] = all;
    }
    for (int32_t i = 0; i < count; i++) {
        int32_t d = 0;
        GC_TRY(gc_op_axis(c, axes[i], ndim, &d));
        if (gone[d]) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "axis %d is named twice", (int)d);
        }
        gone[d] = true;
    }
    return GRADCAM_OK;
}

static void add_dim(int32_t *n, int64_t *shape, int64_t *step, int64_t size, int64_t stride)
{
    if (*n > 0 && step[*n - 1] == size * stride) {
        shape[*n - 1] *= size;
        step[*n - 1] = stride;
        return;
    }
    shape[*n] = size;
    step[(*n)++] = stride;
}

static gc_status plan(gc_op_call *c, reduction *r)
{
    bool gone[GRADCAM_MAX_DIMS];
    int64_t strides[GRADCAM_MAX_DIMS] = {0};
    const gc_tensor *x = c->in[0];
    GC_TRY(find_axes(c, gone));
    memset(r, 0, sizeof *r);
    r->outputs = r->count = 1;
    gc_row_strides(x->ndim, x->shape, strides);
    for (int32_t d = 0; d < x->ndim; d++) {
        if (gone[d]) {
            add_dim(&r->n_gone, r->gone, r->gone_step, x->shape[d], strides[d]);
            r->count *= x->shape[d];
        } else {
            add_dim(&r->n_kept, r->kept, r->kept_step, x->shape[d], strides[d]);
            r->outputs *= x->shape[d];
        }
    }
    if (r->n_gone == 0) {
        add_dim(&r->n_gone, r->gone, r->gone_step, 1, 1);
    }
    return GRADCAM_OK;
}

/* Offset of element k of a list of dimensions. */
static int64_t offset_of(int64_t k, int32_t n, const int64_t *shape, const int64_t *step)
{
    int64_t at = 0;
    for (int32_t d = n - 1; d > 0; d--) {
        at += k % shape[d] * step[d];
        k /= shape[d];
    }
    return n > 0 ? at + k * step[0] : 0;
}

static int64_t kept_at(const reduction *r, int64_t k)
{
    return offset_of(k, r->n_kept, r->kept, r->kept_step);
}

/* Runs of the innermost reduced dimension. */
static int64_t run_length(const reduction *r)
{
    return r->gone[r->n_gone - 1];
}

static int64_t run_at(const reduction *r, int64_t k)
{
    return offset_of(k, r->n_gone - 1, r->gone, r->gone_step);
}

static gc_status infer_reduce(gc_op_call *c)
{
    bool gone[GRADCAM_MAX_DIMS];
    int64_t shape[GRADCAM_MAX_DIMS] = {0};
    int32_t n = 0;
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(find_axes(c, gone));
    bool keep = gc_attr_int(&c->attrs, "keepdims", 1) != 0;
    for (int32_t d = 0; d < c->in[0]->ndim; d++) {
        if (!gone[d] || keep) {
            shape[n++] = gone[d] ? 1 : c->in[0]->shape[d];
        }
    }
    return gc_op_set_output(c, 0, c->in[0]->dtype, n, shape);
}

/* The mean over all pixels takes an image as convolutions leave it. */
static gc_status infer_mean(gc_op_call *c)
{
    bool gone[GRADCAM_MAX_DIMS];
    GC_TRY(infer_reduce(c));
    GC_TRY(find_axes(c, gone));
    bool spatial = c->in[0]->ndim >= 3 && !gone[0] && !gone[1] && !gc_is_row(c->in[0]);
    for (int32_t d = 2; d < c->in[0]->ndim; d++) {
        spatial = spatial && gone[d];
    }
    size_t work_bytes = 0;
    if (spatial && gc_spatial_mean_fits(c->in[0], &work_bytes)) {
        c->channels_last = 1;
        c->work_bytes = work_bytes;
    }
    return GRADCAM_OK;
}

static double start_of(int32_t op)
{
    return op == R_PROD ? 1.0 : op == R_MAX || op == R_LSE ? -HUGE_VAL : op == R_MIN ? HUGE_VAL : 0.0;
}

static double fold(int32_t op, double acc, double v)
{
    switch (op) {
    case R_MAX:
    case R_LSE: return v > acc || v != v ? v : acc;
    case R_MIN: return v < acc || v != v ? v : acc;
    case R_PROD: return acc * v;
    case R_L1: return acc + fabs(v);
    case R_L2:
    case R_SQUARE: return acc + v * v;
    default: return acc + v;
    }
}

/* One pass; `top` is what LogSumExp's second pass takes off. */
static double pass(const reduction *r, int32_t op, const float *x, bool second, double top)
{
    int64_t n = run_length(r);
    int64_t step = r->gone_step[r->n_gone - 1];
    double acc = second ? 0.0 : start_of(op);
    for (int64_t k = 0; n > 0 && k < r->count / n; k++) {
        const float *p = x + run_at(r, k);
        if (second) {
            for (int64_t i = 0; i < n; i++) {
                acc += exp((double)p[i * step] - top);
            }
        } else if (op == R_SUM || op == R_MEAN) {
            for (int64_t i = 0; i < n; i++) {
                acc += (double)p[i * step];
            }
        } else {
            for (int64_t i = 0; i < n; i++) {
                acc = fold(op, acc, (double)p[i * step]);
            }
        }
    }
    return acc;
}

static double reduce_one(const reduction *r, int32_t op, const float *x)
{
    double v = pass(r, op, x, false, 0.0);
    if (op == R_MEAN) {
        return v / (double)r->count;
    }
    if (op == R_LSE && v - v == 0.0) {
        return v + log(pass(r, op, x, true, v));
    }
    return op == R_L2 ? sqrt(v) : op == R_LOGSUM ? log(v) : v;
}

static int64_t fold_int(int32_t op, int64_t acc, int64_t v)
{
    switch (op) {
    case R_MAX: return v > acc ? v : acc;
    case R_MIN: return v < acc ? v : acc;
    case R_PROD: return (int64_t)((uint64_t)acc * (uint64_t)v);
    case R_SQUARE: return (int64_t)((uint64_t)acc + (uint64_t)v * (uint64_t)v);
    case R_L1: v = v < 0 ? (int64_t)(0u - (uint64_t)v) : v; break;
    default: break;
    }
    return (int64_t)((uint64_t)acc + (uint64_t)v);
}

static int64_t reduce_int(const reduction *r, int32_t op, const char *x, gc_dtype type)
{
    int64_t size = (int64_t)gc_dtype_size(type);
    int64_t acc = op == R_MAX ? INT64_MIN : op == R_MIN ? INT64_MAX : op == R_PROD ? 1 : 0;
    for (int64_t k = 0; k < r->count; k++) {
        int64_t at = offset_of(k, r->n_gone, r->gone, r->gone_step);
        acc = fold_int(op, acc, gc_load_int(x + at * size, type));
    }
    return op == R_MEAN && r->count > 0 ? acc / r->count : acc;
}

static gc_status forward_reduce(gc_op_call *c, int32_t op)
{
    reduction r;
    if (c->channels_last) {
        return c->out[0] != NULL ? gc_spatial_mean_forward(c) : GRADCAM_OK;
    }
    gc_dtype type = c->in[0]->dtype;
    int64_t size = (int64_t)gc_dtype_size(type);
    GC_TRY(plan(c, &r));
    if (type != GRADCAM_F32 && (op == R_L2 || op == R_LOGSUM || op == R_LSE)) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "the input must be floating point");
    }
    for (int64_t k = 0; c->out[0] != NULL && k < r.outputs; k++) {
        int64_t at = kept_at(&r, k);
        if (type == GRADCAM_F32) {
            ((float *)c->out[0]->data)[k] = (float)reduce_one(&r, op, (const float *)c->in[0]->data + at);
        } else {
            int64_t v = reduce_int(&r, op, (const char *)c->in[0]->data + at * size, type);
            gc_store_int((char *)c->out[0]->data + k * size, type, v);
        }
    }
    return GRADCAM_OK;
}

/* What an output needs to know for the gradient of its elements. */
typedef struct facts {
    double y;
    double g;
    double aux;   /* the sum, or the product of all that are not zero */
    int64_t hits; /* ties, or zeros */
} facts;

static double slope(int32_t op, const facts *f, double x, int64_t count)
{
    switch (op) {
    case R_MEAN: return f->g / (double)count;
    case R_MAX:
    case R_MIN: return (float)x == (float)f->y ? f->g / (double)f->hits : 0.0;
    case R_PROD:
        if (f->hits > 0) {
            return f->hits == 1 && x == 0.0 ? f->g * f->aux : 0.0;
        }
        return f->g * f->aux / x;
    case R_L1: return x > 0.0 ? f->g : x < 0.0 ? -f->g : 0.0;
    case R_L2: return f->y == 0.0 ? 0.0 : f->g * x / f->y;
    case R_LOGSUM: return f->g / exp(f->y);
    case R_LSE: return f->g * exp(x - f->y);
    case R_SQUARE: return 2.0 * f->g * x;
    default: return f->g;
    }
}

static void learn(const reduction *r, int32_t op, const float *x, facts *f)
{
    f->aux = 1.0;
    f->hits = 0;
    for (int64_t k = 0; k < r->count; k++) {
        float v = x[offset_of(k, r->n_gone, r->gone, r->gone_step)];
        if (op == R_PROD) {
            f->hits += v == 0.0f;
            f->aux *= v == 0.0f ? 1.0 : (double)v;
        } else {
            f->hits += v == (float)f->y;
        }
    }
}

static gc_status backward_reduce(gc_op_call *c, int32_t op)
{
    reduction r;
    GC_TRY(plan(c, &r));
    if (c->n_in > 1 && c->grad_in[1] != NULL) {
        gc_walk_zero(c->grad_in[1]);
    }
    if (c->grad_in[0] == NULL) {
        return GRADCAM_OK;
    }
    if (c->channels_last) {
        return gc_spatial_mean_backward(c);
    }
    if (c->in[0]->dtype != GRADCAM_F32) {
        gc_walk_zero(c->grad_in[0]);
        return GRADCAM_OK;
    }
    bool reads = op != R_MEAN && op != R_SUM && op != R_LOGSUM;
    for (int64_t k = 0; k < r.outputs; k++) {
        int64_t at = kept_at(&r, k);
        const float *x = reads ? (const float *)c->in[0]->data + at : NULL;
        float *d = (float *)c->grad_in[0]->data + at;
        facts f = {0.0, (double)((const float *)c->grad_out[0]->data)[k], 0.0, 0};
        f.y = op == R_MEAN || op == R_SUM ? 0.0 : (double)((const float *)c->out[0]->data)[k];
        if (op == R_MAX || op == R_MIN || op == R_PROD) {
            learn(&r, op, x, &f);
        }
        for (int64_t i = 0; i < r.count; i++) {
            int64_t j = offset_of(i, r.n_gone, r.gone, r.gone_step);
            d[j] = (float)slope(op, &f, reads ? (double)x[j] : 0.0, r.count);
        }
    }
    return GRADCAM_OK;
}

#define REDUCE(name, op)                                                                                               \
    static gc_status name##_forward(gc_op_call *c)                                                                     \
    {                                                                                                                  \
        return forward_reduce(c, op);                                                                                  \
    }                                                                                                                  \
    static gc_status name##_backward(gc_op_call *c)                                                                    \
    {                                                                                                                  \
        return backward_reduce(c, op);                                                                                 \
    }
REDUCE(mean, R_MEAN)
REDUCE(sum, R_SUM)
REDUCE(max, R_MAX)
REDUCE(min, R_MIN)
REDUCE(prod, R_PROD)
REDUCE(l1, R_L1)
REDUCE(l2, R_L2)
REDUCE(log_sum, R_LOGSUM)
REDUCE(lse, R_LSE)
REDUCE(square, R_SQUARE)

/* ---- ArgMax, ArgMin: one axis ---- */

static void split(const gc_tensor *x, int32_t axis, int64_t *outer, int64_t *n, int64_t *inner)
{
    *outer = *n = *inner = 1;
    for (int32_t d = 0; d < x->ndim; d++) {
        int64_t *part = d < axis ? outer : d == axis ? n : inner;
        *part *= x->shape[d];
    }
}

static gc_status infer_arg(gc_op_call *c)
{
    int32_t axis = 0;
    int32_t n = 0;
    int64_t shape[GRADCAM_MAX_DIMS] = {0};
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", 0), c->in[0]->ndim, &axis));
    bool keep = gc_attr_int(&c->attrs, "keepdims", 1) != 0;
    for (int32_t d = 0; d < c->in[0]->ndim; d++) {
        if (d != axis || keep) {
            shape[n++] = d == axis ? 1 : c->in[0]->shape[d];
        }
    }
    return gc_op_set_output(c, 0, GRADCAM_I64, n, shape);
}

static gc_status forward_arg(gc_op_call *c, bool smallest)
{
    int32_t axis = 0;
    int64_t outer, n, inner;
    gc_dtype type = c->in[0]->dtype;
    int64_t size = (int64_t)gc_dtype_size(type);
    bool last = gc_attr_int(&c->attrs, "select_last_index", 0) != 0;
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", 0), c->in[0]->ndim, &axis));
    split(c->in[0], axis, &outer, &n, &inner);
    for (int64_t k = 0; c->out[0] != NULL && k < outer * inner; k++) {
        const char *x = (const char *)c->in[0]->data + (k / inner * n * inner + k % inner) * size;
        int64_t best = 0;
        for (int64_t i = 1; i < n; i++) {
            double v = gc_load_real(x + i * inner * size, type);
            double b = gc_load_real(x + best * inner * size, type);
            best = (smallest ? v < b : v > b) || (last && v == b) ? i : best;
        }
        ((int64_t *)c->out[0]->data)[k] = best;
    }
    return GRADCAM_OK;
}

static gc_status arg_max_forward(gc_op_call *c)
{
    return forward_arg(c, false);
}

static gc_status arg_min_forward(gc_op_call *c)
{
    return forward_arg(c, true);
}

#define ROW(op, id, in, out)                                                                                           \
    {                                                                                                                  \
        op, infer_reduce, id##_forward, id##_backward, 0, in, out, 1, 2, 1                                             \
    }
const gc_op gc_ops_reduce[] = {
    {"ReduceMean", infer_mean, mean_forward, mean_backward, 0, 0, 0, 1, 2, 1},
    ROW("ReduceSum", sum, 0, 0),
    ROW("ReduceMax", max, 1, 1),
    ROW("ReduceMin", min, 1, 1),
    ROW("ReduceProd", prod, 1, 1),
    ROW("ReduceL1", l1, 1, 1),
    ROW("ReduceL2", l2, 1, 1),
    ROW("ReduceLogSum", log_sum, 0, 1),
    ROW("ReduceLogSumExp", lse, 1, 1),
    ROW("ReduceSumSquare", square, 1, 1),
    {"ArgMax", infer_arg, arg_max_forward, NULL, GC_OP_STOPS, 0, 0, 1, 1, 1},
    {"ArgMin", infer_arg, arg_min_forward, NULL, GC_OP_STOPS, 0, 0, 1, 1, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
