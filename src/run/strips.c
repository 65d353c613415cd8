/* SPDX-License-Identifier: MIT */
/* Chains that run strip by strip.
 *
 * A part is a run of lines of the last stage's output; a task has one part or
 * several, one after the other.  It makes a few lines at a time (a strip): each
 * stage first makes the lines of its own output that the strip needs and that
 * its window does not hold yet.  Lines that two strips share are kept, those
 * that two parts share are made twice: the same numbers, as every number is one
 * sum in one order. */
#include "run/strips.h"

#include <string.h>

#include "base/size.h"
#include "ops/conv.h"
#include "run/columns.h"
#include "run/fuse.h"

/* Floats of all windows of a task together; a map between two stages is worth
   strips from so many bytes on; weights of a stage pass the cache once a strip. */
enum { MOST_STAGES = 3, WINDOW_FLOATS = 96 << 10, MAP_BYTES = 256 << 10, WEIGHT_BYTES = 256 << 10, PART_LINES = 7 };

typedef struct stage {
    gc_conv_pass pass;
    const float *scale;        /* [images][channels]: not a convolution but a product with it */
    int64_t in_line, out_line; /* elements from line to line; of windows where there are any */
    int64_t lines;             /* of an image of its output */
    int64_t room, window;      /* lines and first float of its window */
    int32_t in_half, out_half; /* what it reads and writes is bfloat16 */
} stage;

typedef struct chain {
    stage stages[MOST_STAGES];
    int32_t n;
    int32_t tasks;
    int64_t images, parts; /* of an image */
    int64_t strip;         /* lines of the last stage at a time */
    int64_t task_floats, conv_window;
    float *scratch;
    gc_ctx serial; /* a task does not share its work */
    int32_t ready; /* with the addresses */
    int32_t reserved0;
} chain;

/* Lines first .. last of one map. */
typedef struct lines {
    int64_t first, last;
} lines;

/* ---- chains ---- */

static bool is_plane(const gc_gather *g)
{
    const gc_conv_dim *d = &g->dim[0];
    return d->in == 1 && d->places == 1 && d->taps == 1 && d->pad == 0 && g->dim[1].out_step == 1;
}

static bool is_flat(const gc_gather *g)
{
    bool flat = true;
    for (int i = 0; i < 3; i++) {
        const gc_conv_dim *d = &g->dim[i];
        flat = flat && d->taps == 1 && d->stride == 1 && d->pad == 0 && d->places == d->in;
    }
    return flat;
}

static bool light(const gc_gather *g, int64_t most)
{
    int64_t taps = g->dim[1].taps * g->dim[2].taps;
    return g->groups == 1 && taps * g->in_c * g->out_c * (int64_t)sizeof(float) <= most;
}

static bool is_dense(const gc_conv_pass *a)
{
    return a->method == GC_CONV_DIRECT || a->method == GC_CONV_HALF;
}

static bool is_narrow(const gc_conv_pass *a, int64_t most)
{
    return is_dense(a) && is_flat(&a->gather) && light(&a->gather, most);
}

static bool is_free(const gc_step *s)
{
    return s->op != NULL && s->call.custom == NULL && !s->fused && !s->backward && s->before < 0 && s->result >= 0;
}

static bool may_join(gc_step *s, gc_conv_pass *pass)
{
    return is_free(s) && gc_conv_pass_of(&s->call, pass) && is_plane(&pass->gather);
}

/* Which operand of a Mul has one number for each image and channel of the other,
   a picture; -1: none, or not a Mul. */
static int32_t scale_of(const gc_op_call *c)
{
    if (strcmp(c->op_name, "Mul") != 0 || c->in[0]->ndim != 4 || c->in[1]->ndim != 4) {
        return -1;
    }
    int32_t k = c->in[0]->shape[2] * c->in[0]->shape[3] == 1 ? 0 : 1;
    const gc_tensor *scale = c->in[k], *map = c->in[1 - k];
    bool fits = scale->shape[0] == map->shape[0] && scale->shape[1] == map->shape[1] &&
                scale->shape[2] * scale->shape[3] == 1 && map->dtype == GRADCAM_F32 && gc_is_cl(map) &&
                !gc_is_row(map) && gc_cl_pixel(map) == map->shape[1] && gc_numel(map) > 0;
    return fits && (gc_is_row(scale) || gc_is_cl(scale)) ? k : -1;
}

