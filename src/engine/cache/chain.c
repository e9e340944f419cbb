/*
 * chain.c - the hash chains: who looks for a block walks along one, without a lock.
 */
#include "config.h"

#include "engine/cache/cache_internal.h"

#include <assert.h>

static inline Frame *find_frame(const BlockCache *cache, uint64_t table, uint64_t offset)
{
    if (cache->chunk_count == 0)
        return NULL;
    uint64_t hash = block_hash(table, offset);
    uint32_t at =
        atomic_load_explicit(&cache->buckets[hash & cache->bucket_mask], memory_order_acquire);
    while (at != NONE) {
        Frame *frame = frame_at(cache, at);
        /* The block's first lines come from memory while the head does. */
        __builtin_prefetch(frame_data(frame));
        __builtin_prefetch(frame_data(frame) + 64);
        if (frame->offset == offset && frame->table == table)
            return frame;
        at = atomic_load_explicit(&frame->next, memory_order_acquire);
    }
    return NULL;
}

bool cache_lookup(BlockCache *cache, uint64_t table, uint64_t offset, Slice *block)
{
    Frame *frame = find_frame(cache, table, offset);
    if (frame == NULL)
        return false;
    uint8_t frequency = atomic_load_explicit(&frame->frequency, memory_order_relaxed);
    if (frequency < frame->frequency_max) /* a lost raise among several does not matter */
        atomic_store_explicit(&frame->frequency, (uint8_t)(frequency + 1), memory_order_relaxed);
    *block = slice_make(frame_data(frame), frame->size);
    return true;
}

bool cache_holds(const BlockCache *cache, uint64_t table, uint64_t offset)
{
    return find_frame(cache, table, offset) != NULL;
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

bool chain_insert(BlockCache *cache, Slot *slot, uint32_t at)
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

void chain_remove(BlockCache *cache, Slot *slot, uint32_t at)
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
