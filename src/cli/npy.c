/* SPDX-License-Identifier: MIT */
#include "npy.h"

#include "out_file.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HEADER 65536u

/* Text of a header and a read position; NUL terminated. */
typedef struct cursor {
    const char *p;
} cursor;

/* What the header's dictionary says. */
typedef struct header {
    cli_npy *array;
    int fortran;
    int seen; /* bit 0 descr, bit 1 fortran_order, bit 2 shape */
} header;

static const char *const broken = "the .npy header is damaged";

void cli_npy_free(cli_npy *array)
{
    if (!array)
        return;
    free(array->data);
    memset(array, 0, sizeof *array);
}

static int type_ok(char kind, int size)
{
    switch (kind) {
    case 'f': return size == 2 || size == 4 || size == 8;
    case 'i': return size == 1 || size == 2 || size == 4 || size == 8;
    case 'u': return size == 1 || size == 2;
    case 'b': return size == 1;
    default: return 0;
    }
}

/* Bytes of the whole array; nonzero if that is too much to address. A zero
 * side does not excuse the others from fitting. */
static int count_bytes(int item_size, int ndim, const long long *shape, size_t *bytes)
{
    size_t n = (size_t)item_size, limit = (size_t)PTRDIFF_MAX;
    int i, empty = 0;
    for (i = 0; i < ndim; i++) {
        if (shape[i] < 0)
            return 1;
        if (shape[i] == 0) {
            empty = 1;
            continue;
        }
        if ((unsigned long long)shape[i] > limit / n)
            return 1;
        n *= (size_t)shape[i];
    }
    *bytes = empty ? 0 : n;
    return 0;
}

/* ---- parsing the dictionary ---- */

static void skip_blanks(cursor *c)
{
    while (*c->p == ' ' || *c->p == '\n' || *c->p == '\t')
        c->p++;
}

static int accept(cursor *c, char want)
{
    skip_blanks(c);
    if (*c->p != want)
        return 0;
    c->p++;
    return 1;
}

static int accept_word(cursor *c, const char *word)
{
    size_t n = strlen(word);
    skip_blanks(c);
    if (strncmp(c->p, word, n) != 0)
        return 0;
    c->p += n;
    return 1;
}

static int parse_string(cursor *c, char *out, size_t size)
{
    size_t n = 0;
    char quote;
    skip_blanks(c);
    quote = *c->p;
    if (quote != '\'' && quote != '"')
        return 1;
    for (c->p++; *c->p != quote; c->p++) {
        if (*c->p == '\0' || *c->p == '\\' || n + 1 >= size)
            return 1;
        out[n++] = *c->p;
    }
    out[n] = '\0';
    c->p++;
    return 0;
}

static const char *parse_descr(cursor *c, cli_npy *a)
{
    char text[32];
    if (parse_string(c, text, sizeof text))
        return "structured .npy types are not supported; save a plain array";
    if (text[0] == '>')
        return "big-endian .npy files are not supported; "
               "save with .astype(dtype.newbyteorder('<'))";
    if (strlen(text) != 3 || !strchr("<|=", text[0]) || text[2] < '1' || text[2] > '8')
        return "this .npy type is not supported; save as float32";
    a->kind = text[1];
    a->item_size = text[2] - '0';
    if (!type_ok(a->kind, a->item_size) || (text[0] == '|' && a->item_size > 1))
        return "this .npy type is not supported; save as float32";
    return NULL;
}

static int parse_side(cursor *c, long long *out)
{
    long long v = 0;
    int digits = 0;
    skip_blanks(c);
    for (; *c->p >= '0' && *c->p <= '9'; c->p++, digits++) {
        int d = *c->p - '0';
        if (v > (LLONG_MAX - d) / 10)
            return 1;
        v = v * 10 + d;
    }
    *out = v;
    return digits == 0;
}

static const char *parse_shape(cursor *c, cli_npy *a)
{
    if (!accept(c, '('))
        return broken;
    a->ndim = 0;
    while (!accept(c, ')')) {
        if (a->ndim == CLI_NPY_MAX_DIMS)
            return "the .npy array has more than 8 dimensions";
        if (parse_side(c, &a->shape[a->ndim]))
            return "the .npy shape is negative, too large or damaged";
        a->ndim++;
        if (!accept(c, ',')) {
            if (!accept(c, ')'))
                return broken;
            break;
        }
    }
    return NULL;
}

static const char *parse_order(cursor *c, header *h)
{
    if (accept_word(c, "True"))
        h->fortran = 1;
    else if (accept_word(c, "False"))
        h->fortran = 0;
    else
        return broken;
    return NULL;
}

