/* SPDX-License-Identifier: MIT */
/* LSTM, GRU and RNN: forward through time and back.
 *
 * One cell update per (direction, step, sample).  Shapes: X [T,B,I], W [D,G*H,I],
 * R [D,G*H,H], bias [D,2*G*H], states [D,B,H], Y [T,D,B,H]; with layout 1 the
 * batch comes first.  Gates: LSTM i,o,f,c; GRU z,r,h; RNN h.
 *
 * aux keeps, per update, the activated gates, then h, then (LSTM) c or (GRU)
 * the recurrent part of the candidate: G + 2 rows of H floats.  Steps past a
 * sample's length carry the state on and give Y = 0.
 */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "ops/op.h"

enum { IN_X, IN_W, IN_R, IN_BIAS, IN_LENS, IN_H0, IN_C0, IN_P };
enum { CELL_RNN = 1, CELL_GRU = 3, CELL_LSTM = 4 }; /* the number of gates */
enum { ACT_SIGMOID, ACT_TANH, ACT_RELU };

typedef struct rnn {
    gc_op_call *c;
    int64_t steps, batch, in, hidden, dirs, row; /* row: floats of aux per update */
    int32_t gates, batch_first, reverse_only, reset_after;
    int32_t act[6]; /* f, g, h of each direction */
    float *aux;
} rnn;

static gc_status parse_activations(rnn *r)
{
    static const char *const names[3] = {"Sigmoid", "Tanh", "Relu"};
    const gc_attr_value *a = gc_attr_find(&r->c->attrs, "activations", GRADCAM_ATTR_STRINGS);
    int32_t per = r->gates == CELL_LSTM ? 3 : r->gates == CELL_GRU ? 2 : 1;
    const char *p = a == NULL ? "" : a->string;
    for (int32_t i = 0; i < 6; i++) {
        r->act[i] = r->gates == CELL_RNN || i % 3 > 0 ? ACT_TANH : ACT_SIGMOID;
    }
    for (int32_t i = 0; *p != '\0'; i++) {
        size_t n = strcspn(p, "\n");
        int32_t k = 0;
        while (k < 3 && (strlen(names[k]) != n || strncmp(p, names[k], n) != 0)) {
            k++;
        }
        if (k == 3 || i >= per * r->dirs) {
            return gc_op_fail(r->c, GRADCAM_E_UNSUPPORTED, "activations must be Sigmoid, Tanh or Relu");
        }
        r->act[i / per * 3 + i % per] = k;
        p += n + (p[n] == '\n');
    }
    return GRADCAM_OK;
}

static gc_status parse_direction(rnn *r)
{
    const char *d = gc_attr_string(&r->c->attrs, "direction", "forward");
    r->reverse_only = strcmp(d, "reverse") == 0;
    r->dirs = strcmp(d, "bidirectional") == 0 ? 2 : 1;
    if (r->dirs == 1 && !r->reverse_only && strcmp(d, "forward") != 0) {
        return gc_op_fail(r->c, GRADCAM_E_FORMAT, "unknown direction \"%.40s\"", d);
    }
    if (gc_attr_find(&r->c->attrs, "clip", GRADCAM_ATTR_FLOAT) != NULL ||
        gc_attr_int(&r->c->attrs, "input_forget", 0) != 0) {
        return gc_op_fail(r->c, GRADCAM_E_UNSUPPORTED, "clip and input_forget are not supported");
    }
    return parse_activations(r);
}

static const gc_tensor *input(const gc_op_call *c, int32_t i)
{
    return i < c->n_in ? c->in[i] : NULL;
}

static bool has_shape(const gc_tensor *t, int32_t ndim, int64_t a, int64_t b, int64_t d)
{
    return t == NULL ||
           (t->ndim == ndim && t->shape[0] == a && (ndim < 2 || t->shape[1] == b) && (ndim < 3 || t->shape[2] == d));
}

