/* SPDX-License-Identifier: MIT */
/*
 * libgradcam: ask a neural network why.
 *
 * A host loads (or builds) a network, makes a run, binds inputs and calls one
 * of the four methods:  gc_cam, gc_gradcam, gc_guided_backprop,
 * gc_guided_gradcam.  Ten lines of C are enough; see README.md.
 *
 * Rules that hold everywhere unless an item says otherwise:
 *  - Status: every call that can fail returns gc_status; 0 is success, errors
 *    are negative.  On error no output argument is changed.
 *  - gc_error: may be NULL.  Set struct_size (or zero it all); on error it is
 *    filled with what was wrong, where, and what to do; on success not touched.
 *  - Structs: zero is the default for every field.  struct_size is sizeof the
 *    struct, or 0 for the size it had in its first version.  Structs grow at
 *    the end; bytes that the library does not know must be zero, else
 *    GRADCAM_E_ABI.  This holds for structs that the library fills, too.
 *  - Threads: a gc_net is immutable and may be shared by threads, each with a
 *    gc_run of its own; a gc_run and a gc_builder are used by one thread at a
 *    time.  Reference counts are atomic.  There is no global state.
 *  - Ownership: what comes from a _create, _load, _finish or a method is the
 *    caller's to release with _unref or _destroy (NULL is allowed there); what
 *    is said to be borrowed is not.
 *  - Strings are UTF-8 and NUL-terminated; dimensions are int64_t.
 */
#ifndef GRADCAM_GRADCAM_H
#define GRADCAM_GRADCAM_H

#include <stddef.h>
#include <stdint.h>

#ifndef GRADCAM_API
#if defined(_WIN32) && defined(GRADCAM_BUILD_DLL)
#define GRADCAM_API __declspec(dllexport)
#elif defined(_WIN32) && defined(GRADCAM_USE_DLL)
#define GRADCAM_API __declspec(dllimport)
#elif defined(__GNUC__)
#define GRADCAM_API __attribute__((visibility("default")))
#else
#define GRADCAM_API
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- 1. version --------------------------------------------------------- */

#define GRADCAM_VERSION_MAJOR 0
#define GRADCAM_VERSION_MINOR 1
#define GRADCAM_VERSION_PATCH 0

/* The library's version as major << 16 | minor << 8 | patch. */
GRADCAM_API uint32_t gc_version(void);
/* The same as text, for example "0.1.0"; static storage. */
GRADCAM_API const char *gc_version_string(void);

/* ---- 2. status and errors ----------------------------------------------- */

typedef int32_t gc_status;
enum {
    GRADCAM_OK = 0,
    GRADCAM_E_INVALID = -1,      /* an argument is wrong */
    GRADCAM_E_NOMEM = -2,        /* the allocator returned NULL */
    GRADCAM_E_IO = -3,           /* a file or reader failed */
    GRADCAM_E_FORMAT = -4,       /* the model is malformed */
    GRADCAM_E_UNSUPPORTED = -5,  /* valid, but not implemented here */
    GRADCAM_E_NOT_FOUND = -6,    /* no such value, node, input, output */
    GRADCAM_E_SHAPE = -7,        /* shapes do not fit */
    GRADCAM_E_DTYPE = -8,        /* element types do not fit */
    GRADCAM_E_LIMIT = -9,        /* a limit was exceeded */
    GRADCAM_E_NO_GRADIENT = -10, /* the gradient stops before it arrives */
    GRADCAM_E_STATE = -11,       /* call out of order */
    GRADCAM_E_ABI = -12,         /* struct from a newer header uses new fields */
    GRADCAM_E_CANCELLED = -13,   /* a callback asked to stop */
    GRADCAM_E_CALLBACK = -14,    /* a host callback failed; see user_code */
    GRADCAM_E_INTERNAL = -15     /* a defect of the library; please report */
};

/* Filled on failure; caller-owned.  `message` is one UTF-8 line. */
typedef struct gc_error {
    uint32_t struct_size;
    gc_status status;
    int32_t user_code; /* what a host callback returned, else 0 */
    int32_t node;      /* index of the node concerned, or -1 */
    uint64_t offset;   /* byte offset in the model file, or 0 */
    char message[488]; /* truncated if longer */
} gc_error;

/* "GRADCAM_E_SHAPE" and so on; static storage; never NULL. */
GRADCAM_API const char *gc_status_name(gc_status status);

/* ---- 3. host services --------------------------------------------------- */

/* Memory.  `align` is a power of two <= 64.  alloc returns NULL when there is
   none; release gets the size and alignment that alloc got.  Both may be called
   from every thread that uses the context. */
typedef struct gc_allocator {
    uint32_t struct_size;
    uint32_t reserved0;
    void *user;
    void *(*alloc)(void *user, size_t size, size_t align);
    void (*release)(void *user, void *ptr, size_t size, size_t align);
} gc_allocator;

enum { GRADCAM_LOG_ERROR = 1, GRADCAM_LOG_WARNING = 2, GRADCAM_LOG_INFO = 3 };
/* Log lines with level <= max_level reach `log`; called on the calling thread. */
typedef struct gc_logger {
    uint32_t struct_size;
    int32_t max_level;
    void *user;
    void (*log)(void *user, int32_t level, const char *line);
} gc_logger;

typedef void (*gc_task_fn)(void *task, uint32_t index);
/* A job system: parallel_for calls fn(task, i) once for every i < count, on
   any threads, and returns when all are done.  Results never depend on the
   number of threads or on the order.  Nonzero return: the call failed. */
typedef struct gc_executor {
    uint32_t struct_size;
    uint32_t n_workers;
    void *user;
    int32_t (*parallel_for)(void *user, gc_task_fn fn, void *task, uint32_t count);
} gc_executor;

/* Random access to a model.  read_at returns the number of bytes read (less
   than size only at the end) or a negative value; size returns the length. */
typedef struct gc_reader {
    uint32_t struct_size;
    uint32_t reserved0;
    void *user;
    int64_t (*read_at)(void *user, uint64_t offset, void *dst, size_t size);
    int64_t (*size)(void *user);
} gc_reader;

/* ---- 4. context --------------------------------------------------------- */

