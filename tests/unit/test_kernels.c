/* SPDX-License-Identifier: MIT */
/* What a host may say about kernels: which set a context runs with, and whether
   a run's convolutions are plain sums of products (`exact`), and whether their
   factors are bfloat16. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "gradcam/gradcam.h"
#include "unit.h"

enum { C = 64, SIDE = 20, VALUES = C * SIDE * SIDE, WEIGHTS = C * C * 9, SETS = 8 };

static gc_tensor *tensor(gc_ctx *ctx, int64_t a, int64_t b, int64_t c, int64_t d, uint32_t seed)
{
    gc_tensor_desc desc;
    gc_tensor *t = NULL;
    memset(&desc, 0, sizeof desc);
    desc.dtype = GRADCAM_F32;
    desc.ndim = 4;
    desc.shape[0] = a;
    desc.shape[1] = b;
    desc.shape[2] = c;
    desc.shape[3] = d;
    if (gc_tensor_create(ctx, &desc, &t, NULL) == GRADCAM_OK) {
        gc_tensor_describe(t, &desc);
        for (int64_t i = 0; i < a * b * c * d; i++) {
            ((float *)desc.data)[i] = noise((uint32_t)i * 3u + seed);
        }
    }
    return t;
}

static const float *data_of(const gc_tensor *t)
{
    gc_tensor_desc desc;
    gc_tensor_describe(t, &desc);
    return desc.data;
}

/* ---- one 3x3 convolution that Winograd's algorithm fits ---- */

typedef struct fixture {
    gc_ctx *ctx;
    gc_net *net;
    gc_tensor *x, *w, *seed;
} fixture;

static gc_status open_fixture(fixture *f, const char *kernels, gc_error *err)
{
    static const int64_t pads[4] = {1, 1, 1, 1};
    const gc_attr attr = {"pads", pads, 4, GRADCAM_ATTR_INTS, 0};
    const char *in[2] = {"x", "w"}, *out = "y";
    gc_ctx_options o;
    gc_builder *b = NULL;
    gc_tensor_desc d;
    memset(f, 0, sizeof *f);
    memset(&o, 0, sizeof o);
    o.kernels = kernels;
    gc_status s = gc_ctx_create(&o, &f->ctx, err);
    if (s != GRADCAM_OK) {
        return s;
    }
    f->x = tensor(f->ctx, 1, C, SIDE, SIDE, 1);
    f->w = tensor(f->ctx, C, C, 3, 3, 77777);
    f->seed = tensor(f->ctx, 1, C, SIDE, SIDE, 999);
    s = gc_builder_create(f->ctx, 13, &b, err);
    gc_tensor_describe(f->x, &d);
    d.data = NULL;
    s = s ? s : gc_builder_input(b, "x", &d, err);
    s = s ? s : gc_builder_weight(b, "w", f->w, err);
    s = s ? s : gc_builder_node(b, "Conv", "conv", in, 2, &out, 1, &attr, 1, err);
    s = s ? s : gc_builder_output(b, "y", err);
    s = s ? s : gc_builder_finish(b, &f->net, err);
    gc_builder_destroy(b);
    return s;
}

static void close_fixture(fixture *f)
{
    gc_tensor_unref(f->x);
    gc_tensor_unref(f->w);
    gc_tensor_unref(f->seed);
    gc_net_unref(f->net);
    gc_ctx_unref(f->ctx);
}

/* Result and gradient, in the network's order of dimensions. */
typedef struct result {
    float y[VALUES], dx[VALUES];
} result;

static gc_status read_value(fixture *f, gc_tensor *from, float *to, gc_error *err)
{
    gc_tensor *plain = tensor(f->ctx, 1, C, SIDE, SIDE, 0);
    gc_status s = gc_tensor_copy(from, plain, err);
    memcpy(to, data_of(plain), VALUES * sizeof *to);
    gc_tensor_unref(plain);
    return s;
}