static gc_status rnn_read(gc_op_call *c, int32_t gates, rnn *r)
{
    memset(r, 0, sizeof *r);
    r->c = c;
    r->gates = gates;
    for (int32_t i = IN_X; i <= IN_R; i++) {
        GC_TRY(gc_op_need(c, i));
        if (c->in[i]->ndim != 3 || c->in[i]->dtype != GRADCAM_F32) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "input %d must be float of rank 3", (int)i);
        }
    }
    const gc_tensor *x = c->in[IN_X];
    r->batch_first = gc_attr_int(&c->attrs, "layout", 0) != 0;
    r->reset_after = gc_attr_int(&c->attrs, "linear_before_reset", 0) != 0;
    r->steps = x->shape[r->batch_first];
    r->batch = x->shape[!r->batch_first];
    r->in = x->shape[2];
    r->hidden = c->in[IN_R]->shape[2];
    r->row = (gates + 2) * r->hidden;
    r->aux = c->aux;
    return parse_direction(r);
}

static gc_status check_shapes(const rnn *r)
{
    gc_op_call *c = r->c;
    int64_t wide, h = r->hidden, d = r->dirs;
    int64_t first = r->batch_first ? r->batch : d, second = r->batch_first ? d : r->batch;
    bool ok = h > 0 && h < INT32_MAX / 16 && gc_mul_ok(r->gates, h, &wide) &&
              has_shape(c->in[IN_W], 3, d, wide, r->in) && has_shape(c->in[IN_R], 3, d, wide, h) &&
              has_shape(input(c, IN_BIAS), 2, d, 2 * wide, 0) && has_shape(input(c, IN_LENS), 1, r->batch, 0, 0) &&
              has_shape(input(c, IN_H0), 3, first, second, h) && has_shape(input(c, IN_C0), 3, first, second, h) &&
              has_shape(input(c, IN_P), 2, d, 3 * h, 0);
    if (!ok) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the shapes of weights, bias, lengths or states do not fit");
    }
    const gc_tensor *lens = input(c, IN_LENS);
    if (lens != NULL && lens->dtype != GRADCAM_I32 && lens->dtype != GRADCAM_I64) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "sequence_lens must hold integers");
    }
    return GRADCAM_OK;
}

static gc_status rnn_infer(gc_op_call *c, int32_t gates)
{
    rnn r;
    int64_t n;
    GC_TRY(rnn_read(c, gates, &r));
    GC_TRY(check_shapes(&r));
    bool bf = r.batch_first != 0;
    int64_t y[4] = {bf ? r.batch : r.steps, bf ? r.steps : r.dirs, bf ? r.dirs : r.batch, r.hidden};
    int64_t s[3] = {bf ? r.batch : r.dirs, bf ? r.dirs : r.batch, r.hidden};
    GC_TRY(gc_op_set_output(c, 0, GRADCAM_F32, 4, y));
    GC_TRY(gc_op_set_output(c, 1, GRADCAM_F32, 3, s));
    GC_TRY(gc_op_set_output(c, 2, GRADCAM_F32, 3, s));
    if (!gc_mul_ok(r.dirs * r.row * 4, r.steps, &n) || !gc_mul_ok(n, r.batch, &n) || n > INT64_MAX / 8) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "the sequence is too long");
    }
    c->aux_bytes = (size_t)n;
    /* forward: one row of gates and two states; backward: d gates, d h, d c, and h before */
    c->work_bytes = (size_t)((gates + 6) * r.hidden) * sizeof(float);
    return GRADCAM_OK;
}

static gc_status lstm_infer(gc_op_call *c)
{
    return rnn_infer(c, CELL_LSTM);
}

static gc_status gru_infer(gc_op_call *c)
{
    return rnn_infer(c, CELL_GRU);
}

static gc_status vanilla_infer(gc_op_call *c)
{
    return rnn_infer(c, CELL_RNN);
}

/* ---- places ---- */

static int64_t x_at(const rnn *r, int64_t t, int64_t b)
{
    return (r->batch_first ? b * r->steps + t : t * r->batch + b) * r->in;
}

