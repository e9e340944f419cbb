/*
 * disk.c - a faulty disk under a program that does not know: preloaded (LD_PRELOAD), it stands between
 * the program and the file calls of libc.
 *
 * It can let calls fail (disk.h: DiskControl), and it can keep a journal of everything that changes files
 * or makes changes durable, from which power.c builds what a power loss may leave behind. Calls on files
 * outside AIDB_DISK_ROOT pass untouched. The real calls are system calls made here, so nothing depends
 * on which other library stands in front of libc.
 *
 * One mutex makes the journal's order the order of the calls. Mapped files change without a call: with
 * each journaled call, the pages of writable shared mappings that differ from a copy kept here go into the
 * journal first. A page may be caught in the middle of a change, as the kernel may catch it.
 */
#include "torture/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define FD_MAX   65536
#define MAPS_MAX 16
#define PAGE     4096u

typedef struct Map {
    uint8_t *base;
    size_t size;
    uint64_t inode;
    uint8_t *copy;
} Map;

static const char *root;
static size_t root_size;
static DiskControl *control;
static int journal = -1;
static char *paths[FD_MAX]; /* relative to the root, of watched descriptors */
static Map maps[MAPS_MAX];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("AIDB_DISK_ROOT"), *page = getenv("AIDB_DISK_CONTROL");
    if (name == NULL || page == NULL)
        return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, page, O_RDWR | O_CLOEXEC);
    void *memory = fd < 0 ? MAP_FAILED
                          : (void *)syscall(SYS_mmap, NULL, sizeof *control, PROT_READ | PROT_WRITE,
                                            MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return;
    syscall(SYS_close, fd);
    name = strdup(name);
    page = getenv("AIDB_DISK_JOURNAL");
    if (page != NULL)
        journal = (int)syscall(SYS_openat, AT_FDCWD, page,
                               O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    control = memory;
    root_size = strlen(name);
    root = name;
}

/* The path relative to the root, NULL when it is not below it. */
static const char *below(const char *path)
{
    if (root == NULL || strncmp(path, root, root_size) != 0 ||
        (path[root_size] != '/' && path[root_size] != 0))
        return NULL;
    return path[root_size] == '/' ? path + root_size + 1 : path + root_size;
}

static const char *watched(int fd)
{
    return fd >= 0 && fd < FD_MAX ? paths[fd] : NULL;
}

/* ---- the journal -------------------------------------------------------------------------------- */

static void put(DiskRecordType type, uint64_t inode, uint64_t offset, const char *path,
                const void *data, size_t size)
{
    DiskRecord record = {.type = (uint32_t)type,
                         .call = atomic_load(&control->calls),
                         .inode = inode,
                         .offset = offset,
                         .path_size = (uint32_t)strlen(path),
                         .data_size = (uint32_t)size};
    struct iovec parts[3] = {{&record, sizeof record},
                             {(void *)(uintptr_t)path, record.path_size},
                             {(void *)(uintptr_t)data, size}};
    ssize_t wanted = (ssize_t)(sizeof record + record.path_size + size);
    if (journal >= 0 && syscall(SYS_writev, journal, parts, 3) != wanted) {
        static const char text[] = "disk: the journal could not be written\n";
        (void)!syscall(SYS_write, 2, text, sizeof text - 1);
        _exit(99);
    }
}

/* Numbers a call and notes what mapped files have become. Mutex held until the call is done. */
static void enter(void)
{
    pthread_mutex_lock(&mutex);
    atomic_fetch_add(&control->calls, 1);
    for (size_t i = 0; journal >= 0 && i < MAPS_MAX; i++) {
        Map *map = &maps[i];
        for (size_t at = 0; map->base != NULL && at < map->size; at += PAGE) {
            size_t size = map->size - at < PAGE ? map->size - at : PAGE;
            if (memcmp(map->base + at, map->copy + at, size) != 0) {
                memcpy(map->copy + at, map->base + at, size);
                put(DISK_RECORD_WRITE, map->inode, at, "", map->copy + at, size);
            }
        }
    }
}

static void leave(void)
{
    int err = errno;
    pthread_mutex_unlock(&mutex);
    errno = err;
}

static uint64_t inode_of(int fd, bool *directory)
{
    struct stat info;
    memset(&info, 0, sizeof info);
    (void)!syscall(SYS_newfstatat, fd, "", &info, AT_EMPTY_PATH);
    *directory = S_ISDIR(info.st_mode);
    return info.st_ino;
}

static off_t size_of(int fd)
{
    struct stat info;
    memset(&info, 0, sizeof info);
    (void)!syscall(SYS_newfstatat, fd, "", &info, AT_EMPTY_PATH);
    return info.st_size;
}

/* ---- faults ------------------------------------------------------------------------------------- */

/* What happens to a call of this kind on this path. */
static DiskFault fault(uint32_t kind, const char *path)
{
    if (atomic_load(&control->fault) == DISK_NO_FAULT ||
        (atomic_load(&control->kinds) & kind) == 0 ||
        (control->path[0] != 0 && strstr(path, control->path) == NULL))
        return DISK_NO_FAULT;
    uint32_t n = atomic_fetch_add(&control->matched, 1) + 1;
    if (n < atomic_load(&control->from) || n >= atomic_load(&control->until))
        return DISK_NO_FAULT;
    atomic_fetch_add(&control->fired, 1);
    return (DiskFault)atomic_load(&control->fault);
}

static bool refused(uint32_t kind, const char *path)
{
    if (fault(kind, path) != DISK_ERROR)
        return false;
    errno = (int)atomic_load(&control->code);
    return true;
}

/* ---- the calls ---------------------------------------------------------------------------------- */

#define EXPORT __attribute__((visibility("default")))

static int open_watched(const char *path, const char *name, int flags, unsigned mode)
{
    if (refused(flags & O_CREAT ? DISK_CREATE : DISK_OPEN, name))
        return -1;
    bool changes = (flags & (O_CREAT | O_TRUNC)) != 0, directory;
    if (changes)
        enter();
    bool existed = syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && changes) {
        uint64_t inode = inode_of(fd, &directory);
        if (!existed)
            put(DISK_RECORD_CREATE, inode, 0, name, NULL, 0);
        else if (flags & O_TRUNC)
            put(DISK_RECORD_TRUNCATE, inode, 0, "", NULL, 0);
    }
    if (changes)
        leave();
    if (fd >= 0 && fd < FD_MAX) {
        char *old = paths[fd];
        paths[fd] = strdup(name);
        free(old);
    }
    return fd;
}