static const char *parse_entry(cursor *c, header *h)
{
    char key[32];
    int bit;
    if (parse_string(c, key, sizeof key) || !accept(c, ':'))
        return broken;
    bit = !strcmp(key, "descr") ? 1 : !strcmp(key, "fortran_order") ? 2 : !strcmp(key, "shape") ? 4 : 0;
    if (bit == 0 || (h->seen & bit))
        return broken;
    h->seen |= bit;
    if (bit == 1)
        return parse_descr(c, h->array);
    return bit == 2 ? parse_order(c, h) : parse_shape(c, h->array);
}

static const char *parse_header(const char *text, header *h)
{
    cursor c;
    c.p = text;
    if (!accept(&c, '{'))
        return broken;
    while (!accept(&c, '}')) {
        const char *why = parse_entry(&c, h);
        if (why)
            return why;
        if (!accept(&c, ',')) {
            if (!accept(&c, '}'))
                return broken;
            break;
        }
    }
    skip_blanks(&c);
    return *c.p == '\0' && h->seen == 7 ? NULL : broken;
}

/* ---- loading ---- */

static const char *read_header_size(FILE *f, size_t *size)
{
    unsigned char b[12];
    if (fread(b, 1, 10, f) != 10 || memcmp(b, "\x93NUMPY", 6) != 0)
        return "not a .npy file (save it with numpy.save)";
    if (b[6] < 1 || b[6] > 3 || b[7] != 0)
        return "unknown .npy format version";
    *size = (size_t)b[8] | (size_t)b[9] << 8;
    if (b[6] > 1) {
        if (fread(b + 10, 1, 2, f) != 2)
            return broken;
        *size |= (size_t)b[10] << 16 | (size_t)b[11] << 24;
    }
    return *size > MAX_HEADER ? "the .npy header is too large" : NULL;
}

static const char *read_header(FILE *f, header *h)
{
    size_t size = 0;
    const char *why = read_header_size(f, &size);
    char *text;
    if (why)
        return why;
    text = (char *)malloc(size + 1);
    if (!text)
        return "out of memory";
    if (fread(text, 1, size, f) != size || memchr(text, 0, size)) {
        why = broken;
    } else {
        text[size] = '\0';
        why = parse_header(text, h);
    }
    free(text);
    return why;
}

/* Bytes from the current position to the end; the position is kept. */
static int bytes_left(FILE *f, size_t *left)
{
    long here = ftell(f), end;
    if (here < 0 || fseek(f, 0, SEEK_END) != 0)
        return 1;
    end = ftell(f);
    if (end < here || fseek(f, here, SEEK_SET) != 0)
        return 1;
    *left = (size_t)(end - here);
    return 0;
}

/* Files are little-endian; does nothing on a little-endian host. */
static void swap_if_big(unsigned char *p, size_t item, size_t bytes)
{
    const uint16_t probe = 1;
    size_t i, k;
    if (*(const unsigned char *)&probe == 1 || item == 1)
        return;
    for (i = 0; i < bytes; i += item)
        for (k = 0; k < item / 2; k++) {
            unsigned char t = p[i + k];
            p[i + k] = p[i + item - 1 - k];
            p[i + item - 1 - k] = t;
        }
}

static const char *read_data(FILE *f, cli_npy *a)
{
    size_t left = 0;
    if (count_bytes(a->item_size, a->ndim, a->shape, &a->bytes))
        return "the .npy shape is too large";
    if (bytes_left(f, &left))
        return "cannot tell the file's size (is it a regular file?)";
    if (left < a->bytes)
        return "the .npy file is truncated: data are missing";
    if (left > a->bytes)
        return "the .npy file has bytes after its data";
    a->data = malloc(a->bytes ? a->bytes : 1);
    if (!a->data)
        return "out of memory for the array";
    if (fread(a->data, 1, a->bytes, f) != a->bytes)
        return "the .npy file could not be read to its end";
    swap_if_big((unsigned char *)a->data, (size_t)a->item_size, a->bytes);
    return NULL;
}

/* Steps a C-order index by one and keeps the Fortran offset in step with it. */
static size_t next_offset(const cli_npy *a, const size_t *stride, size_t *index, size_t offset)
{
    int d;
    for (d = a->ndim - 1; d >= 0; d--) {
        offset += stride[d];
        if (++index[d] < (size_t)a->shape[d])
            return offset;
        offset -= stride[d] * index[d];
        index[d] = 0;
    }
    return offset;
}

