/*
 * arena.h - a small allocator inside the region for metadata: versions, file records, read views.
 *
 * Size classes with free lists, four to each doubling, carved from one fixed piece of memory. Freed
 * blocks are reused for the same class only. All calls take the arena's own lock
 * (LOCK_RANK_META). Memory that lock-free readers may still see must be freed only once its epoch
 * is past: arena_retire does that.
 */
#ifndef AIDB_IPC_ARENA_H
#define AIDB_IPC_ARENA_H

#include "ipc/ipc.h"

typedef struct Arena Arena;

/* The arena stands at the beginning of its memory, which is `size` bytes in all. */
Arena *arena_init(void *memory, size_t size, EpochDomain *epochs);
/* 16-byte aligned; NULL when the arena is used up. */
void *arena_alloc(Arena *arena, Slot *slot, size_t size);
void arena_free(Arena *arena, Slot *slot, void *block);
/* Frees the block once no reader can see it: call after it was made unreachable. */
void arena_retire(Arena *arena, Slot *slot, void *block);
/* Frees what has become free of the retired; called by arena_alloc too. */
void arena_reclaim(Arena *arena, Slot *slot);
void arena_usage(const Arena *arena, size_t *used, size_t *size, size_t *retired);

#endif
