/*
 * mempool.c - the chunks that all memtables are made of, and the life of a memtable.
 *
 * Chunks are handed out lowest first, so that the pages that were touched before are touched again,
 * and in runs: a memtable first tries to lengthen the run that it fills. What a run leaves unused
 * when its memtable moves on to another goes back to the pool by whole chunks.
 *
 * A retired memtable keeps its chunks until every reader that could have found it has left its
 * epoch. Nobody waits for that: whoever needs memory later looks whether the time has come.
 *
 * A memtable without entries holds no chunk, so that creating one does not need memory that only a
 * flush of the memtable before it would give back.
 */
#include "config.h"
#include "engine/memtable/memtable_internal.h"

#include <inttypes.h>

#define CHUNK_LARGE (256u << 10)
#define CHUNK_SMALL (64u << 10)
#define SMALL_POOL  (32u << 20) /* pools below this size have small chunks */
#define POOL_MAX    ((uint64_t)32 << 30)

/* ---- layout ---------------------------------------------------------------------------------- */

static uint64_t align_up(uint64_t size, uint64_t unit)
{
    return (size + unit - 1) / unit * unit;
}

/* Fills in sizes only. */
static void pool_layout(uint64_t capacity, MemPool *pool, uint64_t *size)
{
    if (capacity > POOL_MAX)
        capacity = POOL_MAX;
    pool->chunk_size = capacity < SMALL_POOL ? CHUNK_SMALL : CHUNK_LARGE;
    uint64_t chunk_count = capacity / pool->chunk_size + (capacity % pool->chunk_size != 0);
    if (chunk_count == 0)
        chunk_count = 1;
    for (;; chunk_count--) {
        pool->chunks_offset = align_up(sizeof(MemPool) + chunk_count, PORT_CACHE_LINE);
        *size = pool->chunks_offset + chunk_count * pool->chunk_size;
        if (*size <= POOL_MAX)
            break;
    }
    pool->chunk_count = (uint32_t)chunk_count;
}

size_t mempool_size(uint64_t capacity)
{
    MemPool pool;
    uint64_t size;
    pool_layout(capacity, &pool, &size);
    return size;
}

MemPool *mempool_init(void *memory, uint64_t capacity, EpochDomain *epochs)
{
    MemPool *pool = memory;
    memset(pool, 0, sizeof *pool);
    uint64_t size;
    pool_layout(capacity, pool, &size);
    pool->owners = (uint8_t *)(pool + 1);
    memset(pool->owners, 0, pool->chunk_count);
    pool->epochs = epochs;
    lock_init(&pool->lock, LOCK_RANK_MEMPOOL, "memtable chunks");
    atomic_init(&pool->free_count, pool->chunk_count);
    for (uint32_t i = 0; i < MEMTABLES_MAX; i++) {
        pool->tables[i].pool = pool;
        pool->tables[i].index = i;
    }
    return pool;
}

void mempool_usage(const MemPool *pool, uint64_t *used, uint64_t *capacity)
{
    uint32_t free_count = atomic_load_explicit(&pool->free_count, memory_order_relaxed);
    *used = (pool->chunk_count - free_count) * pool->chunk_size;
    *capacity = pool->chunk_count * pool->chunk_size;
}

/* ---- chunks; all of these hold the lock ------------------------------------------------------ */

static void chunks_take(MemPool *pool, Memtable *memtable, uint32_t first, uint32_t count)
{
    memset(pool->owners + first, (int)memtable->index + 1, count);
    memtable->chunk_count += count;
    atomic_fetch_sub_explicit(&pool->free_count, count, memory_order_relaxed);
}

static void chunks_give_back(MemPool *pool, Memtable *memtable, uint32_t first, uint32_t count)
{
    memset(pool->owners + first, 0, count);
    memtable->chunk_count -= count;
    atomic_fetch_add_explicit(&pool->free_count, count, memory_order_relaxed);
    if (first < pool->first_free)
        pool->first_free = first;
}

static bool chunks_are_free(const MemPool *pool, uint64_t first, uint64_t count)
{
    if (first + count > pool->chunk_count)
        return false;
    for (uint64_t i = first; i < first + count; i++) {
        if (pool->owners[i] != 0)
            return false;
    }
    return true;
}

/* Finds the lowest run of `count` free chunks. */
static bool chunks_find(MemPool *pool, uint64_t count, uint32_t *first)
{
    uint32_t at = pool->first_free;
    while (at < pool->chunk_count && pool->owners[at] != 0)
        at++;
    pool->first_free = at;
    uint64_t run = 0;
    for (; at < pool->chunk_count; at++) {
        run = pool->owners[at] == 0 ? run + 1 : 0;
        if (run == count) {
            *first = at + 1 - (uint32_t)count;
            return true;
        }
    }
    return false;
}

