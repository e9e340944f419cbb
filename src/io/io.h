/*
 * io.h - files. What was written lasts once a sync has returned success: file_sync for the bytes and
 * the size, directory_sync for the name. file_write_through is write and sync in one.
 *
 * All calls retry EINTR and short transfers. Errors name the path. Not thread-safe per File, except
 * that file_read_at and file_write_at may be used by any number of threads at once.
 */
#ifndef AIDB_IO_IO_H
#define AIDB_IO_IO_H

#include "common/buffer.h"
#include "common/status.h"
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define FILE_BLOCK 4096u

typedef struct File {
    int fd; /* -1 when closed */
    char *path;
} File;

#define FILE_CLOSED            \
    {                          \
        .fd = -1, .path = NULL \
    }

typedef enum FileMode {
    FILE_READ,          /* must exist */
    FILE_WRITE,         /* read and write, must exist */
    FILE_WRITE_THROUGH, /* read and write, must exist; for file_write_through */
    FILE_CREATE_NEW     /* read and write, must not exist; mode 0600 */
} FileMode;

/* A missing file is AIDB_NOT_FOUND (with a message). */
Status file_open(const char *path, FileMode mode, File *file) MUST_CHECK;
/* Safe on a closed file. */
void file_close(File *file);
/* Reads exactly `size` bytes; a file that ends before is AIDB_CORRUPTION. */
Status file_read_at(const File *file, uint64_t offset, void *data, size_t size) MUST_CHECK;
/* Reads up to `size` bytes, fewer only at the end of the file. */
Status file_read_some(const File *file, uint64_t offset, void *data, size_t size,
                      size_t *got) MUST_CHECK;
Status file_write_at(const File *file, uint64_t offset, const void *data, size_t size) MUST_CHECK;
/* Writes the parts one behind the other; they are durable when it returns, without file_sync. For a file
 * opened with FILE_WRITE_THROUGH that does not grow; offset, addresses and sizes are multiples of
 * FILE_BLOCK. Goes past the page cache where the file system can. The parts are used up. A failure is
 * final, as one of file_sync is. */
Status file_write_through(const File *file, uint64_t offset, struct iovec *parts,
                          int count) MUST_CHECK;
/* fdatasync: bytes and size. A failed sync is final: the kernel may have dropped the bytes. */
Status file_sync(const File *file) MUST_CHECK;
Status file_size(const File *file, uint64_t *size) MUST_CHECK;
Status file_truncate(const File *file, uint64_t size) MUST_CHECK;
/* Writes `size` zero bytes from `offset` on (real blocks, not holes). */
Status file_zero_fill(const File *file, uint64_t offset, uint64_t size) MUST_CHECK;
/* Gives the file its blocks without writing them; they read as zeros. Zero-fills where the file system
 * cannot. */
Status file_allocate(const File *file, uint64_t offset, uint64_t size) MUST_CHECK;
/* Gives the blocks in this range back to the file system, where it can: they read as zeros, and the file
 * keeps its size. Nothing is told when it cannot. */
void file_punch(const File *file, uint64_t offset, uint64_t size);
/* Whether the file has fewer blocks than bytes. */
bool file_is_sparse(const File *file);

/* Reads a whole file of at most `limit` bytes, appending to `buffer`. */
Status file_read_whole(const char *path, size_t limit, Buffer *buffer) MUST_CHECK;
/* Replaces `path` in one step: temporary file, sync, rename, directory sync. */
Status file_replace(const char *path, const void *data, size_t size, mode_t mode) MUST_CHECK;
Status file_rename(const char *from, const char *to) MUST_CHECK;
/* A missing file is fine. */
Status file_unlink(const char *path) MUST_CHECK;
/* Removes a file that nobody reads any more and gives its space back at once, even where other processes
 * still have it open. A file that has another name (a hard link) keeps its bytes there. */
Status file_discard(const char *path) MUST_CHECK;
bool file_exists(const char *path);

/* Makes names created, renamed or removed in a directory durable. */
Status directory_sync(const char *path) MUST_CHECK;
/* Bytes that can still be written to files in a directory; UINT64_MAX when the file system does not tell. */
uint64_t directory_room(const char *path);
/* Mode 0700; an existing directory is fine. */
Status directory_create(const char *path) MUST_CHECK;
/* Calls `visit` for every name but "." and ".."; stops at the first failure. */
Status directory_list(const char *path, Status (*visit)(void *arg, const char *name),
                      void *arg) MUST_CHECK;

/* "a/b" in a new heap string; NULL when memory is short. */
char *path_join(const char *directory, const char *name);

#endif
