/* SPDX-License-Identifier: MIT */
/* Reading and writing of NumPy .npy files. */
#ifndef GRADCAM_CLI_NPY_H
#define GRADCAM_CLI_NPY_H

#include <stddef.h>

#define CLI_NPY_MAX_DIMS 8

/* C order, the host's byte order. A scalar has ndim 0; data is never NULL
 * after a successful load, even when some side is 0. */
typedef struct cli_npy {
    char kind; /* 'f' 'i' 'u' 'b' */
    int item_size;
    int ndim;
    long long shape[CLI_NPY_MAX_DIMS];
    void *data;
    size_t bytes;
} cli_npy;

/* Each returns 0, or nonzero with the reason in msg. */

/* Format versions 1.0, 2.0, 3.0; types f2 f4 f8 i1 i2 i4 i8 u1 u2 b1,
 * little-endian; Fortran order is turned into C order. */
int cli_npy_load(const char *path, cli_npy *out, char *msg, size_t msg_size);

int cli_npy_save(const char *path, char kind, int item_size, const void *data, int ndim, const long long *shape,
                 char *msg, size_t msg_size);

int cli_npy_save_f32(const char *path, const float *data, int ndim, const long long *shape, char *msg, size_t msg_size);

void cli_npy_free(cli_npy *array);

#endif
