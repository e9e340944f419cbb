/*
 * range.c - range tombstones cut into fragments, and how many those of a batch come to.
 *
 * Tombstones overlap in any way; fragments do not. A sweep over the sorted bounds of all tombstones
 * keeps the LSNs of those that are open, newest first, and emits one fragment between each two
 * bounds that has any. The work and the memory are those of the output, which for n nested
 * tombstones is n * n: callers bound n.
 *
 * The same tombstone may come in pieces (tables cut it at their bounds) or twice; neighbours with
 * equal LSNs are joined again and an LSN is listed once.
 */
#include "config.h"
#include "engine/base/base.h"

#include <inttypes.h>
#include <stdlib.h>

/* A fragment before memory for the result is had: where its LSNs begin among all. */
typedef struct Piece {
    Slice from;
    Slice to;
    size_t lsn_start;
    uint32_t lsn_count;
} Piece;

typedef struct Sweep {
    RangeTombstone *opening; /* sorted by from */
    size_t opening_count;
    Slice *bounds; /* sorted, without duplicates */
    size_t bound_count;
    RangeTombstone *open; /* by LSN, newest first */
    size_t open_count;
    Piece *pieces;
    size_t piece_count;
    Buffer lsns; /* of uint64_t */
} Sweep;

static bool is_empty_range(const RangeTombstone *tombstone)
{
    return tombstone->to.size > 0 && slice_compare(tombstone->from, tombstone->to) >= 0;
}

static int compare_opening(const void *a, const void *b)
{
    return slice_compare(((const RangeTombstone *)a)->from, ((const RangeTombstone *)b)->from);
}

static int compare_bounds(const void *a, const void *b)
{
    return slice_compare(*(const Slice *)a, *(const Slice *)b);
}

static Status sweep_init(Sweep *sweep, const RangeTombstone *tombstones, size_t count)
{
    if (count > UINT32_MAX)
        return status_set(AIDB_LIMIT, "%zu range tombstones at once are too many", count);
    sweep->opening = malloc(count * sizeof sweep->opening[0]);
    sweep->open = malloc(count * sizeof sweep->open[0]);
    sweep->bounds = malloc(2 * count * sizeof sweep->bounds[0]);
    sweep->pieces = malloc(2 * count * sizeof sweep->pieces[0]);
    if (sweep->opening == NULL || sweep->open == NULL || sweep->bounds == NULL ||
        sweep->pieces == NULL)
        return status_set(AIDB_NO_MEMORY, "could not allocate room for %zu range tombstones",
                          count);
    for (size_t i = 0; i < count; i++) {
        if (is_empty_range(&tombstones[i]))
            continue;
        sweep->opening[sweep->opening_count++] = tombstones[i];
        sweep->bounds[sweep->bound_count++] = tombstones[i].from;
        if (tombstones[i].to.size > 0)
            sweep->bounds[sweep->bound_count++] = tombstones[i].to;
    }
    qsort(sweep->opening, sweep->opening_count, sizeof sweep->opening[0], compare_opening);
    qsort(sweep->bounds, sweep->bound_count, sizeof sweep->bounds[0], compare_bounds);
    size_t unique = 0;
    for (size_t i = 0; i < sweep->bound_count; i++) {
        if (unique == 0 || !slice_equal(sweep->bounds[unique - 1], sweep->bounds[i]))
            sweep->bounds[unique++] = sweep->bounds[i];
    }
    sweep->bound_count = unique;
    return AIDB_OK;
}

static void sweep_deinit(Sweep *sweep)
{
    free(sweep->opening);
    free(sweep->open);
    free(sweep->bounds);
    free(sweep->pieces);
    buffer_deinit(&sweep->lsns);
}

/* Takes out of the open ones what ends at `bound`. */
static void sweep_close(Sweep *sweep, Slice bound)
{
    size_t kept = 0;
    for (size_t i = 0; i < sweep->open_count; i++) {
        if (sweep->open[i].to.size == 0 || slice_compare(sweep->open[i].to, bound) > 0)
            sweep->open[kept++] = sweep->open[i];
    }
    sweep->open_count = kept;
}

static void sweep_open(Sweep *sweep, RangeTombstone tombstone)
{
    size_t low = 0;
    for (size_t high = sweep->open_count; low < high;) {
        size_t middle = low + (high - low) / 2;
        if (sweep->open[middle].lsn > tombstone.lsn)
            low = middle + 1;
        else
            high = middle;
    }
    memmove(&sweep->open[low + 1], &sweep->open[low],
            (sweep->open_count - low) * sizeof sweep->open[0]);
    sweep->open[low] = tombstone;
    sweep->open_count++;
}

