/*
 * test_fault.c - the file layer of the log's tests. The linker's --wrap puts these functions between
 * the log and src/io, so that the log itself has no hooks.
 *
 * For power loss the layer keeps, of every file, the bytes at its last sync, and of the directory the
 * names at its last sync. A cut builds the directory anew: each file has its new or its old names, and
 * each sector of 512 bytes its new or its old bytes, by a seeded coin.
 */
#include "config.h"

#include "engine/wal/test_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR    512u
#define FILES_MAX 512

Fault fault;

void fault_set(FaultMode mode, uint64_t at)
{
    fault = (Fault){.mode = mode, .at = at, .code = AIDB_IO};
}

Status __real_file_open(const char *path, FileMode mode, File *file);
Status __real_file_write_at(const File *file, uint64_t offset, const void *data, size_t size);
Status __real_file_zero_fill(const File *file, uint64_t offset, uint64_t size);
Status __real_file_write_through(const File *file, uint64_t offset, struct iovec *parts, int count);
Status __real_file_sync(const File *file);
Status __real_file_rename(const char *from, const char *to);
Status __real_file_unlink(const char *path);
Status __real_directory_sync(const char *path);
Status __wrap_file_open(const char *path, FileMode mode, File *file);
Status __wrap_file_write_at(const File *file, uint64_t offset, const void *data, size_t size);
Status __wrap_file_zero_fill(const File *file, uint64_t offset, uint64_t size);
Status __wrap_file_write_through(const File *file, uint64_t offset, struct iovec *parts, int count);
Status __wrap_file_sync(const File *file);
Status __wrap_file_rename(const char *from, const char *to);
Status __wrap_file_unlink(const char *path);
Status __wrap_directory_sync(const char *path);

/* ---- power loss --------------------------------------------------------------------------------- */

typedef struct Image {
    ino_t inode;
    int fd; /* keeps the file, its names gone or not */
    uint8_t *synced;
    size_t synced_size;
    char *old_name; /* of the last directory sync, or NULL */
} Image;

static struct {
    bool on;
    char directory[300];
    Image images[FILES_MAX];
    size_t count;
} power;

static uint8_t *read_fd(int fd, size_t *size)
{
    struct stat info;
    ck_assert_int_eq(fstat(fd, &info), 0);
    *size = (size_t)info.st_size;
    uint8_t *bytes = malloc(*size + 1);
    ck_assert_ptr_nonnull(bytes);
    ck_assert_int_eq(pread(fd, bytes, *size, 0), (ssize_t)*size);
    return bytes;
}

static ino_t inode_of(int fd)
{
    struct stat info;
    ck_assert_int_eq(fstat(fd, &info), 0);
    return info.st_ino;
}

static Image *find_image(ino_t inode)
{
    for (size_t i = 0; i < power.count; i++)
        if (power.images[i].inode == inode)
            return &power.images[i];
    return NULL;
}

static Image *add_image(int fd)
{
    ck_assert_uint_lt(power.count, FILES_MAX);
    Image *image = &power.images[power.count++];
    *image = (Image){.inode = inode_of(fd), .fd = dup(fd)};
    return image;
}

static void note_synced(int fd)
{
    Image *image = find_image(inode_of(fd));
    if (image == NULL)
        image = add_image(fd);
    free(image->synced);
    image->synced = read_fd(fd, &image->synced_size);
}

/* Only these bytes are durable, not what was written to the file before. */
static void note_written_through(int fd, uint64_t offset, size_t size)
{
    Image *image = find_image(inode_of(fd));
    ck_assert_ptr_nonnull(image);
    ck_assert_uint_le(offset + size, image->synced_size);
    ck_assert_int_eq(pread(image->fd, image->synced + offset, size, (off_t)offset), (ssize_t)size);
}

/* Calls `visit` for every file of the directory. */
static void each_name(void (*visit)(const char *name, const char *path))
{
    DIR *directory = opendir(power.directory);
    ck_assert_ptr_nonnull(directory);
    struct dirent *item;
    while ((item = readdir(directory)) != NULL) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", power.directory, item->d_name);
        if (item->d_name[0] != '.')
            visit(item->d_name, path);
    }
    closedir(directory);
}

static void note_file(const char *name, const char *path)
{
    (void)name;
    int fd = open(path, O_RDONLY);
    ck_assert_int_ge(fd, 0);
    note_synced(fd);
    close(fd);
}

static void note_name(const char *name, const char *path)
{
    struct stat info;
    ck_assert_int_eq(stat(path, &info), 0);
    Image *image = find_image(info.st_ino);
    ck_assert_ptr_nonnull(image);
    image->old_name = strdup(name);
}

static void note_names(void)
{
    for (size_t i = 0; i < power.count; i++) {
        free(power.images[i].old_name);
        power.images[i].old_name = NULL;
    }
    each_name(note_name);
}

void power_begin(const char *directory)
{
    power_end();
    power.on = true;
    snprintf(power.directory, sizeof power.directory, "%s", directory);
    each_name(note_file);
    note_names();
}

void power_end(void)
{
    for (size_t i = 0; i < power.count; i++) {
        close(power.images[i].fd);
        free(power.images[i].synced);
        free(power.images[i].old_name);
    }
    memset(&power, 0, sizeof power);
}

/* The bytes that a file has after the cut. */
static void mix(const Image *image, const char *path, uint64_t *seed)
{
    size_t size;
    uint8_t *bytes = read_fd(image->fd, &size);
    size_t final = size;
    if (image->synced_size < size && test_random(seed) % 2 == 0)
        final = image->synced_size;
    for (size_t at = 0; at < final; at += SECTOR) {
        size_t step = final - at < SECTOR ? final - at : SECTOR;
        if (test_random(seed) % 2 == 0)
            continue;
        for (size_t i = at; i < at + step; i++)
            bytes[i] = i < image->synced_size ? image->synced[i] : 0;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, bytes, final), (ssize_t) final);
    close(fd);
    free(bytes);
}

