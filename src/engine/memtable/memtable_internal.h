/*
 * memtable_internal.h - how a pool and the memtables in it are laid out.
 *
 * A pool is one piece of the region: MemPool (with the headers of all memtables), one owner byte
 * for each chunk, the chunks. A Ref names a place in it as an offset from the pool's beginning in
 * units of 8 bytes, so that 32 bits reach 32 GiB; 0 is the pool's own header and therefore "none".
 *
 * A memtable allocates by moving `position` towards `limit` in one run of consecutive chunks.
 * memtable_secure lengthens the run, or begins another, so that everything promised lies in one run:
 * no entry is ever split, and nothing that follows can fail.
 */
#ifndef AIDB_ENGINE_MEMTABLE_MEMTABLE_INTERNAL_H
#define AIDB_ENGINE_MEMTABLE_MEMTABLE_INTERNAL_H

#include "engine/memtable/memtable.h"

#include <endian.h>

#ifdef AIDB_ASSERTIONS
#include <assert.h>
#define MEMTABLE_ASSERT(condition) assert(condition)
#else
#define MEMTABLE_ASSERT(condition) ((void)0)
#endif

typedef uint32_t Ref;

#define REF_NONE 0u
#define REF_UNIT 8u

#define HEIGHT_MAX       12u /* levels of blocks */
#define RANGE_HEIGHT_MAX 10  /* of a bound of range tombstones */

typedef enum MemtableState {
    MEMTABLE_FREE = 0,
    MEMTABLE_LIVE = 1,
    MEMTABLE_RETIRED = 2 /* unreachable; its chunks wait for `retired_at` to be past */
} MemtableState;

struct Memtable {
    MemPool *pool;
    uint32_t index;       /* in pool->tables */
    uint32_t state;       /* MemtableState; guarded by pool->lock */
    uint64_t retired_at;  /* epoch stamp; guarded by pool->lock */
    uint32_t chunk_count; /* taken; guarded by pool->lock */

    /* The writer's alone. */
    uint64_t position;      /* byte offset in the pool of the next allocation */
    uint64_t limit;         /* where the run of chunks ends */
    uint64_t secured_until; /* position may not pass it before the next memtable_secure */
    uint64_t random;        /* never 0 */
    Ref finger_block;       /* where the last insert went: the block and the index in it */
    uint32_t finger_index;

    /* Written by the writer, read by anybody: relaxed, they order nothing. */
    _Alignas(PORT_CACHE_LINE) _Atomic uint64_t bytes;
    _Atomic uint64_t entries;
    _Atomic uint64_t first_lsn;
    _Atomic uint64_t last_lsn;
    _Atomic uint64_t bound_count;  /* bounds of range tombstones */
    _Atomic uint64_t leaf_count;   /* blocks at level 0 */
    _Atomic uint64_t branch_count; /* blocks at the levels above */
    _Atomic uint32_t height;       /* levels */

    /* Heads of the lists: stored with release, loaded with acquire. */
    _Alignas(PORT_CACHE_LINE) _Atomic Ref root; /* the leftmost block of the top level */
    _Atomic uint32_t range_height;
    _Atomic Ref range_head[RANGE_HEIGHT_MAX];
    _Atomic Ref range_cells; /* tombstones that cover what lies before the first bound */
};

struct MemPool {
    uint64_t chunk_size;
    uint32_t chunk_count;
    uint64_t chunks_offset; /* of the first chunk in the pool */
    uint8_t *owners;        /* of each chunk: 0 free, else table index + 1; guarded by lock */
    EpochDomain *epochs;
    uint32_t first_free; /* no chunk below it is free; guarded by lock */
    Lock lock;
    _Atomic uint32_t free_count; /* changed under lock; read without by those who only ask */
    Memtable tables[MEMTABLES_MAX];
};

static inline void *ref_pointer(const Memtable *memtable, Ref ref)
{
    return (uint8_t *)memtable->pool + (uint64_t)ref * REF_UNIT;
}

/* Takes `size` bytes that memtable_secure promised. */
static inline Ref memtable_allocate(Memtable *memtable, uint64_t size)
{
    uint64_t position = memtable->position;
    memtable->position += (size + REF_UNIT - 1) / REF_UNIT * REF_UNIT;
    MEMTABLE_ASSERT(memtable->position <= memtable->secured_until);
    return (Ref)(position / REF_UNIT);
}

/* The first eight bytes of a key as a number that orders as the keys do; equal numbers decide
 * nothing, because short keys are filled up with zeros. */
static inline uint64_t key_prefix(Slice key)
{
    uint64_t word = 0;
    if (__builtin_expect(key.size >= sizeof word, 1)) {
        memcpy(&word, key.data, sizeof word);
    } else {
        for (size_t i = 0; i < key.size; i++)
            ((uint8_t *)&word)[i] = key.data[i];
    }
    return be64toh(word);
}

/* Orders two keys whose prefixes are equal. */
static inline int compare_behind_prefix(Slice a, Slice b)
{
    if (a.size >= 8 && b.size >= 8) {
        a = slice_make(a.data + 8, a.size - 8);
        b = slice_make(b.data + 8, b.size - 8);
    }
    return slice_compare(a, b);
}

/* A height from 1 to `max`; each level more has a quarter of the chance. */
static inline uint32_t memtable_random_height(Memtable *memtable, uint32_t max)
{
    uint64_t word = memtable->random;
    word ^= word << 13;
    word ^= word >> 7;
    word ^= word << 17;
    memtable->random = word;
    /* The high bits, two to a level. */
    uint32_t height = 1 + (uint32_t)__builtin_clzll(word | 1) / 2;
    return height < max ? height : max;
}

/* mempool.c: makes limit - position at least `need`; AIDB_BUSY, or AIDB_LIMIT when it never can. */
Status mempool_extend(Memtable *memtable, Slot *slot, uint64_t need) MUST_CHECK;

/* ---- blocks.c: the entries ------------------------------------------------------------------- */

#define BLOCK_ENTRIES 64u
#define BLOCK_ALIGN   64u
#define SHARED_WORDS  5u
#define SHARED_MAX    (SHARED_WORDS * 8u)

/* blocks.c explains it. Here so that tests can put blocks into states that are rare. */
typedef struct Block {
    _Atomic uint32_t version; /* odd while the hints (count, shared, prefixes) change */
    _Atomic uint32_t count;
    _Atomic Ref next; /* the block to the right */
    Ref low;          /* a record; REF_NONE in the leftmost block of a level; never changes */
    uint32_t level;   /* 0: entries are records, else blocks; never changes */
    _Atomic uint32_t shared_size;
    _Atomic uint64_t shared[SHARED_WORDS];
    _Atomic uint64_t prefixes[BLOCK_ENTRIES];
    _Atomic Ref refs[BLOCK_ENTRIES];
} Block;

void entries_init(Memtable *memtable);
uint64_t entries_need(const Memtable *memtable,
                      size_t op_count); /* without the bytes of keys and values */
void entries_add(Memtable *memtable, OpType type, Slice key, Slice value, uint64_t lsn);

/* ---- ranges.c: the range tombstones ---------------------------------------------------------- */

void ranges_init(Memtable *memtable);
uint64_t ranges_need(const Memtable *memtable, RangeLoad ranges);
void ranges_add(Memtable *memtable, Slice from, Slice to, uint64_t lsn);

#endif