/* A product as a gather that takes every pixel as it is. */
static void scale_pass(const gc_op_call *c, int32_t k, stage *s)
{
    const gc_tensor *map = c->in[1 - k];
    gc_gather *g = &s->pass.gather;
    s->scale = c->in[k]->data;
    s->pass.method = GC_CONV_DEPTHWISE;
    s->pass.in = map->data;
    s->pass.out = c->out[0]->data;
    g->images = map->shape[0];
    g->groups = g->in_pixel = g->out_pixel = map->shape[1];
    g->in_c = g->out_c = 1;
    for (int i = 0; i < 3; i++) {
        gc_conv_dim *d = &g->dim[i];
        d->in = d->out = d->places = i == 0 ? 1 : map->shape[i + 1];
        d->stride = d->dilation = d->taps = d->tap_step = d->out_step = 1;
    }
}

/* The step that takes a dense or depthwise convolution's hidden result. */
static int32_t next_stage(gc_plan *p, int32_t index, gc_conv_pass *pass)
{
    const gc_step *s = &p->steps[index];
    int32_t next = gc_plan_private(&p->slots[s->result]) ? gc_plan_reader(p, s->result, index) : -1;
    bool follows = next >= 0 && p->steps[next].in[0] == s->result && may_join(&p->steps[next], pass);
    return follows ? next : -1;
}

static bool is_large(const gc_plan *p, int32_t slot)
{
    return gc_numel(&p->slots[slot].value) / p->slots[slot].value.shape[0] * (int64_t)sizeof(float) >= MAP_BYTES;
}

/* `next` takes the result of `index` from a window. */
static void link_steps(gc_plan *p, int32_t index, int32_t next)
{
    gc_step *s = &p->steps[index];
    p->steps[next].before = index;
    p->slots[s->result].hidden = 1;
    s->fused = 1;
    for (int32_t i = index; i >= 0; i = p->steps[i].before) {
        p->steps[i].runs_at = next;
    }
}

static bool enough_lines(const gc_plan *p, const gc_gather *last)
{
    int64_t workers = (int64_t)gc_workers(p->ctx);
    return last->images * last->dim[1].places >= PART_LINES * workers;
}

/* From a dense convolution over a depthwise one to a narrow one; from either to
   the next where that is all there is. */
static void find_chain(gc_plan *p, int32_t first)
{
    gc_conv_pass a, b, c;
    if (!may_join(&p->steps[first], &a) || p->steps[first].residual >= 0) {
        return;
    }
    bool deep = a.method == GC_CONV_DEPTHWISE;
    bool begins = deep || (is_dense(&a) && light(&a.gather, WEIGHT_BYTES));
    int32_t second = deep || is_dense(&a) ? next_stage(p, first, &b) : -1;
    if (second < 0) {
        return;
    }
    bool fits = begins && is_large(p, p->steps[first].result) && enough_lines(p, &b.gather) &&
                (deep ? is_narrow(&b, WEIGHT_BYTES) : b.method == GC_CONV_DEPTHWISE);
    int32_t third = deep || !fits || p->steps[second].residual >= 0 ? -1 : next_stage(p, second, &c);
    third = third >= 0 && is_narrow(&c, WEIGHT_BYTES) ? third : -1;
    bool by_columns = !deep && third < 0 && p->steps[second].residual < 0 && gc_columns_fit(&a, &b);
    if (fits || by_columns) {
        link_steps(p, first, second);
        p->steps[second].by_columns = by_columns;
    }
    if (third >= 0) {
        link_steps(p, second, third);
    }
}

/* A product of channels with numbers, and the convolution behind it. */
static void find_scaled(gc_plan *p, int32_t first)
{
    gc_conv_pass a;
    if (!is_free(&p->steps[first]) || scale_of(&p->steps[first].call) < 0) {
        return;
    }
    int32_t second = next_stage(p, first, &a);
    if (second >= 0 && is_narrow(&a, 2 * WEIGHT_BYTES) && enough_lines(p, &a.gather)) {
        link_steps(p, first, second);
    }
}

void gc_plan_strips(gc_plan *p)
{
    for (int32_t i = 0; i < p->n_steps; i++) {
        p->steps[i].runs_at = i;
        p->steps[i].before = -1;
        p->steps[i].by_columns = 0;
    }
    for (int32_t i = 0; i < p->n_steps; i++) {
        find_chain(p, i);
        find_scaled(p, i);
    }
}

/* ---- sizes ---- */

/* The lines of its input that lines y of a stage's output are made of. */
static lines needed(const stage *s, lines y)
{
    const gc_conv_dim *d = &s->pass.gather.dim[1];
    lines x = {max64(0, y.first * d->stride - d->pad),
               min64(d->in, (y.last - 1) * d->stride - d->pad + (d->taps - 1) * d->dilation + 1)};
    x.last = max64(x.first, x.last);
    return x;
}

