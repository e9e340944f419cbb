/* property.c - what the store tells about itself, as lines of name TAB value or tables with a header. */
#include "config.h"

#include "engine/db/db_internal.h"

#include <string.h>

static Status line(Buffer *text, const char *name, uint64_t value)
{
    return buffer_append_format(text, "%s\t%llu\n", name, (unsigned long long)value);
}

/* The ratio a : b to three places, "-" when b is zero. */
static Status ratio_line(Buffer *text, const char *name, uint64_t a, uint64_t b)
{
    if (b == 0)
        return buffer_append_format(text, "%s\t-\n", name);
    return buffer_append_format(text, "%s\t%.3f\n", name, (double)a / (double)b);
}

typedef struct StatName {
    StatCounter counter;
    const char *name;
} StatName;

static const StatName stat_names[] = {
    {STAT_GETS, "gets"},
    {STAT_GET_HITS, "gets_found"},
    {STAT_SCANS, "scans"},
    {STAT_SCAN_ROWS, "scan_rows"},
    {STAT_WRITES, "writes"},
    {STAT_OPERATIONS, "write_operations"},
    {STAT_WRITE_BYTES, "write_bytes"},
    {STAT_EXPECTATIONS_FAILED, "expectations_failed"},
    {STAT_STALLS, "write_stalls"},
    {STAT_STALL_US, "write_stall_us"},
    {STAT_WAL_SYNCS, "wal_syncs"},
    {STAT_WAL_BYTES, "wal_bytes"},
    {STAT_FLUSHES, "flushes"},
    {STAT_FLUSH_BYTES, "flush_bytes"},
    {STAT_COMPACTIONS, "compactions"},
    {STAT_TRIVIAL_MOVES, "compaction_moves"},
    {STAT_COMPACT_READ_BYTES, "compaction_read_bytes"},
    {STAT_COMPACT_WRITE_BYTES, "compaction_write_bytes"},
    {STAT_BLOCK_READS, "block_reads"},
    {STAT_BLOCK_READ_BYTES, "block_read_bytes"},
    {STAT_CACHE_HITS, "cache_hits"},
    {STAT_CACHE_MISSES, "cache_misses"},
    {STAT_FILTER_CHECKS, "filter_checks"},
    {STAT_FILTER_SKIPS, "filter_skips"},
};

static Status counters(const DbShared *shared, Buffer *text)
{
    for (size_t i = 0; i < sizeof stat_names / sizeof stat_names[0]; i++)
        RETURN_IF_FAILED(
            line(text, stat_names[i].name, slot_stat_sum(&shared->slots, stat_names[i].counter)));
    uint64_t hits = slot_stat_sum(&shared->slots, STAT_CACHE_HITS);
    uint64_t misses = slot_stat_sum(&shared->slots, STAT_CACHE_MISSES);
    RETURN_IF_FAILED(ratio_line(text, "cache_hit_ratio", hits, hits + misses));
    uint64_t flushed = slot_stat_sum(&shared->slots, STAT_FLUSH_BYTES);
    uint64_t compacted = slot_stat_sum(&shared->slots, STAT_COMPACT_WRITE_BYTES);
    return ratio_line(text, "write_amplification", flushed + compacted, flushed);
}

static uint64_t count_snapshots(const DbShared *shared, uint64_t *oldest)
{
    uint64_t count = 0;
    *oldest = 0;
    for (uint32_t s = 0; s < shared->slots.count; s++) {
        for (int i = 0; i < SLOT_SNAPSHOTS; i++) {
            uint64_t lsn = atomic_load(&shared->slots.slots[s].snapshots[i]);
            if (lsn == SNAPSHOT_NONE || lsn == SNAPSHOT_CLAIM)
                continue;
            count++;
            if (*oldest == 0 || lsn < *oldest)
                *oldest = lsn;
        }
    }
    return count;
}