static int open_any(const char *path, int flags, unsigned mode)
{
    const char *name = below(path);
    if (name != NULL)
        return open_watched(path, name, flags, mode);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && fd < FD_MAX && paths[fd] != NULL) { /* the number belonged to a watched file */
        free(paths[fd]);
        paths[fd] = NULL;
    }
    return fd;
}

EXPORT int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    unsigned mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, unsigned) : 0;
    va_end(arguments);
    return open_any(path, flags, mode);
}
EXPORT int open64(const char *path, int flags, ...) __attribute__((alias("open")));

EXPORT ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
    const char *path = watched(fd);
    if (path != NULL) {
        DiskFault what = fault(DISK_READ, path);
        if (what == DISK_ERROR) {
            errno = (int)atomic_load(&control->code);
            return -1;
        }
        if (what == DISK_SHORT)
            size = (size + 1) / 2;
    }
    return syscall(SYS_pread64, fd, data, size, offset);
}
EXPORT ssize_t pread64(int fd, void *data, size_t size, off_t offset)
    __attribute__((alias("pread")));

EXPORT ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    const char *path = watched(fd);
    if (path == NULL)
        return syscall(SYS_pwrite64, fd, data, size, offset);
    DiskFault what = fault(DISK_WRITE, path);
    if (what == DISK_ERROR) {
        errno = (int)atomic_load(&control->code);
        return -1;
    }
    if (what == DISK_SHORT)
        size = (size + 1) / 2;
    if (what == DISK_FULL && offset + (off_t)size > size_of(fd)) {
        errno = (int)atomic_load(&control->code);
        return -1;
    }
    enter();
    bool directory;
    ssize_t done = syscall(SYS_pwrite64, fd, data, size, offset);
    if (done > 0)
        put(DISK_RECORD_WRITE, inode_of(fd, &directory), (uint64_t)offset, "", data, (size_t)done);
    leave();
    return done;
}
EXPORT ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
    __attribute__((alias("pwrite")));