typedef struct gc_ctx gc_ctx;
typedef struct gc_ctx_options {
    uint32_t struct_size;
    uint32_t n_threads;            /* built-in pool; 0 or 1: caller's thread only */
    const gc_allocator *allocator; /* NULL: malloc and free; copied */
    const gc_logger *logger;       /* NULL: silent; copied */
    const gc_executor *executor;   /* NULL: n_threads decides; copied */
    /* The kernels to run with, one of gc_kernels; NULL: the best, gc_kernels(0).
       A name rather than bits of CPU features, since it is whole sets of kernels
       that are compared, timed and named in bug reports.  Weights are packed for
       one set, so it is the same as long as the context lives. */
    const char *kernels;
} gc_ctx_options;

/* Makes a context; options may be NULL.  Reference-counted: networks and runs
   keep it alive.  ref (returns ctx) and unref may be called from any thread.
   Errors: INVALID (half an allocator, an executor without parallel_for, more
   than 1024 threads), NOT_FOUND (kernels), ABI, NOMEM (also when a thread cannot be started). */
GRADCAM_API gc_status gc_ctx_create(const gc_ctx_options *options, gc_ctx **out, gc_error *err);
GRADCAM_API gc_ctx *gc_ctx_ref(gc_ctx *ctx);
GRADCAM_API void gc_ctx_unref(gc_ctx *ctx);
/* The sets of kernels that this machine can run, by name, best first, such as
   "avx512", "avx2", "v4" (128 bits, any CPU) and "plain" (no vectors); static
   storage.  NULL past the end; "plain" is always there.  Where the library was built
   with a CBLAS, "cblas" stands before "plain": the best set, but large products of Gemm,
   MatMul and their gradients are cblas_sgemm's.  These run on the threads of that
   BLAS, not of the context, allocate what it allocates, and their bits are its
   affair; no other set depends on it. */
GRADCAM_API const char *gc_kernels(int32_t index);

/* ---- 5. tensors --------------------------------------------------------- */

typedef int32_t gc_dtype;
enum {
    GRADCAM_F32 = 1,
    GRADCAM_F64 = 2,
    GRADCAM_F16 = 3,
    GRADCAM_BF16 = 4,
    GRADCAM_I64 = 5,
    GRADCAM_I32 = 6,
    GRADCAM_U8 = 7,
    GRADCAM_BOOL = 8
};
#define GRADCAM_MAX_DIMS 8

typedef struct gc_tensor gc_tensor;
/* Describes memory: `shape[0..ndim)`, `strides` in elements (all zero means
   row-major).  data == NULL in gc_tensor_create: the library allocates zeros.
   With `release` the tensor owns the data; without it the data is borrowed
   and must outlive the tensor. */
typedef struct gc_tensor_desc {
    uint32_t struct_size;
    gc_dtype dtype;
    int32_t ndim;
    uint32_t reserved0;
    int64_t shape[GRADCAM_MAX_DIMS];
    int64_t strides[GRADCAM_MAX_DIMS];
    void *data;
    void (*release)(void *user, void *data);
    void *user;
    void *reserved1;
} gc_tensor_desc;

/* Makes a tensor with one reference; desc itself is copied.  Dimensions may be 0,
   ndim 0 is a scalar.  On an error `release` is not called: the data stay the
   host's.  Errors: INVALID (a NULL), DTYPE (unknown type), SHAPE (more than 8
   dimensions, a negative one, or a size that overflows), ABI, NOMEM.
       gc_tensor_desc d = {0};
       d.dtype = GRADCAM_F32, d.ndim = 4, d.data = pixels;
       d.shape[0] = 1, d.shape[1] = 3, d.shape[2] = d.shape[3] = 224;
       gc_tensor_create(ctx, &d, &image, &err);                            */
GRADCAM_API gc_status gc_tensor_create(gc_ctx *ctx, const gc_tensor_desc *desc, gc_tensor **out, gc_error *err);
/* Fills *desc, which need not be prepared: struct_size is set, not read, and the fields
   above are all that this function will ever write.  Strides are explicit, in
   elements; `data` is the tensor's own memory, valid as long as the tensor; `release`
   and `user` are NULL.  Only a NULL argument is an error, GRADCAM_E_INVALID. */
GRADCAM_API gc_status gc_tensor_describe(const gc_tensor *t, gc_tensor_desc *desc);
/* Copies element by element, any strides on either side, with conversion of the
   type; dst keeps its own.  Errors: INVALID (a NULL), SHAPE (the shapes differ). */
GRADCAM_API gc_status gc_tensor_copy(const gc_tensor *src, gc_tensor *dst, gc_error *err);
/* One reference more (t is returned; NULL gives NULL) or less; at the last one
   `release` is called on the thread that lets go.  A tensor that is borrowed from a
   run or a callback is not counted: gc_tensor_ref does not make it last. */
GRADCAM_API gc_tensor *gc_tensor_ref(gc_tensor *t);
GRADCAM_API void gc_tensor_unref(gc_tensor *t);
/* Bytes of one element, 0 for an unknown type. */
GRADCAM_API size_t gc_dtype_size(gc_dtype dtype);

/* ---- 6. networks -------------------------------------------------------- */

typedef struct gc_net gc_net;
/* Where the weights of a loaded network are, see gc_load_options.weights. */
enum { GRADCAM_WEIGHTS_COPY = 0, GRADCAM_WEIGHTS_ON_DEMAND = 1 };
/* A model is untrusted input: what it may cost is bounded before it is spent,
   and GRADCAM_E_LIMIT names the bound.  Besides these, calls of local functions
   nest at most 64 deep, branches and bodies of loops at most 16. */
