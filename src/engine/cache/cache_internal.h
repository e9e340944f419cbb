/*
 * cache_internal.h - what the block cache is made of, for the files of this folder. The top of cache.c says how
 * it works.
 */
#ifndef AIDB_ENGINE_CACHE_CACHE_INTERNAL_H
#define AIDB_ENGINE_CACHE_CACHE_INTERNAL_H

#include "engine/cache/cache.h"

#define UNIT          64u
#define HEAD_SIZE     64u
#define CLASSES       37u /* 512, 640, 768, 896, 1024, ... 256 KiB */
#define CHAIN_LOCKS   64u
#define NONE          UINT32_MAX
#define EVICT_BATCH   4u    /* no more, as one reader pays for all of them */
#define AHEAD         4u    /* heads of frames that are fetched ahead of their turn in a queue */
#define FORGOTTEN     1024u /* tables remembered as deleted */
#define TAKE_INTERVAL 512u  /* ticks between two chunks that a pool without frames takes */
#define SAMPLES       8u

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

static inline Frame *frame_at(const BlockCache *cache, uint32_t frame)
{
    return (Frame *)(cache->base + (size_t)frame * UNIT);
}

static inline uint8_t *frame_data(Frame *frame)
{
    return (uint8_t *)frame + HEAD_SIZE;
}

static inline uint32_t frame_chunk(const BlockCache *cache, uint32_t frame)
{
    return frame / cache->chunk_units;
}

static inline uint32_t class_stride(uint32_t class_size)
{
    return class_size + HEAD_SIZE;
}

static inline uint64_t block_hash(uint64_t table, uint64_t offset)
{
    uint64_t hash = table * 0x9e3779b97f4a7c15u ^ offset * 0xc2b2ae3d27d4eb4fu;
    hash ^= hash >> 32;
    hash *= 0xd6e8feb86659fd93u;
    return hash ^ hash >> 32;
}

/* The pool of a frame; NULL when its chunk was taken away since. */
static inline Pool *pool_of(const BlockCache *cache, uint32_t frame)
{
    const Chunk *chunk = &cache->chunks[frame_chunk(cache, frame)];
    uint32_t pool = atomic_load_explicit(&chunk->pool, memory_order_relaxed);
    return pool == NONE ? NULL : &cache->pools[pool];
}

static inline bool is_draining(const BlockCache *cache, uint32_t at)
{
    return atomic_load_explicit(&cache->chunks[frame_chunk(cache, at)].draining,
                                memory_order_relaxed) != 0;
}

/* Reservations between two readings of the clock; they may have been made in either order. */
static inline uint32_t elapsed(uint32_t now, uint32_t since)
{
    int32_t ticks = (int32_t)(now - since);
    return ticks > 0 ? (uint32_t)ticks : 0;
}

/* ---- chain.c --------------------------------------------------------------------------------- */

/* Links a frame at the head of its chain, unless the block is there already. */
bool chain_insert(BlockCache *cache, Slot *slot, uint32_t at);
/* Takes a linked frame out of its chain. Its own link stays, for readers that stand on it. */
void chain_remove(BlockCache *cache, Slot *slot, uint32_t at);

/* ---- frame.c --------------------------------------------------------------------------------- */

/* Queues; under the pool's lock. */
void frame_queue_init(Queue *queue);
void frame_queue_push(const BlockCache *cache, Queue *queue, uint32_t at);
void frame_queue_remove(const BlockCache *cache, Queue *queue, uint32_t at);
/* The oldest, or NONE. */
uint32_t frame_queue_pop(const BlockCache *cache, Queue *queue);
/* Before a chunk is handed over: the queue names no frame of it any more. */
void frame_queue_forget(Queue *queue);

/* Under the pool's lock: one more frame (frame_park), or the drainer itself, is done with a chunk that is being
 * drained. True for the last one, which hands the chunk over after it released the lock. */
bool frame_park(const BlockCache *cache, const Pool *pool, uint32_t at);
bool chunk_park_one(Chunk *chunk, const Pool *pool);
/* A chunk all of whose frames are parked goes to the drained ones. No lock is held. */
void chunk_hand_over(BlockCache *cache, Slot *slot, uint32_t chunk_index);
/* Under the pool's lock: limbo frames whose stamp is past become free. *full is a chunk that became
 * wholly parked by it, or NONE; the walk stops there. */
void frames_reap(BlockCache *cache, Pool *pool, uint32_t limit, uint32_t *full);
/* Frames that were unlinked from their chains (or never linked) wait in limbo, with one stamp. */
void frames_retire(BlockCache *cache, Slot *slot, Pool *pool, const uint32_t *frames,
                   uint32_t count, bool evicted);
/* Frames that are EVICTING leave their chains. */
void frames_unlink(BlockCache *cache, Slot *slot, Pool *pool, const uint32_t *frames,
                   uint32_t count);

/* ---- chunk.c --------------------------------------------------------------------------------- */

/* A chunk that nobody uses, or NONE; *coming when one is to be had as soon as it was touched. `must`: one
 * that nobody touched will do. */
uint32_t chunk_take(BlockCache *cache, Slot *slot, uint32_t pool, uint32_t tick, bool must,
                    bool *coming);
/* Cuts a chunk that belongs to nobody else into frames of the pool. */
void chunk_assign(BlockCache *cache, Slot *slot, Pool *pool, uint32_t chunk_index);
/* Looks for the pool whose blocks lie idle longest, and drains chunks of it for this one. */
void chunks_rebalance(BlockCache *cache, Slot *slot, Pool *pool, uint32_t tick);

#endif