static const char *to_c_order(cli_npy *a)
{
    size_t stride[CLI_NPY_MAX_DIMS], index[CLI_NPY_MAX_DIMS] = {0};
    size_t item = (size_t)a->item_size, step = item, from = 0, to;
    unsigned char *out;
    int d;
    if (a->ndim < 2 || a->bytes == 0)
        return NULL;
    for (d = 0; d < a->ndim; d++) {
        stride[d] = step;
        step *= (size_t)a->shape[d];
    }
    out = (unsigned char *)malloc(a->bytes);
    if (!out)
        return "out of memory for the array";
    for (to = 0; to < a->bytes; to += item) {
        memcpy(out + to, (unsigned char *)a->data + from, item);
        from = next_offset(a, stride, index, from);
    }
    free(a->data);
    a->data = out;
    return NULL;
}

static const char *load_open(FILE *f, cli_npy *out)
{
    header h;
    const char *why;
    h.array = out;
    h.fortran = h.seen = 0;
    why = read_header(f, &h);
    if (!why)
        why = read_data(f, out);
    if (!why && h.fortran)
        why = to_c_order(out);
    return why;
}

static int report(const char *path, const char *why, char *msg, size_t msg_size)
{
    if (why && msg && msg_size)
        snprintf(msg, msg_size, "%s: %s", path, why);
    return why != NULL;
}

int cli_npy_load(const char *path, cli_npy *out, char *msg, size_t msg_size)
{
    const char *why = "cannot open the file (check the path and permissions)";
    FILE *f;
    memset(out, 0, sizeof *out);
    f = fopen(path, "rb");
    if (f) {
        why = load_open(f, out);
        fclose(f);
    }
    if (why)
        cli_npy_free(out);
    return report(path, why, msg, msg_size);
}

/* ---- saving ---- */

/* Version 1.0 preamble, padded so that the data start at a multiple of 64.
 * 8 sides of 20 digits and 60 letters fit 256 - 10 with room to spare. */
static size_t format_header(unsigned char *out, size_t room, char kind, int item_size, int ndim, const long long *shape)
{
    char *text = (char *)out + 10;
    size_t left = room - 10, n, total;
    int i;
    n = (size_t)snprintf(text, left, "{'descr': '%c%c%d', 'fortran_order': False, 'shape': (",
                         item_size > 1 ? '<' : '|', kind, item_size);
    for (i = 0; i < ndim; i++)
        n += (size_t)snprintf(text + n, left - n, "%lld%s", shape[i], i + 1 < ndim ? ", " : ndim == 1 ? "," : "");
    n += (size_t)snprintf(text + n, left - n, "), }");
    total = (10 + n + 1 + 63) / 64 * 64;
    memset(text + n, ' ', total - 10 - n);
    out[total - 1] = '\n';
    memcpy(out, "\x93NUMPY\x01\x00", 8);
    out[8] = (unsigned char)((total - 10) & 255u);
    out[9] = (unsigned char)((total - 10) >> 8);
    return total;
}

static int write_items(FILE *f, const unsigned char *p, size_t item, size_t bytes)
{
    unsigned char buf[4096];
    while (bytes > 0) {
        size_t n = bytes < sizeof buf ? bytes : sizeof buf; /* 4096 holds whole items */
        memcpy(buf, p, n);
        swap_if_big(buf, item, n);
        if (fwrite(buf, 1, n, f) != n)
            return 1;
        p += n;
        bytes -= n;
    }
    return 0;
}

int cli_npy_save(const char *path, char kind, int item_size, const void *data, int ndim, const long long *shape,
                 char *msg, size_t msg_size)
{
    unsigned char head[320];
    size_t bytes = 0, n;
    cli_out out;
    int bad;
    if (!type_ok(kind, item_size) || ndim < 0 || ndim > CLI_NPY_MAX_DIMS ||
        count_bytes(item_size, ndim, shape, &bytes) || (bytes && !data))
        return report(path, "this array cannot be saved as .npy", msg, msg_size);
    if (cli_out_open(&out, path)) {
        char why[160];
        snprintf(why, sizeof why, "cannot create the file: %s", strerror(errno));
        return report(path, why, msg, msg_size);
    }
    n = format_header(head, sizeof head, kind, item_size, ndim, shape);
    bad = fwrite(head, 1, n, out.f) != n;
    bad = bad || write_items(out.f, (const unsigned char *)data, (size_t)item_size, bytes);
    if (!cli_out_close(&out, bad))
        return 0;
    return report(path, "writing failed (is the disk full?)", msg, msg_size);
}

int cli_npy_save_f32(const char *path, const float *data, int ndim, const long long *shape, char *msg, size_t msg_size)
{
    return cli_npy_save(path, 'f', (int)sizeof *data, data, ndim, shape, msg, msg_size);
}
