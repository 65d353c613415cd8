/* SPDX-License-Identifier: MIT */
/* Einsum: letters name dimensions, "..." stands for those left over, a letter
   twice in one operand is its diagonal.  The gradient of operand i is the same
   product with grad_output in its place:
     d/dA sum("ab,bc->ac", A, B) = sum("ac,bc->ab", dY, B). */
#include <string.h>

#include "base/size.h"
#include "ops/contract.h"
#include "ops/op.h"
#include "tensor/walk.h"

enum { ELLIPSIS = 52, MAX_LETTERS = 2 * GRADCAM_MAX_DIMS };

/* A part of the equation: labels of letters, -1 for the ellipsis. */
typedef struct subscript {
    int32_t n;
    int32_t label[MAX_LETTERS];
    bool open; /* has an ellipsis */
} subscript;

typedef struct equation {
    gc_contraction sum;
    int32_t ellipsis_dims; /* most of all operands */
    bool arrow;
    uint64_t seen, seen_twice; /* letters of the operands */
    subscript out;
    subscript in[GC_TERMS];
} equation;

static int32_t label_of(char letter)
{
    if (letter >= 'A' && letter <= 'Z') {
        return letter - 'A';
    }
    return letter >= 'a' && letter <= 'z' ? 26 + letter - 'a' : -1;
}

/* Reads up to a comma, an arrow or the end; returns where it stopped. */
static const char *read_subscript(const char *s, subscript *part, bool *ok)
{
    memset(part, 0, sizeof *part);
    for (; *ok && *s != '\0' && *s != ',' && *s != '-'; s++) {
        int32_t label = label_of(*s);
        if (*s == ' ') {
            continue;
        }
        if (*s == '.') {
            *ok = !part->open && s[1] == '.' && s[2] == '.';
            part->open = true;
            s += *ok ? 2 : 0;
        }
        *ok = *ok && (label >= 0 || *s == '.') && part->n < MAX_LETTERS;
        if (*ok) {
            part->label[part->n++] = label;
        }
    }
    return s;
}

/* Without an arrow the output has the ellipsis, then in alphabetical order the
   letters that occur once. */
static void implied_output(equation *e, bool open)
{
    memset(&e->out, 0, sizeof e->out);
    e->out.open = open;
    if (open) {
        e->out.label[e->out.n++] = -1;
    }
    for (int32_t label = 0; label < ELLIPSIS && e->out.n < MAX_LETTERS; label++) {
        if ((e->seen & ~e->seen_twice) >> label & 1u) {
            e->out.label[e->out.n++] = label;
        }
    }
}

static gc_status parse(gc_op_call *c, equation *e)
{
    const char *s = gc_attr_string(&c->attrs, "equation", "");
    bool ok = true, open = false;
    if (c->n_in > GC_TERMS) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "%d operands, at most %d", (int)c->n_in, GC_TERMS);
    }
    for (int32_t i = 0; i < c->n_in && ok; i++) {
        s = read_subscript(s, &e->in[i], &ok);
        open = open || e->in[i].open;
        for (int32_t k = 0; k < e->in[i].n; k++) {
            uint64_t bit = e->in[i].label[k] < 0 ? 0 : UINT64_C(1) << e->in[i].label[k];
            e->seen_twice |= e->seen & bit;
            e->seen |= bit;
        }
        ok = ok && (i == c->n_in - 1 ? *s != ',' : *s == ',');
        s += ok && *s == ',';
    }
    e->arrow = ok && *s == '-';
    if (e->arrow) {
        ok = s[1] == '>';
        s = ok ? read_subscript(s + 2, &e->out, &ok) : s;
    } else {
        implied_output(e, open);
    }
    return ok && *s == '\0' ? GRADCAM_OK
                            : gc_op_fail(c, GRADCAM_E_INVALID, "the equation \"%.100s\" does not describe %d operands",
                                         gc_attr_string(&c->attrs, "equation", ""), (int)c->n_in);
}

/* Labels of the dimensions of a tensor of rank ndim; ellipsis dimensions are
   counted from the right, as broadcasting does. */
static gc_status spread(gc_op_call *c, const equation *e, const subscript *part, int32_t ndim, int32_t *label)
{
    int32_t extra = ndim - (part->n - (part->open ? 1 : 0)), n = 0;
    if (extra < 0 || (extra > 0 && !part->open) || extra > GRADCAM_MAX_DIMS) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the equation names %d dimensions of a tensor that has %d",
                          (int)(ndim - extra), (int)ndim);
    }
    for (int32_t i = 0; i < part->n; i++) {
        for (int32_t k = 0; part->label[i] < 0 && k < extra; k++) {
            label[n++] = ELLIPSIS + e->ellipsis_dims - extra + k;
        }
        if (part->label[i] >= 0) {
            label[n++] = part->label[i];
        }
    }
    return GRADCAM_OK;
}

static gc_status learn_sizes(gc_op_call *c, equation *e)
{
    int32_t label[GRADCAM_MAX_DIMS];
    for (int32_t i = 0; i < c->n_in; i++) {
        const gc_tensor *t = c->in[i];
        GC_TRY(spread(c, e, &e->in[i], t->ndim, label));
        for (int32_t d = 0; d < t->ndim; d++) {
            int64_t *size = &e->sum.size[label[d]];
            if (*size != 1 && t->shape[d] != 1 && *size != t->shape[d]) {
                return gc_op_fail(c, GRADCAM_E_SHAPE, "one letter stands for %lld and for %lld elements",
                                  (long long)*size, (long long)t->shape[d]);
            }
            *size = *size == 1 ? t->shape[d] : *size;
        }
    }
    return GRADCAM_OK;
}

