/*
 * cache.c - the block cache.
 *
 * Memory. Behind the tables at its beginning the cache is an array of chunks of about 1 MiB (256 KiB in a small cache). A chunk
 * is unassigned or cut into frames of one class; a frame is a 64-byte head followed by the block.
 * Frames are named by their distance from the first chunk in units of 64 bytes, so a 32-bit link of a
 * hash chain leads to a frame without another table, and head and block lie side by side.
 *
 * Pools. All frames of one class (and, in a large cache, of one shard: blocks are dealt to shards in
 * turn) form a pool with a lock, a free list and the queues of S3-FIFO: a new block enters the small
 * queue, a tenth of the frames; when its turn comes there it moves to the main queue if it was found
 * at least twice, else it leaves and only its fingerprint is remembered; a block whose fingerprint
 * is remembered enters the main queue at once, and so does one that a compaction puts in the place of
 * blocks that are there. In the main queue a block that was found goes round
 * once more for each time. Blocks read once by a scan so never disturb the main queue. Index and
 * filter blocks enter the main queue directly and earn more rounds.
 *
 * Life of a frame: FREE -> FILLING (reserved) -> SMALL or MAIN (in a queue, linked into a chain) ->
 * EVICTING (out of its queue, being unlinked) -> LIMBO (stamped; readers may still look at it) -> FREE.
 * A frame in limbo keeps all that a reader looks at, its chain link included: a reader that stands
 * on it walks on. Reservation evicts ahead of need, so that limbo has become free when it is wanted.
 *
 * Classes compete for chunks. Each time a pool has turned over a quarter of its frames it looks at the
 * others: of each it has marked a few blocks, and when none of them was asked for since the last look
 * that pool's blocks lie idle longer than this pool's live, and a chunk of it (or some) is taken. The
 * chunk is drained: its frames are unlinked, and each is PARKED once nobody fills it; when all are, the
 * chunk gets a stamp, and once that is past it is cut anew.
 *
 * First touch. Where somebody prepares (cache_prepare), chunks that nobody used yet are touched by it, a few
 * ahead of need: a huge page is cleared meanwhile, which takes a tenth of a millisecond, or several where
 * a host has to find the memory first. A data block for which no chunk is ready gets no frame.
 *
 * Locks: chain locks (by hash) and pool locks are never held together nor nested, so they have one
 * rank. Lookups take none. Nothing here waits for an epoch: who finds nothing free gets no frame.
 *
 * Nothing of this survives a crash: the region is initialised anew.
 */
#include "config.h"

#include "engine/cache/cache_internal.h"

#define CHUNK_LARGE      ((1u << 20) + (4u << 10)) /* 1 MiB and room for heads */
#define CHUNK_SMALL      ((256u << 10) + (1u << 10))
#define CHUNK_LARGE_FROM (64u << 20) /* caches of this size have large chunks */
#define CLASS_MIN        512u
#define SHARDS_MAX       8u
#define SHARD_BYTES      (128u << 20)
#define DROP_BATCH       64u /* frames looked at under one lock for blocks of forgotten tables */
#define FREQUENCY_DATA   3u
#define FREQUENCY_INDEX  7u
#define SPARE_MAX        128u /* frames that a pool keeps free or in limbo, for epochs that read much */
#define TURNOVER_MIN     16u /* evictions between two looks at the other pools */

/* ---- set-up ---------------------------------------------------------------------------------- */

static uint32_t class_size_of(uint32_t class)
{
    return (CLASS_MIN << class / 4) / 4 * (4 + class % 4);
}

/* The smallest class that holds `size` bytes. */
static uint32_t class_of(size_t size)
{
    if (size <= CLASS_MIN)
        return 0;
    uint32_t bits = 63 - (uint32_t)__builtin_clzll(size - 1); /* 2^bits < size <= 2^(bits + 1) */
    uint32_t quarter = (uint32_t)((size - 1) >> (bits - 2)) & 3;
    return (bits - 9) * 4 + quarter + 1;
}

static size_t round_up(size_t size, size_t to)
{
    return (size + to - 1) / to * to;
}