static int64_t y_at(const rnn *r, int64_t t, int64_t d, int64_t b)
{
    return (r->batch_first ? (b * r->steps + t) * r->dirs + d : (t * r->dirs + d) * r->batch + b) * r->hidden;
}

static int64_t state_at(const rnn *r, int64_t d, int64_t b)
{
    return (r->batch_first ? b * r->dirs + d : d * r->batch + b) * r->hidden;
}

static float *aux_at(const rnn *r, int64_t s, int64_t d, int64_t b)
{
    return r->aux + ((d * r->batch + b) * r->steps + s) * r->row;
}

static gc_status length_of(const rnn *r, int64_t b, int64_t *length)
{
    const gc_tensor *lens = input(r->c, IN_LENS);
    *length = lens == NULL                 ? r->steps
              : lens->dtype == GRADCAM_I32 ? ((const int32_t *)lens->data)[b]
                                           : ((const int64_t *)lens->data)[b];
    if (*length < 0 || *length > r->steps) {
        return gc_op_fail(r->c, GRADCAM_E_INVALID, "sequence_lens[%lld] is %lld, outside 0..%lld", (long long)b,
                          (long long)*length, (long long)r->steps);
    }
    return GRADCAM_OK;
}

/* The time that update s of direction d works on. */
static int64_t time_of(const rnn *r, int64_t d, int64_t s, int64_t length)
{
    return r->reverse_only || d == 1 ? length - 1 - s : s;
}

/* ---- cells ---- */

static float activate(int32_t kind, float x)
{
    if (kind == ACT_RELU) {
        return x > 0.0f ? x : 0.0f;
    }
    return kind == ACT_TANH ? tanhf(x) : 1.0f / (1.0f + expf(-x));
}

/* Derivative by the activated value. */
static float slope(int32_t kind, float y)
{
    if (kind == ACT_RELU) {
        return y > 0.0f ? 1.0f : 0.0f;
    }
    return kind == ACT_TANH ? 1.0f - y * y : y * (1.0f - y);
}

