/*
 * io.c - files. Every transfer goes on after EINTR and short counts; every error names the path.
 */
#include "config.h"

#include "io/io.h"

#include "common/failpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static Status no_path_memory(const char *path)
{
    return status_set(AIDB_NO_MEMORY, "out of memory for the path \"%s\"", path);
}

/* Switches the page cache off or on for a descriptor. */
static bool set_direct(int fd, bool direct)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || ((flags & O_DIRECT) != 0) == direct)
        return false;
    return fcntl(fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

Status file_open(const char *path, FileMode mode, File *file)
{
    static const int flags[] = {
        [FILE_READ] = O_RDONLY,
        [FILE_WRITE] = O_RDWR,
        [FILE_WRITE_THROUGH] = O_RDWR | O_DSYNC,
        [FILE_CREATE_NEW] = O_RDWR | O_CREAT | O_EXCL,
    };
    *file = (File)FILE_CLOSED;
    char *copy = strdup(path);
    if (copy == NULL)
        return no_path_memory(path);
    int fd;
    do
        fd = open(path, flags[mode] | O_CLOEXEC, 0600);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        int err = errno;
        free(copy);
        if (err == ENOENT && mode != FILE_CREATE_NEW)
            return status_set(AIDB_NOT_FOUND, "file \"%s\" does not exist", path);
        return status_set_errno(err, "could not %s file \"%s\"",
                                mode == FILE_CREATE_NEW ? "create" : "open", path);
    }
    if (mode == FILE_WRITE_THROUGH)
        (void)set_direct(fd, true); /* where it is refused, writes go through the page cache */
    file->fd = fd;
    file->path = copy;
    return AIDB_OK;
}

void file_close(File *file)
{
    if (file->fd >= 0)
        close(file->fd);
    free(file->path);
    *file = (File)FILE_CLOSED;
}

Status file_read_some(const File *file, uint64_t offset, void *data, size_t size, size_t *got)
{
    *got = 0;
    while (*got < size) {
        ssize_t n = pread(file->fd, (uint8_t *)data + *got, size - *got, (off_t)(offset + *got));
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return status_set_errno(errno, "could not read file \"%s\" at offset %llu", file->path,
                                    (unsigned long long)(offset + *got));
        }
        if (n == 0)
            break;
        *got += (size_t)n;
    }
    return AIDB_OK;
}

Status file_read_at(const File *file, uint64_t offset, void *data, size_t size)
{
    size_t got;
    RETURN_IF_FAILED(file_read_some(file, offset, data, size, &got));
    if (got < size)
        return status_set(AIDB_CORRUPTION,
                          "file \"%s\" ends at offset %llu, %zu more bytes were expected",
                          file->path, (unsigned long long)(offset + got), size - got);
    return AIDB_OK;
}

Status file_write_at(const File *file, uint64_t offset, const void *data, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n =
            pwrite(file->fd, (const uint8_t *)data + done, size - done, (off_t)(offset + done));
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return status_set_errno(errno, "could not write file \"%s\" at offset %llu", file->path,
                                    (unsigned long long)(offset + done));
        }
        done += (size_t)n;
    }
    return AIDB_OK;
}

Status file_write_through(const File *file, uint64_t offset, struct iovec *parts, int count)
{
    while (count > 0) {
        if (parts->iov_len == 0) {
            parts++;
            count--;
            continue;
        }
        ssize_t n = pwritev(file->fd, parts, count, (off_t)offset);
        if (n < 0) {
            int err = errno;
            if (err == EINTR)
                continue;
            /* A device with larger blocks, or a file system that finds out only now. */
            if (err == EINVAL && set_direct(file->fd, false))
                continue;
            return status_set_errno(err, "could not write file \"%s\" at offset %llu", file->path,
                                    (unsigned long long)offset);
        }
        offset += (uint64_t)n;
        for (struct iovec *part = parts; n > 0; part++) {
            size_t step = (size_t)n < part->iov_len ? (size_t)n : part->iov_len;
            part->iov_base = (uint8_t *)part->iov_base + step;
            part->iov_len -= step;
            n -= (ssize_t)step;
        }
    }
    return AIDB_OK;
}

