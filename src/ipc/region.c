/*
 * region.c - the shared mapping: made once, before the first fork, and carved from the front.
 */
#include "config.h"

#include "common/log.h"
#include "ipc/ipc.h"

#include <errno.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

Status region_create(size_t size, bool want_huge, Region *region)
{
    *region = (Region){0};
    size = (size + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    void *base = MAP_FAILED;
    bool huge = false;
    if (want_huge) {
        base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB,
                    -1, 0);
        huge = base != MAP_FAILED;
        if (!huge)
            server_log(LOG_LEVEL_DEBUG, "no huge pages for the shared region, using small ones");
    }
    if (base == MAP_FAILED)
        base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1, 0);
    if (base == MAP_FAILED)
        return status_set_errno(errno, "could not map %zu bytes for the shared region", size);
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
    return region->base + at;
}

void region_reset(Region *region)
{
    region->used = 0;
}