/* The pass of a stage cut to lines y of the output, made of lines x of the input. */
static gc_gather cut(const stage *s, lines x, lines y)
{
    gc_gather g = s->pass.gather;
    gc_conv_dim *d = &g.dim[1];
    g.images = 1;
    d->pad += x.first - y.first * d->stride;
    d->in = x.last - x.first;
    d->places = y.last - y.first;
    d->out = d->places;
    return g;
}

/* Windows for strips of so many lines; the floats of a task, or -1. */
static int64_t measure_windows(chain *c, int64_t strip)
{
    int64_t floats = 0, work = 0, more;
    int64_t made = strip;
    for (int32_t i = c->n - 1; i >= 0; i--) {
        stage *s = &c->stages[i];
        const gc_conv_dim *d = &s->pass.gather.dim[1];
        s->room = min64(made, s->lines);
        s->window = floats;
        if (i + 1 < c->n && !gc_mul_ok(s->room, s->out_line, &more)) {
            return -1;
        }
        if (i + 1 < c->n && !gc_add_ok(floats, s->out_half ? more / 2 + 1 : more, &floats)) {
            return -1;
        }
        floats = (floats + 15) / 16 * 16;
        gc_gather g = cut(s, needed(s, (lines){0, s->room}), (lines){0, s->room});
        g.dim[1].pad = d->pad; /* as at the top, where there is most of it */
        g.dim[1].in = d->in;
        g.in_half = s->in_half;
        work = max64(work, gc_conv_scratch(&g, s->pass.method, 1));
        made = (s->room - 1) * d->stride + (d->taps - 1) * d->dilation + 1;
    }
    c->strip = strip;
    c->conv_window = floats;
    return work < 0 || !gc_add_ok(floats, work + 16, &floats) ? -1 : floats / 16 * 16;
}

static bool read_stages(gc_plan *p, gc_step *last, chain *c)
{
    memset(c, 0, sizeof *c);
    for (gc_step *s = last; s != NULL; s = s->before < 0 ? NULL : &p->steps[s->before]) {
        c->n++;
    }
    int32_t i = c->n;
    for (gc_step *s = last; s != NULL; s = s->before < 0 ? NULL : &p->steps[s->before]) {
        stage *g = &c->stages[--i];
        int32_t scale = scale_of(&s->call);
        if (scale >= 0) {
            scale_pass(&s->call, scale, g);
        } else if (!gc_conv_pass_of(&s->call, &g->pass)) {
            return false;
        }
        g->in_line = g->pass.gather.dim[2].in * g->pass.gather.in_pixel;
        g->out_line = g->pass.gather.dim[2].out * g->pass.gather.out_pixel;
        g->lines = g->pass.gather.dim[1].places;
        g->in_half = p->slots[s->in[scale == 0 ? 1 : 0]].value.dtype == GRADCAM_BF16;
        g->out_half = p->slots[s->result].value.dtype == GRADCAM_BF16;
    }
    return true;
}

/* The chain and its windows for strips of so many lines. */
static bool measure(gc_plan *p, gc_step *last, int64_t strip, chain *c)
{
    if (!read_stages(p, last, c)) {
        return false;
    }
    int64_t workers = (int64_t)gc_workers(p->ctx), count = c->stages[c->n - 1].lines;
    c->images = c->stages[0].pass.gather.images;
    c->parts = max64(1, min64(count, (workers + c->images - 1) / c->images));
    c->tasks = (int32_t)min64(workers, c->images * c->parts);
    c->task_floats = measure_windows(c, strip);
    return c->task_floats >= 0;
}

/* The most lines whose windows stay in the cache; of a part, which may be the whole
   image. */
static int64_t choose_strip(chain *c)
{
    int64_t strip = 1, count = c->stages[c->n - 1].lines, most = (count + c->parts - 1) / c->parts;
    while (strip < most && measure_windows(c, strip + 1) >= 0 && c->conv_window <= WINDOW_FLOATS) {
        strip++;
    }
    return strip;
}

gc_status gc_strips_size(gc_plan *p, gc_step *s, gc_error *err)
{
    if (s->before < 0 || s->by_columns) {
        return s->before < 0 ? GRADCAM_OK : gc_columns_size(p, s, err);
    }
    chain *c = gc_mem_alloc(p->ctx, 1, sizeof *c);
    s->chain = c;
    if (c == NULL) {
        return GC_NOMEM(err);
    }
    bool measured = measure(p, s, 1, c);
    s->strip = measured ? choose_strip(c) : 1;
    int64_t floats = measured ? measure_windows(c, s->strip) : -1;
    return gc_plan_windows(p, s, floats < 0 || floats > INT64_MAX / 8 ? -1 : floats * (int64_t)sizeof(float), err);
}

/* ---- running ---- */

