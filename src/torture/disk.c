/*
 * disk.c - a faulty disk under a program that does not know: preloaded (LD_PRELOAD), it stands between
 * the program and the file calls of libc.
 *
 * It can let calls fail (disk.h: DiskControl), and it can keep a journal of everything that changes files
 * or makes changes durable, from which power.c builds what a power loss may leave behind. Calls on files
 * outside AIDB_DISK_ROOT pass untouched. The real calls are system calls made here, so nothing depends
 * on which other library stands in front of libc.
 *
 * One mutex, in the control page that all processes share, makes the journal's order the order of the
 * calls. Mapped files change without a call: with each journaled call, the pages of writable shared
 * mappings that differ from a copy go into the journal first. The copies are files beside the journal, so
 * that processes that map the same file note each change once. A page may be caught in the middle of a
 * change, as the kernel may catch it.
 *
 * A process that is killed while it holds the mutex may have changed a file without a record. The journal
 * holds up to there (DiskControl.torn).
 *
 * Calls on sockets can fail, too, but only as the kernel lets them fail whatever the state of the socket is: who was told of
 * input once (EPOLLET) may rely on finding all of it.
 *
 * O_DIRECT is dropped where the file system refuses it, and its rules are kept here instead: what a program
 * does on a disk it also does in memory.
 */
#include "torture/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define FD_MAX    65536
#define MAPS_MAX  16
#define PARTS_MAX 64
#define PAGE      4096u
#define SECTOR    512u

typedef struct Map {
    uint8_t *base;
    size_t size;
    uint64_t inode;
    uint8_t *copy;
} Map;

