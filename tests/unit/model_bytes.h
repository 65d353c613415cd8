/* SPDX-License-Identifier: MIT */
/* ONNX models written byte by byte: the protobuf wire format, and the messages
   that the tests of the loader need.  A message is a value; a part is written
   into its parent once it is complete. */
#ifndef MODEL_BYTES_H
#define MODEL_BYTES_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "gradcam/gradcam.h"
#include "unit.h"

typedef struct pb {
    size_t n;
    unsigned char bytes[16384];
} pb;

/* Cuts off what does not fit; no test comes near. */
static inline void pb_raw(pb *m, const void *p, size_t n)
{
    if (n <= sizeof m->bytes - m->n) {
        memcpy(m->bytes + m->n, p, n);
        m->n += n;
    }
}

static inline void pb_number(pb *m, uint64_t v)
{
    do {
        unsigned char byte = (unsigned char)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        pb_raw(m, &byte, 1);
        v >>= 7;
    } while (v > 0);
}

static inline void pb_tag(pb *m, uint32_t field, uint32_t type)
{
    pb_number(m, (uint64_t)field << 3 | type);
}

static inline void pb_int(pb *m, uint32_t field, uint64_t v)
{
    pb_tag(m, field, 0);
    pb_number(m, v);
}

static inline void pb_float(pb *m, uint32_t field, float v)
{
    pb_tag(m, field, 5);
    pb_raw(m, &v, 4); /* the tests run where floats are little endian */
}

static inline void pb_bytes(pb *m, uint32_t field, const void *p, size_t n)
{
    pb_tag(m, field, 2);
    pb_number(m, n);
    pb_raw(m, p, n);
}

static inline void pb_text(pb *m, uint32_t field, const char *text)
{
    pb_bytes(m, field, text, strlen(text));
}

static inline void pb_part(pb *m, uint32_t field, const pb *part)
{
    pb_bytes(m, field, part->bytes, part->n);
}

/* ---- ONNX messages; absent parts are NULL ---- */

/* TensorProto without data. */
static inline pb tensor_head(const char *name, uint64_t type, size_t ndim, const int64_t *dims)
{
    pb t = {0, {0}};
    for (size_t k = 0; k < ndim; k++) {
        pb_int(&t, 1, (uint64_t)dims[k]);
    }
    pb_int(&t, 2, type);
    pb_text(&t, 8, name);
    return t;
}

static inline pb tensor_raw(const char *name, uint64_t type, int64_t dim, const void *data, size_t bytes)
{
    pb t = tensor_head(name, type, 1, &dim);
    pb_bytes(&t, 9, data, bytes);
    return t;
}

static inline void pb_external(pb *tensor, const char *key, const char *value)
{
    pb entry = {0, {0}};
    pb_text(&entry, 1, key);
    pb_text(&entry, 2, value);
    pb_part(tensor, 13, &entry);
}

/* ValueInfoProto of a float tensor with one dimension. */
static inline pb value_info(const char *name, int64_t dim)
{
    pb v = {0, {0}}, type = v, tensor = v, shape = v, d = v;
    pb_int(&d, 1, (uint64_t)dim);
    pb_part(&shape, 1, &d);
    pb_int(&tensor, 1, 1);
    pb_part(&tensor, 2, &shape);
    pb_part(&type, 1, &tensor);
    pb_text(&v, 1, name);
    pb_part(&v, 2, &type);
    return v;
}

/* NodeProto; names separated by spaces. */
static inline void pb_words(pb *m, uint32_t field, const char *words)
{
    while (*words != '\0') {
        size_t n = strcspn(words, " ");
        pb_bytes(m, field, words, n);
        words += n + (words[n] == ' ');
    }
}

static inline pb node(const char *op, const char *inputs, const char *outputs, const pb *attr)
{
    pb n = {0, {0}};
    pb_words(&n, 1, inputs);
    pb_words(&n, 2, outputs);
    pb_text(&n, 4, op);
    if (attr != NULL) {
        pb_part(&n, 5, attr);
    }
    return n;
}

static inline pb attr_float(const char *name, float v)
{
    pb a = {0, {0}};
    pb_text(&a, 1, name);
    pb_float(&a, 2, v);
    pb_int(&a, 20, 1);
    return a;
}

/* ModelProto around a graph, with opset 17. */
static inline pb model(const pb *graph)
{
    pb m = {0, {0}}, opset = m;
    pb_int(&m, 1, 8);
    pb_part(&m, 7, graph);
    pb_int(&opset, 2, 17);
    pb_part(&m, 8, &opset);
    return m;
}

/* x float[3] -> y, with one node and perhaps an initializer. */
static inline pb graph_of(const pb *only_node, const pb *weight)
{
    pb g = {0, {0}}, x = value_info("x", 3), y = value_info("y", 3);
    pb_part(&g, 1, only_node);
    if (weight != NULL) {
        pb_part(&g, 5, weight);
    }
    pb_part(&g, 11, &x);
    pb_part(&g, 12, &y);
    return g;
}

/* x + w, for models about w. */
static inline pb adding(const pb *weight)
{
    pb n = node("Add", "x w", "y", NULL), g = graph_of(&n, weight);
    return model(&g);
}

/* ---- judging ---- */

/* Loads; the status must be `status` and the message hold `text`. */
static inline gc_net *load_as(tally *t, gc_ctx *ctx, const pb *m, const gc_load_options *options, gc_status status,
                              const char *text, const char *what)
{
    gc_net *net = NULL;
    gc_error err;
    memset(&err, 0, sizeof err);
    gc_status got = gc_net_load_memory(ctx, m->bytes, m->n, options, &net, &err);
    int ok = got == status && (got == GRADCAM_OK || (strstr(err.message, text) != NULL && net == NULL));
    expect(t, ok, what);
    if (!ok) {
        printf("    %s, \"%s\"; expected %s with \"%s\"\n", gc_status_name(got), err.message, gc_status_name(status),
               text);
    }
    return net;
}

static inline void refused(tally *t, gc_ctx *ctx, const pb *m, gc_status status, const char *text, const char *what)
{
    gc_net_unref(load_as(t, ctx, m, NULL, status, text, what));
}

#endif
