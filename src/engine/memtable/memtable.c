/*
 * memtable.c - a memtable as the rest of the engine sees it: room is secured first, then entries and
 * range tombstones are added, and a few numbers are kept for those who ask.
 */
#include "config.h"
#include "engine/memtable/memtable_internal.h"

static uint64_t add_saturated(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

uint64_t memtable_need(const Memtable *memtable, size_t op_count, RangeLoad ranges,
                       uint64_t payload_bytes)
{
    uint64_t need = add_saturated(entries_need(memtable, op_count), payload_bytes);
    if (ranges.count > 0)
        need = add_saturated(need, ranges_need(memtable, ranges));
    return need;
}

Status memtable_secure(Memtable *memtable, Slot *slot, size_t op_count, RangeLoad ranges,
                       uint64_t payload_bytes)
{
    uint64_t need = memtable_need(memtable, op_count, ranges, payload_bytes);
    if (need > memtable->limit - memtable->position) {
        memtable->secured_until = memtable->position;
        RETURN_IF_FAILED(mempool_extend(memtable, slot, need));
    }
    memtable->secured_until = memtable->position + need;
    return AIDB_OK;
}

/* Only the writer stores these, so that plain loads and stores are enough. */
static void count_added(Memtable *memtable, uint64_t lsn, uint64_t bytes)
{
    uint64_t entries = memtable_entries(memtable);
    if (entries == 0)
        atomic_store_explicit(&memtable->first_lsn, lsn, memory_order_relaxed);
    atomic_store_explicit(&memtable->last_lsn, lsn, memory_order_relaxed);
    atomic_store_explicit(&memtable->entries, entries + 1, memory_order_relaxed);
    atomic_store_explicit(&memtable->bytes, memtable_bytes(memtable) + bytes, memory_order_relaxed);
}

void memtable_add(Memtable *memtable, OpType type, Slice key, Slice value, uint64_t lsn)
{
    MEMTABLE_ASSERT(type == OP_PUT || type == OP_DELETE);
    MEMTABLE_ASSERT(lsn > memtable_last_lsn(memtable));
    uint64_t before = memtable->position;
    entries_add(memtable, type, key, value, lsn);
    count_added(memtable, lsn, memtable->position - before);
}

void memtable_add_range(Memtable *memtable, Slice from, Slice to, uint64_t lsn)
{
    MEMTABLE_ASSERT(lsn > memtable_last_lsn(memtable));
    uint64_t before = memtable->position;
    if (to.size == 0 || slice_compare(from, to) < 0)
        ranges_add(memtable, from, to, lsn);
    count_added(memtable, lsn, memtable->position - before);
}

uint64_t memtable_bytes(const Memtable *memtable)
{
    return atomic_load_explicit(&memtable->bytes, memory_order_relaxed);
}

uint64_t memtable_entries(const Memtable *memtable)
{
    return atomic_load_explicit(&memtable->entries, memory_order_relaxed);
}

uint64_t memtable_first_lsn(const Memtable *memtable)
{
    return atomic_load_explicit(&memtable->first_lsn, memory_order_relaxed);
}

uint64_t memtable_last_lsn(const Memtable *memtable)
{
    return atomic_load_explicit(&memtable->last_lsn, memory_order_relaxed);
}