/* Frees the memtables whose last reader has left. */
static void pool_reclaim(MemPool *pool)
{
    for (uint32_t i = 0; i < MEMTABLES_MAX; i++) {
        Memtable *memtable = &pool->tables[i];
        if (memtable->state != MEMTABLE_RETIRED ||
            !epoch_is_past(pool->epochs, memtable->retired_at))
            continue;
        for (uint32_t at = 0; at < pool->chunk_count && memtable->chunk_count > 0; at++) {
            if (pool->owners[at] == i + 1)
                chunks_give_back(pool, memtable, at, 1);
        }
        memtable->state = MEMTABLE_FREE;
    }
}

/* ---- calls ----------------------------------------------------------------------------------- */

bool mempool_has_room(MemPool *pool, Slot *slot, uint64_t bytes)
{
    uint64_t count = bytes / pool->chunk_size + (bytes % pool->chunk_size != 0);
    if (count <= 1 && atomic_load_explicit(&pool->free_count, memory_order_relaxed) > 0)
        return true;
    if (count == 0)
        count = 1;
    uint32_t first;
    lock_acquire(&pool->lock, slot);
    pool_reclaim(pool);
    bool found = count <= pool->chunk_count && chunks_find(pool, count, &first);
    lock_release(&pool->lock, slot);
    return found;
}

Status memtable_create(MemPool *pool, Slot *slot, Memtable **memtable)
{
    *memtable = NULL;
    lock_acquire(&pool->lock, slot);
    pool_reclaim(pool);
    for (uint32_t i = 0; i < MEMTABLES_MAX && *memtable == NULL; i++) {
        if (pool->tables[i].state == MEMTABLE_FREE) {
            *memtable = &pool->tables[i];
            (*memtable)->state = MEMTABLE_LIVE;
        }
    }
    lock_release(&pool->lock, slot);
    if (*memtable == NULL)
        return AIDB_BUSY;

    Memtable *fresh = *memtable;
    fresh->position = 0;
    fresh->limit = 0;
    fresh->secured_until = 0;
    fresh->random = 0x9e3779b97f4a7c15u;
    atomic_store_explicit(&fresh->bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&fresh->entries, 0, memory_order_relaxed);
    atomic_store_explicit(&fresh->first_lsn, 0, memory_order_relaxed);
    atomic_store_explicit(&fresh->last_lsn, 0, memory_order_relaxed);
    entries_init(fresh);
    ranges_init(fresh);
    return AIDB_OK;
}

void memtable_retire(Memtable *memtable, Slot *slot)
{
    MemPool *pool = memtable->pool;
    uint64_t stamp = epoch_retire(pool->epochs);
    lock_acquire(&pool->lock, slot);
    MEMTABLE_ASSERT(memtable->state == MEMTABLE_LIVE);
    memtable->retired_at = stamp;
    memtable->state = MEMTABLE_RETIRED;
    lock_release(&pool->lock, slot);
}

Status mempool_extend(Memtable *memtable, Slot *slot, uint64_t need)
{
    MemPool *pool = memtable->pool;
    if (need > pool->chunk_count * pool->chunk_size)
        return status_set(AIDB_LIMIT,
                          "batch that takes up to %" PRIu64
                          " bytes in memory is larger than all memtables together",
                          need);
    lock_acquire(&pool->lock, slot);
    pool_reclaim(pool);

    /* Lengthen the run, if what follows it is free. */
    uint64_t missing = align_up(need - (memtable->limit - memtable->position), pool->chunk_size);
    uint64_t behind = memtable->limit > 0
                          ? (memtable->limit - pool->chunks_offset) / pool->chunk_size
                          : pool->chunk_count;
    bool found = chunks_are_free(pool, behind, missing / pool->chunk_size);
    if (found) {
        chunks_take(pool, memtable, (uint32_t)behind, (uint32_t)(missing / pool->chunk_size));
        memtable->limit += missing;
    } else {
        /* Another run. What was not touched of this one may become part of it. */
        if (memtable->limit > 0) {
            uint64_t kept = align_up(memtable->position - pool->chunks_offset, pool->chunk_size) /
                            pool->chunk_size;
            chunks_give_back(pool, memtable, (uint32_t)kept, (uint32_t)(behind - kept));
            memtable->limit = pool->chunks_offset + kept * pool->chunk_size;
        }
        uint64_t size = align_up(need, pool->chunk_size);
        uint32_t first = 0;
        found = chunks_find(pool, size / pool->chunk_size, &first);
        if (found) {
            chunks_take(pool, memtable, first, (uint32_t)(size / pool->chunk_size));
            memtable->position = pool->chunks_offset + first * pool->chunk_size;
            memtable->limit = memtable->position + size;
        }
    }
    uint64_t taken = memtable->chunk_count * pool->chunk_size;
    lock_release(&pool->lock, slot);
    atomic_store_explicit(&memtable->bytes, taken - (memtable->limit - memtable->position),
                          memory_order_relaxed);
    return found ? AIDB_OK : AIDB_BUSY;
}
