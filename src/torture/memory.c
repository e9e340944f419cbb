/*
 * memory.c - memory that runs out under a program that does not know: preloaded (LD_PRELOAD), it stands
 * between the program and the allocator of libc, and lets calls fail as disk.h's control page says (kind
 * DISK_MEMORY): malloc, calloc, realloc and aligned ones, and mmap of memory, shared or not, and of files below
 * AIDB_DISK_ROOT.
 *
 * Calls before AIDB_DISK_CONTROL is mapped pass, as do those of the dynamic linker, which has an allocator
 * of its own, and those of libzstd before 1.5.5: its ZSTD_createCDict_advanced, which the dictionary trainer
 * calls, reads through NULL when it gets no memory.
 */
#include "torture/disk.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static DiskControl *control;

__attribute__((constructor)) static void begin(void)
{
    const char *page = getenv("AIDB_DISK_CONTROL");
    int fd = page != NULL ? (int)syscall(SYS_openat, AT_FDCWD, page, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *memory =
        (void *)syscall(SYS_mmap, NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (memory != MAP_FAILED)
        control = memory;
}

static bool cannot_refuse(const void *caller)
{
    unsigned (*version)(void) =
        (unsigned (*)(void))(uintptr_t)dlsym(RTLD_DEFAULT, "ZSTD_versionNumber");
    Dl_info zstd, own;
    return version != NULL && version() < 10505 && dladdr((void *)(uintptr_t)version, &zstd) != 0 &&
           dladdr(caller, &own) != 0 && own.dli_fbase == zstd.dli_fbase;
}

static bool refused(const void *caller)
{
    if (control == NULL || (atomic_load(&control->kinds) & DISK_MEMORY) == 0 ||
        atomic_load(&control->fault) != DISK_ERROR)
        return false;
    uint32_t n = atomic_fetch_add(&control->matched, 1) + 1;
    if (n < atomic_load(&control->from) || n >= atomic_load(&control->until) ||
        cannot_refuse(caller))
        return false;
    atomic_fetch_add(&control->fired, 1);
    errno = ENOMEM;
    return true;
}

EXPORT void *malloc(size_t size)
{
    return refused(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

EXPORT void *calloc(size_t count, size_t size)
{
    return refused(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

EXPORT void *realloc(void *memory, size_t size)
{
    return refused(__builtin_return_address(0)) ? NULL : __libc_realloc(memory, size);
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
    return refused(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
}

EXPORT int posix_memalign(void **memory, size_t alignment, size_t size)
{
    *memory = refused(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
    return *memory != NULL ? 0 : ENOMEM;
}

/* The notes of a test are mapped as well, and no business of the program's. */
static bool is_below_root(int fd)
{
    char name[40], path[1000];
    const char *root = getenv("AIDB_DISK_ROOT");
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t size = root != NULL ? readlink(name, path, sizeof path) : -1;
    return size > 0 && (size_t)size > strlen(root) && memcmp(path, root, strlen(root)) == 0;
}

EXPORT void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (((flags & MAP_ANONYMOUS) != 0 || is_below_root(fd)) && refused(__builtin_return_address(0)))
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset);
}
EXPORT void *mmap64(void *address, size_t size, int protection, int flags, int fd, off_t offset)
    __attribute__((alias("mmap")));