static const char *root;
static size_t root_size;
static DiskControl *control;
static const char *journal_path;
static int journal = -1;
static char *paths[FD_MAX]; /* relative to the root, of watched descriptors */
static bool direct[FD_MAX]; /* opened, or set later, with an O_DIRECT that was dropped */
static Map maps[MAPS_MAX];
static _Thread_local bool dying;

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
    if (page != NULL) {
        journal_path = strdup(page);
        journal = (int)syscall(SYS_openat, AT_FDCWD, page, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    }
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

static void watch(int fd, const char *name)
{
    if (fd < 0 || fd >= FD_MAX)
        return;
    char *old = paths[fd];
    paths[fd] = name != NULL ? strdup(name) : NULL;
    direct[fd] = false;
    free(old);
}

/* ---- the journal -------------------------------------------------------------------------------- */

static void put_parts(DiskRecordType type, uint64_t inode, uint64_t offset, const char *path,
                      const struct iovec *data, int count, size_t size)
{
    DiskRecord record = {.type = (uint32_t)type,
                         .call = atomic_load(&control->calls),
                         .inode = inode,
                         .offset = offset,
                         .path_size = (uint32_t)strlen(path),
                         .data_size = (uint32_t)size};
    struct iovec parts[PARTS_MAX + 2] = {{&record, sizeof record},
                                         {(void *)(uintptr_t)path, record.path_size}};
    ssize_t wanted = (ssize_t)(sizeof record + record.path_size + size);
    int used = 2;
    for (int i = 0; i < count && size > 0; i++) {
        parts[used] = data[i];
        if (parts[used].iov_len > size)
            parts[used].iov_len = size;
        size -= parts[used++].iov_len;
    }
    if (journal < 0)
        return;
    uint64_t at = atomic_load(&control->journal_size);
    if (syscall(SYS_pwritev, journal, parts, used, at, 0) != wanted) {
        static const char text[] = "disk: the journal could not be written\n";
        (void)!syscall(SYS_write, 2, text, sizeof text - 1);
        _exit(99);
    }
    atomic_store(&control->journal_size, at + (uint64_t)wanted);
}

static void put(DiskRecordType type, uint64_t inode, uint64_t offset, const char *path,
                const void *data, size_t size)
{
    put_parts(type, inode, offset, path, &(struct iovec){(void *)(uintptr_t)data, size}, 1, size);
}

static void lock(void)
{
    if (pthread_mutex_lock(&control->mutex) == EOWNERDEAD) {
        if (atomic_exchange(&control->killed, 0) == 0 && atomic_load(&control->torn) == 0)
            atomic_store(&control->torn, atomic_load(&control->journal_size) + 1);
        pthread_mutex_consistent(&control->mutex);
    }
}

/* Numbers a call and notes what mapped files have become. Mutex held until the call is done. */
static void enter(void)
{
    lock();
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
    if (dying) { /* with the mutex, so that no other call is under way */
        atomic_store(&control->killed, 1);
        syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    }
    pthread_mutex_unlock(&control->mutex);
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

static void take_ms(uint32_t ms)
{
    struct timespec left = {ms / 1000, (long)(ms % 1000) * 1000000};
    /* Signals do not make a disk faster. */
    while (ms > 0 && syscall(SYS_nanosleep, &left, &left) != 0 && errno == EINTR)
        continue;
}

static void be_slow(uint32_t kinds)
{
    static _Atomic uint32_t turns;
    uint32_t sync_ms = atomic_load(&control->slow_sync_ms);
    if ((kinds & DISK_READ) != 0)
        take_ms(atomic_load(&control->slow_read_ms));
    if ((kinds & DISK_WRITE) != 0)
        take_ms(atomic_load(&control->slow_write_ms));
    if ((kinds & DISK_SYNC) != 0 && sync_ms > 0) {
        uint64_t mixed = (atomic_fetch_add(&turns, 1) + 1) * 0x9e3779b97f4a7c15u;
        take_ms(sync_ms / 10 + (uint32_t)((mixed >> 32) % (sync_ms - sync_ms / 10 + 1)));
    }
}

/* What happens to a call of these kinds on this path. */
static DiskFault fault(uint32_t kinds, const char *path)
{
    be_slow(kinds);
    if (atomic_load(&control->fault) == DISK_NO_FAULT ||
        (atomic_load(&control->kinds) & kinds) == 0 ||
        (control->path[0] != 0 && strstr(path, control->path) == NULL))
        return DISK_NO_FAULT;
    uint32_t n = atomic_fetch_add(&control->matched, 1) + 1;
    if (n < atomic_load(&control->from) || n >= atomic_load(&control->until))
        return DISK_NO_FAULT;
    uint32_t permille = atomic_load(&control->permille);
    uint64_t mixed = ((uint64_t)atomic_load(&control->random) << 32 | n) * 0x9e3779b97f4a7c15u;
    if (permille != 0 && (mixed >> 32) % 1000 >= permille)
        return DISK_NO_FAULT;
    atomic_fetch_add(&control->fired, 1);
    DiskFault what = (DiskFault)atomic_load(&control->fault);
    dying = what == DISK_KILL;
    return dying ? DISK_NO_FAULT : what;
}

static bool refused(uint32_t kind, const char *path)
{
    if (fault(kind, path) != DISK_ERROR)
        return false;
    errno = (int)atomic_load(&control->code);
    return true;
}

/* ---- names -------------------------------------------------------------------------------------- */

#define EXPORT __attribute__((visibility("default")))

static int open_real(const char *path, int flags, unsigned mode, bool *dropped)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    *dropped = fd < 0 && errno == EINVAL && (flags & O_DIRECT) != 0;
    if (*dropped)
        fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags & ~O_DIRECT, mode);
    return fd;
}

