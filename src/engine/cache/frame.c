/*
 * frame.c - frames on their way: the queues of a pool, and how a frame leaves a chain and becomes free again.
 */
#include "config.h"

#include "engine/cache/cache_internal.h"

/* ---- queues (under the pool's lock) ---------------------------------------------------------- */

void frame_queue_forget(Queue *queue)
{
    for (uint32_t i = 0; i < AHEAD; i++)
        queue->recent[i] = NONE;
}

void frame_queue_init(Queue *queue)
{
    *queue = (Queue){.head = NONE, .tail = NONE};
    frame_queue_forget(queue);
}

void frame_queue_push(const BlockCache *cache, Queue *queue, uint32_t at)
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

void frame_queue_remove(const BlockCache *cache, Queue *queue, uint32_t at)
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

uint32_t frame_queue_pop(const BlockCache *cache, Queue *queue)
{
    uint32_t at = queue->head;
    if (at != NONE) {
        uint32_t ahead = frame_at(cache, at)->ahead;
        if (ahead != NONE)
            __builtin_prefetch(frame_at(cache, ahead));
        frame_queue_remove(cache, queue, at);
    }
    return at;
}

/* ---- leaving and returning ------------------------------------------------------------------- */

void chunk_hand_over(BlockCache *cache, Slot *slot, uint32_t chunk_index)
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

bool chunk_park_one(Chunk *chunk, const Pool *pool)
{
    return ++chunk->parked == pool->chunk_frames + 1;
}

bool frame_park(const BlockCache *cache, const Pool *pool, uint32_t at)
{
    frame_at(cache, at)->state = FRAME_PARKED;
    return chunk_park_one(&cache->chunks[frame_chunk(cache, at)], pool);
}

void frames_reap(BlockCache *cache, Pool *pool, uint32_t limit, uint32_t *full)
{
    *full = NONE;
    while (limit-- > 0 && pool->limbo.head != NONE) {
        uint32_t at = pool->limbo.head;
        Frame *frame = frame_at(cache, at);
        if (!epoch_is_past(cache->epochs, frame->stamp))
            return;
        frame_queue_remove(cache, &pool->limbo, at);
        if (is_draining(cache, at)) {
            if (frame_park(cache, pool, at)) {
                *full = frame_chunk(cache, at);
                return;
            }
        } else {
            frame->state = FRAME_FREE;
            frame_queue_push(cache, &pool->free, at);
        }
    }
}

void frames_retire(BlockCache *cache, Slot *slot, Pool *pool, const uint32_t *frames,
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
            if (frame_park(cache, pool, frames[i]))
                full = frame_chunk(cache, frames[i]);
            continue;
        }
        frame->state = FRAME_LIMBO;
        frame->stamp = stamp;
        frame_queue_push(cache, &pool->limbo, frames[i]);
    }
    lock_release(&pool->lock, slot);
    if (full != NONE)
        chunk_hand_over(cache, slot, full);
}

void frames_unlink(BlockCache *cache, Slot *slot, Pool *pool, const uint32_t *frames,
                   uint32_t count)
{
    if (count == 0)
        return;
    for (uint32_t i = 0; i < count; i++)
        chain_remove(cache, slot, frames[i]);
    atomic_fetch_sub_explicit(&pool->live, count, memory_order_relaxed);
    frames_retire(cache, slot, pool, frames, count, true);
}