typedef struct gc_load_options {
    uint32_t struct_size;
    uint32_t max_nodes; /* 0: 200,000, functions inlined; the turns of loops may have an eighth of it more */
    /* Of the model, of its weights, and of what a run computes from constants
       alone; each; 0: 4 GiB. */
    uint64_t max_bytes;
    /* Reads `size` bytes of weights kept outside the model, at `offset` of what
       the model calls `location`: a path downwards, components separated by '/',
       without "..", backslash and colon.  0 is success, anything else ends the load with
       GRADCAM_E_CALLBACK.  NULL: gc_net_load_file reads regular files beneath the
       model's folder, links not followed; the other two refuse such models. */
    int32_t (*read_external)(void *user, const char *location, uint64_t offset, void *dst, size_t size);
    void *external_user;
    uint64_t max_run_bytes; /* of activations, gradients and workspace of one run; 0: 8 GiB */
    /* GRADCAM_WEIGHTS_COPY: the network has a copy of all weights; the model is not
       needed any more.  GRADCAM_WEIGHTS_ON_DEMAND: large float32 weights are read when a
       run prepares, straight into the form that it computes with, and again when
       another run wants another form.  That takes half of the memory, and the time of
       loading.  The model has to stay as it is as long as the network lives:
       gc_net_load_file keeps the file open and never maps it, so that a file that
       was changed makes gc_run_prepare fail with GRADCAM_E_IO and nothing worse (its name may
       go, or name another file); gc_net_load_reader calls the reader on whichever
       threads prepare; gc_net_load_memory borrows `data` and computes from it where
       it can.  Small weights, other types and those in files of their own are copied. */
    uint32_t weights;
    uint32_t reserved0;
} gc_load_options;

/* Loads an ONNX model (opset 6 and later, and older ones whose operators did not
   change until 6).  A model that uses an operator which is not implemented is
   refused with a message that lists all such nodes.  Files and readers are read in
   parts, never whole where their weights are large.
   path: as the C library opens it.  data: read during the call only.  reader:
   called during the call only; for all three see gc_load_options.weights.
   options NULL: all zero.  The net has one reference and keeps ctx alive.
   Errors: INVALID (a NULL), IO (the file or the reader), FORMAT (no ONNX model,
   or a contradiction in it; gc_error.offset says where when that is known),
   UNSUPPORTED (operators, types or opsets), LIMIT, CALLBACK (read_external),
   NOMEM, ABI. */
GRADCAM_API gc_status gc_net_load_file(gc_ctx *ctx, const char *path, const gc_load_options *options, gc_net **out,
                                       gc_error *err);
GRADCAM_API gc_status gc_net_load_memory(gc_ctx *ctx, const void *data, size_t size, const gc_load_options *options,
                                         gc_net **out, gc_error *err);
GRADCAM_API gc_status gc_net_load_reader(gc_ctx *ctx, const gc_reader *reader, const gc_load_options *options,
                                         gc_net **out, gc_error *err);
/* One reference more (net is returned) or less, from any thread. */
GRADCAM_API gc_net *gc_net_ref(gc_net *net);
GRADCAM_API void gc_net_unref(gc_net *net);

/* Queries.  Strings live as long as the network.  Indices out of range give
   NULL or -1. */
GRADCAM_API int32_t gc_net_node_count(const gc_net *net);
/* The node's name, and its operator's, such as "Conv". */
GRADCAM_API const char *gc_net_node_name(const gc_net *net, int32_t node);
GRADCAM_API const char *gc_net_node_op(const gc_net *net, int32_t node);
GRADCAM_API int32_t gc_net_node_output_count(const gc_net *net, int32_t node);
/* The value that output k of the node is called. */
GRADCAM_API const char *gc_net_node_output(const gc_net *net, int32_t node, int32_t k);
/* Likewise of its inputs, weights among them; "" for one left out. */
GRADCAM_API int32_t gc_net_node_input_count(const gc_net *net, int32_t node);
GRADCAM_API const char *gc_net_node_input(const gc_net *net, int32_t node, int32_t k);
/* The node whose output a value is, or -1 (inputs, weights, unknown names). */
GRADCAM_API int32_t gc_net_producer(const gc_net *net, const char *value);
/* What has to be bound before a run; weights are not among them. */
GRADCAM_API int32_t gc_net_input_count(const gc_net *net);
GRADCAM_API const char *gc_net_input_name(const gc_net *net, int32_t k);
/* Declared type and shape of an input; a symbolic dimension is -1, an
   undeclared rank is ndim -1. */
GRADCAM_API gc_status gc_net_input_desc(const gc_net *net, int32_t k, gc_tensor_desc *desc);
/* Elements of all floating-point weights, those inside Constant nodes left out. */
GRADCAM_API int64_t gc_net_parameter_count(const gc_net *net);
/* In the model's order; the first is what a target means by default. */
GRADCAM_API int32_t gc_net_output_count(const gc_net *net);
GRADCAM_API const char *gc_net_output_name(const gc_net *net, int32_t k);

/* Building by hand: operators are named and attributed as in ONNX. */
typedef struct gc_builder gc_builder;
typedef int32_t gc_attr_kind;
enum {
    GRADCAM_ATTR_INT = 1,    /* data: const int64_t *, count 1 */
    GRADCAM_ATTR_FLOAT = 2,  /* data: const float *, count 1 */
    GRADCAM_ATTR_STRING = 3, /* data: const char *, count bytes */
    GRADCAM_ATTR_INTS = 4,   /* data: const int64_t * */
    GRADCAM_ATTR_FLOATS = 5, /* data: const float * */
    GRADCAM_ATTR_TENSOR = 6, /* data: const gc_tensor *, count 1 */
    GRADCAM_ATTR_STRINGS = 7 /* data: const char *, count bytes, one string a line */
};
typedef struct gc_attr {
    const char *name;
    const void *data;
    size_t count;
    gc_attr_kind kind;
    uint32_t reserved0;
} gc_attr;

/* opset: the version of ONNX's operators that is meant, 6 or more, such as 13.
   The builder keeps ctx alive.  All its calls: INVALID (a NULL), STATE (the
   builder is NULL or finished), NOMEM; strings, descriptions and attributes are
   copied and need not outlive the call; tensors are referenced as weights are. */
GRADCAM_API gc_status gc_builder_create(gc_ctx *ctx, int32_t opset, gc_builder **out, gc_error *err);
GRADCAM_API void gc_builder_destroy(gc_builder *b);
/* An input called `name`; shape with -1 for a dimension left open;
   desc->data is not looked at.  FORMAT: a value of that name is there already. */
GRADCAM_API gc_status gc_builder_input(gc_builder *b, const char *name, const gc_tensor_desc *desc, gc_error *err);
/* A weight: the tensor is referenced, not copied; row-major float32 and integers
   are lent as they are, so borrowed data must outlive the network.  Other
   floating types are converted once. */