static int open_watched(const char *path, const char *name, int flags, unsigned mode)
{
    if (refused(flags & O_CREAT ? DISK_CREATE : DISK_OPEN, name))
        return -1;
    bool changes = (flags & (O_CREAT | O_TRUNC)) != 0, directory, dropped;
    if (changes)
        enter();
    bool existed = syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
    int fd = open_real(path, flags, mode, &dropped);
    if (fd >= 0 && changes) {
        uint64_t inode = inode_of(fd, &directory);
        if (!existed)
            put(DISK_RECORD_CREATE, inode, 0, name, NULL, 0);
        else if (flags & O_TRUNC)
            put(DISK_RECORD_TRUNCATE, inode, 0, "", NULL, 0);
    }
    if (changes)
        leave();
    watch(fd, name);
    if (fd >= 0 && fd < FD_MAX)
        direct[fd] = dropped;
    return fd;
}

static int open_any(const char *path, int flags, unsigned mode)
{
    const char *name = below(path);
    if (name != NULL)
        return open_watched(path, name, flags, mode);
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
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

EXPORT int close(int fd)
{
    if (watched(fd) != NULL)
        watch(fd, NULL);
    return (int)syscall(SYS_close, fd);
}

EXPORT int dup2(int from, int to)
{
    int fd = (int)syscall(SYS_dup2, from, to);
    if (fd >= 0 && from != to && (watched(from) != NULL || watched(to) != NULL))
        watch(to, watched(from));
    return fd;
}

EXPORT int fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    long argument = va_arg(arguments, long);
    va_end(arguments);
    long result = syscall(SYS_fcntl, fd, command, argument);
    if (watched(fd) == NULL)
        return (int)result;
    if (command == F_SETFL) {
        bool dropped = result < 0 && errno == EINVAL && (argument & O_DIRECT) != 0;
        if (dropped)
            result = syscall(SYS_fcntl, fd, command, argument & ~(long)O_DIRECT);
        if (result == 0)
            direct[fd] = dropped;
    }
    if (command == F_GETFL && result >= 0 && direct[fd])
        result |= O_DIRECT;
    return (int)result;
}
EXPORT int fcntl64(int fd, int command, ...) __attribute__((alias("fcntl")));

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

EXPORT int link(const char *from, const char *to)
{
    const char *name = below(from), *other = below(to);
    if (name == NULL || other == NULL)
        return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (refused(DISK_RENAME, name))
        return -1;
    enter();
    struct stat info;
    int result = (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (result == 0 && syscall(SYS_newfstatat, AT_FDCWD, to, &info, AT_SYMLINK_NOFOLLOW) == 0)
        put(DISK_RECORD_LINK, info.st_ino, 0, other, NULL, 0);
    leave();
    return result;
}

static int remove_any(const char *path, uint32_t kind, int flags)
{
    const char *name = below(path);
    if (name == NULL)
        return (int)syscall(SYS_unlinkat, AT_FDCWD, path, flags);
    if (refused(kind, name))
        return -1;
    enter();
    int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, flags);
    if (result == 0)
        put(DISK_RECORD_UNLINK, 0, 0, name, NULL, 0);
    leave();
    return result;
}

EXPORT int unlink(const char *path)
{
    return remove_any(path, DISK_UNLINK, 0);
}