static void scale_lines(const stage *s, int64_t image, const float *restrict in, int64_t pixels, float *restrict out)
{
    int64_t channels = s->pass.gather.groups;
    const float *restrict scale = s->scale + image * channels;
    for (int64_t p = 0; p < pixels; p++, in += channels, out += channels) {
        for (int64_t k = 0; k < channels; k++) {
            out[k] = in[k] * scale[k];
        }
    }
}

/* Lines y of stage i from lines x, which begin at `in`. */
static void make_lines(const chain *c, int32_t i, int64_t image, lines x, const void *in, lines y, void *out,
                       float *scratch)
{
    const stage *s = &c->stages[i];
    if (s->scale != NULL) {
        scale_lines(s, image, in, (y.last - y.first) * s->pass.gather.dim[2].places, out);
        return;
    }
    gc_gather g = cut(s, x, y);
    gc_epilogue epi = s->pass.epi;
    if (epi.residual != NULL) {
        epi.residual = gc_conv_at(epi.residual, (image * s->lines + y.first) * s->out_line, g.residual_half);
    }
    gc_conv_run(&c->serial, &g, s->pass.method, in, s->pass.packed, &epi, out, scratch, 1);
}

/* Makes room for lines `want` of a window that holds lines `have`. */
static lines slide(void *window, int64_t line, int32_t half, lines have, lines want)
{
    int64_t kept = have.last - want.first;
    if (kept <= 0) {
        return (lines){want.first, want.first};
    }
    if (want.first > have.first) {
        size_t bytes = (size_t)(kept * line) * (half ? 2 : sizeof(float));
        memmove(window, gc_conv_at(window, (want.first - have.first) * line, half), bytes);
        have.first = want.first;
    }
    return have;
}

static void run_strip(const chain *c, int64_t image, lines y, lines *have, float *scratch)
{
    lines want[MOST_STAGES];
    want[c->n - 1] = y;
    for (int32_t i = c->n - 1; i > 0; i--) {
        want[i - 1] = needed(&c->stages[i], want[i]);
    }
    for (int32_t i = 0; i < c->n; i++) {
        const stage *s = &c->stages[i];
        bool last = i + 1 == c->n;
        int32_t in_half = s->pass.gather.in_half, out_half = s->pass.gather.out_half;
        void *window = scratch + s->window, *to;
        lines make = want[i], from;
        if (last) {
            to = gc_conv_at(s->pass.out, (image * s->lines + make.first) * s->out_line, out_half);
        } else {
            have[i] = slide(window, s->out_line, out_half, have[i], want[i]);
            make.first = have[i].last;
            to = gc_conv_at(window, (make.first - have[i].first) * s->out_line, out_half);
            have[i].last = max64(have[i].last, want[i].last);
        }
        if (make.first >= make.last) {
            continue;
        }
        from = needed(s, make);
        const void *in = i == 0 ? (const void *)s->pass.in : scratch + c->stages[i - 1].window;
        int64_t above = i == 0 ? image * s->pass.gather.dim[1].in : -have[i - 1].first;
        in = gc_conv_at(in, (above + from.first) * s->in_line, in_half);
        make_lines(c, i, image, from, in, make, to, scratch + c->conv_window);
    }
}

static void run_part(const chain *c, int64_t item, float *scratch)
{
    lines have[MOST_STAGES];
    int64_t image = item / c->parts, part = item % c->parts, count = c->stages[c->n - 1].lines;
    int64_t end = count * (part + 1) / c->parts;
    for (int32_t i = 0; i < c->n; i++) {
        have[i] = (lines){0, 0};
    }
    for (int64_t y = count * part / c->parts; y < end; y += c->strip) {
        run_strip(c, image, (lines){y, min64(end, y + c->strip)}, have, scratch);
    }
}

static void strips_task(void *task, uint32_t index)
{
    const chain *c = task;
    int64_t items = c->images * c->parts;
    for (int64_t i = items * index / c->tasks; i < items * (index + 1) / c->tasks; i++) {
        run_part(c, i, c->scratch + index * c->task_floats);
    }
}

gc_status gc_strips_run(gc_plan *p, gc_step *last)
{
    chain *c = last->chain;
    if (last->by_columns) {
        return gc_columns_run(p, last);
    }
    if (!c->ready && !measure(p, last, last->strip, c)) {
        return gc_fail(last->call.err, GRADCAM_E_INTERNAL, "a chain of strips has changed");
    }
    if (!c->ready) {
        c->ready = 1;
        c->scratch = (float *)(void *)(p->arena + p->windows.offset);
        c->task_floats = (int64_t)(p->window_bytes / sizeof(float));
        c->serial = gc_ctx_serial(p->ctx);
    }
    return gc_parallel(p->ctx, strips_task, c, (uint32_t)c->tasks);
}
