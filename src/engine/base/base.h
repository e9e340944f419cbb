/*
 * base.h - the words of the engine: limits, operation types, entries, iterators, batches, options.
 *
 * Internal order: user key ascending (bytewise), then LSN descending, so that the newest version of
 * a key comes first.
 */
#ifndef AIDB_ENGINE_BASE_BASE_H
#define AIDB_ENGINE_BASE_BASE_H

#include "common/buffer.h"
#include "common/slice.h"
#include "common/status.h"
#include <aidb.h>

#define LSN_MAX UINT64_MAX /* before every version of a key in internal order */
#define LEVELS  7

/* Operation types, stored in the log and in tables; the values are never reused. 3 (value with
 * expiry) and 4 (log-only record) are reserved. */
typedef enum OpType { OP_DELETE = 0, OP_PUT = 1, OP_DELETE_RANGE = 2 } OpType;

/* ---- entries and iterators ------------------------------------------------------------------- */

typedef struct Entry {
    Slice key;   /* user key */
    Slice value; /* empty for OP_DELETE */
    uint64_t lsn;
    uint8_t type; /* OP_PUT or OP_DELETE; range tombstones never come through iterators */
} Entry;

static inline int entry_compare(Slice a_key, uint64_t a_lsn, Slice b_key, uint64_t b_lsn)
{
    int order = slice_compare(a_key, b_key);
    if (order != 0)
        return order;
    return (a_lsn < b_lsn) - (a_lsn > b_lsn);
}

/*
 * An iterator over entries in internal order. `valid` and `entry` are set by every positioning
 * call; the entry's slices live until the next call. A failed call leaves it invalid; reaching an
 * end is AIDB_OK and invalid. One owner; used within one epoch unless the source says otherwise.
 */
typedef struct Iter Iter;
typedef struct IterOps {
    Status (*seek_first)(Iter *iter) MUST_CHECK;
    Status (*seek_last)(Iter *iter) MUST_CHECK;
    /* The first entry at or after (key, lsn) in internal order. */
    Status (*seek)(Iter *iter, Slice key, uint64_t lsn) MUST_CHECK;
    /* The last entry before (key, lsn) in internal order. */
    Status (*seek_before)(Iter *iter, Slice key, uint64_t lsn) MUST_CHECK;
    Status (*next)(Iter *iter) MUST_CHECK; /* only when valid */
    Status (*prev)(Iter *iter) MUST_CHECK; /* only when valid */
    /* After the epoch was left and entered again, with all that the iterator reads still there: makes its
     * entry good again. NULL: nothing to do, because it holds nothing that ends with an epoch. */
    Status (*resume)(Iter *iter) MUST_CHECK;
    void (*destroy)(Iter *iter); /* frees the iterator itself */
} IterOps;
struct Iter {
    const IterOps *ops;
    bool valid;
    Entry entry;
};

/* Merges `count` sources into one; takes over the sources (also when it fails: they are destroyed)
 * and the array stays the caller's. Equal (key, lsn) never occur in two sources. */
Status merge_iter_create(Iter **sources, size_t count, Iter **iter) MUST_CHECK;
static inline Status iter_resume(Iter *iter)
{
    return iter->ops->resume != NULL ? iter->ops->resume(iter) : AIDB_OK;
}
static inline void iter_destroy(Iter *iter)
{
    if (iter != NULL)
        iter->ops->destroy(iter);
}

/* ---- range tombstones ------------------------------------------------------------------------ */

/* A fragment [from, to) that is deleted by tombstones with these LSNs, newest first. Fragments of
 * one source do not overlap and are sorted. An empty `to` means no upper bound; an empty `from`
 * begins before every key. */
typedef struct RangeFragment {
    Slice from;
    Slice to;
    const uint64_t *lsns;
    uint32_t lsn_count;
} RangeFragment;

/* Collects tombstones and cuts them into fragments (for flush and compaction outputs). */
typedef struct RangeFragments {
    RangeFragment *items;
    size_t count;
    void *memory; /* owned */
} RangeFragments;
typedef struct RangeTombstone {
    Slice from;
    Slice to;
    uint64_t lsn;
} RangeTombstone;
/* `tombstones` in any order, borrowed only during the call. */
Status range_fragments_build(const RangeTombstone *tombstones, size_t count,
                             RangeFragments *out) MUST_CHECK;
void range_fragments_deinit(RangeFragments *fragments);
/* The greatest LSN <= `visible` of a tombstone that covers key, 0 when there is none. */
uint64_t range_fragments_cover(const RangeFragment *items, size_t count, Slice key,
                               uint64_t visible);