static gc_status pass(fixture *f, gc_run *run, int32_t exact, result *r, gc_error *err)
{
    gc_tensor *y = NULL, *dx = NULL;
    gc_status s = gc_run_set_exact(run, exact, err);
    s = s ? s : gc_run_forward(run, err);
    s = s ? s : gc_run_backward(run, NULL, f->seed, err);
    s = s ? s : gc_run_value(run, "y", &y, err);
    s = s ? s : gc_run_gradient(run, "x", &dx, err);
    s = s ? s : read_value(f, y, r->y, err);
    return s ? s : read_value(f, dx, r->dx, err);
}

static gc_status open_run(fixture *f, gc_run **run, gc_error *err)
{
    gc_status s = gc_run_create(f->net, run, err);
    s = s ? s : gc_run_set_input(*run, NULL, f->x, err);
    return s ? s : gc_run_watch(*run, "x", GRADCAM_WATCH_GRAD, err);
}

/* The worst |got - sum| over n u sum of magnitudes, for y or for dx. */
static double worst(const float *w, const float *from, const float *got, int backward)
{
    double most = 0.0;
    for (int k = 0; k < VALUES; k++) {
        int c = k / (SIDE * SIDE), y = k / SIDE % SIDE, x = k % SIDE;
        double sum = 0.0, size = 0.0;
        for (int i = 0; i < C * 9; i++) {
            int other = i / 9, dy = i % 9 / 3 - 1, dx = i % 3 - 1, yy = y + dy, xx = x + dx;
            if (yy < 0 || yy >= SIDE || xx < 0 || xx >= SIDE) {
                continue;
            }
            int at = backward ? (other * C + c) * 9 + 8 - i % 9 : (c * C + other) * 9 + i % 9;
            double product = (double)w[at] * (double)from[(other * SIDE + yy) * SIDE + xx];
            sum += product;
            size += fabs(product);
        }
        double error = fabs((double)got[k] - sum) / (C * 9 * ldexp(1.0, -24) * size);
        most = error > most ? error : most;
    }
    return most;
}

static result first, exact, again, beside;

static void test_exact(tally *t, const char *kernels)
{
    fixture f;
    gc_run *run = NULL, *other = NULL;
    gc_error err;
    memset(&err, 0, sizeof err);
    gc_status s = open_fixture(&f, kernels, &err);
    s = s ? s : open_run(&f, &run, &err);
    s = s ? s : open_run(&f, &other, &err);
    s = s ? s : pass(&f, run, 0, &first, &err);
    s = s ? s : pass(&f, run, 1, &exact, &err);
    s = s ? s : pass(&f, other, 0, &beside, &err); /* both packings of the weights live side by side */
    s = s ? s : pass(&f, run, 0, &again, &err);
    expect(t, s == GRADCAM_OK, err.message);
    if (s == GRADCAM_OK) {
        expect(t, worst(data_of(f.w), data_of(f.x), exact.y, 0) <= 1.0, "exact: the error of a plain sum");
        expect(t, worst(data_of(f.w), data_of(f.seed), exact.dx, 1) <= 1.0,
               "exact: the error of a plain sum, gradient");
        expect(t, worst(data_of(f.w), data_of(f.x), first.y, 0) <= 100.0, "not exact: near");
        int same = memcmp(&first, &exact, sizeof first) == 0, plain = strcmp(kernels, "plain") == 0;
        expect(t, same == plain, "exact: another algorithm, but where there is only one");
        expect(t, memcmp(&first, &again, sizeof first) == 0, "not exact again: the bits from before");
        expect(t, memcmp(&first, &beside, sizeof first) == 0, "another run is not concerned");
    }
    gc_run_destroy(other);
    gc_run_destroy(run);
    close_fixture(&f);
}

/* The upper half of the bits, to the nearest, ties to even. */
static void round_all(const float *from, int n, float *to)
{
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, from + i, sizeof bits);
        bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
        memcpy(to + i, &bits, sizeof bits);
    }
}

static float rounded_x[VALUES], rounded_w[WEIGHTS];