static uint32_t power_of_two_from(size_t count)
{
    uint32_t power = 64;
    while (power < count && power < 1u << 30)
        power *= 2;
    return power;
}

BlockCache *cache_init(void *memory, size_t size, EpochDomain *epochs)
{
    /* What a region without room for a cache gets: it has no chunk, so nothing is ever written. */
    static BlockCache nothing;

    uint8_t *start = memory;
    size_t pad = memory == NULL
                     ? 0
                     : (PORT_CACHE_LINE - (uintptr_t)start % PORT_CACHE_LINE) % PORT_CACHE_LINE;
    if (memory == NULL || size < pad + sizeof(BlockCache) + 2 * CHUNK_SMALL)
        return &nothing;
    BlockCache *cache = (BlockCache *)(start + pad);
    size -= pad;
    memset(cache, 0, sizeof *cache);
    cache->epochs = epochs;
    /* There should be many more chunks than classes in use, which are about ten. */
    uint32_t chunk_size = size >= CHUNK_LARGE_FROM ? CHUNK_LARGE : CHUNK_SMALL;
    cache->chunk_units = chunk_size / UNIT;
    cache->shards = (uint32_t)(size / SHARD_BYTES);
    if (cache->shards < 1)
        cache->shards = 1;
    if (cache->shards > SHARDS_MAX)
        cache->shards = SHARDS_MAX;
    /* Several for each block: a frame that is in the way in its chain is a wait for memory. */
    uint32_t buckets = power_of_two_from(size / 1024);
    uint32_t ghosts = power_of_two_from(size / 4096);
    cache->bucket_mask = buckets - 1;
    cache->ghost_mask = ghosts - 1;

    /* Tables first, then as many chunks as fit with their records. */
    size_t used = round_up(sizeof *cache, PORT_CACHE_LINE);
    size_t pools_at = used;
    used += (size_t)cache->shards * CLASSES * sizeof(Pool);
    size_t buckets_at = used;
    used += (size_t)buckets * sizeof(uint32_t);
    size_t ghosts_at = used;
    used += (size_t)ghosts * sizeof(uint32_t);
    size_t chunks_at = used;
    size_t left = size > used + PORT_CACHE_LINE ? size - used - PORT_CACHE_LINE : 0;
    size_t chunk_count = left / (chunk_size + sizeof(Chunk));
    if (chunk_count > UINT32_MAX / cache->chunk_units)
        chunk_count = UINT32_MAX / cache->chunk_units; /* 256 GiB: what 32-bit links reach */
    if (chunk_count == 0)
        return &nothing;
    used = round_up(used + chunk_count * sizeof(Chunk), PORT_CACHE_LINE);

    uint8_t *at = (uint8_t *)cache;
    cache->pools = (Pool *)(at + pools_at);
    cache->buckets = (_Atomic uint32_t *)(at + buckets_at);
    cache->ghosts = (_Atomic uint32_t *)(at + ghosts_at);
    cache->chunks = (Chunk *)(at + chunks_at);
    cache->base = at + used;
    cache->chunk_count = (uint32_t)chunk_count;
    for (uint32_t i = 0; i < buckets; i++)
        atomic_store_explicit(&cache->buckets[i], NONE, memory_order_relaxed);
    memset((void *)cache->ghosts, 0, (size_t)ghosts * sizeof(uint32_t));
    memset(cache->pools, 0, (size_t)cache->shards * CLASSES * sizeof(Pool));
    for (uint32_t i = 0; i < cache->shards * CLASSES; i++) {
        Pool *pool = &cache->pools[i];
        lock_init(&pool->lock, LOCK_RANK_CACHE, "cache pool");
        pool->class_size = class_size_of(i % CLASSES);
        pool->take_tick = 0u - TAKE_INTERVAL;
        pool->chunk_frames = chunk_size / class_stride(pool->class_size);
        frame_queue_init(&pool->free);
        frame_queue_init(&pool->limbo);
        frame_queue_init(&pool->small);
        frame_queue_init(&pool->main);
    }
    for (uint32_t i = 0; i < cache->chunk_count; i++)
        cache->chunks[i] = (Chunk){.pool = NONE, .heir = NONE, .next = NONE};
    lock_init(&cache->chunk_lock, LOCK_RANK_CACHE, "cache chunks");
    for (uint32_t i = 0; i < CHAIN_LOCKS; i++)
        lock_init(&cache->chain_locks[i].lock, LOCK_RANK_CACHE, "cache chain");
    cache->drained = NONE;
    cache->ready = NONE;
    atomic_store(&cache->chunks_left, true);
    atomic_store(&cache->clock, 0);
    return cache;
}