EXPORT int rmdir(const char *path)
{
    return remove_any(path, DISK_UNLINK, AT_REMOVEDIR);
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

/* ---- bytes -------------------------------------------------------------------------------------- */

static size_t parts_size(const struct iovec *parts, int count)
{
    size_t size = 0;
    for (int i = 0; i < count; i++)
        size += parts[i].iov_len;
    return size;
}

/* Copies the parts of the first `size` bytes. */
static int parts_cut(const struct iovec *parts, int count, size_t size, struct iovec *cut)
{
    int used = 0;
    for (int i = 0; i < count && size > 0; i++) {
        cut[used] = parts[i];
        if (cut[used].iov_len > size)
            cut[used].iov_len = size;
        size -= cut[used++].iov_len;
    }
    return used;
}

/* What a short transfer carries over. Direct ones keep to sectors. */
static size_t shorter(int fd, size_t size)
{
    size_t half = (size + 1) / 2;
    if ((syscall(SYS_fcntl, fd, F_GETFL) & O_DIRECT) != 0 || direct[fd]) {
        half = (half + SECTOR - 1) / SECTOR * SECTOR;
        return half < size ? half : size;
    }
    return half;
}

static bool aligned(int fd, const struct iovec *parts, int count, off_t offset)
{
    uintptr_t bits = (uintptr_t)offset;
    if (fd >= FD_MAX || !direct[fd])
        return true;
    for (int i = 0; i < count; i++)
        bits |= (uintptr_t)parts[i].iov_base | parts[i].iov_len;
    if (bits % SECTOR == 0)
        return true;
    errno = EINVAL;
    return false;
}

/* Offset -1: where the descriptor stands. */
static ssize_t read_any(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    const char *path = watched(fd);
    struct iovec cut[PARTS_MAX];
    if (path == NULL || count > PARTS_MAX)
        return syscall(SYS_preadv2, fd, parts, count, offset, offset < 0 ? -1L : 0L, flags);
    if (!aligned(fd, parts, count, offset < 0 ? 0 : offset))
        return -1;
    DiskFault what = fault(DISK_READ, path);
    if (what == DISK_ERROR) {
        errno = (int)atomic_load(&control->code);
        return -1;
    }
    size_t size = parts_size(parts, count);
    count = parts_cut(parts, count, what == DISK_SHORT ? shorter(fd, size) : size, cut);
    return syscall(SYS_preadv2, fd, cut, count, offset, offset < 0 ? -1L : 0L, flags);
}

static ssize_t write_any(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    const char *path = watched(fd);
    struct iovec cut[PARTS_MAX];
    if (path == NULL || count > PARTS_MAX)
        return syscall(SYS_pwritev2, fd, parts, count, offset, offset < 0 ? -1L : 0L, flags);
    if (!aligned(fd, parts, count, offset < 0 ? 0 : offset))
        return -1;
    int mode = (int)syscall(SYS_fcntl, fd, F_GETFL);
    bool synced = (mode & (O_DSYNC | O_SYNC)) != 0 || (flags & (RWF_DSYNC | RWF_SYNC)) != 0;
    size_t size = parts_size(parts, count);
    DiskFault what = fault(DISK_WRITE | (synced ? DISK_SYNC : 0u), path);
    int code = (int)atomic_load(&control->code);
    /* As with a sync that fails, the bytes are there for all to read until the power goes. */
    bool half_done = what == DISK_ERROR && (atomic_load(&control->kinds) & DISK_WRITE) == 0;
    if (what == DISK_ERROR && (!half_done || code == EINTR)) {
        errno = code;
        return -1;
    }
    if (what == DISK_SHORT)
        size = shorter(fd, size);
    count = parts_cut(parts, count, size, cut);
    enter();
    bool directory, append = offset < 0;
    if (append)
        offset = mode & O_APPEND ? size_of(fd) : (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR);
    if (what == DISK_FULL && offset + (off_t)size > size_of(fd)) {
        leave();
        errno = code;
        return -1;
    }
    ssize_t done =
        syscall(SYS_pwritev2, fd, cut, count, append ? -1 : offset, append ? -1L : 0L, flags);
    if (done > 0 && !half_done)
        put_parts(synced ? DISK_RECORD_WRITE_SYNCED : DISK_RECORD_WRITE, inode_of(fd, &directory),
                  (uint64_t)offset, "", cut, count, (size_t)done);
    leave();
    if (half_done) {
        errno = code;
        return -1;
    }
    return done;
}

EXPORT ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
    if (watched(fd) == NULL)
        return syscall(SYS_pread64, fd, data, size, offset);
    return read_any(fd, &(struct iovec){data, size}, 1, offset, 0);
}
EXPORT ssize_t pread64(int fd, void *data, size_t size, off_t offset)
    __attribute__((alias("pread")));

EXPORT ssize_t preadv(int fd, const struct iovec *parts, int count, off_t offset)
{
    return read_any(fd, parts, count, offset, 0);
}
EXPORT ssize_t preadv64(int fd, const struct iovec *parts, int count, off_t offset)
    __attribute__((alias("preadv")));