static float dot(const float *a, const float *b, int64_t n)
{
    float sum = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

typedef struct cell {
    const float *w, *r, *wb, *rb, *p; /* of one direction; bias and peepholes may be NULL */
    const int32_t *act;
} cell;

static cell cell_of(const rnn *r, int64_t d)
{
    const gc_op_call *c = r->c;
    const gc_tensor *bias = input(c, IN_BIAS), *peep = input(c, IN_P);
    int64_t wide = r->gates * r->hidden;
    cell k = {(const float *)c->in[IN_W]->data + d * wide * r->in,
              (const float *)c->in[IN_R]->data + d * wide * r->hidden,
              NULL,
              NULL,
              NULL,
              r->act + 3 * d};
    if (bias != NULL) {
        k.wb = (const float *)bias->data + d * 2 * wide;
        k.rb = k.wb + wide;
    }
    if (peep != NULL) {
        k.p = (const float *)peep->data + d * 3 * r->hidden;
    }
    return k;
}

/* Row j of W x + Wb, and of R h + Rb. */
static float from_input(const rnn *r, const cell *k, const float *x, int64_t j)
{
    return dot(k->w + j * r->in, x, r->in) + (k->wb != NULL ? k->wb[j] : 0.0f);
}

static float from_state(const rnn *r, const cell *k, const float *h, int64_t j)
{
    return dot(k->r + j * r->hidden, h, r->hidden) + (k->rb != NULL ? k->rb[j] : 0.0f);
}

static void lstm_cell(const rnn *r, const cell *k, const float *x, const float *h, const float *c, float *a)
{
    int64_t n = r->hidden;
    for (int64_t j = 0; j < n; j++) {
        float peep[3] = {k->p ? k->p[j] : 0.0f, k->p ? k->p[n + j] : 0.0f, k->p ? k->p[2 * n + j] : 0.0f};
        float i = from_input(r, k, x, j) + from_state(r, k, h, j) + peep[0] * c[j];
        float f = from_input(r, k, x, 2 * n + j) + from_state(r, k, h, 2 * n + j) + peep[2] * c[j];
        float g = from_input(r, k, x, 3 * n + j) + from_state(r, k, h, 3 * n + j);
        a[j] = activate(k->act[0], i);
        a[2 * n + j] = activate(k->act[0], f);
        a[3 * n + j] = activate(k->act[1], g);
        float state = a[2 * n + j] * c[j] + a[j] * a[3 * n + j];
        float o = from_input(r, k, x, n + j) + from_state(r, k, h, n + j) + peep[1] * state;
        a[n + j] = activate(k->act[0], o);
        a[5 * n + j] = state;
        a[4 * n + j] = a[n + j] * activate(k->act[2], state);
    }
}

/* aux row 4 holds R_h h + Rb_h (reset after) for the gradient of the reset gate. */
static void gru_cell(const rnn *r, const cell *k, const float *x, const float *h, float *a, float *scratch)
{
    int64_t n = r->hidden;
    for (int64_t j = 0; j < 2 * n; j++) {
        a[j] = activate(k->act[0], from_input(r, k, x, j) + from_state(r, k, h, j));
    }
    for (int64_t j = 0; j < n; j++) {
        scratch[j] = r->reset_after ? h[j] : a[n + j] * h[j];
    }
    for (int64_t j = 0; j < n; j++) {
        float state = from_state(r, k, scratch, 2 * n + j);
        a[4 * n + j] = state;
        state = r->reset_after ? a[n + j] * state : state;
        a[2 * n + j] = activate(k->act[1], from_input(r, k, x, 2 * n + j) + state);
        a[3 * n + j] = (1.0f - a[j]) * a[2 * n + j] + a[j] * h[j];
    }
}

static void vanilla_cell(const rnn *r, const cell *k, const float *x, const float *h, float *a)
{
    for (int64_t j = 0; j < r->hidden; j++) {
        a[j] = activate(k->act[0], from_input(r, k, x, j) + from_state(r, k, h, j));
        a[r->hidden + j] = a[j];
    }
}

/* ---- forward ---- */

static const float *initial(const rnn *r, int32_t which, int64_t d, int64_t b, float *zeros)
{
    const gc_tensor *t = input(r->c, which);
    memset(zeros, 0, (size_t)r->hidden * sizeof *zeros);
    return t == NULL ? zeros : (const float *)t->data + state_at(r, d, b);
}

static void put(gc_tensor *t, int64_t at, const float *src, int64_t n)
{
    if (t != NULL) {
        memcpy((float *)t->data + at, src, (size_t)n * sizeof *src);
    }
}

static gc_status sequence_forward(const rnn *r, int64_t d, int64_t b)
{
    gc_op_call *c = r->c;
    cell k = cell_of(r, d);
    int64_t n = r->hidden, length;
    float *zero_h = c->work, *zero_c = zero_h + n, *scratch = zero_c + n;
    const float *h = initial(r, IN_H0, d, b, zero_h);
    const float *state = initial(r, IN_C0, d, b, zero_c);
    GC_TRY(length_of(r, b, &length));
    for (int64_t s = 0; s < length; s++) {
        int64_t t = time_of(r, d, s, length);
        const float *x = (const float *)c->in[IN_X]->data + x_at(r, t, b);
        float *a = aux_at(r, s, d, b);
        if (r->gates == CELL_LSTM) {
            lstm_cell(r, &k, x, h, state, a);
        } else if (r->gates == CELL_GRU) {
            gru_cell(r, &k, x, h, a, scratch);
        } else {
            vanilla_cell(r, &k, x, h, a);
        }
        h = a + r->gates * n;
        state = h + n;
        put(c->out[0], y_at(r, t, d, b), h, n);
    }
    if (c->n_out > 1) {
        put(c->out[1], state_at(r, d, b), h, n);
    }
    if (c->n_out > 2) {
        put(c->out[2], state_at(r, d, b), state, n);
    }
    return GRADCAM_OK;
}

static gc_status rnn_forward(gc_op_call *c, int32_t gates)
{
    rnn r;
    GC_TRY(rnn_read(c, gates, &r));
    if (c->out[0] != NULL) {
        memset(c->out[0]->data, 0, (size_t)gc_numel(c->out[0]) * sizeof(float));
    }
    for (int64_t d = 0; d < r.dirs; d++) {
        for (int64_t b = 0; b < r.batch; b++) {
            GC_TRY(sequence_forward(&r, d, b));
        }
    }
    return GRADCAM_OK;
}

static gc_status lstm_forward(gc_op_call *c)
{
    return rnn_forward(c, CELL_LSTM);
}

static gc_status gru_forward(gc_op_call *c)
{
    return rnn_forward(c, CELL_GRU);
}

static gc_status vanilla_forward(gc_op_call *c)
{
    return rnn_forward(c, CELL_RNN);
}

/* ---- backward ---- */

/* d[0..G*H): gradients before activation; dh and dc become those of the state before. */
static void lstm_cell_back(const rnn *r, const cell *k, const float *a, const float *c_before, float *d, float *dh,
                           float *dc)
{
    int64_t n = r->hidden;
    for (int64_t j = 0; j < n; j++) {
        float tc = activate(k->act[2], a[5 * n + j]);
        d[n + j] = dh[j] * tc * slope(k->act[0], a[n + j]);
        float g = dc[j] + dh[j] * a[n + j] * slope(k->act[2], tc) + (k->p ? d[n + j] * k->p[n + j] : 0.0f);
        d[j] = g * a[3 * n + j] * slope(k->act[0], a[j]);
        d[2 * n + j] = g * c_before[j] * slope(k->act[0], a[2 * n + j]);
        d[3 * n + j] = g * a[j] * slope(k->act[1], a[3 * n + j]);
        dc[j] = g * a[2 * n + j] + (k->p ? d[j] * k->p[j] + d[2 * n + j] * k->p[2 * n + j] : 0.0f);
        dh[j] = 0.0f;
    }
}

static void add_rows(float *sum, const float *m, int64_t rows, int64_t columns, const float *d)
{
    for (int64_t j = 0; j < rows; j++) {
        for (int64_t i = 0; i < columns; i++) {
            sum[i] += d[j] * m[j * columns + i];
        }
    }
}

/* Leaves in dh what reaches h without the matrices of z and r; those follow. */
static void gru_cell_back(const rnn *r, const cell *k, const float *a, const float *h_before, float *d, float *dh,
                          float *scratch)
{
    int64_t n = r->hidden;
    for (int64_t j = 0; j < n; j++) {
        d[2 * n + j] = dh[j] * (1.0f - a[j]) * slope(k->act[1], a[2 * n + j]);
        d[j] = dh[j] * (h_before[j] - a[2 * n + j]) * slope(k->act[0], a[j]);
        dh[j] *= a[j];
        scratch[j] = r->reset_after ? d[2 * n + j] * a[n + j] : d[2 * n + j];
        scratch[n + j] = 0.0f;
    }
    float *through = scratch + n; /* gradient of what R_h was applied to */
    add_rows(through, k->r + 2 * n * n, n, n, scratch);
    for (int64_t j = 0; j < n; j++) {
        float reset = r->reset_after ? d[2 * n + j] * a[4 * n + j] : through[j] * h_before[j];
        d[n + j] = reset * slope(k->act[0], a[n + j]);
        dh[j] += r->reset_after ? through[j] : through[j] * a[n + j];
    }
}

static void vanilla_cell_back(const rnn *r, const cell *k, const float *a, float *d, float *dh)
{
    for (int64_t j = 0; j < r->hidden; j++) {
        d[j] = dh[j] * slope(k->act[0], a[j]);
        dh[j] = 0.0f;
    }
}

static void take(const gc_op_call *c, int32_t i, int64_t at, float *sum, int64_t n)
{
    const gc_tensor *g = i < c->n_out ? c->grad_out[i] : NULL;
    for (int64_t j = 0; g != NULL && j < n; j++) {
        sum[j] += ((const float *)g->data)[at + j];
    }
}

static void step_back(const rnn *r, const cell *k, int64_t s, int64_t d, int64_t b, int64_t t, float *work)
{
    gc_op_call *c = r->c;
    int64_t n = r->hidden;
    float *dg = work, *dh = work + r->gates * n, *dc = dh + n, *zeros = dc + n, *scratch = zeros + n;
    const float *a = aux_at(r, s, d, b);
    const float *before = s > 0 ? aux_at(r, s - 1, d, b) + r->gates * n : initial(r, IN_H0, d, b, zeros);
    take(c, 0, y_at(r, t, d, b), dh, n);
    if (r->gates == CELL_LSTM) {
        const float *state = s > 0 ? before + n : initial(r, IN_C0, d, b, zeros);
        lstm_cell_back(r, k, a, state, dg, dh, dc);
        add_rows(dh, k->r, 4 * n, n, dg);
    } else if (r->gates == CELL_GRU) {
        gru_cell_back(r, k, a, before, dg, dh, scratch);
        add_rows(dh, k->r, 2 * n, n, dg);
    } else {
        vanilla_cell_back(r, k, a, dg, dh);
        add_rows(dh, k->r, n, n, dg);
    }
    if (c->grad_in[IN_X] != NULL) {
        add_rows((float *)c->grad_in[IN_X]->data + x_at(r, t, b), k->w, r->gates * n, r->in, dg);
    }
}

static gc_status sequence_backward(const rnn *r, int64_t d, int64_t b)
{
    gc_op_call *c = r->c;
    cell k = cell_of(r, d);
    int64_t n = r->hidden, length;
    float *work = c->work, *dh = work + r->gates * n, *dc = dh + n;
    GC_TRY(length_of(r, b, &length));
    memset(dh, 0, (size_t)(2 * n) * sizeof *dh);
    take(c, 1, state_at(r, d, b), dh, n);
    take(c, 2, state_at(r, d, b), dc, n);
    for (int64_t s = length - 1; s >= 0; s--) {
        step_back(r, &k, s, d, b, time_of(r, d, s, length), work);
    }
    put(c->n_in > IN_H0 ? c->grad_in[IN_H0] : NULL, state_at(r, d, b), dh, n);
    put(c->n_in > IN_C0 ? c->grad_in[IN_C0] : NULL, state_at(r, d, b), dc, n);
    return GRADCAM_OK;
}

static gc_status rnn_backward(gc_op_call *c, int32_t gates)
{
    rnn r;
    GC_TRY(rnn_read(c, gates, &r));
    for (int32_t i = IN_W; i < c->n_in; i++) {
        if (c->grad_in[i] != NULL && i != IN_H0 && i != IN_C0) {
            return gc_op_fail(c, GRADCAM_E_NO_GRADIENT, "weights that are computed from data have no gradient");
        }
    }
    if (c->grad_in[IN_X] != NULL) {
        memset(c->grad_in[IN_X]->data, 0, (size_t)gc_numel(c->grad_in[IN_X]) * sizeof(float));
    }
    for (int64_t d = 0; d < r.dirs; d++) {
        for (int64_t b = 0; b < r.batch; b++) {
            GC_TRY(sequence_backward(&r, d, b));
        }
    }
    return GRADCAM_OK;
}

static gc_status lstm_backward(gc_op_call *c)
{
    return rnn_backward(c, CELL_LSTM);
}

static gc_status gru_backward(gc_op_call *c)
{
    return rnn_backward(c, CELL_GRU);
}

static gc_status vanilla_backward(gc_op_call *c)
{
    return rnn_backward(c, CELL_RNN);
}

/* backward reads weights, lengths, initial states and peepholes: all but X and bias */
const gc_op gc_ops_rnn[] = {
    {"LSTM", lstm_infer, lstm_forward, lstm_backward, 0, 0xf6, 0, 3, 8, 3},
    {"GRU", gru_infer, gru_forward, gru_backward, 0, 0x36, 0, 3, 6, 2},
    {"RNN", vanilla_infer, vanilla_forward, vanilla_backward, 0, 0x36, 0, 3, 6, 2},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