static void judge_bf16(tally *t, const fixture *f, gc_run *run)
{
    const char *kernels = NULL;
    round_all(data_of(f->x), VALUES, rounded_x);
    round_all(data_of(f->w), WEIGHTS, rounded_w);
    expect(t, gc_run_precision(run, &kernels) == GRADCAM_BF16 && kernels != NULL, "bf16: the run says so");
    expect(t, worst(rounded_w, rounded_x, again.y, 0) <= 1.0, "bf16: a float32 sum of products of rounded factors");
    expect(t, worst(data_of(f->w), data_of(f->x), again.y, 0) > 1.0, "bf16: the factors are rounded");
    round_all(data_of(f->seed), VALUES, rounded_x);
    expect(t, worst(rounded_w, rounded_x, again.dx, 1) <= 1.0, "bf16: so is the gradient");
    expect(t, memcmp(&exact, &beside, sizeof exact) == 0, "bf16: a float32 run has weights of its own");
}

/* exact, so that bits can be compared: Winograd may be chosen in float32 only. */
static void test_precision(tally *t, const char *kernels)
{
    fixture f;
    gc_run *run = NULL, *other = NULL;
    gc_error err;
    memset(&err, 0, sizeof err);
    gc_status s = open_fixture(&f, kernels, &err);
    s = s ? s : open_run(&f, &run, &err);
    s = s ? s : open_run(&f, &other, &err);
    s = s ? s : pass(&f, run, 1, &exact, &err);
    expect(t, s == GRADCAM_OK && gc_run_precision(run, NULL) == GRADCAM_F32, "float32 unless asked");
    s = s ? s : gc_run_set_precision(run, GRADCAM_BF16, &err);
    if (s == GRADCAM_E_UNSUPPORTED) {
        expect(t, strcmp(kernels, "plain") != 0 && strstr(err.message, kernels) != NULL, "bf16: refused by name");
        expect(t, gc_run_precision(run, NULL) == GRADCAM_F32, "bf16: refused, so float32");
    } else {
        s = s ? s : pass(&f, run, 1, &again, &err);
        s = s ? s : pass(&f, other, 1, &beside, &err);
        expect(t, s == GRADCAM_OK, err.message);
        judge_bf16(t, &f, run);
        s = gc_run_set_precision(run, GRADCAM_F32, &err);
        s = s ? s : pass(&f, run, 1, &again, &err);
        expect(t, s == GRADCAM_OK && memcmp(&exact, &again, sizeof exact) == 0, "float32 again: the bits from before");
    }
    gc_run_destroy(other);
    gc_run_destroy(run);
    close_fixture(&f);
}

static void test_mistakes(tally *t)
{
    gc_ctx_options o;
    gc_ctx *ctx = NULL;
    gc_error err;
    memset(&o, 0, sizeof o);
    memset(&err, 0, sizeof err);
    o.kernels = "sse9";
    expect(t, gc_ctx_create(&o, &ctx, &err) == GRADCAM_E_NOT_FOUND && ctx == NULL, "kernels that are not there");
    expect(t, strstr(err.message, "\"sse9\"") && strstr(err.message, "plain"), "the message: what was said, what is");
    expect(t, gc_kernels(-1) == NULL && gc_kernels(1000) == NULL, "indices out of range");
    expect(t, gc_run_set_exact(NULL, 1, &err) == GRADCAM_E_INVALID, "no run");
    expect(t, gc_run_set_precision(NULL, GRADCAM_F32, &err) == GRADCAM_E_INVALID, "no run to make precise");
    expect(t, gc_run_precision(NULL, NULL) == GRADCAM_F32, "no run, no precision");
}

int main(void)
{
    tally t = {0, 0};
    int sets = 0;
    for (; sets < SETS && gc_kernels(sets) != NULL; sets++) {
        test_exact(&t, gc_kernels(sets));
        test_precision(&t, gc_kernels(sets));
    }
    expect(&t, sets > 0 && strcmp(gc_kernels(sets - 1), "plain") == 0, "the last set is the plain one");
    test_mistakes(&t);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
