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

#include "engine/cache/cache.h"

#include <assert.h>

#define UNIT             64u
#define HEAD_SIZE        64u
#define CHUNK_LARGE      ((1u << 20) + (4u << 10)) /* 1 MiB and room for heads */
#define CHUNK_SMALL      ((256u << 10) + (1u << 10))
#define CHUNK_LARGE_FROM (64u << 20) /* caches of this size have large chunks */
#define CLASS_MIN        512u
#define CLASSES          37u /* 512, 640, 768, 896, 1024, ... 256 KiB */
#define SHARDS_MAX       8u
#define SHARD_BYTES      (128u << 20)
#define CHAIN_LOCKS      64u
#define NONE             UINT32_MAX
#define EVICT_BATCH      4u    /* no more, as one reader pays for all of them */
#define AHEAD            4u    /* heads of frames that are fetched ahead of their turn in a queue */
#define FORGOTTEN        1024u /* tables remembered as deleted */
#define DROP_BATCH       64u   /* frames looked at under one lock for blocks of such tables */
#define FREQUENCY_DATA   3u
#define FREQUENCY_INDEX  7u
#define SPARE_MAX        128u /* frames that a pool keeps free or in limbo, for epochs that read much */
#define TAKE_INTERVAL    512u /* ticks between two chunks that a pool without frames takes */
#define SAMPLES          8u
#define TURNOVER_MIN     16u    /* evictions between two looks at the other pools */
#define CHUNK_KEPT_TICKS 65536u /* how long a drained chunk waits for the pool it was taken for */
#define READY_MAX        8u     /* chunks touched ahead of need */
#define PAGE_MIN         4096u

typedef enum FrameState {
    FRAME_FREE = 0,
    FRAME_FILLING,
    FRAME_SMALL,
    FRAME_MAIN,
    FRAME_EVICTING,
    FRAME_LIMBO,
    FRAME_PARKED
} FrameState;

/* Stands before each block. */
typedef struct Frame {
    /* What lookups read; written before the frame is linked, and again only when its epoch is past. */
    _Atomic uint32_t next; /* in the chain; changes while linked */
    uint32_t size;
    uint64_t table;
    uint64_t offset;
    _Atomic uint8_t frequency; /* raised by lookups up to its limit, lowered by eviction */
    uint8_t frequency_max;
    /* Under the pool's lock. */
    uint8_t state;
    uint8_t priority;
    uint32_t newer; /* queue */
    uint32_t older;
    uint32_t tick; /* when it entered its queue */
    uint64_t stamp;
    uint32_t ahead; /* a hint: some frame, probably AHEAD places behind in its queue, or NONE */
} Frame;
_Static_assert(sizeof(Frame) <= HEAD_SIZE, "a frame's head fits its room");

/* Oldest first; `newer` links lead from the head to the tail. A walk along them waits for memory at each
 * frame, so a frame also says which one was pushed AHEAD places behind it. */
typedef struct Queue {
    uint32_t head;
    uint32_t tail;
    uint32_t count;
    /* What was pushed last, in turn. It may have left the queue since, but not the pool: once nothing of a
     * chunk is pushed any more, before the chunk is handed over, all are forgotten. */
    uint32_t recent[AHEAD];
    uint32_t pushed;
} Queue;

typedef struct Pool {
    _Alignas(PORT_CACHE_LINE) Lock lock;
    uint32_t class_size;
    uint32_t chunk_frames;
    /* Under the lock. */
    uint32_t frames; /* in chunks that are not being drained */
    uint32_t evicting;
    Queue free; /* used from the head */
    Queue limbo;
    Queue small;
    Queue main;
    uint32_t turnover;         /* evictions since the last look at the other pools */
    uint32_t take_tick;        /* when it, without any frame, last took a chunk that was in use */
    uint32_t look_tick;        /* when that was */
    uint32_t samples[SAMPLES]; /* marked blocks: their frequency was set to 0 */
    uint32_t sample_count;
    uint32_t sample_tick; /* when they were marked */
    bool sampled;
    _Atomic uint32_t chunks;  /* not being drained */
    _Atomic uint32_t pending; /* chunks being drained for this pool */
    _Atomic uint32_t donor;   /* the pool the last of them comes from */
    _Atomic uint64_t live;    /* blocks that can be found */
} Pool;

