/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#include "base/source.h"

#include <string.h>

#include "base/ctx.h"
#include "base/status.h"

#if defined(__unix__) || defined(__APPLE__)
#define HAVE_PREAD 1
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

struct gc_source {
    gc_ctx *ctx; /* borrowed: whoever holds the source holds it */
    uint64_t size;
    const unsigned char *bytes; /* memory */
    gc_reader reader;           /* read_at NULL: none */
    char *path;                 /* file, else NULL */
    int64_t seconds, nanoseconds;
    int file;
};

static gc_source *fresh(gc_ctx *ctx, uint64_t size)
{
    gc_source *s = gc_mem_alloc(ctx, 1, sizeof *s);
    if (s != NULL) {
        s->ctx = ctx;
        s->size = size;
        s->file = -1;
    }
    return s;
}

gc_status gc_source_memory(gc_ctx *ctx, const void *data, size_t size, gc_source **out, gc_error *err)
{
    gc_source *s = fresh(ctx, size);
    if (s == NULL) {
        return GC_NOMEM(err);
    }
    s->bytes = data;
    *out = s;
    return GRADCAM_OK;
}

gc_status gc_source_reader(gc_ctx *ctx, const gc_reader *reader, uint64_t size, gc_source **out, gc_error *err)
{
    gc_source *s = fresh(ctx, size);
    if (s == NULL) {
        return GC_NOMEM(err);
    }
    s->reader = *reader;
    *out = s;
    return GRADCAM_OK;
}

static gc_status read_reader(const gc_source *s, uint64_t offset, unsigned char *dst, size_t size, gc_error *err)
{
    for (size_t done = 0; done < size;) {
        int64_t got = s->reader.read_at(s->reader.user, offset + done, dst + done, size - done);
        if (got <= 0 || (uint64_t)got > size - done) {
            gc_status status = gc_fail(err, GRADCAM_E_IO, "the reader returned %lld at byte %llu of %llu",
                                       (long long)got, (unsigned long long)(offset + done),
                                       (unsigned long long)s->size);
            if (err != NULL) {
                err->user_code = got < 0 && got >= INT32_MIN ? (int32_t)got : 0;
            }
            return status;
        }
        done += (size_t)got;
    }
    return GRADCAM_OK;
}

#ifdef HAVE_PREAD

enum { READ_MOST = 1 << 30 };

static int64_t nanoseconds(const struct stat *info)
{
#ifdef __APPLE__
    return info->st_mtimensec;
#else
    return info->st_mtim.tv_nsec;
#endif
}

gc_status gc_source_file(gc_ctx *ctx, const char *path, gc_source **out, gc_error *err)
{
    struct stat info;
    *out = NULL;
    /* a pipe is not opened twice; files that the system makes up say a size of 0 */
    if (stat(path, &info) == 0 && (!S_ISREG(info.st_mode) || info.st_size == 0)) {
        return GRADCAM_OK;
    }
    gc_source *s = fresh(ctx, 0);
    if (s == NULL || (s->path = gc_mem_strdup(ctx, path, strlen(path))) == NULL) {
        gc_source_close(s);
        return GC_NOMEM(err);
    }
    s->file = open(path, O_RDONLY | O_CLOEXEC);
    if (s->file < 0 || fstat(s->file, &info) != 0) {
        gc_source_close(s);
        return gc_fail(err, GRADCAM_E_IO, "cannot open '%.300s': %.80s", path, strerror(errno));
    }
    s->size = info.st_size > 0 ? (uint64_t)info.st_size : 0;
    s->seconds = (int64_t)info.st_mtime;
    s->nanoseconds = nanoseconds(&info);
    *out = s;
    return GRADCAM_OK;
}

/* Length and time of change, so that numbers of two files are not mixed; a
   change that leaves both as they were goes unseen. */
static gc_status check_unchanged(const gc_source *s, gc_error *err)
{
    struct stat info;
    if (fstat(s->file, &info) != 0 || info.st_size < 0 || (uint64_t)info.st_size != s->size ||
        (int64_t)info.st_mtime != s->seconds || nanoseconds(&info) != s->nanoseconds) {
        return gc_fail(err, GRADCAM_E_IO, "'%.300s' was changed after it was opened; load it again", s->path);
    }
    return GRADCAM_OK;
}

static gc_status read_file(const gc_source *s, uint64_t offset, unsigned char *dst, size_t size, gc_error *err)
{
    for (size_t done = 0; done < size;) {
        size_t part = size - done < READ_MOST ? size - done : READ_MOST;
        ssize_t got = pread(s->file, dst + done, part, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return gc_fail(err, GRADCAM_E_IO, "cannot read '%.300s': %.80s", s->path, strerror(errno));
        }
        if (got == 0) {
            break;
        }
        done += (size_t)got;
    }
    return check_unchanged(s, err); /* a file that ended too soon was changed, too */
}

static void close_file(gc_source *s)
{
    if (s->file >= 0) {
        (void)close(s->file);
    }
}

#else

gc_status gc_source_file(gc_ctx *ctx, const char *path, gc_source **out, gc_error *err)
{
    (void)ctx;
    (void)path;
    (void)err;
    *out = NULL;
    return GRADCAM_OK;
}

static gc_status read_file(const gc_source *s, uint64_t offset, unsigned char *dst, size_t size, gc_error *err)
{
    (void)offset;
    (void)dst;
    (void)size;
    return gc_fail(err, GRADCAM_E_UNSUPPORTED, "cannot read '%.300s'", s->path);
}

static void close_file(gc_source *s)
{
    (void)s;
}

#endif

void gc_source_close(gc_source *s)
{
    if (s != NULL) {
        close_file(s);
        gc_mem_free(s->ctx, s->path);
        gc_mem_free(s->ctx, s);
    }
}

uint64_t gc_source_size(const gc_source *s)
{
    return s->size;
}

const unsigned char *gc_source_bytes(const gc_source *s)
{
    return s->bytes;
}

bool gc_source_shared(const gc_source *s)
{
    return s->reader.read_at == NULL;
}

gc_status gc_source_read(const gc_source *s, uint64_t offset, void *dst, size_t size, gc_error *err)
{
    if (offset > s->size || size > s->size - offset) {
        return gc_fail(err, GRADCAM_E_IO, "%llu bytes at %llu reach beyond the model's %llu", (unsigned long long)size,
                       (unsigned long long)offset, (unsigned long long)s->size);
    }
    if (s->bytes != NULL) {
        memcpy(dst, s->bytes + offset, size);
        return GRADCAM_OK;
    }
    return s->reader.read_at != NULL ? read_reader(s, offset, dst, size, err) : read_file(s, offset, dst, size, err);
}