static Status status_text_of(Session *session, uint32_t incarnation, uint32_t term, Buffer *text)
{
    Db *db = session->db;
    DbShared *shared = session->shared;
    const ReadView *view = session->view;
    uint64_t files = 0, file_bytes = 0, entries = 0;
    for (int level = 0; level < LEVELS; level++) {
        files += view->version->levels[level].count;
        file_bytes += view->version->levels[level].bytes;
        for (uint32_t i = 0; i < view->version->levels[level].count; i++)
            entries += view->version->levels[level].files[i]->info.entries;
    }
    uint64_t memtable_used = memtable_bytes(view->active);
    uint64_t memtable_count = memtable_entries(view->active);
    for (uint32_t i = 0; i < view->immutable_count; i++) {
        memtable_used += memtable_bytes(view->immutables[i]);
        memtable_count += memtable_entries(view->immutables[i]);
    }
    uint64_t used, capacity, blocks;
    RETURN_IF_FAILED(line(text, "visible_lsn", db_visible_lsn(db)));
    RETURN_IF_FAILED(line(text, "durable_lsn", db_durable_lsn(db)));
    RETURN_IF_FAILED(line(text, "flushed_lsn", atomic_load(&shared->versions.flushed_lsn)));
    RETURN_IF_FAILED(line(text, "incarnation", incarnation));
    RETURN_IF_FAILED(line(text, "term", term));
    RETURN_IF_FAILED(line(text, "recovered_records", shared->recovered_records));
    RETURN_IF_FAILED(line(text, "recovery_us", shared->recovery_us));
    RETURN_IF_FAILED(line(text, "tables", files));
    RETURN_IF_FAILED(line(text, "table_bytes", file_bytes));
    RETURN_IF_FAILED(line(text, "table_entries", entries));
    RETURN_IF_FAILED(line(text, "memtables", view->immutable_count + 1u));
    RETURN_IF_FAILED(line(text, "memtable_bytes", memtable_used));
    RETURN_IF_FAILED(line(text, "memtable_entries", memtable_count));
    mempool_usage(shared->pool, &used, &capacity);
    RETURN_IF_FAILED(line(text, "memtable_memory_used", used));
    RETURN_IF_FAILED(line(text, "memtable_memory", capacity));
    cache_usage(shared->cache, &used, &capacity, &blocks);
    RETURN_IF_FAILED(line(text, "cache_used", used));
    RETURN_IF_FAILED(line(text, "cache_size", capacity));
    RETURN_IF_FAILED(line(text, "cache_blocks", blocks));
    size_t arena_used, arena_size, arena_retired;
    arena_usage(shared->arena, &arena_used, &arena_size, &arena_retired);
    RETURN_IF_FAILED(line(text, "metadata_used", arena_used));
    RETURN_IF_FAILED(line(text, "metadata_size", arena_size));
    uint64_t oldest;
    RETURN_IF_FAILED(line(text, "snapshots", count_snapshots(shared, &oldest)));
    RETURN_IF_FAILED(line(text, "oldest_snapshot", oldest));
    RETURN_IF_FAILED(buffer_append_format(
        text, "throttle\t%s\n",
        throttle_reason_name((ThrottleReason)atomic_load(&shared->throttle_reason))));
    RETURN_IF_FAILED(line(text, "throttle_rate", atomic_load(&shared->throttle_rate)));
    PickOptions options = pick_options(shared);
    uint64_t pending;
    double score = compaction_score(view->version, &options, &pending);
    RETURN_IF_FAILED(buffer_append_format(text, "compaction_score\t%.2f\n", score));
    RETURN_IF_FAILED(line(text, "compaction_pending_bytes", pending));
    RETURN_IF_FAILED(line(text, "compactions_running", atomic_load(&shared->running_compactions)));
    RETURN_IF_FAILED(line(text, "region_huge_pages", db->region.huge));
    return counters(shared, text);
}

static Status levels_text_of(Session *session, Buffer *text)
{
    const Version *version = session->view->version;
    PickOptions options = pick_options(session->shared);
    LevelTargets targets;
    compaction_targets(version, &options, &targets);
    RETURN_IF_FAILED(buffer_append_format(
        text, "level\ttables\tbytes\ttarget_bytes\tentries\tdeletes\trange_deletes\tcompacting\n"));
    for (int level = 0; level < LEVELS; level++) {
        uint64_t entries = 0, deletes = 0, ranges = 0, compacting = 0;
        for (uint32_t i = 0; i < version->levels[level].count; i++) {
            FileMeta *file = version->levels[level].files[i];
            entries += file->info.entries;
            deletes += file->info.deletes;
            ranges += file->info.range_deletes;
            compacting += atomic_load(&file->compacting) != 0;
        }
        RETURN_IF_FAILED(buffer_append_format(
            text, "%d\t%u\t%llu\t%llu\t%llu\t%llu\t%llu\t%llu\n", level,
            version->levels[level].count, (unsigned long long)version->levels[level].bytes,
            (unsigned long long)targets.bytes[level], (unsigned long long)entries,
            (unsigned long long)deletes, (unsigned long long)ranges,
            (unsigned long long)compacting));
    }
    return AIDB_OK;
}

Status db_property(Session *session, const char *name, Buffer *text)
{
    Db *db = session->db;
    if (strcmp(name, "visible_lsn") == 0)
        return buffer_append_format(text, "%llu", (unsigned long long)db_visible_lsn(db));
    if (strcmp(name, "durable_lsn") == 0)
        return buffer_append_format(text, "%llu", (unsigned long long)db_durable_lsn(db));
    if (strcmp(name, "wal") == 0)
        return wal_describe(db->wal, text);
    bool is_status = strcmp(name, "status") == 0;
    if (!is_status && strcmp(name, "levels") != 0)
        return status_set(AIDB_INVALID, "there is no property \"%s\"", name);
    VersionSet *set = &session->shared->versions;
    lock_acquire(&set->manifest_lock, session->slot);
    uint32_t incarnation = set->incarnation, term = set->term;
    lock_release(&set->manifest_lock, session->slot);
    uint64_t at;
    RETURN_IF_FAILED(db_read_begin(session, DB_NOW, &at));
    Status status = is_status ? status_text_of(session, incarnation, term, text)
                              : levels_text_of(session, text);
    db_read_end(session);
    return status;
}