static char *new_names[FILES_MAX];

static void collect_name(const char *name, const char *path)
{
    struct stat info;
    ck_assert_int_eq(stat(path, &info), 0);
    Image *image = find_image(info.st_ino);
    ck_assert_ptr_nonnull(image);
    new_names[image - power.images] = strdup(name);
}

static void unlink_name(const char *name, const char *path)
{
    (void)name;
    unlink(path);
}

void power_cut(uint64_t *seed)
{
    ck_assert(power.on);
    each_name(collect_name);
    each_name(unlink_name);
    for (size_t i = 0; i < power.count; i++) {
        const Image *image = &power.images[i];
        const char *name = test_random(seed) % 2 == 0 ? image->old_name : new_names[i];
        if (name != NULL) {
            char path[600];
            snprintf(path, sizeof path, "%s/%s", power.directory, name);
            mix(image, path, seed);
        }
    }
    for (size_t i = 0; i < power.count; i++) {
        free(new_names[i]);
        new_names[i] = NULL;
    }
    power_end();
}

/* ---- the wrappers ------------------------------------------------------------------------------- */

/* Whether this call is the one that fails; ends the process when it is to die before it. */
static bool hit(bool is_sync)
{
    if (fault.mode == FAULT_NONE || (fault.syncs_only && !is_sync))
        return false;
    fault.calls++;
    bool now = fault.calls == fault.at || (fault.mode == FAULT_DEAD && fault.calls >= fault.at);
    if (now && fault.mode == FAULT_EXIT)
        _exit(FAULT_EXIT_CODE);
    return now;
}

/* After a call that was hit and made nevertheless. */
static Status refuse(const char *what)
{
    if (fault.mode == FAULT_EXIT_LATE)
        _exit(FAULT_EXIT_CODE);
    return status_set(fault.code, "injected fault: %s", what);
}

/* Whether a call that was hit is made before it is refused. */
static bool made_first(void)
{
    return fault.mode == FAULT_EXIT_LATE || fault.mode == FAULT_ERROR_LATE;
}

Status __wrap_file_open(const char *path, FileMode mode, File *file)
{
    bool now = mode == FILE_CREATE_NEW && hit(false);
    *file = (File)FILE_CLOSED;
    if (now && !made_first())
        return refuse("create");
    Status status = __real_file_open(path, mode, file);
    if (status == AIDB_OK && power.on && mode == FILE_CREATE_NEW)
        add_image(file->fd);
    if (now && status == AIDB_OK) {
        file_close(file);
        return refuse("create");
    }
    return status;
}

Status __wrap_file_write_at(const File *file, uint64_t offset, const void *data, size_t size)
{
    bool now = hit(false);
    if (now && made_first()) {
        Status status = __real_file_write_at(file, offset, data, size / 2);
        return status != AIDB_OK ? status : refuse("write");
    }
    return now ? refuse("write") : __real_file_write_at(file, offset, data, size);
}

Status __wrap_file_zero_fill(const File *file, uint64_t offset, uint64_t size)
{
    bool now = hit(false);
    if (now && made_first()) {
        Status status = __real_file_zero_fill(file, offset, size / 2);
        return status != AIDB_OK ? status : refuse("write");
    }
    return now ? refuse("write") : __real_file_zero_fill(file, offset, size);
}

Status __wrap_file_write_through(const File *file, uint64_t offset, struct iovec *parts, int count)
{
    size_t size = 0;
    uint64_t odd = offset % FILE_BLOCK;
    for (int i = 0; i < count; i++) {
        odd |= ((uintptr_t)parts[i].iov_base | parts[i].iov_len) % FILE_BLOCK;
        size += parts[i].iov_len;
    }
    /* A check of the test library writes into a file that the test's process shares with those that it
     * forks and kills, and a kill in the middle leaves half a message there: only a failure may write. */
    if (odd != 0)
        ck_abort_msg("a write around the page cache is not aligned");
    bool now = hit(true);
    if (now && made_first()) { /* torn, and nothing of it synced */
        parts[0].iov_len = parts[0].iov_len / 2 / SECTOR * SECTOR;
        Status status = __real_file_write_through(file, offset, parts, 1);
        return status != AIDB_OK ? status : refuse("write");
    }
    if (now)
        return refuse("write");
    Status status = __real_file_write_through(file, offset, parts, count);
    if (status == AIDB_OK && power.on)
        note_written_through(file->fd, offset, size);
    return status;
}

Status __wrap_file_sync(const File *file)
{
    bool now = hit(true);
    if (now && !made_first())
        return refuse("sync");
    Status status = __real_file_sync(file);
    if (status == AIDB_OK && power.on)
        note_synced(file->fd);
    return now && status == AIDB_OK ? refuse("sync") : status;
}

Status __wrap_file_rename(const char *from, const char *to)
{
    bool now = hit(false);
    if (now && !made_first())
        return refuse("rename");
    Status status = __real_file_rename(from, to);
    return now && status == AIDB_OK ? refuse("rename") : status;
}

Status __wrap_file_unlink(const char *path)
{
    bool now = hit(false);
    if (now && !made_first())
        return refuse("unlink");
    Status status = __real_file_unlink(path);
    return now && status == AIDB_OK ? refuse("unlink") : status;
}

Status __wrap_directory_sync(const char *path)
{
    bool now = hit(true);
    if (now && !made_first())
        return refuse("directory sync");
    Status status = __real_directory_sync(path);
    if (status == AIDB_OK && power.on)
        note_names();
    return now && status == AIDB_OK ? refuse("directory sync") : status;
}