Status file_sync(const File *file)
{
    int result;
    do
        result = fdatasync(file->fd);
    while (result != 0 && errno == EINTR);
    if (result != 0)
        return status_set_errno(errno, "could not sync file \"%s\"", file->path);
    return AIDB_OK;
}

Status file_size(const File *file, uint64_t *size)
{
    struct stat info;
    *size = 0;
    if (fstat(file->fd, &info) != 0)
        return status_set_errno(errno, "could not read the size of file \"%s\"", file->path);
    *size = (uint64_t)info.st_size;
    return AIDB_OK;
}

Status file_truncate(const File *file, uint64_t size)
{
    int result;
    do
        result = ftruncate(file->fd, (off_t)size);
    while (result != 0 && errno == EINTR);
    if (result != 0)
        return status_set_errno(errno, "could not set the size of file \"%s\"", file->path);
    return AIDB_OK;
}

Status file_zero_fill(const File *file, uint64_t offset, uint64_t size)
{
    static const _Alignas(FILE_BLOCK) uint8_t zeros[65536];
    Status status = AIDB_OK;
    /* A page cache full of zeros helps nobody, and their sync would hold up others' syncs. */
    bool direct = (offset | size) % FILE_BLOCK == 0 && set_direct(file->fd, true);
    while (size > 0 && status == AIDB_OK) {
        size_t step = size < sizeof zeros ? (size_t)size : sizeof zeros;
        status = file_write_at(file, offset, zeros, step);
        if (status != AIDB_OK && direct && errno == EINVAL) {
            direct = !set_direct(file->fd, false);
            status = AIDB_OK;
            continue;
        }
        offset += step;
        size -= step;
    }
    if (direct)
        (void)set_direct(file->fd, false);
    return status;
}

Status file_allocate(const File *file, uint64_t offset, uint64_t size)
{
    int result;
    do {
        result = fallocate(file->fd, 0, (off_t)offset, (off_t)size);
    } while (result != 0 && errno == EINTR);
    if (result == 0)
        return AIDB_OK;
    if (errno == EOPNOTSUPP || errno == ENOSYS)
        return file_zero_fill(file, offset, size);
    return status_set_errno(errno, "could not allocate blocks of file \"%s\"", file->path);
}

void file_punch(const File *file, uint64_t offset, uint64_t size)
{
    if (size > 0)
        (void)fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                        (off_t)size);
}

bool file_is_sparse(const File *file)
{
    struct stat info;
    return fstat(file->fd, &info) == 0 && (uint64_t)info.st_blocks * 512 < (uint64_t)info.st_size;
}

Status file_read_whole(const char *path, size_t limit, Buffer *buffer)
{
    File file;
    Status status;
    RETURN_IF_FAILED(file_open(path, FILE_READ, &file));
    uint64_t size;
    OUT_IF_FAILED(file_size(&file, &size));
    if (size > limit) {
        status =
            status_set(AIDB_LIMIT, "file \"%s\" has %llu bytes, more than the %zu that are allowed",
                       path, (unsigned long long)size, limit);
        goto out;
    }
    OUT_IF_FAILED(buffer_reserve(buffer, (size_t)size));
    size_t got;
    OUT_IF_FAILED(file_read_some(&file, 0, buffer->data + buffer->size, (size_t)size, &got));
    buffer->size += got;
out:
    file_close(&file);
    return status;
}

