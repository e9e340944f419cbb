/*
 * memtable.h - what was written and is not in tables yet: a blocked skip list over user key and LSN,
 * and the range tombstones beside it, in chunks of a fixed pool in the region.
 *
 * One writer at a time (engine/db's write lock) and any number of readers without locks, in any
 * process. Entries never change once linked. Inside the pool 32-bit offsets stand for pointers.
 * Readers are inside an epoch; the chunks of a dropped memtable are reused once its epoch is past.
 */
#ifndef AIDB_ENGINE_MEMTABLE_MEMTABLE_H
#define AIDB_ENGINE_MEMTABLE_MEMTABLE_H

#include "engine/base/base.h"
#include "ipc/ipc.h"

typedef struct MemPool MemPool;   /* all memtables' memory */
typedef struct Memtable Memtable; /* stands in the pool */

#define MEMTABLES_MAX 16

/* Bytes of region that a pool with room for `capacity` bytes of entries takes. */
size_t mempool_size(uint64_t capacity);
/* At most 32 GiB (32-bit offsets of 8 bytes). */
MemPool *mempool_init(void *memory, uint64_t capacity, EpochDomain *epochs);
void mempool_usage(const MemPool *pool, uint64_t *used, uint64_t *capacity);
/* Whether `bytes` more of entries could be placed in one memtable right now: what backpressure asks. */
bool mempool_has_room(MemPool *pool, Slot *slot, uint64_t bytes);

/* AIDB_BUSY when all MEMTABLES_MAX are in use (retired ones whose epoch is past are reclaimed first).
 * A memtable takes its first chunk when room in it is first secured. */
Status memtable_create(MemPool *pool, Slot *slot, Memtable **memtable) MUST_CHECK;
/* Gives the memory back once no reader can see it. Call after it was made unreachable. */
void memtable_retire(Memtable *memtable, Slot *slot);

/* Bytes that these operations take at the very most. */
uint64_t memtable_need(const Memtable *memtable, size_t op_count, RangeLoad ranges,
                       uint64_t payload_bytes);
/* Makes sure that adding them cannot fail. `payload_bytes` is the sum of the sizes of keys, values
 * and bounds. AIDB_BUSY when the pool is used up or holds no run of chunks that is long enough,
 * AIDB_LIMIT when not even an empty pool could hold them. What was secured and is not added before
 * the next call is given up. Write lock held. */
Status memtable_secure(Memtable *memtable, Slot *slot, size_t op_count, RangeLoad ranges,
                       uint64_t payload_bytes) MUST_CHECK;
/* Cannot fail after memtable_secure. `lsn` is greater than every one before in this memtable. Write
 * lock held. A reader that looks with a `visible` below `lsn` does not see it. */
void memtable_add(Memtable *memtable, OpType type, Slice key, Slice value, uint64_t lsn);
/* `from` and `to` as in RangeFragment. A range that holds no key has no effect. */
void memtable_add_range(Memtable *memtable, Slice from, Slice to, uint64_t lsn);

/* The newest version of key at or below `visible`, if there is one. Does not look at range tombstones. */
bool memtable_get(const Memtable *memtable, Slice key, uint64_t visible, Entry *entry);
/* The same for up to MEMTABLE_GETS_MAX keys at once, which takes less than one after the other: found[i]
 * tells whether *entries[i] was filled. */
#define MEMTABLE_GETS_MAX 16u
void memtable_get_many(const Memtable *memtable, size_t count, const Slice *keys, uint64_t visible,
                       Entry *const *entries, bool *found);
/* The greatest LSN <= visible of a range tombstone that covers key; 0 for none. */
uint64_t memtable_cover(const Memtable *memtable, Slice key, uint64_t visible);
bool memtable_has_ranges(const Memtable *memtable);
/* The range tombstones as fragments in heap memory (valid after the epoch is left). */
Status memtable_fragments(const Memtable *memtable, RangeFragments *out) MUST_CHECK;
Status memtable_iter_create(const Memtable *memtable, Iter **iter) MUST_CHECK;

uint64_t memtable_bytes(const Memtable *memtable);     /* taken from the pool */
uint64_t memtable_entries(const Memtable *memtable);   /* range tombstones included */
uint64_t memtable_first_lsn(const Memtable *memtable); /* 0 when empty */
uint64_t memtable_last_lsn(const Memtable *memtable);

#endif