/* ---- ghosts and forgotten tables ------------------------------------------------------------- */

static void ghost_remember(BlockCache *cache, uint64_t hash)
{
    atomic_store_explicit(&cache->ghosts[hash & cache->ghost_mask], (uint32_t)(hash >> 32) | 1,
                          memory_order_relaxed);
}

static bool ghost_take(BlockCache *cache, uint64_t hash)
{
    _Atomic uint32_t *ghost = &cache->ghosts[hash & cache->ghost_mask];
    if (atomic_load_explicit(ghost, memory_order_relaxed) != ((uint32_t)(hash >> 32) | 1))
        return false;
    atomic_store_explicit(ghost, 0, memory_order_relaxed);
    return true;
}

static _Atomic uint64_t *forgotten_place(BlockCache *cache, uint64_t table)
{
    return &cache->forgotten[block_hash(table, 0) % FORGOTTEN];
}

static bool is_forgotten(BlockCache *cache, uint64_t table)
{
    return atomic_load_explicit(forgotten_place(cache, table), memory_order_relaxed) == table;
}

void cache_forget(BlockCache *cache, Slot *slot, uint64_t table)
{
    (void)slot;
    if (cache->chunk_count > 0)
        atomic_store_explicit(forgotten_place(cache, table), table, memory_order_relaxed);
}

/* ---- eviction -------------------------------------------------------------------------------- */

/* Under the pool's lock: takes the next victim out of its queue. */
static uint32_t pick_victim(BlockCache *cache, Pool *pool, uint32_t tick)
{
    /* Each round lowers a frequency or empties a queue, so this ends. The bound keeps the lock short. */
    for (uint32_t rounds = 0; rounds < 128; rounds++) {
        bool from_small = pool->small.count > pool->frames / 10 || pool->main.count == 0;
        uint32_t at = frame_queue_pop(cache, from_small ? &pool->small : &pool->main);
        if (at == NONE)
            return NONE;
        Frame *frame = frame_at(cache, at);
        uint8_t frequency = atomic_load_explicit(&frame->frequency, memory_order_relaxed);
        if (frequency > (from_small ? 1 : 0)) {
            atomic_store_explicit(&frame->frequency, from_small ? 0 : (uint8_t)(frequency - 1),
                                  memory_order_relaxed);
            frame->state = FRAME_MAIN;
            frame->tick = tick;
            frame_queue_push(cache, &pool->main, at);
            continue;
        }
        uint64_t hash = block_hash(frame->table, frame->offset);
        __builtin_prefetch((const void *)&cache->buckets[hash & cache->bucket_mask]);
        if (from_small)
            ghost_remember(cache, hash);
        frame->state = FRAME_EVICTING;
        return at;
    }
    return NONE;
}

/* Frames that may be out of use at a time, in limbo or on their way there. */
static uint32_t limbo_limit(const Pool *pool)
{
    return pool->frames / 4 > 0 ? pool->frames / 4 : 1;
}

/* True when it is time to compare this pool with the others. */
static bool evict_batch(BlockCache *cache, Slot *slot, Pool *pool, uint32_t tick)
{
    uint32_t victims[EVICT_BATCH];
    uint32_t count = 0;
    lock_acquire(&pool->lock, slot);
    uint32_t want = pool->frames / 16 + 1;
    if (want > EVICT_BATCH)
        want = EVICT_BATCH;
    while (count < want && pool->limbo.count + pool->evicting < limbo_limit(pool)) {
        uint32_t at = pick_victim(cache, pool, tick);
        if (at == NONE)
            break;
        pool->evicting++;
        victims[count++] = at;
    }
    pool->turnover += count;
    bool compare =
        pool->frames == 0 || (pool->turnover >= TURNOVER_MIN && pool->turnover >= pool->frames / 4);
    lock_release(&pool->lock, slot);
    frames_unlink(cache, slot, pool, victims, count);
    return compare;
}

