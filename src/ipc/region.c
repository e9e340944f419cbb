/*
 * region.c - the mapping that everything shared lies in: made once, before the first fork, and carved
 * from the front.
 *
 * Cached blocks are looked into at random, so with pages of 4 KiB nearly every look costs a walk through
 * page tables. Reserved huge pages are rare. The kernel gives private memory transparent ones to
 * whoever asks, but shared memory only where an administrator said so; so the threads of one program
 * get private memory. A child that it forks has zeroes there: no page is copied for it.
 */
#include "config.h"

#include "common/log.h"
#include "ipc/ipc.h"

#include <errno.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

static void *map(size_t size, int flags)
{
    return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
}

Status region_create(size_t size, bool shared, bool want_huge, Region *region)
{
    *region = (Region){0};
    size = (size + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    void *base = MAP_FAILED;
    bool huge = false;
    if (want_huge) {
        base = map(size, MAP_SHARED | MAP_HUGETLB);
        huge = base != MAP_FAILED;
        if (!huge)
            server_log(LOG_LEVEL_DEBUG, "no huge pages are reserved for the shared region");
    }
    if (base == MAP_FAILED)
        base = map(size, (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_NORESERVE);
    if (base == MAP_FAILED)
        return status_set_errno(errno, "could not map %zu bytes for the shared region", size);
    if (!shared && !huge && madvise(base, size, MADV_WIPEONFORK) != 0) {
        Status status = status_set_errno(errno, "could not keep memory from forked children");
        munmap(base, size);
        return status;
    }
    if (shared && want_huge && !huge)
        (void)madvise(base, size, MADV_HUGEPAGE); /* as far as the system allows it */
#ifdef MADV_DONTDUMP
    /* It holds what clients wrote, and it is large: a core file is to show what a process did. A pipe in
     * core_pattern gets cores whatever the limit of their size is. Failing only makes cores larger. */
    (void)madvise(base, size, MADV_DONTDUMP);
#endif
    region->base = base;
    region->size = size;
    region->huge = huge;
    return AIDB_OK;
}

void region_populate(Region *region)
{
#ifdef MADV_POPULATE_WRITE
    if (madvise(region->base, region->size, MADV_POPULATE_WRITE) == 0)
        return;
#endif
    for (size_t at = 0; at < region->size; at += 4096)
        ((volatile uint8_t *)region->base)[at] = 0;
}

void region_prefer_huge(const Region *region, void *part, size_t size)
{
    uintptr_t from = ((uintptr_t)part + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1);
    uintptr_t to = ((uintptr_t)part + size) & ~(uintptr_t)(HUGE_PAGE - 1);
    if (!region->huge && from < to)
        (void)madvise((void *)from, to - from, MADV_HUGEPAGE);
}

void region_destroy(Region *region)
{
    if (region->base != NULL)
        munmap(region->base, region->size);
    *region = (Region){0};
}

void *region_carve(Region *region, size_t size, size_t align)
{
    size_t at = (region->used + align - 1) & ~(align - 1);
    if (at > region->size || size > region->size - at)
        return NULL;
    region->used = at + size;
    /* A number, because a region without memory is divided to learn its size. */
    return (void *)((uintptr_t)region->base + at);
}

void region_reset(Region *region)
{
    region->used = 0;
}