typedef struct Chunk {
    _Atomic uint32_t pool;     /* NONE: unassigned */
    _Atomic uint32_t draining; /* set under the pool's lock, cleared before the chunk is cut anew */
    uint32_t parked; /* pool's lock: frames that have left the pool, and one for the drainer */
    uint32_t heir;   /* the pool that it is drained for */
    uint32_t ready_tick;
    uint32_t next;  /* list of drained or of ready chunks; chunk lock */
    uint64_t stamp; /* may be cut anew once past */
} Chunk;

typedef struct PaddedLock {
    _Alignas(64) Lock lock;
} PaddedLock;

struct BlockCache {
    /* Constant after cache_init. */
    uint8_t *base; /* first chunk */
    uint32_t chunk_count;
    uint32_t chunk_units; /* size of a chunk */
    uint32_t bucket_mask;
    uint32_t ghost_mask;
    uint32_t shards;
    EpochDomain *epochs;
    _Atomic uint32_t *buckets;
    _Atomic uint32_t *ghosts;
    Pool *pools; /* shards * CLASSES */
    Chunk *chunks;

    _Alignas(PORT_CACHE_LINE) _Atomic uint64_t clock; /* reservations */

    _Alignas(PORT_CACHE_LINE) Lock chunk_lock;
    uint32_t fresh;           /* chunks from here on were never used; chunk lock */
    uint32_t drained;         /* list; chunk lock */
    uint32_t ready;           /* list: touched, but never used; chunk lock */
    uint32_t ready_count;     /* chunk lock */
    Slot *preparer;           /* who touches chunks; NULL: whoever uses them first; chunk lock */
    _Atomic bool chunks_left; /* worth taking the chunk lock */

    PaddedLock chain_locks[CHAIN_LOCKS];
    _Atomic uint64_t forgotten[FORGOTTEN];
};

/* ---- names of things ------------------------------------------------------------------------- */

static inline Frame *frame_at(const BlockCache *cache, uint32_t frame)
{
    return (Frame *)(cache->base + (size_t)frame * UNIT);
}

static inline uint8_t *frame_data(Frame *frame)
{
    return (uint8_t *)frame + HEAD_SIZE;
}

static uint32_t frame_chunk(const BlockCache *cache, uint32_t frame)
{
    return frame / cache->chunk_units;
}

static uint32_t class_stride(uint32_t class_size)
{
    return class_size + HEAD_SIZE;
}

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

static inline uint64_t block_hash(uint64_t table, uint64_t offset)
{
    uint64_t hash = table * 0x9e3779b97f4a7c15u ^ offset * 0xc2b2ae3d27d4eb4fu;
    hash ^= hash >> 32;
    hash *= 0xd6e8feb86659fd93u;
    return hash ^ hash >> 32;
}

/* The pool of a frame; NULL when its chunk was taken away since. */
static Pool *pool_of(const BlockCache *cache, uint32_t frame)
{
    const Chunk *chunk = &cache->chunks[frame_chunk(cache, frame)];
    uint32_t pool = atomic_load_explicit(&chunk->pool, memory_order_relaxed);
    return pool == NONE ? NULL : &cache->pools[pool];
}

/* ---- set-up ---------------------------------------------------------------------------------- */

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

static void queue_forget_recent(Queue *queue)
{
    for (uint32_t i = 0; i < AHEAD; i++)
        queue->recent[i] = NONE;
}