/* Drops what a chunk has of forgotten tables. */
static void drop_forgotten(BlockCache *cache, Slot *slot, uint32_t chunk_index)
{
    const Chunk *chunk = &cache->chunks[chunk_index];
    uint32_t index = atomic_load_explicit(&chunk->pool, memory_order_acquire);
    if (index == NONE)
        return;
    Pool *pool = &cache->pools[index];
    uint32_t first = chunk_index * cache->chunk_units;
    uint32_t step = class_stride(pool->class_size) / UNIT;
    for (uint32_t from = 0; from < pool->chunk_frames; from += DROP_BATCH) {
        uint32_t dropped[DROP_BATCH];
        uint32_t count = 0;
        for (uint32_t i = from; i < from + DROP_BATCH && i < pool->chunk_frames; i++)
            __builtin_prefetch(frame_at(cache, first + i * step), 1);
        lock_acquire(&pool->lock, slot);
        bool still_there = atomic_load_explicit(&chunk->pool, memory_order_relaxed) == index &&
                           atomic_load_explicit(&chunk->draining, memory_order_relaxed) == 0;
        for (uint32_t i = from; still_there && i < from + DROP_BATCH && i < pool->chunk_frames;
             i++) {
            uint32_t at = first + i * step;
            Frame *frame = frame_at(cache, at);
            if ((frame->state != FRAME_SMALL && frame->state != FRAME_MAIN) ||
                !is_forgotten(cache, frame->table))
                continue;
            frame_queue_remove(cache, frame->state == FRAME_SMALL ? &pool->small : &pool->main, at);
            frame->state = FRAME_EVICTING;
            pool->evicting++;
            dropped[count++] = at;
        }
        lock_release(&pool->lock, slot);
        frames_unlink(cache, slot, pool, dropped, count);
    }
}

void cache_drop_forgotten(BlockCache *cache, Slot *slot)
{
    for (uint32_t i = 0; i < cache->chunk_count; i++)
        drop_forgotten(cache, slot, i);
}

/* ---- filling --------------------------------------------------------------------------------- */

/* A free frame, if there is one; *low when the pool should be refilled. */
static uint32_t take_free(BlockCache *cache, Slot *slot, Pool *pool, bool *low)
{
    uint32_t full = NONE;
    lock_acquire(&pool->lock, slot);
    if (pool->free.count <= EVICT_BATCH / 2)
        frames_reap(cache, pool, EVICT_BATCH, &full);
    uint32_t at = frame_queue_pop(cache, &pool->free);
    if (at != NONE)
        frame_at(cache, at)->state = FRAME_FILLING;
    uint32_t spare = pool->free.count + pool->limbo.count + pool->evicting;
    uint32_t wanted = pool->frames / 32 < SPARE_MAX ? pool->frames / 32 : SPARE_MAX;
    if (wanted == 0 && pool->frames >= 4)
        wanted = 1;
    *low = at == NONE || spare < wanted;
    lock_release(&pool->lock, slot);
    if (full != NONE)
        chunk_hand_over(cache, slot, full);
    return at;
}

void cache_reserve(BlockCache *cache, Slot *slot, size_t size, CachePriority priority,
                   CacheFill *fill)
{
    *fill = (CacheFill){.frame = NONE};
    if (cache->chunk_count == 0 || size > CACHE_BLOCK_MAX)
        return;
    uint64_t now = atomic_fetch_add_explicit(&cache->clock, 1, memory_order_relaxed);
    uint32_t tick = (uint32_t)now;
    Pool *pool = &cache->pools[now % cache->shards * CLASSES + class_of(size)];
    bool low = false;
    uint32_t at = take_free(cache, slot, pool, &low);
    if (low) {
        /* Index blocks are read again by the next who comes; a class without frames has no others to evict. */
        bool coming, must = priority == CACHE_INDEX ||
                            atomic_load_explicit(&pool->chunks, memory_order_relaxed) == 0;
        uint32_t chunk =
            chunk_take(cache, slot, (uint32_t)(pool - cache->pools), tick, must, &coming);
        if (chunk != NONE) {
            chunk_assign(cache, slot, pool, chunk);
        } else if (!coming) {
            if (evict_batch(cache, slot, pool, tick))
                chunks_rebalance(cache, slot, pool, tick);
        }
        if (at == NONE)
            at = take_free(cache, slot, pool, &low);
    }
    if (at == NONE)
        return;
    Frame *frame = frame_at(cache, at);
    frame->priority = (uint8_t)priority;
    frame->tick = tick;
    fill->frame = at;
    fill->data = frame_data(frame);
}

