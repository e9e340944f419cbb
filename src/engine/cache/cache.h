/*
 * cache.h - the block cache, which all processes share.
 *
 * Hits take no lock and write nothing but, when it changes, a reference bit. A block stays valid
 * until the caller leaves the epoch that it was looked up in; frames are reused one epoch later.
 * Eviction is scan-resistant. Frames come in classes (four to a doubling, 512 B to 256 KiB) cut from
 * chunks of 1 MiB or, in small caches, 256 KiB; larger blocks bypass the cache. Misses are filled by
 * the caller straight into a reserved frame, without a lock.
 */
#ifndef AIDB_ENGINE_CACHE_CACHE_H
#define AIDB_ENGINE_CACHE_CACHE_H

#include "engine/base/base.h"
#include "ipc/ipc.h"

#define CACHE_BLOCK_MAX (256u << 10)

typedef struct BlockCache BlockCache;

typedef enum CachePriority {
    CACHE_DATA = 0,
    CACHE_INDEX = 1, /* and filters: evicted later */
    CACHE_MOVED = 2  /* data that the cache held already, in a block that it stands in for */
} CachePriority;

/* `size` bytes of region in all; 0 and very small sizes give a cache that never keeps anything. */
BlockCache *cache_init(void *memory, size_t size, EpochDomain *epochs);

/* Inside an epoch. `table` is a table number (never reused), `offset` the block's place in it. */
bool cache_lookup(BlockCache *cache, uint64_t table, uint64_t offset, Slice *block);

/* Inside an epoch: begins to bring two lines of each of some blocks that will be looked up soon, from the
 * one that holds byte `at` on, into the CPU's caches. Only a hint. */
#define CACHE_PREFETCH_MAX 16u
typedef struct CachePlace {
    uint64_t table;
    uint64_t offset; /* of the block */
    size_t at;       /* in the block */
} CachePlace;
void cache_prefetch(const BlockCache *cache, const CachePlace *places, size_t count);

/* Inside an epoch: whether a lookup would find the block. Does not count as one. */
bool cache_holds(const BlockCache *cache, uint64_t table, uint64_t offset);

/* A frame being filled. */
typedef struct CacheFill {
    uint8_t *data; /* NULL: no frame could be had, use private memory */
    uint32_t frame;
} CacheFill;
/* Reserves a frame for `size` bytes; never waits: when frames are all in limbo or in use it gives
 * none. Each fill ends with exactly one of cache_publish and cache_abandon. */
void cache_reserve(BlockCache *cache, Slot *slot, size_t size, CachePriority priority,
                   CacheFill *fill);
/* Makes the block findable. When another process was faster both copies are right: the loser's frame
 * stays valid for its caller until the epoch ends and is not found by others. Returns the block. */
Slice cache_publish(BlockCache *cache, Slot *slot, CacheFill *fill, uint64_t table, uint64_t offset,
                    size_t size);
void cache_abandon(BlockCache *cache, Slot *slot, CacheFill *fill);
/* Touches memory ahead of its use, a chunk in each call, so that no reader waits while a huge page is cleared.
 * False when there is nothing to do: `slot`'s latch is woken when there is, unless all is *done. Called by
 * one thread all the time or not at all: from the first call on, data blocks get memory that it touched. */
bool cache_prepare(BlockCache *cache, Slot *slot, bool *done);
/* A table was deleted. Its blocks are dropped by cache_drop_forgotten, which looks at the head of each block of
 * the cache and so is called once for all tables that go together, by a background duty. */
void cache_forget(BlockCache *cache, Slot *slot, uint64_t table);
void cache_drop_forgotten(BlockCache *cache, Slot *slot);
void cache_usage(const BlockCache *cache, uint64_t *used, uint64_t *capacity, uint64_t *blocks);

/* Frames that are in use by nobody and not free either. Nobody is inside the cache. */
uint64_t cache_lost_frames(const BlockCache *cache);

#endif
