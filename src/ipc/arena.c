/*
 * arena.c - the metadata allocator: size classes, free lists, a bump pointer, a retired list.
 *
 * A block is a header and its payload; the header tells the class, so that freeing needs no size.
 * The retired list is in order of retirement and so of stamps: reclaiming stops at the first that
 * is still visible.
 */
#include "config.h"

#include "ipc/arena.h"

#include <string.h>

#define CLASS_COUNT 96
#define BLOCK_MIN   64u

typedef struct Block {
    uint32_t class;
    uint32_t live; /* BLOCK_LIVE while handed out: catches double frees */
    struct Block *next;
    uint64_t stamp;
    uint64_t reserved; /* keeps payloads 16-byte aligned */
} Block;

#define BLOCK_LIVE 0x4c495645u

struct Arena {
    Lock lock;
    EpochDomain *epochs;
    uint8_t *base;
    size_t size;
    size_t bumped;
    _Atomic size_t used;         /* handed out or retired */
    _Atomic size_t retired_size; /* both are changed under the lock and read without */
    Block *retired_head;
    Block *retired_tail;
    Block *free[CLASS_COUNT];
};

/* Block sizes: BLOCK_MIN * 2^(c/4) with quarter steps in between. */
static size_t class_size(uint32_t class)
{
    size_t base = (size_t)BLOCK_MIN << (class / 4);
    return base + base / 4 * (class % 4);
}

static uint32_t class_of(size_t size)
{
    uint32_t class = 0;
    while (class + 4 < CLASS_COUNT && class_size(class + 4) <= size)
        class += 4;
    while (class < CLASS_COUNT && class_size(class) < size)
        class ++;
    return class;
}

Arena *arena_init(void *memory, size_t size, EpochDomain *epochs)
{
    Arena *arena = memory;
    memset(arena, 0, sizeof *arena);
    lock_init(&arena->lock, LOCK_RANK_META, "metadata arena");
    arena->epochs = epochs;
    arena->base = memory;
    arena->size = size;
    arena->bumped = (sizeof *arena + 63) & ~(size_t)63;
    arena->used = 0;
    return arena;
}

static void give_back(Arena *arena, Block *block)
{
    arena->used -= class_size(block->class);
    block->live = 0;
    block->next = arena->free[block->class];
    arena->free[block->class] = block;
}

static void reclaim(Arena *arena)
{
    while (arena->retired_head != NULL &&
           epoch_is_past(arena->epochs, arena->retired_head->stamp)) {
        Block *block = arena->retired_head;
        arena->retired_head = block->next;
        if (arena->retired_head == NULL)
            arena->retired_tail = NULL;
        arena->retired_size -= class_size(block->class);
        give_back(arena, block);
    }
}

void *arena_alloc(Arena *arena, Slot *slot, size_t size)
{
    if (size > arena->size)
        return NULL;
    uint32_t class = class_of(size + sizeof(Block));
    if (class >= CLASS_COUNT)
        return NULL;
    lock_acquire(&arena->lock, slot);
    reclaim(arena);
    Block *block = arena->free[class];
    if (block != NULL) {
        arena->free[class] = block->next;
    } else if (class_size(class) <= arena->size - arena->bumped) {
        block = (Block *)(arena->base + arena->bumped);
        arena->bumped += class_size(class);
    } else {
        /* Anything up to twice as large will do before giving up. */
        for (uint32_t larger = class + 1;
             block == NULL && larger < CLASS_COUNT && larger <= class + 4; larger++) {
            block = arena->free[larger];
            if (block != NULL) {
                arena->free[larger] = block->next;
                class = larger;
            }
        }
    }
    if (block != NULL) {
        *block = (Block){.class = class, .live = BLOCK_LIVE};
        arena->used += class_size(class);
    }
    lock_release(&arena->lock, slot);
    return block != NULL ? block + 1 : NULL;
}

void arena_free(Arena *arena, Slot *slot, void *memory)
{
    if (memory == NULL)
        return;
    Block *block = (Block *)memory - 1;
    lock_acquire(&arena->lock, slot);
    if (block->live == BLOCK_LIVE)
        give_back(arena, block);
    lock_release(&arena->lock, slot);
}

void arena_retire(Arena *arena, Slot *slot, void *memory)
{
    if (memory == NULL)
        return;
    Block *block = (Block *)memory - 1;
    lock_acquire(&arena->lock, slot);
    if (block->live == BLOCK_LIVE) {
        block->live = 0;
        block->stamp = epoch_retire(arena->epochs);
        block->next = NULL;
        if (arena->retired_tail != NULL)
            arena->retired_tail->next = block;
        else
            arena->retired_head = block;
        arena->retired_tail = block;
        arena->retired_size += class_size(block->class);
    }
    lock_release(&arena->lock, slot);
}

void arena_reclaim(Arena *arena, Slot *slot)
{
    lock_acquire(&arena->lock, slot);
    reclaim(arena);
    lock_release(&arena->lock, slot);
}

void arena_usage(const Arena *arena, size_t *used, size_t *size, size_t *retired)
{
    *used = arena->used;
    *size = arena->size;
    *retired = arena->retired_size;
}
