/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#include "base/beside.h"

#include <string.h>

#include "base/ctx.h"
#include "base/status.h"

#if defined(__unix__) || defined(__APPLE__)

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOCATION_MOST = 1023, READ_MOST = 1 << 30 };

struct gc_beside {
    gc_ctx *ctx;
    uint64_t size; /* of the open file */
    int folder;
    int file; /* or -1 */
    char location[LOCATION_MOST + 1];
};

gc_status gc_beside_open(gc_ctx *ctx, const char *path, gc_beside **out, gc_error *err)
{
    const char *slash = strrchr(path, '/');
    /* "net.onnx" lies in ".", "/net.onnx" in "/" */
    char *name = slash == NULL ? gc_mem_strdup(ctx, ".", 1) : gc_mem_strdup(ctx, path, (size_t)(slash - path) + 1);
    gc_beside *b = gc_mem_alloc(ctx, 1, sizeof *b);
    if (name == NULL || b == NULL) {
        gc_mem_free(ctx, name);
        gc_mem_free(ctx, b);
        return GC_NOMEM(err);
    }
    b->ctx = ctx;
    b->file = -1;
    b->folder = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    gc_mem_free(ctx, name);
    if (b->folder < 0) {
        gc_mem_free(ctx, b);
        return gc_fail(err, GRADCAM_E_IO, "cannot open the folder of '%.300s': %.80s", path, strerror(errno));
    }
    *out = b;
    return GRADCAM_OK;
}

static void close_file(gc_beside *b)
{
    if (b->file >= 0) {
        (void)close(b->file);
    }
    b->file = -1;
}

void gc_beside_close(gc_beside *b)
{
    if (b != NULL) {
        close_file(b);
        (void)close(b->folder);
        gc_mem_free(b->ctx, b);
    }
}

/* One component at a time, none of which may be a link: a path that is resolved
   by the system could be led out of the folder.  Gives a descriptor, or -1. */
static int walk(int folder, char *location)
{
    int at = folder;
    for (char *name = location;;) {
        char *slash = strchr(name, '/');
        if (slash != NULL) {
            *slash = '\0';
        }
        /* not to wait for the other end of a pipe; regular files do not mind */
        int kind = slash != NULL ? O_DIRECTORY : O_NONBLOCK;
        int next = strcmp(name, "..") == 0 || name[0] == '\0'
                       ? (errno = EACCES, -1)
                       : openat(at, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | kind);
        int why = errno;
        if (at != folder) {
            (void)close(at);
        }
        errno = why;
        if (next < 0 || slash == NULL) {
            return next;
        }
        at = next;
        name = slash + 1;
    }
}

gc_status gc_beside_find(gc_beside *b, const char *location, uint64_t *size, gc_error *err)
{
    char steps[LOCATION_MOST + 1];
    struct stat info;
    size_t n = strlen(location);
    if (n > LOCATION_MOST) {
        return gc_fail(err, GRADCAM_E_LIMIT, "the location has %lu bytes, at most %d", (unsigned long)n, LOCATION_MOST);
    }
    if (b->file < 0 || strcmp(b->location, location) != 0) {
        close_file(b);
        memcpy(steps, location, n + 1);
        b->file = walk(b->folder, steps);
        if (b->file < 0) {
            return gc_fail(err, GRADCAM_E_IO, "cannot open '%.200s' beside the model: %.80s", location,
                           errno == ELOOP ? "links are not followed" : strerror(errno));
        }
        memcpy(b->location, location, n + 1);
        if (fstat(b->file, &info) != 0 || !S_ISREG(info.st_mode)) {
            close_file(b);
            return gc_fail(err, GRADCAM_E_IO, "'%.200s' beside the model is not a regular file", location);
        }
        b->size = (uint64_t)info.st_size;
    }
    *size = b->size;
    return GRADCAM_OK;
}

gc_status gc_beside_read(gc_beside *b, uint64_t offset, void *dst, size_t size, gc_error *err)
{
    unsigned char *to = dst;
    while (size > 0) {
        size_t part = size < READ_MOST ? size : READ_MOST;
        ssize_t got = offset > INT64_MAX ? 0 : pread(b->file, to, part, (off_t)offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return gc_fail(err, GRADCAM_E_IO, "cannot read '%.200s' at byte %llu: %.80s", b->location,
                           (unsigned long long)offset, got < 0 ? strerror(errno) : "the file ends there");
        }
        to += got;
        offset += (uint64_t)got;
        size -= (size_t)got;
    }
    return GRADCAM_OK;
}

#else /* no way to open a file without following links */

gc_status gc_beside_open(gc_ctx *ctx, const char *path, gc_beside **out, gc_error *err)
{
    (void)ctx;
    (void)out;
    return gc_fail(err, GRADCAM_E_UNSUPPORTED,
                   "files beside '%.200s' are not read on this system; give gc_load_options.read_external", path);
}

void gc_beside_close(gc_beside *b)
{
    (void)b;
}

gc_status gc_beside_find(gc_beside *b, const char *location, uint64_t *size, gc_error *err)
{
    (void)b;
    (void)size;
    return gc_fail(err, GRADCAM_E_UNSUPPORTED, "'%.200s' is not read on this system", location);
}

gc_status gc_beside_read(gc_beside *b, uint64_t offset, void *dst, size_t size, gc_error *err)
{
    (void)b;
    (void)offset;
    (void)dst;
    (void)size;
    return gc_fail(err, GRADCAM_E_UNSUPPORTED, "files beside the model are not read on this system");
}

#endif