/* The directory part of a path, as a heap string. */
static char *path_directory(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

Status file_replace(const char *path, const void *data, size_t size, mode_t mode)
{
    size_t length = strlen(path);
    char *temporary = malloc(length + 5);
    char *directory = path_directory(path);
    Status status = AIDB_OK;
    File file = FILE_CLOSED;
    bool made = false;
    if (temporary == NULL || directory == NULL) {
        status = no_path_memory(path);
        goto out;
    }
    memcpy(temporary, path, length);
    memcpy(temporary + length, ".tmp", 5);
    OUT_IF_FAILED(file_unlink(temporary)); /* left by a crash */
    OUT_IF_FAILED(file_open(temporary, FILE_CREATE_NEW, &file));
    made = true;
    if (fchmod(file.fd, mode) != 0) {
        status = status_set_errno(errno, "could not set the mode of file \"%s\"", temporary);
        goto out;
    }
    OUT_IF_FAILED(file_write_at(&file, 0, data, size));
    FAILPOINT("replace.written");
    OUT_IF_FAILED(file_sync(&file));
    FAILPOINT("replace.before_rename");
    OUT_IF_FAILED(file_rename(temporary, path));
    made = false;
    FAILPOINT("replace.renamed");
    OUT_IF_FAILED(directory_sync(directory));
out:
    file_close(&file);
    if (made)
        unlink(temporary); /* the first error is the one to report */
    free(temporary);
    free(directory);
    return status;
}

Status file_rename(const char *from, const char *to)
{
    if (rename(from, to) != 0)
        return status_set_errno(errno, "could not rename file \"%s\" to \"%s\"", from, to);
    return AIDB_OK;
}

Status file_unlink(const char *path)
{
    if (unlink(path) != 0 && errno != ENOENT)
        return status_set_errno(errno, "could not remove file \"%s\"", path);
    return AIDB_OK;
}

Status file_discard(const char *path)
{
    struct stat info;
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    RETURN_IF_FAILED(file_unlink(path));
    if (fd >= 0) {
        /* After the unlinking: what is cut short must not have a name. A failure costs space only until
         * the last descriptor is closed. */
        if (fstat(fd, &info) == 0 && info.st_nlink == 0 && ftruncate(fd, 0) != 0)
            info.st_size = 0;
        close(fd);
    }
    return AIDB_OK;
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

Status directory_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return status_set_errno(errno, "could not open directory \"%s\"", path);
    int result;
    do
        result = fsync(fd);
    while (result != 0 && errno == EINTR);
    int err = errno;
    close(fd);
    if (result != 0)
        return status_set_errno(err, "could not sync directory \"%s\"", path);
    return AIDB_OK;
}

uint64_t directory_room(const char *path)
{
    struct statvfs disk;
    if (statvfs(path, &disk) != 0 || disk.f_blocks == 0)
        return UINT64_MAX;
    return (uint64_t)disk.f_bavail * disk.f_frsize;
}

Status directory_create(const char *path)
{
    if (mkdir(path, 0700) == 0)
        return AIDB_OK;
    int err = errno;
    struct stat info;
    if (err == EEXIST && stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        return AIDB_OK;
    return status_set_errno(err, "could not create directory \"%s\"", path);
}

Status directory_list(const char *path, Status (*visit)(void *arg, const char *name), void *arg)
{
    DIR *directory = opendir(path);
    if (directory == NULL)
        return status_set_errno(errno, "could not open directory \"%s\"", path);
    Status status = AIDB_OK;
    for (;;) {
        errno = 0;
        struct dirent *item = readdir(directory);
        if (item == NULL) {
            if (errno != 0)
                status = status_set_errno(errno, "could not read directory \"%s\"", path);
            break;
        }
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
            continue;
        status = visit(arg, item->d_name);
        if (status != AIDB_OK)
            break;
    }
    closedir(directory);
    return status;
}

char *path_join(const char *directory, const char *name)
{
    size_t directory_size = strlen(directory);
    size_t name_size = strlen(name);
    char *path = malloc(directory_size + name_size + 2);
    if (path == NULL)
        return NULL;
    memcpy(path, directory, directory_size);
    size_t at = directory_size;
    if (at > 0 && path[at - 1] != '/')
        path[at++] = '/';
    memcpy(path + at, name, name_size + 1);
    return path;
}