GRADCAM_API gc_status gc_builder_weight(gc_builder *b, const char *name, gc_tensor *t, gc_error *err);
/* A node; inputs and outputs are value names, NULL or "" for an absent one. */
GRADCAM_API gc_status gc_builder_node(gc_builder *b, const char *op, const char *name, const char *const *inputs,
                                      size_t n_inputs, const char *const *outputs, size_t n_outputs,
                                      const gc_attr *attrs, size_t n_attrs, gc_error *err);
/* Makes a value an output; outputs have the order of these calls. */
GRADCAM_API gc_status gc_builder_output(gc_builder *b, const char *name, gc_error *err);
/* Checks the network and hands it out; the builder stays to be destroyed and
   takes no further calls.  Nodes may have been added in any order.  Refused as a
   model from a file would be, with FORMAT or UNSUPPORTED. */
GRADCAM_API gc_status gc_builder_finish(gc_builder *b, gc_net **out, gc_error *err);

/* Custom operators: what the library does not know, or what the host does
   better.  The three functions see one invocation through a gc_op_call and the
   accessors below; they have the contract of the built-in operators:
     infer     sets the type and shape of every output by gc_op_declare_output;
               input data is NULL unless the input is a constant
     forward   writes every element of every output
     backward  for every i with gc_op_grad_input(call, i) != NULL overwrites it
               with the gradient; gc_op_grad_output may be NULL, meaning zero
   Tensors are row-major, floating ones float32.  A function returns GRADCAM_OK
   or an error, after gc_op_error if it has something to say.  They may be called
   from several threads at once when runs are. */
typedef struct gc_op_call gc_op_call;
enum {
    GRADCAM_OP_ACTIVATION = 1, /* rules of guided backprop apply: one input, same shape */
    GRADCAM_OP_STOPS = 2       /* has no gradient by nature: it is zero, not an error */
};
typedef struct gc_op_def {
    uint32_t struct_size;
    uint32_t flags;
    const char *domain; /* NULL or "": that of ONNX */
    const char *op;
    void *user;
    gc_status (*infer)(void *user, gc_op_call *call);
    gc_status (*forward)(void *user, gc_op_call *call);
    gc_status (*backward)(void *user, gc_op_call *call); /* NULL: no gradient */
    void (*destroy)(void *user);                         /* NULL, or called when the context ends */
} gc_op_def;
/* For networks made afterwards; wins over a built-in operator of that name.
   Strings are copied; INVALID without op, infer or forward.  Not while another thread loads with the same context. */
GRADCAM_API gc_status gc_ctx_register_op(gc_ctx *ctx, const gc_op_def *def, gc_error *err);

/* Inside the functions.  Tensors are borrowed until the function returns, and NULL
   where the input or output is absent or i out of range; counts include absent
   ones at the front and between.  Gradients exist in backward only. */
GRADCAM_API int32_t gc_op_input_count(const gc_op_call *call);
GRADCAM_API int32_t gc_op_output_count(const gc_op_call *call);
GRADCAM_API const gc_tensor *gc_op_input(const gc_op_call *call, int32_t i);
GRADCAM_API gc_tensor *gc_op_output(const gc_op_call *call, int32_t i);
GRADCAM_API const gc_tensor *gc_op_grad_output(const gc_op_call *call, int32_t i);
GRADCAM_API gc_tensor *gc_op_grad_input(const gc_op_call *call, int32_t i);
/* In infer only.  dtype: F32, I64, I32, U8 or BOOL; shape[0..ndim) is copied.  Its
   status is infer's to return: INVALID, SHAPE or LIMIT, with a message of its own. */
GRADCAM_API gc_status gc_op_declare_output(gc_op_call *call, int32_t i, gc_dtype dtype, int32_t ndim,
                                           const int64_t *shape);
/* GRADCAM_E_NOT_FOUND when there is no such attribute; data lives as long as the network. */
GRADCAM_API gc_status gc_op_attr(const gc_op_call *call, const char *name, gc_attr *attr);
/* Says why; returns `status`, which must be negative. */
GRADCAM_API gc_status gc_op_error(gc_op_call *call, gc_status status, const char *message);

/* ---- 7. running --------------------------------------------------------- */

typedef struct gc_run gc_run;
/* One execution of a network: its inputs, activations, gradients and hooks.  It
   keeps the net alive; nothing of size is allocated before gc_run_prepare.
   Destroy it when no other call on it is in progress; NULL is allowed.  Tensors
   that were got from it are gone with it.  Errors: INVALID, NOMEM. */
GRADCAM_API gc_status gc_run_create(gc_net *net, gc_run **out, gc_error *err);
GRADCAM_API void gc_run_destroy(gc_run *run);
/* Borrowed; live as long as the run. */
GRADCAM_API gc_net *gc_run_net(gc_run *run);
GRADCAM_API gc_ctx *gc_run_ctx(gc_run *run);

/* Binds an input; name may be NULL where the network has one input.  The
   tensor is referenced and read at every forward pass, so that its numbers may
   be changed in place between passes; floating types are converted.  A new
   shape makes the next forward pass prepare again.  Errors: INVALID (a NULL),
   NOT_FOUND (no such input, or NULL where there are several), SHAPE (not the
   declared one). */
GRADCAM_API gc_status gc_run_set_input(gc_run *run, const char *name, gc_tensor *t, gc_error *err);

enum { GRADCAM_WATCH_VALUE = 1, GRADCAM_WATCH_GRAD = 2 };
/* Asks that a value (and its gradient) be kept for reading.  Names are value
   names, or node names meaning the node's first output; "loop/2/x" is x in turn
   2 (the third) of the Loop or Scan node loop.  Takes effect with
   the next gc_run_forward and lasts as long as the run: fewer watched values,
   less memory and more fusion.  Outputs of the network are always kept.
   Errors: INVALID (`what` is no combination of the two), NOT_FOUND, NOMEM. */
GRADCAM_API gc_status gc_run_watch(gc_run *run, const char *name, uint32_t what, gc_error *err);

