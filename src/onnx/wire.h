/* SPDX-License-Identifier: MIT */
/* The protobuf wire format, read over (pointer, end).  Never past the end,
   never recursive. */
#ifndef GC_ONNX_WIRE_H
#define GC_ONNX_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GC_WIRE_VARINT = 0, GC_WIRE_64 = 1, GC_WIRE_BYTES = 2, GC_WIRE_32 = 5 };

typedef struct gc_wire {
    const unsigned char *p;
    const unsigned char *end;
} gc_wire;

typedef struct gc_field {
    const unsigned char *at; /* where the field's tag begins */
    const unsigned char *p;  /* GC_WIRE_BYTES: the content */
    size_t n;
    uint64_t value; /* the other types */
    uint32_t number;
    uint32_t type;
} gc_field;

/* The elements of a repeated scalar: one (unpacked) or a packed run. */
typedef struct gc_scalars {
    gc_wire w;
    uint64_t value;
    uint32_t type;
    int32_t single; /* 1: `value` is still to come */
} gc_scalars;

gc_wire gc_wire_make(const unsigned char *p, size_t n);
/* 1: *f is the next field; 0: the end; -1: malformed at w->p.  Groups are skipped. */
int gc_wire_next(gc_wire *w, gc_field *f);
/* Likewise, but of GC_WIRE_BYTES only the length, in f->value: the content may lie
   elsewhere.  False: malformed, or a group. */
bool gc_wire_head(gc_wire *w, gc_field *f);
/* Fields of that number and wire type in the message; false: malformed. */
bool gc_wire_count(gc_wire w, uint32_t number, uint32_t type, size_t *count);

/* False when the field is neither of `type` nor packed (then it is unknown). */
bool gc_scalars_begin(gc_scalars *s, const gc_field *f, uint32_t type);
/* 1: *value is set; 0: the end; -1: malformed. */
int gc_scalars_next(gc_scalars *s, uint64_t *value);

/* Bit patterns as signed integers and as floats. */
int64_t gc_bits_i64(uint64_t v);
int32_t gc_bits_i32(uint64_t v);
float gc_bits_f32(uint64_t v);
double gc_bits_f64(uint64_t v);

#endif