static gc_status setup(gc_op_call *c, equation *e)
{
    memset(e, 0, sizeof *e);
    GC_TRY(parse(c, e));
    for (int32_t i = 0; i < GC_LABELS; i++) {
        e->sum.size[i] = 1;
    }
    e->sum.ctx = c->ctx;
    for (int32_t i = 0; i < c->n_in; i++) {
        GC_TRY(gc_op_need(c, i));
        if (c->in[i]->dtype != GRADCAM_F32) {
            return gc_op_fail(c, GRADCAM_E_DTYPE, "input %d is not float", (int)i);
        }
        int32_t extra = c->in[i]->ndim - e->in[i].n + 1;
        if (e->in[i].open && extra > e->ellipsis_dims) {
            e->ellipsis_dims = extra;
        }
    }
    return learn_sizes(c, e);
}

static gc_status output_shape(gc_op_call *c, const equation *e, int32_t *ndim, int64_t *shape)
{
    int32_t label[GRADCAM_MAX_DIMS];
    uint64_t used = 0;
    *ndim = e->out.n - (e->out.open ? 1 - e->ellipsis_dims : 0);
    if (*ndim > GRADCAM_MAX_DIMS) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "the output has %d dimensions, at most %d", (int)*ndim, GRADCAM_MAX_DIMS);
    }
    GC_TRY(spread(c, e, &e->out, *ndim, label));
    for (int32_t d = 0; d < *ndim; d++) {
        uint64_t bit = UINT64_C(1) << label[d];
        if ((used & bit) != 0 || (label[d] < ELLIPSIS && (e->seen & bit) == 0)) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "a letter of the output is there twice or in no operand");
        }
        used |= bit;
        shape[d] = e->sum.size[label[d]];
    }
    return GRADCAM_OK;
}

/* The tensor through the labels of its subscript.  A repeated letter steps along
   the diagonal; a dimension of 1 under a larger label repeats, so it has none. */
static gc_status view(gc_op_call *c, const equation *e, const subscript *part, const gc_tensor *t, gc_term *term,
                      bool *diagonal)
{
    int32_t label[GRADCAM_MAX_DIMS];
    int64_t strides[GRADCAM_MAX_DIMS];
    memset(term, 0, sizeof *term);
    GC_TRY(spread(c, e, part, t->ndim, label));
    gc_row_strides(t->ndim, t->shape, strides);
    term->data = t->data;
    for (int32_t d = 0; d < t->ndim; d++) {
        int32_t k = 0;
        if (t->shape[d] != e->sum.size[label[d]]) {
            continue;
        }
        while (k < term->n && term->label[k] != label[d]) {
            k++;
        }
        *diagonal = *diagonal || k < term->n;
        term->n = k < term->n ? term->n : k + 1;
        term->label[k] = label[d];
        term->step[k] += strides[d];
    }
    return GRADCAM_OK;
}

/* target < 0: the output; else the gradient of that input. */
static gc_status evaluate(gc_op_call *c, equation *e, int32_t target, const gc_tensor *grad, gc_tensor *dst)
{
    gc_term terms[GC_TERMS], out;
    bool diagonal = false, ignored = false;
    int32_t n = 0;
    if (target >= 0) {
        GC_TRY(view(c, e, &e->out, grad, &terms[n++], &ignored));
    }
    for (int32_t i = 0; i < c->n_in; i++) {
        if (i != target) {
            GC_TRY(view(c, e, &e->in[i], c->in[i], &terms[n++], &ignored));
        }
    }
    GC_TRY(view(c, e, target < 0 ? &e->out : &e->in[target], dst, &out, &diagonal));
    if (diagonal && e->sum.work != NULL) {
        gc_walk_zero(dst); /* off the diagonal */
    }
    gc_status status = gc_contract(&e->sum, n, terms, &out, dst->data);
    return status == GRADCAM_E_LIMIT ? gc_op_fail(c, status, "a product of operands is too large") : status;
}

static gc_status einsum_infer(gc_op_call *c)
{
    equation e;
    gc_tensor y;
    int64_t most = 0, bytes;
    memset(&y, 0, sizeof y);
    GC_TRY(setup(c, &e));
    GC_TRY(output_shape(c, &e, &y.ndim, y.shape));
    GC_TRY(gc_op_set_output(c, 0, GRADCAM_F32, y.ndim, y.shape));
    if (gc_shape_numel(y.ndim, y.shape) < 0) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "the output is too large");
    }
    for (int32_t target = -1; target < c->n_in; target++) {
        gc_tensor like = target < 0 ? y : *c->in[target];
        e.sum.used = 0;
        GC_TRY(evaluate(c, &e, target, &y, &like));
        most = e.sum.used > most ? e.sum.used : most;
    }
    if (!gc_mul_ok(most + 1, (int64_t)sizeof(float), &bytes)) { /* never 0: work == NULL means a rehearsal */
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    c->work_bytes = (size_t)bytes;
    return GRADCAM_OK;
}

static gc_status einsum_forward(gc_op_call *c)
{
    equation e;
    if (c->out[0] == NULL) {
        return GRADCAM_OK;
    }
    GC_TRY(setup(c, &e));
    e.sum.work = c->work;
    return evaluate(c, &e, -1, NULL, c->out[0]);
}

static gc_status einsum_backward(gc_op_call *c)
{
    equation e;
    GC_TRY(setup(c, &e));
    e.sum.work = c->work;
    for (int32_t i = 0; i < c->n_in; i++) {
        if (c->grad_in[i] != NULL) {
            e.sum.used = 0;
            GC_TRY(evaluate(c, &e, i, c->grad_out[0], c->grad_in[i]));
        }
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_einsum[] = {
    {"Einsum", einsum_infer, einsum_forward, einsum_backward, 0, UINT32_C(0xFFFFFFFF), 0, 1, -1, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