/* Asks for the mean over places of a value's gradient, and that the value be kept:
       m[n, c] = 1 / (P - skip) sum over p from skip to P - 1 of dy/dx[n, c, p]
   where x has the channels on `axis`, which is 1 (feature maps [N, C, spatial...]) or -1
   (tokens [N, places, C]), samples on axis 0, and P places on all others, counted row-major;
   the first `skip` are left out (a class token).  That is what Grad-CAM needs, and it takes
   less time than the gradient where what reads x is linear place by place: poolings that
   hand on the whole gradient, 1x1 convolutions, products of each place or of all of them
   with constant weights, sums, and reshapes between these.  Elsewhere the mean is that of the
   whole gradient.  Takes effect and lasts as gc_run_watch does; the last call for a value counts.
   Errors: INVALID (the axis; skip below 0 or above 2^24 - 1), NOT_FOUND, NOMEM. */
GRADCAM_API gc_status gc_run_watch_mean(gc_run *run, const char *name, int32_t axis, int64_t skip, gc_error *err);

/* Plans for the shapes of the bound inputs and allocates everything.  Done by
   gc_run_forward when needed; afterwards forward and backward allocate nothing.
   Errors: STATE (an input is not bound), SHAPE and DTYPE (an operator cannot
   take what reaches it; gc_error.node names it), LIMIT, NOMEM. */
GRADCAM_API gc_status gc_run_prepare(gc_run *run, gc_error *err);
/* exact 1: convolutions and their gradients are sums of products and nothing
   else; the error is at most the number of products times 2^-24 times the sum of
   their magnitudes.  0, the default: also Winograd's algorithm, which takes less
   time and has a larger error.  Lasts as long as the run; a change makes the next
   forward pass prepare again. */
GRADCAM_API gc_status gc_run_set_exact(gc_run *run, int32_t exact, gc_error *err);
/* GRADCAM_F32, the default, or GRADCAM_BF16: the products of convolutions and of
   Gemm and MatMul with constant weights, forward and to their inputs' gradients,
   round both factors to bfloat16, each by at most 2^-8 of itself, and sum in
   float32; values between such steps that nobody watches are stored so.  Whatever
   a host sees is float32.  docs/performance.md says what this
   does to outputs and maps.  Only where the machine has the instructions: AMX, for which
   this call asks the operating system on behalf of the whole process, or
   AVX512-BF16; the kernels "plain" of gc_ctx_options do it anywhere, slowly.
   Lasts as long as the run; a change makes the next forward pass prepare again.
   Errors: INVALID, UNSUPPORTED (no such instructions; the run stays as it was). */
GRADCAM_API gc_status gc_run_set_precision(gc_run *run, gc_dtype precision, gc_error *err);
/* What the run computes in: GRADCAM_F32 or GRADCAM_BF16.  *kernels (may be NULL)
   becomes the name of the kernels of its products, such as "avx512" or
   "amx_bf16", NULL when run is. */
GRADCAM_API gc_dtype gc_run_precision(const gc_run *run, const char **kernels);
/* Computes every output and every watched value.  Errors: those of
   gc_run_prepare, CALLBACK (a hook, a custom operator or the executor failed),
   CANCELLED. */
GRADCAM_API gc_status gc_run_forward(gc_run *run, gc_error *err);

/* Starts a backward pass at value `name` (NULL: the only output) from `seed`,
   which has the value's shape, down to every value watched with
   GRADCAM_WATCH_GRAD or gc_run_watch_mean.  The seed's value must be kept (an output or watched).
   May be called again and again after one forward pass; gradients are those of
   the last call, not a sum.  The seed is read during the call only; any floating
   type.  Errors: INVALID (no seed), NOT_FOUND, STATE (no forward pass yet, or the
   value was not kept), SHAPE, NO_GRADIENT (an integer value, or an operator on
   the way has no gradient; gc_error.node names it), CALLBACK, CANCELLED. */
GRADCAM_API gc_status gc_run_backward(gc_run *run, const char *name, const gc_tensor *seed, gc_error *err);

/* The value, or its gradient after gc_run_backward, as a view in the network's
   own order of dimensions, with strides of the library's choice.  Borrowed:
   valid until the run prepares again, its numbers until the next pass.
   gc_run_gradient: GRADCAM_E_NO_GRADIENT when the last backward pass did not
   reach the value (the gradient is zero).  Both: NOT_FOUND (also when a loop made
   fewer turns), and STATE when there was no pass yet or the value was not watched. */
GRADCAM_API gc_status gc_run_value(gc_run *run, const char *name, gc_tensor **out, gc_error *err);
GRADCAM_API gc_status gc_run_gradient(gc_run *run, const char *name, gc_tensor **out, gc_error *err);
/* The mean that gc_run_watch_mean asked for, [N, C], after gc_run_backward.  Borrowed until
   the run prepares again, its numbers until the next pass.  Errors: those of gc_run_gradient, and
   SHAPE (a value of rank 0 or 1, without elements, or with no more than `skip` places). */
GRADCAM_API gc_status gc_run_gradient_mean(gc_run *run, const char *name, gc_tensor **out, gc_error *err);
/* Shape and type of any value after gc_run_prepare; data is NULL.  Errors:
   INVALID, NOT_FOUND, STATE (not prepared). */
GRADCAM_API gc_status gc_run_describe(gc_run *run, const char *name, gc_tensor_desc *desc, gc_error *err);
/* Bytes that the prepared run holds for activations, gradients, workspace. */
GRADCAM_API size_t gc_run_arena_bytes(const gc_run *run);
/* Working memory for methods written on top of a run: the row-major tensor
   number `which` with desc's type and shape (its other fields are ignored).  The
   memory is kept with the run and reused while it is large enough, so that the
   same call made again allocates nothing.  Its numbers are undefined at first.
   Borrowed: valid until the next call with the same number, or the run's end.
   Numbers 0 to 7 are the host's; the methods of section 8 use the others.
   Errors: INVALID (no such number, no type or shape of a tensor), NOMEM. */
enum { GRADCAM_SCRATCH_COUNT = 16 };
GRADCAM_API gc_status gc_run_scratch(gc_run *run, int32_t which, const gc_tensor_desc *desc, gc_tensor **out,
                                     gc_error *err);