static const uint64_t *piece_lsns(const Sweep *sweep, const Piece *piece)
{
    return (const uint64_t *)(const void *)sweep->lsns.data + piece->lsn_start;
}

/* Emits [from, to) with the open LSNs, or lengthens the piece before when it is the same. */
static Status sweep_emit(Sweep *sweep, Slice from, Slice to)
{
    if (sweep->open_count == 0)
        return AIDB_OK;
    Piece piece = {.from = from, .to = to, .lsn_start = sweep->lsns.size / sizeof(uint64_t)};
    RETURN_IF_FAILED(buffer_reserve(&sweep->lsns, sweep->open_count * sizeof(uint64_t)));
    for (size_t i = 0; i < sweep->open_count; i++) {
        if (i > 0 && sweep->open[i].lsn == sweep->open[i - 1].lsn)
            continue;
        memcpy(sweep->lsns.data + sweep->lsns.size, &sweep->open[i].lsn, sizeof(uint64_t));
        sweep->lsns.size += sizeof(uint64_t);
        piece.lsn_count++;
    }
    Piece *before = sweep->piece_count > 0 ? &sweep->pieces[sweep->piece_count - 1] : NULL;
    if (before != NULL && before->lsn_count == piece.lsn_count && slice_equal(before->to, from) &&
        memcmp(piece_lsns(sweep, before), piece_lsns(sweep, &piece),
               piece.lsn_count * sizeof(uint64_t)) == 0) {
        before->to = to;
        sweep->lsns.size = piece.lsn_start * sizeof(uint64_t);
    } else {
        sweep->pieces[sweep->piece_count++] = piece;
    }
    return AIDB_OK;
}

static Status sweep_run(Sweep *sweep)
{
    size_t opening = 0;
    for (size_t i = 0; i < sweep->bound_count; i++) {
        Slice bound = sweep->bounds[i];
        sweep_close(sweep, bound);
        while (opening < sweep->opening_count && slice_equal(sweep->opening[opening].from, bound))
            sweep_open(sweep, sweep->opening[opening++]);
        Slice to = i + 1 < sweep->bound_count ? sweep->bounds[i + 1] : slice_make(NULL, 0);
        RETURN_IF_FAILED(sweep_emit(sweep, bound, to));
    }
    return AIDB_OK;
}

static Slice copy_bound(uint8_t **to, Slice bound)
{
    if (bound.size == 0)
        return slice_make(NULL, 0);
    memcpy(*to, bound.data, bound.size);
    Slice copy = slice_make(*to, bound.size);
    *to += bound.size;
    return copy;
}

/* One block of memory: fragments, then LSNs, then the bytes of the bounds. */
static Status sweep_finish(const Sweep *sweep, RangeFragments *out)
{
    size_t key_bytes = 0;
    for (size_t i = 0; i < sweep->piece_count; i++)
        key_bytes += sweep->pieces[i].from.size + sweep->pieces[i].to.size;
    size_t item_bytes = sweep->piece_count * sizeof(RangeFragment);
    uint8_t *memory = malloc(item_bytes + sweep->lsns.size + key_bytes);
    if (memory == NULL)
        return status_set(AIDB_NO_MEMORY, "could not allocate %zu fragments of range tombstones",
                          sweep->piece_count);
    RangeFragment *items = (RangeFragment *)(void *)memory;
    uint64_t *lsns = (uint64_t *)(void *)(memory + item_bytes);
    uint8_t *keys = memory + item_bytes + sweep->lsns.size;
    memcpy(lsns, sweep->lsns.data, sweep->lsns.size);
    for (size_t i = 0; i < sweep->piece_count; i++) {
        const Piece *piece = &sweep->pieces[i];
        bool joined = i > 0 && slice_equal(items[i - 1].to, piece->from);
        items[i] =
            (RangeFragment){.from = joined ? items[i - 1].to : copy_bound(&keys, piece->from),
                            .lsns = lsns + piece->lsn_start,
                            .lsn_count = piece->lsn_count};
        items[i].to = copy_bound(&keys, piece->to);
    }
    *out = (RangeFragments){.items = items, .count = sweep->piece_count, .memory = memory};
    return AIDB_OK;
}

