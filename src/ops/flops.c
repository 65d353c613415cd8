/* SPDX-License-Identifier: MIT */
/* Operators whose time is arithmetic rather than memory. */
#include "ops/flops.h"

#include <string.h>

#include "base/size.h"

/* a * b, held at the largest number. */
static int64_t times(int64_t a, int64_t b)
{
    int64_t product = 0;
    return gc_mul_ok(a, b, &product) ? product : INT64_MAX;
}

/* Elements of a weight for each index of its first dimension. */
static int64_t row(const gc_tensor *w)
{
    return w == NULL || w->ndim < 1 || w->shape[0] == 0 ? 0 : gc_numel(w) / w->shape[0];
}

/* weight [M, C / group, kernel...]: one row for each element of the output. */
static int64_t conv(const gc_flops_query *q)
{
    return times(gc_numel(q->out), row(q->in[1]));
}

/* weight [C, M / group, kernel...]: one row for each element of the input. */
static int64_t conv_transpose(const gc_flops_query *q)
{
    return q->in[0] == NULL ? 0 : times(gc_numel(q->in[0]), row(q->in[1]));
}

/* A or A' is [M, K], the output [M, N]. */
static int64_t gemm(const gc_flops_query *q)
{
    if (q->in[0] == NULL || q->out->ndim != 2 || q->out->shape[0] == 0) {
        return 0;
    }
    return times(gc_numel(q->out), gc_numel(q->in[0]) / q->out->shape[0]);
}

static int64_t matmul(const gc_flops_query *q)
{
    const gc_tensor *a = q->in[0];
    return a == NULL || a->ndim < 1 ? 0 : times(gc_numel(q->out), a->shape[a->ndim - 1]);
}

/* X [steps, batch, size] (or [batch, steps, size]); every weight once a step and sample. */
static int64_t recurrent(const gc_flops_query *q)
{
    const gc_tensor *x = q->in[0], *w = q->in[1], *r = q->in[2];
    if (x == NULL || w == NULL || r == NULL || x->ndim != 3) {
        return 0;
    }
    return times(times(x->shape[0], x->shape[1]), gc_numel(w) + gc_numel(r));
}

/* The dimension that a letter of an equation stands for, or 1. */
static int64_t letter_size(const gc_flops_query *q, const char *equation, char letter)
{
    int32_t operand = 0, axis = 0;
    for (const char *p = equation; *p != '\0' && *p != '-' && operand < q->n_in && operand < GC_FLOPS_INPUTS; p++) {
        const gc_tensor *t = q->in[operand];
        if (*p == ',') {
            operand++;
            axis = 0;
        } else if (*p == '.' && strncmp(p, "...", 3) == 0 && t != NULL) {
            /* The letters after the dots are the last dimensions. */
            size_t after = strcspn(p + 3, ",-");
            axis = t->ndim - (int32_t)after;
            p += 2;
        } else if (*p == letter && t != NULL && axis >= 0 && axis < t->ndim) {
            return t->shape[axis];
        } else if (*p != ' ') {
            axis++;
        }
    }
    return 1;
}

/* Every element of the output sums over the letters that it does not have. */
static int64_t einsum(const gc_flops_query *q)
{
    const char *equation = gc_attr_string(&q->attrs, "equation", "");
    const char *arrow = strstr(equation, "->");
    int64_t work = gc_numel(q->out);
    for (char c = 'A'; c <= 'z' && q->n_in > 1; c++) {
        const char *first = strchr(equation, c);
        if (first == NULL || (first == arrow) || c == '-' || c == '>') {
            continue;
        }
        bool summed = arrow != NULL ? strchr(arrow, c) == NULL : strchr(first + 1, c) != NULL;
        if (summed) {
            work = times(work, letter_size(q, equation, c));
        }
    }
    return q->n_in > 1 ? times(work, q->n_in - 1) : 0;
}

int64_t gc_op_flops(const gc_flops_query *q)
{
    static const struct {
        const char *op;
        int64_t (*multiply_adds)(const gc_flops_query *q);
    } known[] = {
        {"Conv", conv},      {"ConvTranspose", conv_transpose},
        {"Gemm", gemm},      {"MatMul", matmul},
        {"LSTM", recurrent}, {"GRU", recurrent},
        {"RNN", recurrent},  {"Einsum", einsum},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(q->op, known[i].op) == 0) {
            return times(2, known[i].multiply_adds(q));
        }
    }
    return 0;
}