/* Floating-point operations of a node in one forward pass at the prepared
   shapes: 2 for each multiply-add of a convolution, matrix product or recurrent
   cell; 0 for other operators, whose time is memory, for custom ones and for
   nodes whose result is constant or needed by nobody.  -1 before
   gc_run_prepare or when there is no such node. */
GRADCAM_API int64_t gc_run_node_flops(const gc_run *run, int32_t node);

/* Progress of a pass: called on the thread that runs it, before every step of
   gc_run_forward and gc_run_backward (and so of the methods) and once after the
   last.  A nonzero return stops the pass with GRADCAM_E_CANCELLED and that code
   in gc_error.user_code; values and gradients are then not to be read, and the
   next pass begins anew.  The callback may query the run but not run it.
   fn == NULL: no callback any more.  gc_run_perturb calls it likewise, before every
   step of every batch; it counts variants instead of steps. */
enum { GRADCAM_PROGRESS_VARIANTS = 8 };
typedef struct gc_progress {
    uint32_t struct_size;
    uint32_t phase; /* GRADCAM_HOOK_FORWARD, GRADCAM_HOOK_BACKWARD or GRADCAM_PROGRESS_VARIANTS */
    uint32_t done;  /* steps that are done: 0 to total */
    uint32_t total; /* steps of this pass; of very different length */
    gc_run *run;
} gc_progress;
typedef int32_t (*gc_progress_fn)(void *user, const gc_progress *progress);
GRADCAM_API gc_status gc_run_set_progress(gc_run *run, gc_progress_fn fn, void *user, gc_error *err);

typedef int32_t gc_rule;
enum {
    GRADCAM_RULE_PLAIN = 0,    /* the true gradient */
    GRADCAM_RULE_GUIDED = 1,   /* Springenberg 2015: true derivative times (grad_output > 0) */
    GRADCAM_RULE_DECONVNET = 2 /* Zeiler 2014: max(grad_output, 0), forward sign ignored */
};
/* The rule that gc_run_backward applies at activation nodes: Relu, LeakyRelu,
   PRelu, Elu, Selu, Clip, Sigmoid, HardSigmoid, HardSwish, Softplus, Tanh,
   Gelu, Mish and the like.  The methods of section 8 set it themselves and
   leave it plain. */
GRADCAM_API gc_status gc_run_set_rule(gc_run *run, gc_rule rule, gc_error *err);
/* The nodes at which the last backward pass applied a rule other than plain,
   as indices for gc_net_node_name; -1 when k is out of range. */
GRADCAM_API int32_t gc_run_rule_node_count(const gc_run *run);
GRADCAM_API int32_t gc_run_rule_node(const gc_run *run, int32_t k);

/* Hooks sit on values.  A forward hook sees a value after it was computed, a
   backward hook its complete gradient before it flows on.  With
   GRADCAM_HOOK_WRITE the hook may change the tensor's elements; it must heed
   the strides.  Several hooks on a value are called in the order in which they
   were added; one that is added during a pass takes part from the next pass on
   at the latest.  With GRADCAM_HOOK_PASSING a backward hook does not ask that the
   gradient be there after the pass (gc_run_gradient: STATE), which saves memory. */
enum { GRADCAM_HOOK_FORWARD = 1, GRADCAM_HOOK_BACKWARD = 2, GRADCAM_HOOK_WRITE = 4, GRADCAM_HOOK_PASSING = 8 };
typedef struct gc_hook_event {
    uint32_t struct_size;
    uint32_t phase; /* GRADCAM_HOOK_FORWARD or GRADCAM_HOOK_BACKWARD */
    gc_run *run;
    const char *name;  /* of the value */
    gc_tensor *tensor; /* borrowed until the hook returns */
} gc_hook_event;
/* Nonzero stops the pass with GRADCAM_E_CALLBACK and that code in
   gc_error.user_code.  The callback may add and remove hooks and query the run,
   but not run it. */
typedef int32_t (*gc_hook_fn)(void *user, const gc_hook_event *event);
/* flags: FORWARD or BACKWARD or both, WRITE if it changes numbers, PASSING.  name as in
   gc_run_watch; the value is kept as if watched.  *hook, if hook is not NULL,
   becomes the number for gc_run_remove_hook.  Errors: INVALID, NOT_FOUND, NOMEM. */
GRADCAM_API gc_status gc_run_add_hook(gc_run *run, const char *name, uint32_t flags, gc_hook_fn fn, void *user,
                                      int32_t *hook, gc_error *err);
/* Allowed at any time, also from inside a hook.  NOT_FOUND: no such hook any more. */
GRADCAM_API gc_status gc_run_remove_hook(gc_run *run, int32_t hook);

/* ---- 8. explanations ---------------------------------------------------- */

typedef int32_t gc_target_kind;
enum {
    GRADCAM_TARGET_ARGMAX = 0,  /* the largest class score of each sample */
    GRADCAM_TARGET_CLASS = 1,   /* class `index` on axis 1, summed over further axes */
    GRADCAM_TARGET_ELEMENT = 2, /* one element of the output, row-major flat index */
    GRADCAM_TARGET_SEED = 3     /* the host's own gradient seed */
};
/* What is explained.  Zero: the arg-max class, before a trailing softmax. */
typedef struct gc_target {
    uint32_t struct_size;
    gc_target_kind kind;
    int64_t index;
    const char *output;    /* value name; NULL: the first output */
    const gc_tensor *seed; /* for GRADCAM_TARGET_SEED, shape of the output */
    uint32_t keep_softmax; /* 1: start at the probability itself */
    uint32_t negate;       /* 1: counterfactual, the negated score */
} gc_target;

enum { GRADCAM_POOL_MEAN = 0, GRADCAM_POOL_MAX = 1, GRADCAM_POOL_SUM = 2 };
enum { GRADCAM_GRAD_AS_IS = 0, GRADCAM_GRAD_ABS = 1, GRADCAM_GRAD_POSITIVE = 2 };
enum { GRADCAM_RESIZE_BILINEAR = 0, GRADCAM_RESIZE_ALIGN_CORNERS = 1, GRADCAM_RESIZE_NEAREST = 2 };
enum {
    GRADCAM_WARN_EMPTY = 1,         /* the map is zero everywhere */
    GRADCAM_WARN_CONSTANT = 2,      /* the map has one value */
    GRADCAM_WARN_NAN = 4,           /* the map holds NaN or infinity */
    GRADCAM_WARN_NOT_CONNECTED = 8, /* no gradient path from target to layer */
    GRADCAM_WARN_NO_SPATIAL = 16    /* the layer has no spatial extent */
};