/* ---- batches --------------------------------------------------------------------------------- */

/*
 * A batch in memory, in the log and on the wire is a row of operations:
 *   type u8 | key: varint size, bytes | OP_PUT: value: varint size, bytes
 *                                     | OP_DELETE_RANGE: to: varint size, bytes (key is `from`)
 * The LSN of an operation in the log is the LSN of its type byte.
 */
typedef struct BatchOp {
    uint8_t type;
    Slice key;       /* `from` of a range delete; may be empty only there */
    Slice value;     /* `to` of a range delete; empty: no bound */
    uint32_t offset; /* of the type byte in the row */
} BatchOp;

typedef struct Expectation {
    uint8_t kind; /* aidb_expect */
    Slice key;
    uint64_t version;
} Expectation;

/* A row of expectations is: kind u8 | key: varint size, bytes | AIDB_EXPECT_VERSION: fixed64. */
typedef struct Batch {
    Buffer ops;
    uint32_t op_count;
    uint32_t range_count; /* operations that are range deletes */
    Buffer expectations;
    uint32_t expectation_count;
} Batch;

Status batch_put(Batch *batch, Slice key, Slice value) MUST_CHECK;
Status batch_delete(Batch *batch, Slice key) MUST_CHECK;
Status batch_delete_range(Batch *batch, Slice from,
                          Slice to) MUST_CHECK; /* empty when from >= to */
Status batch_expect(Batch *batch, Slice key, aidb_expect kind, uint64_t version) MUST_CHECK;
void batch_clear(Batch *batch);
void batch_deinit(Batch *batch);

/* Decodes the next operation of a row; *cursor starts at 0. False at the end or, with *damaged set,
 * when the bytes are not a batch: total for any input. Sizes are checked against the limits. */
bool batch_next(Slice ops, size_t *cursor, BatchOp *op, bool *damaged);
bool expectation_next(Slice row, size_t *cursor, Expectation *expectation, bool *damaged);
/* Checks a row that came from outside and counts; AIDB_INVALID names what is wrong. */
Status batch_check(Slice ops, uint32_t *op_count, uint32_t *range_count) MUST_CHECK;
Status expectations_check(Slice row, uint32_t *count) MUST_CHECK;

/* Range deletes that one batch may hold. */
#define BATCH_RANGES_MAX 1000000u

/* What the range deletes of a batch ask of a memtable at most. */
typedef struct RangeLoad {
    uint32_t count;
    uint32_t depth;  /* of those that overlap in one place */
    uint64_t pieces; /* the stretches between all their bounds, each as often as it is covered */
} RangeLoad;
#define RANGE_LOAD_NONE ((RangeLoad){0})
#define RANGE_LOAD_ONE  ((RangeLoad){.count = 1, .depth = 1, .pieces = 1})
/* `ops` was checked and holds `range_count` range deletes. AIDB_LIMIT: more than BATCH_RANGES_MAX. */
Status batch_range_load(Slice ops, uint32_t range_count, RangeLoad *load) MUST_CHECK;

/* ---- formats --------------------------------------------------------------------------------- */

/* Sets AIDB_UNSUPPORTED for a whole file ("table file", ...) whose format is `found` and not `known`, with what
 * to do about it. */
Status format_unsupported(const char *kind, const char *path, uint32_t found,
                          uint32_t known) MUST_CHECK;

/* ---- options --------------------------------------------------------------------------------- */

typedef enum Compression {
    COMPRESSION_NONE = 0,
    COMPRESSION_SNAPPY = 1,
    COMPRESSION_ZSTD = 2
} Compression;

/* Engine options; src/config owns names, defaults, ranges and texts. Sizes in bytes. */
typedef struct EngineOptions {
    uint64_t memory;        /* everything in the region; memtables and cache share it */
    uint64_t memtable_size; /* 0: a part of memory */
    uint64_t cache_size;    /* 0: what memtables leave */
    uint32_t block_size;
    Compression compression;
    int32_t compression_level; /* zstd */
    uint32_t filter_bits;      /* a key; 0: no filters */
    uint64_t table_size;       /* target of compaction outputs */
    uint64_t level_base_size;  /* of the first level below 0 that holds data */
    uint32_t level_multiplier;
    uint32_t level0_files; /* compaction starts here; slow-down at 3x, limit at 5x */
    uint32_t compactors;
    uint64_t compaction_rate; /* bytes a second written by compactions, 0: no limit */
    aidb_durability durability;
    uint64_t wal_segment_size;
    uint64_t wal_ring_size;
    uint64_t batch_max; /* bytes of the largest batch */
    bool huge_pages;
} EngineOptions;

#endif