EXPORT ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    return read_any(fd, parts, count, offset, flags);
}
EXPORT ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
    __attribute__((alias("preadv2")));

EXPORT ssize_t read(int fd, void *data, size_t size)
{
    if (watched(fd) == NULL)
        return syscall(SYS_read, fd, data, size);
    return read_any(fd, &(struct iovec){data, size}, 1, -1, 0);
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    if (watched(fd) == NULL)
        return syscall(SYS_pwrite64, fd, data, size, offset);
    return write_any(fd, &(struct iovec){(void *)(uintptr_t)data, size}, 1, offset, 0);
}
EXPORT ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
    __attribute__((alias("pwrite")));

EXPORT ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    return write_any(fd, parts, count, offset, 0);
}
EXPORT ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset)
    __attribute__((alias("pwritev")));
EXPORT ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    return write_any(fd, parts, count, offset, flags);
}
EXPORT ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
    __attribute__((alias("pwritev2")));

EXPORT ssize_t write(int fd, const void *data, size_t size)
{
    if (watched(fd) == NULL)
        return syscall(SYS_write, fd, data, size);
    return write_any(fd, &(struct iovec){(void *)(uintptr_t)data, size}, 1, -1, 0);
}

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (watched(fd) == NULL)
        return syscall(SYS_writev, fd, parts, count);
    return write_any(fd, parts, count, -1, 0);
}

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

EXPORT int fallocate(int fd, int mode, off_t offset, off_t size)
{
    static const uint8_t zeros[65536];
    const char *path = watched(fd);
    if (path == NULL)
        return (int)syscall(SYS_fallocate, fd, mode, offset, size);
    bool directory, longer = offset + size > size_of(fd);
    DiskFault what = fault(DISK_WRITE, path);
    if (what == DISK_ERROR || (what == DISK_FULL && longer)) {
        errno = (int)atomic_load(&control->code);
        return -1;
    }
    enter();
    uint64_t inode = inode_of(fd, &directory);
    int result = (int)syscall(SYS_fallocate, fd, mode, offset, size);
    off_t end = size_of(fd);
    if (result == 0 && longer && (mode & FALLOC_FL_KEEP_SIZE) == 0)
        put(DISK_RECORD_TRUNCATE, inode, (uint64_t)end, "", NULL, 0);
    if (result == 0 && (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0) {
        if (end > offset + size)
            end = offset + size;
        for (off_t at = offset; at < end; at += (off_t)sizeof zeros) {
            size_t part = (size_t)(end - at) < sizeof zeros ? (size_t)(end - at) : sizeof zeros;
            put(DISK_RECORD_WRITE, inode, (uint64_t)at, "", zeros, part);
        }
    }
    leave();
    return result;
}
EXPORT int fallocate64(int fd, int mode, off_t offset, off_t size)
    __attribute__((alias("fallocate")));

EXPORT int posix_fallocate(int fd, off_t offset, off_t size)
{
    int before = errno, code = fallocate(fd, 0, offset, size) == 0 ? 0 : errno;
    errno = before;
    return code;
}
EXPORT int posix_fallocate64(int fd, off_t offset, off_t size)
    __attribute__((alias("posix_fallocate")));

/* ---- syncs -------------------------------------------------------------------------------------- */

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

/* sync_file_range is not here: it makes nothing durable. */

/* ---- sockets ------------------------------------------------------------------------------------ */

static DiskFault socket_fault(uint32_t kind)
{
    return control != NULL ? fault(kind, "") : DISK_NO_FAULT;
}

static bool interrupted(void)
{
    if (socket_fault(DISK_WAIT) != DISK_ERROR)
        return false;
    errno = (int)atomic_load(&control->code);
    return true;
}

static bool is_stream(int fd)
{
    int type = 0;
    socklen_t size = sizeof type;
    return syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
           type == SOCK_STREAM;
}

EXPORT ssize_t send(int fd, const void *data, size_t size, int flags)
{
    DiskFault what = (flags & MSG_DONTWAIT) != 0 ? socket_fault(DISK_SOCKET) : DISK_NO_FAULT;
    if (what != DISK_NO_FAULT && is_stream(fd)) {
        if (what == DISK_ERROR) {
            errno = (int)atomic_load(&control->code);
            return -1;
        }
        if (what == DISK_SHORT)
            size = (size + 1) / 2;
    }
    return syscall(SYS_sendto, fd, data, size, flags, NULL, 0);
}

EXPORT ssize_t recv(int fd, void *data, size_t size, int flags)
{
    if ((flags & MSG_DONTWAIT) == 0 && interrupted())
        return -1;
    return syscall(SYS_recvfrom, fd, data, size, flags, NULL, NULL);
}

EXPORT int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    if (socket_fault(DISK_SOCKET) == DISK_ERROR) {
        errno = (int)atomic_load(&control->code);
        return -1;
    }
    return (int)syscall(SYS_accept4, fd, address, size, flags);
}