Status range_fragments_build(const RangeTombstone *tombstones, size_t count, RangeFragments *out)
{
    *out = (RangeFragments){0};
    if (count == 0)
        return AIDB_OK;
    Sweep sweep = {0};
    Status status = AIDB_OK;
    OUT_IF_FAILED(sweep_init(&sweep, tombstones, count));
    OUT_IF_FAILED(sweep_run(&sweep));
    if (sweep.piece_count > 0)
        OUT_IF_FAILED(sweep_finish(&sweep, out));
out:
    sweep_deinit(&sweep);
    return status;
}

void range_fragments_deinit(RangeFragments *fragments)
{
    free(fragments->memory);
    *fragments = (RangeFragments){0};
}

uint64_t range_fragments_cover(const RangeFragment *items, size_t count, Slice key,
                               uint64_t visible)
{
    size_t after = 0; /* the first fragment that begins behind key */
    for (size_t high = count; after < high;) {
        size_t middle = after + (high - after) / 2;
        if (slice_compare(items[middle].from, key) <= 0)
            after = middle + 1;
        else
            high = middle;
    }
    if (after == 0)
        return 0;
    const RangeFragment *fragment = &items[after - 1];
    if (fragment->to.size > 0 && slice_compare(key, fragment->to) >= 0)
        return 0;
    size_t first = 0; /* the first LSN that is visible */
    for (size_t high = fragment->lsn_count; first < high;) {
        size_t middle = first + (high - first) / 2;
        if (fragment->lsns[middle] > visible)
            first = middle + 1;
        else
            high = middle;
    }
    return first < fragment->lsn_count ? fragment->lsns[first] : 0;
}

/* ---- what a batch comes to ------------------------------------------------------------------- */

/* How many bounds at *at are equal to `bound`; *at moves behind them. */
static uint32_t take_equal(const Slice *bounds, size_t count, size_t *at, Slice bound)
{
    size_t first = *at;
    while (*at < count && slice_equal(bounds[*at], bound))
        ++*at;
    return (uint32_t)(*at - first);
}

/* The same sweep as above, which only counts: its work is that of sorting, however they overlap. */
static void count_pieces(const Slice *lower, size_t lower_count, const Slice *upper,
                         size_t upper_count, RangeLoad *load)
{
    uint32_t depth = 0;
    for (size_t i = 0, j = 0; i < lower_count || j < upper_count;) {
        bool opens =
            j == upper_count || (i < lower_count && slice_compare(lower[i], upper[j]) <= 0);
        Slice bound = opens ? lower[i] : upper[j];
        depth += take_equal(lower, lower_count, &i, bound);
        depth -= take_equal(upper, upper_count, &j, bound);
        load->pieces += depth;
        load->depth = depth > load->depth ? depth : load->depth;
    }
}

Status batch_range_load(Slice ops, uint32_t range_count, RangeLoad *load)
{
    *load = range_count == 0 ? RANGE_LOAD_NONE : RANGE_LOAD_ONE;
    if (range_count <= 1)
        return AIDB_OK;
    if (range_count > BATCH_RANGES_MAX) {
        (void)status_set(AIDB_LIMIT, "a batch of %" PRIu32 " range deletes; the limit is %u",
                         range_count, BATCH_RANGES_MAX);
        status_hint("Split the batch.");
        return AIDB_LIMIT;
    }
    Slice *lower = malloc(2 * (size_t)range_count * sizeof *lower);
    if (lower == NULL)
        return status_set(AIDB_NO_MEMORY, "could not allocate room for %" PRIu32 " range deletes",
                          range_count);
    Slice *upper = lower + range_count;
    size_t lower_count = 0, upper_count = 0, cursor = 0;
    BatchOp op;
    bool damaged = false;
    while (batch_next(ops, &cursor, &op, &damaged)) {
        if (op.type != OP_DELETE_RANGE ||
            (op.value.size > 0 && slice_compare(op.key, op.value) >= 0))
            continue;
        lower[lower_count++] = op.key;
        if (op.value.size > 0)
            upper[upper_count++] = op.value;
    }
    qsort(lower, lower_count, sizeof *lower, compare_bounds);
    qsort(upper, upper_count, sizeof *upper, compare_bounds);
    *load = (RangeLoad){.count = range_count};
    count_pieces(lower, lower_count, upper, upper_count, load);
    free(lower);
    return AIDB_OK;
}
