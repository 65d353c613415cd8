/* SPDX-License-Identifier: MIT */
/* TensorProto -> gc_tensor. */
#ifndef GC_ONNX_TENSOR_PB_H
#define GC_ONNX_TENSOR_PB_H

#include "onnx/external.h"

/* Reads the message of n bytes at p.  `name` (name_cap > 0 bytes) says in
   messages which tensor is meant: it receives the tensor's own name, truncated
   to fit, or stays as the caller set it when the tensor has none.
   err->offset is counted from p.  The tensor may have max_bytes in memory. */
gc_status gc_onnx_tensor(gc_external *external, uint64_t max_bytes, const unsigned char *p, size_t n, char *name,
                         size_t name_cap, gc_tensor **out, gc_error *err);

/* The element type that tensors of that ONNX data_type get, 0 if refused. */
gc_dtype gc_onnx_dtype(uint64_t data_type);
/* The ONNX name of a data_type. */
const char *gc_onnx_dtype_name(uint64_t data_type);

#endif