/* What the library chose and saw; strings live as long as the network. */
typedef struct gc_report {
    uint32_t struct_size;
    uint32_t warnings; /* GRADCAM_WARN_* */
    int64_t index;     /* class or element of the first sample */
    double score;      /* its value, before negation */
    const char *layer;
    const char *output; /* the value at which the backward pass began */
    int32_t n_rule_nodes;
    uint32_t reserved0;
} gc_report;

typedef struct gc_explain_options {
    uint32_t struct_size;
    uint32_t signed_map;     /* 1: no ReLU on the map */
    const char *layer;       /* value or node name; NULL: chosen and reported */
    const gc_target *target; /* NULL: all zero */
    int32_t pool;            /* GRADCAM_POOL_* */
    int32_t grad;            /* GRADCAM_GRAD_* */
    gc_rule rule;            /* gc_gradcam: rule of the backward pass; guided
                                methods: 0 means GRADCAM_RULE_GUIDED */
    uint32_t plain_rule;     /* 1: guided methods use the plain gradient */
    int32_t resize;          /* GRADCAM_RESIZE_*, for Guided Grad-CAM and `height` */
    uint32_t reserved0;
    const char *input; /* guided methods: which input; NULL: the first */
    gc_tensor *into;   /* NULL: a new tensor; else written into, F32 and of
                                the right shape; *map is a new reference to it */
    gc_report *report; /* NULL: not reported */
    /* gc_gradcam_layers: NULL, or for each layer NULL or a tensor as `into`. */
    gc_tensor *const *into_layers;
    /* Of layers: 0 or 1: channels on axis 1; -1: on the last axis, as of tokens [N, places, C];
       and how many places at the front are no part of the picture, such as a class token.  Maps have the
       shape of the places, [N, places - skip] where there is a skip.  gc_gradcam and its sweep. */
    int32_t channel_axis;
    uint32_t skip;
    /* Of the maps of gc_cam, gc_gradcam and its sweep: 0, the layer's, or the size to which
       two-dimensional ones are resized by `resize`; then, with normalize 1, as gc_map_normalize does.
       Warnings are about the map before that. */
    int64_t height, width;
    uint32_t normalize;
    uint32_t reserved1;
} gc_explain_options;

/* All of them: inputs must be bound; the forward pass is run.  options may be
   NULL.  *map is a new row-major float32 tensor, the caller's to unref.  Values
   that a method needs stay watched, so that the next call prepares nothing; with
   `into` it allocates nothing either, without it only the map.
   Errors of them all: INVALID (a NULL, an option out of range, a class or element
   that is not there), NOT_FOUND (layer, output or input; or no layer that a map
   could be drawn on), SHAPE (`into`, the seed, a layer without channels), DTYPE,
   ABI, and those of gc_run_forward and gc_run_backward.  A target that does not
   depend on the layer is no error: the map is zero, and the report warns. */

/* CAM, Zhou 2015, eq. 2: M_c(x, y) = sum_k w_k^c f_k(x, y), signed, at the
   layer's resolution: shape [N, spatial...].  The layer must be followed by
   global average pooling and a linear classifier, or by pooling alone; else
   GRADCAM_E_UNSUPPORTED names the node that breaks the pattern. */
GRADCAM_API gc_status gc_cam(gc_run *run, const gc_explain_options *options, gc_tensor **map, gc_error *err);

/* Grad-CAM, Selvaraju 2017, eq. 1 and 2: alpha_k = mean over positions of
   dy/dA_k, map = ReLU(sum_k alpha_k A_k): shape [N, spatial...]. */
GRADCAM_API gc_status gc_gradcam(gc_run *run, const gc_explain_options *options, gc_tensor **map, gc_error *err);

/* Several layers, one forward and one backward pass; maps[i] belongs to
   layers[i].  options->layer and ->into are ignored, see ->into_layers; report
   is of layers[0]. */
GRADCAM_API gc_status gc_gradcam_layers(gc_run *run, const char *const *layers, size_t n_layers,
                                        const gc_explain_options *options, gc_tensor **maps, gc_error *err);

/* Guided backpropagation, Springenberg 2015: the gradient of the score with
   respect to the input under a rule at activations; shape of the input. */
GRADCAM_API gc_status gc_guided_backprop(gc_run *run, const gc_explain_options *options, gc_tensor **map,
                                         gc_error *err);

/* Guided Grad-CAM, Selvaraju 2017: the product of guided backpropagation and
   the Grad-CAM map resized to the input; shape of the input.  UNSUPPORTED when
   the input is not [N, C, H, W] or the map not two-dimensional. */
GRADCAM_API gc_status gc_guided_gradcam(gc_run *run, const gc_explain_options *options, gc_tensor **map, gc_error *err);

/* The values that a map can be drawn on: float32 with a spatial extent, on a way
   to the target (NULL: all zero), not made by a pooling.  Feature maps, channels
   on axis 1, that come of a convolution; only where there are none, whatever
   has the rank of one.  Deepest first, so names[0] is the layer that is taken when
   options->layer is NULL.  Writes up to `capacity` names, which live as long as
   the network, and the number of all to *count; with capacity 0, where names may be
   NULL, it counts.  Prepares the run.  That there is none is no error.  Errors: INVALID
   (a NULL), NOT_FOUND (the target's output), and those of gc_run_prepare. */
GRADCAM_API gc_status gc_candidate_layers(gc_run *run, const gc_target *target, const char **names, size_t capacity,
                                          size_t *count, gc_error *err);

/* ---- 9. maps ------------------------------------------------------------ */

/* Resizes the last two dimensions of src into those of dst: float32, any
   strides, the same rank, leading dimensions equal; mode is GRADCAM_RESIZE_*.
   Errors: INVALID (a NULL, the mode), SHAPE (other ranks or leading dimensions, an
   empty map). */
