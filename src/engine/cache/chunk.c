/*
 * chunk.c - chunks: which pool has which, and how one passes to another pool.
 */
#include "config.h"

#include "engine/cache/cache_internal.h"

#define CHUNK_KEPT_TICKS 65536u /* how long a drained chunk waits for the pool it was taken for */
#define READY_MAX        8u     /* chunks touched ahead of need */
#define PAGE_MIN         4096u

uint32_t chunk_take(BlockCache *cache, Slot *slot, uint32_t pool, uint32_t tick, bool must,
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

void chunk_assign(BlockCache *cache, Slot *slot, Pool *pool, uint32_t chunk_index)
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
        frame_queue_push(cache, &pool->free, first + i * step);
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
        uint32_t at = frame_queue_pop(cache, queue);
        atomic_store_explicit(&frame_at(cache, at)->frequency, 0, memory_order_relaxed);
        frame_queue_push(cache, queue, at);
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
            frame_queue_remove(cache, &pool->free, at);
            (void)frame_park(cache, pool, at); /* the drainer is not done: not the last */
            break;
        case FRAME_SMALL:
        case FRAME_MAIN:
            frame_queue_remove(cache, frame->state == FRAME_SMALL ? &pool->small : &pool->main, at);
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
static void chunk_drain(BlockCache *cache, Slot *slot, Pool *donor, uint32_t chunk_index,
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
        frames_unlink(cache, slot, donor, frames, count);
        if (from == donor->chunk_frames)
            break;
    }
    lock_acquire(&donor->lock, slot);
    frame_queue_forget(&donor->free);
    frame_queue_forget(&donor->limbo);
    frame_queue_forget(&donor->small);
    frame_queue_forget(&donor->main);
    bool last = chunk_park_one(chunk, donor);
    lock_release(&donor->lock, slot);
    if (last)
        chunk_hand_over(cache, slot, chunk_index);
}

/* Frames of a chunk that is being drained for `pool` may wait in the limbo of a pool that nobody uses. */
static void help_donor(BlockCache *cache, Slot *slot, Pool *pool)
{
    Pool *donor = &cache->pools[atomic_load_explicit(&pool->donor, memory_order_relaxed)];
    uint32_t full = NONE;
    lock_acquire(&donor->lock, slot);
    frames_reap(cache, donor, UINT32_MAX, &full);
    lock_release(&donor->lock, slot);
    if (full != NONE)
        chunk_hand_over(cache, slot, full);
}

void chunks_rebalance(BlockCache *cache, Slot *slot, Pool *pool, uint32_t tick)
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
        chunk_drain(cache, slot, donor, frame_chunk(cache, oldest), own);
    }
}