Slice cache_publish(BlockCache *cache, Slot *slot, CacheFill *fill, uint64_t table, uint64_t offset,
                    size_t size)
{
    uint32_t at = fill->frame;
    Frame *frame = frame_at(cache, at);
    Pool *pool = pool_of(cache, at);
    Slice block = slice_make(frame_data(frame), size);
    bool index = frame->priority == CACHE_INDEX;
    frame->table = table;
    frame->offset = offset;
    frame->size = (uint32_t)size;
    frame->frequency_max = index ? FREQUENCY_INDEX : FREQUENCY_DATA;
    atomic_store_explicit(&frame->frequency, index ? FREQUENCY_DATA : 0, memory_order_relaxed);
    *fill = (CacheFill){.frame = NONE};
    if (!chain_insert(cache, slot, at)) {
        frames_retire(cache, slot, pool, &at, 1, false);
        return block;
    }

    bool remembered = ghost_take(cache, block_hash(table, offset));
    lock_acquire(&pool->lock, slot);
    bool draining = is_draining(cache, at);
    if (!draining) {
        bool to_main = frame->priority != CACHE_DATA || remembered;
        frame->state = to_main ? FRAME_MAIN : FRAME_SMALL;
        frame_queue_push(cache, to_main ? &pool->main : &pool->small, at);
        atomic_fetch_add_explicit(&pool->live, 1, memory_order_relaxed);
    }
    lock_release(&pool->lock, slot);
    if (draining) {
        chain_remove(cache, slot, at);
        frames_retire(cache, slot, pool, &at, 1, false);
    }
    return block;
}

void cache_abandon(BlockCache *cache, Slot *slot, CacheFill *fill)
{
    if (fill->data == NULL)
        return;
    uint32_t at = fill->frame;
    Pool *pool = pool_of(cache, at);
    *fill = (CacheFill){.frame = NONE};
    bool full = false;
    lock_acquire(&pool->lock, slot);
    if (is_draining(cache, at)) {
        full = frame_park(cache, pool, at);
    } else {
        frame_at(cache, at)->state = FRAME_FREE;
        frame_queue_push(cache, &pool->free, at);
    }
    lock_release(&pool->lock, slot);
    if (full)
        chunk_hand_over(cache, slot, frame_chunk(cache, at));
}

void cache_usage(const BlockCache *cache, uint64_t *used, uint64_t *capacity, uint64_t *blocks)
{
    *used = 0;
    *blocks = 0;
    *capacity = (uint64_t)cache->chunk_count * cache->chunk_units * UNIT;
    for (uint32_t i = 0; i < cache->shards * CLASSES && cache->chunk_count > 0; i++) {
        uint64_t live = atomic_load_explicit(&cache->pools[i].live, memory_order_relaxed);
        *used += live * class_stride(cache->pools[i].class_size);
        *blocks += live;
    }
}

uint64_t cache_lost_frames(const BlockCache *cache)
{
    uint64_t lost = 0;
    for (uint32_t i = 0; i < cache->chunk_count; i++)
        if (atomic_load_explicit(&cache->chunks[i].draining, memory_order_relaxed) != 0)
            return 0; /* its frames are in no pool's count */
    for (uint32_t i = 0; i < cache->shards * CLASSES && cache->chunk_count > 0; i++) {
        const Pool *pool = &cache->pools[i];
        lost += pool->frames - pool->free.count - pool->limbo.count - pool->small.count -
                pool->main.count;
    }
    return lost;
}