EXPORT int poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    struct timespec limit = {timeout_ms / 1000, (long)(timeout_ms % 1000) * 1000000};
    if (timeout_ms != 0 && interrupted())
        return -1;
    return (int)syscall(SYS_ppoll, fds, count, timeout_ms < 0 ? NULL : &limit, NULL, 0);
}

EXPORT int epoll_wait(int fd, struct epoll_event *events, int most, int timeout_ms)
{
    if (timeout_ms != 0 && interrupted())
        return -1;
    return (int)syscall(SYS_epoll_pwait, fd, events, most, timeout_ms, NULL, 0);
}

/* ---- mapped files ------------------------------------------------------------------------------- */

/* The copy that the pages are compared with: the one of the processes before, or a new one. */
static uint8_t *copy_open(uint64_t inode, const uint8_t *memory, size_t size)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s.%llu", journal_path, (unsigned long long)inode);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    bool fresh = fd >= 0 && size_of(fd) == 0;
    void *copy = MAP_FAILED;
    if (fd >= 0 && ((size_t)size_of(fd) >= size || syscall(SYS_ftruncate, fd, size) == 0))
        copy = (void *)syscall(SYS_mmap, NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (copy == MAP_FAILED)
        _exit(99);
    syscall(SYS_close, fd);
    if (fresh)
        memcpy(copy, memory, size);
    return copy;
}

EXPORT void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    void *memory = (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset);
    bool directory;
    if (memory == MAP_FAILED || journal < 0 || watched(fd) == NULL || (flags & MAP_SHARED) == 0 ||
        (protection & PROT_WRITE) == 0 || offset != 0)
        return memory;
    lock();
    for (size_t i = 0; i < MAPS_MAX; i++) {
        if (maps[i].base == NULL) {
            uint64_t inode = inode_of(fd, &directory);
            maps[i] = (Map){memory, size, inode, copy_open(inode, memory, size)};
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

EXPORT int msync(void *address, size_t size, int flags)
{
    const uint8_t *from = address;
    for (size_t i = 0; i < MAPS_MAX && journal >= 0 && (flags & MS_SYNC) != 0; i++) {
        Map *map = &maps[i];
        if (map->base == NULL || from < map->base || from >= map->base + map->size)
            continue;
        if (refused(DISK_SYNC, ""))
            return -1;
        enter();
        size_t offset = (size_t)(from - map->base);
        if (size > map->size - offset)
            size = map->size - offset;
        int result = (int)syscall(SYS_msync, address, size, flags);
        if (result == 0)
            put(DISK_RECORD_WRITE_SYNCED, map->inode, offset, "", map->copy + offset, size);
        leave();
        return result;
    }
    return (int)syscall(SYS_msync, address, size, flags);
}