GRADCAM_API gc_status gc_map_resize(const gc_tensor *src, int32_t mode, gc_tensor *dst, gc_error *err);
/* In place, each sample (leading index) by itself: (x - min) / (max - min); a
   constant sample becomes 0.  Row-major float32, else INVALID. */
GRADCAM_API gc_status gc_map_normalize(gc_tensor *map, gc_error *err);

/* ---- 10. perturbation --------------------------------------------------- */

/* The same network on many variants of one value: what the methods are made of that
   ask what a score loses when something is hidden.  Occlusion (Zeiler 2014) hides
   windows of the input, RISE (Petsiuk 2018) random parts of it, Score-CAM (Wang 2020)
   what a channel does not see, Ablation-CAM (Desai 2020) a channel of a layer.
   docs/perturbation.md has two of them in some tens of lines.

   The network is restarted at the value: what does not depend on it is computed
   once, and what the output does not need is not computed.  Variants go through the
   rest in batches. */
typedef int32_t gc_perturb_kind;
enum {
    GRADCAM_PERTURB_MASK = 0,   /* variant i is m_i x + (1 - m_i) baseline, element by element */
    GRADCAM_PERTURB_ABLATE = 1, /* variant i has some channels replaced by the baseline */
    GRADCAM_PERTURB_WRITE = 2   /* the host writes it */
};

/* Makes variant `index` out of `variant`, which has the value's shape and holds its unperturbed
   numbers; heed the strides. */
typedef int32_t (*gc_perturb_write_fn)(void *user, int64_t index, gc_tensor *variant);
/* Takes the output of variant `index`, which has the shape that it has in the run. */
typedef int32_t (*gc_perturb_each_fn)(void *user, int64_t index, const gc_tensor *output);

/* How it was done. */
typedef struct gc_perturb_report {
    uint32_t struct_size;
    uint32_t n_steps; /* of the plan that runs for every batch */
    int64_t batch;    /* variants at a time */
    int64_t index;    /* gc_perturb_scores: class or element of the first sample */
    double score;     /* and its unperturbed value, before negation */
} gc_perturb_report;

typedef struct gc_perturb_options {
    uint32_t struct_size;
    gc_perturb_kind kind;
    int64_t count;      /* of variants: 1 to 2^31 - 1 */
    int64_t batch;      /* variants at a time, up to 4096; 0: chosen by memory and count */
    const char *value;  /* value or node name; NULL: the first input */
    const char *output; /* likewise, what is computed; NULL: the first output */
    /* MASK: float32, [count, ...]; the dimensions after the first broadcast to the
       value's by numpy's rule: [count, H, W] masks all channels of [N, C, H, W],
       [count, C, 1, 1] whole channels.  Not restricted to 0..1. */
    const gc_tensor *masks;
    /* MASK, ABLATE: float32, broadcasts to the value's shape; NULL: zero. */
    const gc_tensor *baseline;
    /* ABLATE: variant i loses channels[groups[i]] to channels[groups[i + 1] - 1].
       groups NULL: channels[i] alone; channels NULL, too: channel i. */
    const int64_t *channels;
    const int64_t *groups;     /* count + 1 of them, ascending from 0 */
    gc_perturb_write_fn write; /* WRITE */
    gc_perturb_each_fn each;   /* NULL, or called for every variant in order */
    void *user;                /* of both */
    gc_tensor *outputs;        /* NULL, or [count, output's shape...], floating, any strides: all outputs */
    gc_perturb_report *report; /* NULL: not reported */
    const void *reserved0;
    int32_t axis; /* ABLATE: the axis of the channels, may be negative; 0: axis 1 */
    /* 1: the run's last forward pass counts, as when variants come in several calls;
       0: there is one first. */
    uint32_t keep_forward;
} gc_perturb_options;

/* Computes the output of every variant.  Inputs must be bound.  The run's values are those
   of the unperturbed input afterwards.  The value and what else the rest reads stay
   watched, and the plan of the rest stays with the run until the run prepares again or
   another value, output, batch, or with batch 0 another count, is asked for: the
   same call made again allocates nothing.  gc_run_arena_bytes counts that plan.

   Callbacks come from the calling thread and may query the run but not run it;
   tensors are borrowed until they return; nonzero stops with GRADCAM_E_CALLBACK and
   that code in gc_error.user_code.  Hooks are called in the run's forward pass, not
   for variants: one that writes behind the value is an error, GRADCAM_E_STATE.

   Results are bit-identical for any number of threads and do not depend on a
   variant's place in its batch; other batch sizes round differently, as other shapes
   do.  With a batch of 1 they are bit for bit what a forward hook that writes the
   variant into the watched value would give.

   Batches stack variants on the axis that the samples lie on, also where the
   file fixes their number in its inputs, Reshape, Resize or Concat.  The first call tries
   whether variants then stay apart: networks that mix samples, or whose shapes cannot
   follow, run one by one, and report->batch says so.

   Errors: INVALID (a NULL, an option out of range, a constant, an output that
   does not depend on the value), NOT_FOUND, SHAPE (masks, baseline, outputs), DTYPE (the value
   or what is given is not float32; WRITE takes values of any type), UNSUPPORTED (a
   value inside a loop), STATE (keep_forward without a pass; a writing hook),
   LIMIT (a batch that the host chose), CALLBACK, CANCELLED, ABI, and those of
   gc_run_forward. */
GRADCAM_API gc_status gc_run_perturb(gc_run *run, const gc_perturb_options *options, gc_error *err);

/* The target's score of every variant: scores[i * N + n] for sample n of the N samples
   of the output (1 where it has fewer than two dimensions), n_scores = count * N of
   them.  options->output is the target's and must be NULL, as must ->each.  target NULL: all zero.
   The arg-max class is that of the unperturbed input; a score of
   GRADCAM_TARGET_ELEMENT and _SEED is the sum of seed times output over the sample.
   On an error scores[] holds those of the variants that were done.
   Errors: also those of a target in section 8, and SHAPE (n_scores). */
GRADCAM_API gc_status gc_perturb_scores(gc_run *run, const gc_perturb_options *options, const gc_target *target,
                                        float *scores, size_t n_scores, gc_error *err);

#ifdef __cplusplus
}
#endif
#endif