static void queue_init(Queue *queue)
{
    *queue = (Queue){.head = NONE, .tail = NONE};
    queue_forget_recent(queue);
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
        queue_init(&pool->free);
        queue_init(&pool->limbo);
        queue_init(&pool->small);
        queue_init(&pool->main);
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

/* ---- chains ---------------------------------------------------------------------------------- */

bool cache_lookup(BlockCache *cache, uint64_t table, uint64_t offset, Slice *block)
{
    if (cache->chunk_count == 0)
        return false;
    uint64_t hash = block_hash(table, offset);
    uint32_t at =
        atomic_load_explicit(&cache->buckets[hash & cache->bucket_mask], memory_order_acquire);
    while (at != NONE) {
        Frame *frame = frame_at(cache, at);
        /* The block's first lines come from memory while the head does. */
        __builtin_prefetch(frame_data(frame));
        __builtin_prefetch(frame_data(frame) + 64);
        if (frame->offset == offset && frame->table == table) {
            uint8_t frequency = atomic_load_explicit(&frame->frequency, memory_order_relaxed);
            if (frequency < frame->frequency_max) /* a lost raise among several does not matter */
                atomic_store_explicit(&frame->frequency, (uint8_t)(frequency + 1),
                                      memory_order_relaxed);
            *block = slice_make(frame_data(frame), frame->size);
            return true;
        }
        at = atomic_load_explicit(&frame->next, memory_order_acquire);
    }
    return false;
}

bool cache_holds(const BlockCache *cache, uint64_t table, uint64_t offset)
{
    if (cache->chunk_count == 0)
        return false;
    uint64_t hash = block_hash(table, offset);
    uint32_t at =
        atomic_load_explicit(&cache->buckets[hash & cache->bucket_mask], memory_order_acquire);
    while (at != NONE) {
        const Frame *frame = frame_at(cache, at);
        if (frame->offset == offset && frame->table == table)
            return true;
        at = atomic_load_explicit(&frame->next, memory_order_acquire);
    }
    return false;
}

void cache_prefetch(const BlockCache *cache, const CachePlace *places, size_t count)
{
    uint64_t hashes[CACHE_PREFETCH_MAX];
    if (cache->chunk_count == 0)
        return;
    for (size_t i = 0; i < count; i++) {
        hashes[i] = block_hash(places[i].table, places[i].offset);
        __builtin_prefetch((const void *)&cache->buckets[hashes[i] & cache->bucket_mask]);
    }
    for (size_t i = 0; i < count; i++) {
        uint32_t at = atomic_load_explicit(&cache->buckets[hashes[i] & cache->bucket_mask],
                                           memory_order_relaxed);
        if (at == NONE)
            continue;
        /* Mostly the first of the chain is the one: its head is not read here, that would wait. */
        Frame *frame = frame_at(cache, at);
        const uint8_t *lines = frame_data(frame) + places[i].at % CACHE_BLOCK_MAX;
        __builtin_prefetch(frame);
        __builtin_prefetch(lines);
        __builtin_prefetch(lines + 64);
    }
}

static Lock *chain_lock(BlockCache *cache, uint64_t hash)
{
    return &cache->chain_locks[hash % CHAIN_LOCKS].lock;
}

/* Links a frame at the head of its chain, unless the block is there already. */
static bool chain_insert(BlockCache *cache, Slot *slot, uint32_t at)
{
    Frame *frame = frame_at(cache, at);
    uint64_t hash = block_hash(frame->table, frame->offset);
    _Atomic uint32_t *bucket = &cache->buckets[hash & cache->bucket_mask];
    Lock *lock = chain_lock(cache, hash);
    lock_acquire(lock, slot);
    uint32_t first = atomic_load_explicit(bucket, memory_order_relaxed);
    for (uint32_t i = first; i != NONE;) {
        const Frame *other = frame_at(cache, i);
        if (other->offset == frame->offset && other->table == frame->table) {
            lock_release(lock, slot);
            return false;
        }
        i = atomic_load_explicit(&other->next, memory_order_relaxed);
    }
    atomic_store_explicit(&frame->next, first, memory_order_relaxed);
    atomic_store_explicit(
        bucket, at, memory_order_release); /* pairs with cache_lookup: the head is filled in */
    lock_release(lock, slot);
    return true;
}

/* Takes a linked frame out of its chain. Its own link stays, for readers that stand on it. */
static void chain_remove(BlockCache *cache, Slot *slot, uint32_t at)
{
    const Frame *frame = frame_at(cache, at);
    uint64_t hash = block_hash(frame->table, frame->offset);
    Lock *lock = chain_lock(cache, hash);
    lock_acquire(lock, slot);
    _Atomic uint32_t *link = &cache->buckets[hash & cache->bucket_mask];
    for (;;) {
        uint32_t i = atomic_load_explicit(link, memory_order_relaxed);
        assert(i != NONE);
        if (i == at)
            break;
        link = &frame_at(cache, i)->next;
    }
    atomic_store_explicit(link, atomic_load_explicit(&frame->next, memory_order_relaxed),
                          memory_order_release);
    lock_release(lock, slot);
}

/* ---- queues (under the pool's lock) ---------------------------------------------------------- */

static void queue_push(const BlockCache *cache, Queue *queue, uint32_t at)
{
    Frame *frame = frame_at(cache, at);
    frame->newer = NONE;
    frame->older = queue->tail;
    if (queue->tail != NONE)
        frame_at(cache, queue->tail)->newer = at;
    else
        queue->head = at;
    queue->tail = at;
    queue->count++;
    uint32_t *recent = &queue->recent[queue->pushed++ % AHEAD];
    if (*recent != NONE)
        frame_at(cache, *recent)->ahead = at;
    *recent = at;
    frame->ahead = NONE;
}

static void queue_remove(const BlockCache *cache, Queue *queue, uint32_t at)
{
    const Frame *frame = frame_at(cache, at);
    if (frame->older != NONE)
        frame_at(cache, frame->older)->newer = frame->newer;
    else
        queue->head = frame->newer;
    if (frame->newer != NONE)
        frame_at(cache, frame->newer)->older = frame->older;
    else
        queue->tail = frame->older;
    queue->count--;
}

static uint32_t queue_pop(const BlockCache *cache, Queue *queue)
{
    uint32_t at = queue->head;
    if (at != NONE) {
        uint32_t ahead = frame_at(cache, at)->ahead;
        if (ahead != NONE)
            __builtin_prefetch(frame_at(cache, ahead));
        queue_remove(cache, queue, at);
    }
    return at;
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

/* ---- frames leaving and returning ------------------------------------------------------------ */

/* A chunk all of whose frames are parked goes to the drained ones. No lock is held. */
static void hand_over_chunk(BlockCache *cache, Slot *slot, uint32_t chunk_index)
{
    Chunk *chunk = &cache->chunks[chunk_index];
    atomic_store_explicit(&chunk->pool, NONE, memory_order_relaxed);
    chunk->stamp = epoch_retire(cache->epochs);
    chunk->ready_tick = (uint32_t)atomic_load_explicit(&cache->clock, memory_order_relaxed);
    lock_acquire(&cache->chunk_lock, slot);
    chunk->next = cache->drained;
    cache->drained = chunk_index;
    atomic_store_explicit(&cache->chunks_left, true, memory_order_relaxed);
    lock_release(&cache->chunk_lock, slot);
}

/* Under the pool's lock: one more frame, or the drainer itself, is done with a chunk that is being
 * drained. True for the last one, which hands the chunk over after it released the lock. */
static bool park_one(Chunk *chunk, const Pool *pool)
{
    return ++chunk->parked == pool->chunk_frames + 1;
}

static bool park(const BlockCache *cache, const Pool *pool, uint32_t at)
{
    frame_at(cache, at)->state = FRAME_PARKED;
    return park_one(&cache->chunks[frame_chunk(cache, at)], pool);
}

static bool is_draining(const BlockCache *cache, uint32_t at)
{
    return atomic_load_explicit(&cache->chunks[frame_chunk(cache, at)].draining,
                                memory_order_relaxed) != 0;
}

/* Reservations between two readings of the clock; they may have been made in either order. */
static uint32_t elapsed(uint32_t now, uint32_t since)
{
    int32_t ticks = (int32_t)(now - since);
    return ticks > 0 ? (uint32_t)ticks : 0;
}

/* Under the pool's lock: limbo frames whose stamp is past become free. *full is a chunk that became
 * wholly parked by it, or NONE; the walk stops there. */
static void reap(BlockCache *cache, Pool *pool, uint32_t limit, uint32_t *full)
{
    *full = NONE;
    while (limit-- > 0 && pool->limbo.head != NONE) {
        uint32_t at = pool->limbo.head;
        Frame *frame = frame_at(cache, at);
        if (!epoch_is_past(cache->epochs, frame->stamp))
            return;
        queue_remove(cache, &pool->limbo, at);
        if (is_draining(cache, at)) {
            if (park(cache, pool, at)) {
                *full = frame_chunk(cache, at);
                return;
            }
        } else {
            frame->state = FRAME_FREE;
            queue_push(cache, &pool->free, at);
        }
    }
}

/* Frames that were unlinked from their chains (or never linked) wait in limbo, with one stamp. */
static void retire(BlockCache *cache, Slot *slot, Pool *pool, const uint32_t *frames,
                   uint32_t count, bool evicted)
{
    uint64_t stamp = epoch_retire(cache->epochs);
    uint32_t full = NONE;
    lock_acquire(&pool->lock, slot);
    if (evicted)
        pool->evicting -= count;
    for (uint32_t i = 0; i < count; i++) {
        Frame *frame = frame_at(cache, frames[i]);
        if (is_draining(cache, frames[i])) {
            if (park(cache, pool, frames[i]))
                full = frame_chunk(cache, frames[i]);
            continue;
        }
        frame->state = FRAME_LIMBO;
        frame->stamp = stamp;
        queue_push(cache, &pool->limbo, frames[i]);
    }
    lock_release(&pool->lock, slot);
    if (full != NONE)
        hand_over_chunk(cache, slot, full);
}

/* Frames that are EVICTING leave their chains. */
static void unlink_frames(BlockCache *cache, Slot *slot, Pool *pool, const uint32_t *frames,
                          uint32_t count)
{
    if (count == 0)
        return;
    for (uint32_t i = 0; i < count; i++)
        chain_remove(cache, slot, frames[i]);
    atomic_fetch_sub_explicit(&pool->live, count, memory_order_relaxed);
    retire(cache, slot, pool, frames, count, true);
}

/* ---- eviction -------------------------------------------------------------------------------- */

/* Under the pool's lock: takes the next victim out of its queue. */
static uint32_t pick_victim(BlockCache *cache, Pool *pool, uint32_t tick)
{
    /* Each round lowers a frequency or empties a queue, so this ends. The bound keeps the lock short. */
    for (uint32_t rounds = 0; rounds < 128; rounds++) {
        bool from_small = pool->small.count > pool->frames / 10 || pool->main.count == 0;
        uint32_t at = queue_pop(cache, from_small ? &pool->small : &pool->main);
        if (at == NONE)
            return NONE;
        Frame *frame = frame_at(cache, at);
        uint8_t frequency = atomic_load_explicit(&frame->frequency, memory_order_relaxed);
        if (frequency > (from_small ? 1 : 0)) {
            atomic_store_explicit(&frame->frequency, from_small ? 0 : (uint8_t)(frequency - 1),
                                  memory_order_relaxed);
            frame->state = FRAME_MAIN;
            frame->tick = tick;
            queue_push(cache, &pool->main, at);
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
    unlink_frames(cache, slot, pool, victims, count);
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
            queue_remove(cache, frame->state == FRAME_SMALL ? &pool->small : &pool->main, at);
            frame->state = FRAME_EVICTING;
            pool->evicting++;
            dropped[count++] = at;
        }
        lock_release(&pool->lock, slot);
        unlink_frames(cache, slot, pool, dropped, count);
    }
}

void cache_drop_forgotten(BlockCache *cache, Slot *slot)
{
    for (uint32_t i = 0; i < cache->chunk_count; i++)
        drop_forgotten(cache, slot, i);
}

/* ---- chunks ---------------------------------------------------------------------------------- */

/* A chunk that nobody uses, or NONE; *coming when one is to be had as soon as it was touched. `must`: one
 * that nobody touched will do. */
static uint32_t take_chunk(BlockCache *cache, Slot *slot, uint32_t pool, uint32_t tick, bool must,
                           bool *coming)
{
    *coming = false;
    if (!atomic_load_explicit(&cache->chunks_left, memory_order_relaxed))
        return NONE;
    uint32_t taken = NONE;
    Slot *preparer = NULL;
    lock_acquire(&cache->chunk_lock, slot);
    uint32_t *link = &cache->drained;
    while (*link != NONE) {
        Chunk *chunk = &cache->chunks[*link];
        bool mine = chunk->heir == pool || elapsed(tick, chunk->ready_tick) > CHUNK_KEPT_TICKS;
        if (mine && epoch_is_past(cache->epochs, chunk->stamp)) {
            taken = *link;
            *link = chunk->next;
            atomic_fetch_sub_explicit(&cache->pools[chunk->heir].pending, 1, memory_order_relaxed);
            break;
        }
        link = &chunk->next;
    }
    if (taken == NONE && cache->ready != NONE) {
        taken = cache->ready;
        cache->ready = cache->chunks[taken].next;
        cache->ready_count--;
        preparer = cache->preparer;
    } else if (taken == NONE && cache->fresh < cache->chunk_count) {
        preparer = cache->preparer;
        if (must || preparer == NULL)
            taken = cache->fresh++;
        else
            *coming = true;
    }
    if (cache->fresh == cache->chunk_count && cache->drained == NONE && cache->ready == NONE)
        atomic_store_explicit(&cache->chunks_left, false, memory_order_relaxed);
    lock_release(&cache->chunk_lock, slot);
    if (preparer != NULL)
        latch_wake(preparer);
    return taken;
}

bool cache_prepare(BlockCache *cache, Slot *slot, bool *done)
{
    *done = cache->chunk_count == 0;
    if (*done)
        return false;
    uint32_t taken = NONE;
    lock_acquire(&cache->chunk_lock, slot);
    cache->preparer = slot;
    *done = cache->fresh == cache->chunk_count;
    /* As many as are in use already: a program that reads little takes little memory. */
    uint32_t used = cache->fresh - cache->ready_count;
    if (!*done && cache->ready_count < (used < READY_MAX ? used : READY_MAX))
        taken = cache->fresh++;
    lock_release(&cache->chunk_lock, slot);
    if (taken == NONE)
        return false;
    uint8_t *memory = cache->base + (size_t)taken * cache->chunk_units * UNIT;
    size_t size = (size_t)cache->chunk_units * UNIT;
    for (size_t at = 0; at < size; at += PAGE_MIN)
        ((volatile uint8_t *)memory)[at] = 0;
    lock_acquire(&cache->chunk_lock, slot);
    cache->chunks[taken].next = cache->ready;
    cache->ready = taken;
    cache->ready_count++;
    atomic_store_explicit(&cache->chunks_left, true, memory_order_relaxed);
    lock_release(&cache->chunk_lock, slot);
    return true;
}

/* Cuts a chunk that belongs to nobody else into frames of the pool. */
static void assign_chunk(BlockCache *cache, Slot *slot, Pool *pool, uint32_t chunk_index)
{
    Chunk *chunk = &cache->chunks[chunk_index];
    uint32_t first = chunk_index * cache->chunk_units;
    uint32_t step = class_stride(pool->class_size) / UNIT;
    for (uint32_t i = 0; i < pool->chunk_frames; i++)
        memset(frame_at(cache, first + i * step), 0, sizeof(Frame));
    atomic_store_explicit(&chunk->draining, 0, memory_order_relaxed);
    chunk->parked = 0;
    chunk->heir = NONE;
    atomic_store_explicit(&chunk->pool, (uint32_t)(pool - cache->pools), memory_order_release);
    lock_acquire(&pool->lock, slot);
    for (uint32_t i = 0; i < pool->chunk_frames; i++)
        queue_push(cache, &pool->free, first + i * step);
    pool->frames += pool->chunk_frames;
    atomic_fetch_add_explicit(&pool->chunks, 1, memory_order_relaxed);
    lock_release(&pool->lock, slot);
}

/* Under the pool's lock: marks the next blocks in the order of eviction. */
static void take_samples(const BlockCache *cache, Pool *pool, uint32_t tick)
{
    pool->sample_count = 0;
    pool->sample_tick = tick;
    pool->sampled = true;
    Queue *queue = pool->main.count > 0 ? &pool->main : &pool->small;
    while (pool->sample_count < SAMPLES && pool->sample_count < queue->count) {
        uint32_t at = queue_pop(cache, queue);
        atomic_store_explicit(&frame_at(cache, at)->frequency, 0, memory_order_relaxed);
        queue_push(cache, queue, at);
        pool->samples[pool->sample_count++] = at;
    }
}

/* For how long none of the marked blocks was asked for; 0 when one was, or when `window` ticks have not
 * passed since they were marked. */
static uint32_t idle_ticks(BlockCache *cache, Slot *slot, Pool *pool, uint32_t tick,
                           uint32_t window)
{
    lock_acquire(&pool->lock, slot);
    bool asked_for = !pool->sampled;
    uint32_t idle = elapsed(tick, pool->sample_tick);
    for (uint32_t i = 0; i < pool->sample_count; i++) {
        const Frame *frame = frame_at(cache, pool->samples[i]);
        if (pool_of(cache, pool->samples[i]) != pool || is_draining(cache, pool->samples[i]) ||
            (frame->state != FRAME_SMALL && frame->state != FRAME_MAIN))
            continue;
        asked_for |= atomic_load_explicit(&frame->frequency, memory_order_relaxed) > 0;
        if (frame->priority == CACHE_INDEX && idle / 4 < window)
            window = UINT32_MAX; /* index blocks are kept through four times as much */
    }
    if (asked_for)
        take_samples(cache, pool, tick);
    lock_release(&pool->lock, slot);
    return asked_for || idle < window ? 0 : idle;
}

/* Takes up to `room` linked frames of the chunk out of their queues; all free ones are parked. */
static uint32_t drain_some(BlockCache *cache, Slot *slot, Pool *pool, uint32_t chunk_index,
                           uint32_t *from, uint32_t *frames, uint32_t room)
{
    uint32_t first = chunk_index * cache->chunk_units;
    uint32_t step = class_stride(pool->class_size) / UNIT;
    uint32_t count = 0;
    lock_acquire(&pool->lock, slot);
    for (; *from < pool->chunk_frames && count < room; ++*from) {
        uint32_t at = first + *from * step;
        Frame *frame = frame_at(cache, at);
        switch (frame->state) {
        case FRAME_FREE:
            queue_remove(cache, &pool->free, at);
            (void)park(cache, pool, at); /* the drainer is not done: not the last */
            break;
        case FRAME_SMALL:
        case FRAME_MAIN:
            queue_remove(cache, frame->state == FRAME_SMALL ? &pool->small : &pool->main, at);
            frame->state = FRAME_EVICTING;
            pool->evicting++;
            frames[count++] = at;
            break;
        default: /* parked by whoever holds it, or by reap */
            break;
        }
    }
    lock_release(&pool->lock, slot);
    return count;
}

/* Drains a chunk of `donor` for the pool `heir`. */
static void drain_chunk(BlockCache *cache, Slot *slot, Pool *donor, uint32_t chunk_index,
                        uint32_t heir)
{
    Chunk *chunk = &cache->chunks[chunk_index];
    lock_acquire(&donor->lock, slot);
    bool still_there = atomic_load_explicit(&chunk->pool, memory_order_acquire) ==
                           (uint32_t)(donor - cache->pools) &&
                       atomic_load_explicit(&chunk->draining, memory_order_relaxed) == 0;
    if (still_there) {
        atomic_store_explicit(&chunk->draining, 1, memory_order_relaxed);
        chunk->parked = 0;
        chunk->heir = heir;
        donor->frames -= donor->chunk_frames;
        atomic_fetch_sub_explicit(&donor->chunks, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&cache->pools[heir].pending, 1, memory_order_relaxed);
        atomic_store_explicit(&cache->pools[heir].donor, (uint32_t)(donor - cache->pools),
                              memory_order_relaxed);
    }
    lock_release(&donor->lock, slot);
    if (!still_there)
        return;
    uint32_t frames[EVICT_BATCH];
    uint32_t from = 0;
    for (;;) {
        uint32_t count = drain_some(cache, slot, donor, chunk_index, &from, frames, EVICT_BATCH);
        unlink_frames(cache, slot, donor, frames, count);
        if (from == donor->chunk_frames)
            break;
    }
    lock_acquire(&donor->lock, slot);
    queue_forget_recent(&donor->free);
    queue_forget_recent(&donor->limbo);
    queue_forget_recent(&donor->small);
    queue_forget_recent(&donor->main);
    bool last = park_one(chunk, donor);
    lock_release(&donor->lock, slot);
    if (last)
        hand_over_chunk(cache, slot, chunk_index);
}

/* Frames of a chunk that is being drained for `pool` may wait in the limbo of a pool that nobody uses. */
static void help_donor(BlockCache *cache, Slot *slot, Pool *pool)
{
    Pool *donor = &cache->pools[atomic_load_explicit(&pool->donor, memory_order_relaxed)];
    uint32_t full = NONE;
    lock_acquire(&donor->lock, slot);
    reap(cache, donor, UINT32_MAX, &full);
    lock_release(&donor->lock, slot);
    if (full != NONE)
        hand_over_chunk(cache, slot, full);
}

/* Looks for the pool whose blocks lie idle longest, and drains chunks of it for this one. */
static void rebalance(BlockCache *cache, Slot *slot, Pool *pool, uint32_t tick)
{
    uint32_t own = (uint32_t)(pool - cache->pools);
    if (atomic_load_explicit(&pool->pending, memory_order_relaxed) > 0) {
        help_donor(cache, slot, pool);
        return;
    }
    lock_acquire(&pool->lock, slot);
    bool starving = pool->frames == 0;
    uint32_t window = elapsed(tick, pool->look_tick);
    uint32_t take_tick = pool->take_tick;
    pool->look_tick = tick;
    pool->turnover = 0;
    lock_release(&pool->lock, slot);

    Pool *donor = NULL;
    Pool *largest = NULL;
    uint32_t donor_idle = 0;
    for (uint32_t i = 0; i < cache->shards * CLASSES; i++) {
        Pool *other = &cache->pools[i];
        uint32_t chunks = atomic_load_explicit(&other->chunks, memory_order_relaxed);
        if (i == own || chunks == 0)
            continue;
        if (largest == NULL ||
            chunks > atomic_load_explicit(&largest->chunks, memory_order_relaxed))
            largest = other;
        uint32_t idle = idle_ticks(cache, slot, other, tick, window);
        if (idle > donor_idle) {
            donor = other;
            donor_idle = idle;
        }
    }
    if (donor == NULL && starving && elapsed(tick, take_tick) >= TAKE_INTERVAL) {
        /* One chunk to begin with, from the pool that can spare it best. Not too often: with more
         * classes in use than chunks they would only take them from each other. */
        donor = largest;
        lock_acquire(&pool->lock, slot);
        pool->take_tick = tick;
        lock_release(&pool->lock, slot);
    }
    if (donor == NULL)
        return;
    /* A share of what it has, so that it takes few looks to grow large. */
    uint32_t wanted = 1 + atomic_load_explicit(&pool->chunks, memory_order_relaxed) / 8;
    for (; wanted > 0; wanted--) {
        lock_acquire(&donor->lock, slot);
        uint32_t oldest = donor->main.head != NONE    ? donor->main.head
                          : donor->small.head != NONE ? donor->small.head
                                                      : donor->free.head;
        lock_release(&donor->lock, slot);
        if (oldest == NONE)
            break;
        drain_chunk(cache, slot, donor, frame_chunk(cache, oldest), own);
    }
}

/* ---- filling --------------------------------------------------------------------------------- */

/* A free frame, if there is one; *low when the pool should be refilled. */
static uint32_t take_free(BlockCache *cache, Slot *slot, Pool *pool, bool *low)
{
    uint32_t full = NONE;
    lock_acquire(&pool->lock, slot);
    if (pool->free.count <= EVICT_BATCH / 2)
        reap(cache, pool, EVICT_BATCH, &full);
    uint32_t at = queue_pop(cache, &pool->free);
    if (at != NONE)
        frame_at(cache, at)->state = FRAME_FILLING;
    uint32_t spare = pool->free.count + pool->limbo.count + pool->evicting;
    uint32_t wanted = pool->frames / 32 < SPARE_MAX ? pool->frames / 32 : SPARE_MAX;
    if (wanted == 0 && pool->frames >= 4)
        wanted = 1;
    *low = at == NONE || spare < wanted;
    lock_release(&pool->lock, slot);
    if (full != NONE)
        hand_over_chunk(cache, slot, full);
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
            take_chunk(cache, slot, (uint32_t)(pool - cache->pools), tick, must, &coming);
        if (chunk != NONE) {
            assign_chunk(cache, slot, pool, chunk);
        } else if (!coming) {
            if (evict_batch(cache, slot, pool, tick))
                rebalance(cache, slot, pool, tick);
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
        retire(cache, slot, pool, &at, 1, false);
        return block;
    }

    bool remembered = ghost_take(cache, block_hash(table, offset));
    lock_acquire(&pool->lock, slot);
    bool draining = is_draining(cache, at);
    if (!draining) {
        bool to_main = frame->priority != CACHE_DATA || remembered;
        frame->state = to_main ? FRAME_MAIN : FRAME_SMALL;
        queue_push(cache, to_main ? &pool->main : &pool->small, at);
        atomic_fetch_add_explicit(&pool->live, 1, memory_order_relaxed);
    }
    lock_release(&pool->lock, slot);
    if (draining) {
        chain_remove(cache, slot, at);
        retire(cache, slot, pool, &at, 1, false);
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
        full = park(cache, pool, at);
    } else {
        frame_at(cache, at)->state = FRAME_FREE;
        queue_push(cache, &pool->free, at);
    }
    lock_release(&pool->lock, slot);
    if (full)
        hand_over_chunk(cache, slot, frame_chunk(cache, at));
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