EXPORT int ftruncate(int fd, off_t size)
{
    const char *path = watched(fd);
    if (path == NULL)
        return (int)syscall(SYS_ftruncate, fd, size);
    if (refused(DISK_TRUNCATE, path))
        return -1;
    enter();
    bool directory;
    int result = (int)syscall(SYS_ftruncate, fd, size);
    if (result == 0)
        put(DISK_RECORD_TRUNCATE, inode_of(fd, &directory), (uint64_t)size, "", NULL, 0);
    leave();
    return result;
}
EXPORT int ftruncate64(int fd, off_t size) __attribute__((alias("ftruncate")));

static int sync_any(int fd, long call)
{
    const char *path = watched(fd);
    if (path == NULL)
        return (int)syscall(call, fd);
    bool directory, fails = refused(DISK_SYNC, path);
    int code = errno;
    enter();
    uint64_t inode = inode_of(fd, &directory);
    if (fails) {
        if (!directory && code != EINTR)
            put(DISK_RECORD_SYNC_FAILED, inode, 0, "", NULL, 0);
        leave();
        errno = code;
        return -1;
    }
    int result = (int)syscall(call, fd);
    if (result == 0)
        put(directory ? DISK_RECORD_DIRECTORY_SYNC : DISK_RECORD_SYNC, inode, 0,
            directory ? path : "", NULL, 0);
    leave();
    return result;
}

EXPORT int fsync(int fd)
{
    return sync_any(fd, SYS_fsync);
}

EXPORT int fdatasync(int fd)
{
    return sync_any(fd, SYS_fdatasync);
}

EXPORT int rename(const char *from, const char *to)
{
    const char *name = below(from), *other = below(to);
    if (name == NULL || other == NULL)
        return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (refused(DISK_RENAME, name))
        return -1;
    enter();
    int result = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (result == 0)
        put(DISK_RECORD_RENAME, 0, 0, name, other, strlen(other));
    leave();
    return result;
}

EXPORT int unlink(const char *path)
{
    const char *name = below(path);
    if (name == NULL)
        return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (refused(DISK_UNLINK, name))
        return -1;
    enter();
    int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (result == 0)
        put(DISK_RECORD_UNLINK, 0, 0, name, NULL, 0);
    leave();
    return result;
}

EXPORT int mkdir(const char *path, mode_t mode)
{
    const char *name = below(path);
    if (name == NULL)
        return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (refused(DISK_MKDIR, name))
        return -1;
    enter();
    int result = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (result == 0)
        put(DISK_RECORD_MKDIR, 0, 0, name, NULL, 0);
    leave();
    return result;
}

EXPORT void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    void *memory = (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset);
    bool directory;
    if (memory == MAP_FAILED || journal < 0 || watched(fd) == NULL || (flags & MAP_SHARED) == 0 ||
        (protection & PROT_WRITE) == 0 || offset != 0)
        return memory;
    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < MAPS_MAX; i++) {
        if (maps[i].base == NULL) {
            uint8_t *copy = (uint8_t *)syscall(SYS_mmap, NULL, size, PROT_READ | PROT_WRITE,
                                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            memcpy(copy, memory, size);
            maps[i] = (Map){memory, size, inode_of(fd, &directory), copy};
            break;
        }
    }
    leave();
    return memory;
}
EXPORT void *mmap64(void *address, size_t size, int protection, int flags, int fd, off_t offset)
    __attribute__((alias("mmap")));

EXPORT int munmap(void *address, size_t size)
{
    for (size_t i = 0; i < MAPS_MAX && journal >= 0; i++) {
        if (maps[i].base == address && address != NULL) {
            enter(); /* what was stored last */
            syscall(SYS_munmap, maps[i].copy, maps[i].size);
            maps[i] = (Map){0};
            leave();
        }
    }
    return (int)syscall(SYS_munmap, address, size);
}
