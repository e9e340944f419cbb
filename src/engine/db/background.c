/*
 * background.c - duties: sync the log, flush memtables, compact, touch the block cache's memory; and
 * the manual forms of flushes and compactions, which run the same jobs in the caller's session.
 *
 * A job works on inputs that nobody else may take (sealed memtables under the flush lock; tables
 * marked `compacting` under the compaction lock), leaves an edit, and view_install makes it durable
 * and visible. A crash before the edit is sealed leaves orphan files that the next start removes;
 * after it, the inputs, which the next start removes as well.
 */
#include "config.h"

#include "engine/db/db_internal.h"

#include "common/failpoint.h"
#include "common/log.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IDLE_MS         1000
#define RETRY_MS        1000
#define DEAD_FILES      64
#define WRITES_PER_READ 16u /* fewer, and flushed records are put into the cache */
#define JOB_MAX         0xffffffu

/* ---- progress ----------------------------------------------------------------------------------- */

uint32_t progress_now(const DbShared *shared)
{
    return atomic_load(&shared->progress);
}

void progress_notify(DbShared *shared)
{
    atomic_fetch_add(&shared->progress, 1);
    if (atomic_load(&shared->progress_waiters) > 0)
        port_futex_wake(&shared->progress, INT_MAX);
}

Status progress_wait(Session *session, uint32_t seen, int timeout_ms)
{
    DbShared *shared = session->shared;
    if (atomic_load(&session->slot->interrupt) == 0) {
        atomic_fetch_add(&shared->progress_waiters, 1);
        port_futex_wait(&shared->progress, seen, timeout_ms);
        atomic_fetch_sub(&shared->progress_waiters, 1);
    }
    if (atomic_load(&session->slot->interrupt) != 0)
        return status_set(AIDB_CANCELED, "canceled");
    return AIDB_OK;
}

void wake_duty(DbShared *shared, SlotKind kind)
{
    for (uint32_t i = 0; i < shared->slots.count; i++)
        if (atomic_load_explicit(&shared->slots.slots[i].kind, memory_order_relaxed) ==
            (uint32_t)kind)
            latch_wake(&shared->slots.slots[i]);
}

static uint64_t table_size(DbShared *shared)
{
    return compaction_table_size(shared->options.table_size, atomic_load(&shared->table_bytes),
                                 shared->tables_sought);
}

PickOptions pick_options(DbShared *shared)
{
    return (PickOptions){.table_size = table_size(shared),
                         .level_base_size = shared->options.level_base_size,
                         .level_multiplier = shared->options.level_multiplier,
                         .level0_files = shared->options.level0_files,
                         .oldest_snapshot = snapshots_oldest(shared)};
}

/* ---- room on the disk --------------------------------------------------------------------------- */

uint64_t flush_room(void *arg)
{
    const Db *db = arg;
    uint64_t used, capacity;
    mempool_usage(db->shared->pool, &used, &capacity);
    return used;
}

uint64_t compaction_leaves(Db *db)
{
    return flush_room(db) + db->wal_options.segment_size + WAL_SEGMENT_HEADER_SIZE;
}

static bool compaction_has_room(void *arg)
{
    Db *db = arg;
    return directory_room(db->sst_directory) >= compaction_leaves(db);
}

/* Whether a compaction may begin. Compaction lock held. One alone may always try: it can come out smaller than what
 * it reads. */
static bool compaction_may_begin(Db *db, const Pick *pick)
{
    DbShared *shared = db->shared;
    if (pick->trivial_move || atomic_load(&shared->running_compactions) == 0)
        return true;
    uint64_t room = directory_room(db->sst_directory);
    return room >=
           compaction_leaves(db) + atomic_load(&shared->compacting_bytes) + pick->input_bytes;
}

/* ---- jobs --------------------------------------------------------------------------------------- */

static bool job_stop(void *arg)
{
    Session *session = arg;
    return atomic_load_explicit(&session->slot->interrupt, memory_order_relaxed) != 0 ||
           db_failed(session->db);
}

static SplitKey split_now(Session *session)
{
    lock_acquire(&session->shared->view_lock, session->slot);
    SplitKey split = session->shared->split;
    lock_release(&session->shared->view_lock, session->slot);
    return split;
}

static void job_context(Session *session, TableOptions *table, JobContext *context)
{
    Db *db = session->db;
    const EngineOptions *options = &session->shared->options;
    session->warmth.priority = CACHE_MOVED;
    session->warmth.blocks_read = session->warmth.blocks_held = 0;
    session->warmth.warm = false;
    *table = (TableOptions){.block_size = options->block_size,
                            .compression = options->compression,
                            .compression_level = options->compression_level,
                            .filter_bits = options->filter_bits,
                            .warmth = &session->warmth};
    memcpy(table->system_id, db->identity.system_id, sizeof table->system_id);
    *context = (JobContext){.table = table,
                            .directory = db->sst_directory,
                            .set = &session->shared->versions,
                            .reader = &session->job_reader,
                            .slot = session->slot,
                            .table_size = table_size(session->shared),
                            .rate = options->compaction_rate,
                            .stop = job_stop,
                            .stop_arg = session};
}

/* Removes the files of tables that nobody can name any more. */
static Status remove_dead_tables(Session *session)
{
    Db *db = session->db;
    uint64_t numbers[DEAD_FILES];
    size_t count, removed = 0;
    do {
        count = versions_take_dead(db->versions, session->slot, &session->shared->epochs, numbers,
                                   DEAD_FILES);
        for (size_t i = 0; i < count; i++) {
            char name[TABLE_NAME_SIZE];
            table_name(numbers[i], name);
            char *path = path_join(db->sst_directory, name);
            if (path == NULL)
                return status_set(AIDB_NO_MEMORY, "out of memory");
            /* A file that cannot be removed now is an orphan for the next start. */
            if (file_discard(path) != AIDB_OK)
                server_log(LOG_LEVEL_WARNING, "%s", status_message());
            free(path);
            FAILPOINT("compaction.file_removed");
            file_cache_forget(session->files, numbers[i]);
            cache_forget(session->shared->cache, session->slot, numbers[i]);
        }
        if (count > 0)
            atomic_fetch_add_explicit(&session->shared->unlinked, 1, memory_order_relaxed);
        removed += count;
    } while (count == DEAD_FILES);
    if (removed > 0)
        cache_drop_forgotten(session->shared->cache, session->slot);
    return AIDB_OK;
}

static uint64_t edit_bytes(const VersionEdit *edit)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < edit->added_count; i++)
        bytes += edit->added[i].info.file_size;
    return bytes;
}

/* Files that an edit would have added and that did not become part of the store. */
static void discard_outputs(Session *session, const VersionEdit *edit)
{
    for (size_t i = 0; i < edit->added_count; i++) {
        char name[TABLE_NAME_SIZE];
        table_name(edit->added[i].info.number, name);
        char *path = path_join(session->db->sst_directory, name);
        if (path != NULL)
            (void)!unlink(path);
        free(path);
    }
}

/* ---- flush -------------------------------------------------------------------------------------- */

/* The mean of this flush and what was known before. Flush lock held. */
static void note_flush_rate(DbShared *shared, uint64_t bytes, uint64_t ns)
{
    uint64_t before = atomic_load(&shared->flush_rate);
    uint64_t now = ns > 0 ? (uint64_t)((double)bytes * 1e9 / (double)ns) : 0;
    if (now > 0)
        atomic_store(&shared->flush_rate, before == 0 ? now : (before + now) / 2);
}

/* Memtables go into the cache when their store is read too: readers had them in memory until now. They
 * are on probation there, like blocks read for the first time. Flush lock held. */
static void warm_flush(Session *session, uint64_t entries)
{
    DbShared *shared = session->shared;
    uint64_t gets = slot_stat_sum(&shared->slots, STAT_GETS);
    session->warmth.priority = CACHE_DATA;
    shared->gets_lately = shared->gets_lately / 2 + (gets - shared->gets_seen);
    shared->gets_seen = gets;
    session->warmth.warm = shared->gets_lately > entries / WRITES_PER_READ;
}

/* `one`: only the oldest. */
static Status flush_locked(Session *session, bool one, bool *did)
{
    Db *db = session->db;
    DbShared *shared = session->shared;
    *did = false;
    RETURN_IF_FAILED(db_check(db));
    /* Immutables only grow at the front while this lock is held; those seen here stay. */
    Memtable *oldest_first[MEMTABLES_MAX];
    epoch_enter(&shared->epochs, session->slot);
    const ReadView *view = atomic_load(&shared->view);
    uint32_t count = view->immutable_count;
    uint64_t sealed_at = count > 0 ? view->sealed_at[0] : 0;
    uint64_t entries = 0;
    uint64_t input_bytes =
        0; /* not what comes out: of keys written again and again that is little */
    uint32_t skipped = 0;
    if (one && count > 1) {
        skipped = count - 1;
        sealed_at = view->sealed_at[skipped];
        count = 1;
    }
    for (uint32_t i = 0; i < count; i++) {
        oldest_first[i] = view->immutables[skipped + count - 1 - i];
        input_bytes += memtable_bytes(oldest_first[i]);
        entries += memtable_entries(oldest_first[i]);
    }
    epoch_leave(session->slot);
    if (count == 0)
        return AIDB_OK;
    *did = true;

    uint64_t started = port_monotonic_ns();
    VersionEdit edit = {.flushed_lsn = sealed_at};
    uint64_t *snapshots = NULL;
    size_t snapshot_count = 0;
    TableOptions table;
    JobContext context;
    Status status;
    SplitKey split = split_now(session);
    job_context(session, &table, &context);
    context.rate = 0;
    context.split = &split;
    /* Four fifths of what a flush takes is compression. Most of its tables are soon written again. */
    table.hasty = atomic_exchange(&shared->flush_awaited, 0) != 0;
    warm_flush(session, entries);
    FAILPOINT("flush.begun");
    OUT_IF_FAILED(snapshots_collect(session, &snapshots, &snapshot_count));
    OUT_IF_FAILED(flush_run(&context, oldest_first, count, snapshots, snapshot_count, &edit));
    FAILPOINT("flush.tables_written");
    /* A table must never know more than the log that it came from. */
    status = wal_sync(db->wal, session->slot, sealed_at);
    FAILPOINT("flush.log_synced");
    if (status == AIDB_OK)
        status = view_install(session, &edit, count);
    FAILPOINT("flush.installed");
    if (status != AIDB_OK) {
        if (!db_failed(db)) /* a failed manifest may or may not name them: recovery decides */
            discard_outputs(session, &edit);
        goto out;
    }
    wal_release(db->wal, session->slot, sealed_at);
    FAILPOINT("flush.log_released");
    lock_acquire(&shared->view_lock, session->slot);
    shared->split = split;
    lock_release(&shared->view_lock, session->slot);
    note_flush_rate(shared, input_bytes, port_monotonic_ns() - started);
    uint64_t bytes = edit_bytes(&edit);
    slot_count(session->slot, STAT_FLUSHES, 1);
    slot_count(session->slot, STAT_FLUSH_BYTES, bytes);
    server_log(LOG_LEVEL_DEBUG, "flushed %u memtables to %zu tables, %llu bytes in %llu ms", count,
               edit.added_count, (unsigned long long)bytes,
               (unsigned long long)((port_monotonic_ns() - started) / 1000000u));
out:
    free(snapshots);
    version_edit_deinit(&edit);
    return status;
}

Status flush_immutables(Session *session, bool *did)
{
    DbShared *shared = session->shared;
    lock_acquire(&shared->flush_lock, session->slot);
    /* Where all together found no room the oldest may, and gives its part of the log back. */
    bool rest, one = atomic_load(&shared->flush_failure) == AIDB_NO_SPACE;
    Status status = flush_locked(session, one, did);
    if (status == AIDB_OK && *did && one)
        status = flush_locked(session, false, &rest);
    lock_release(&shared->flush_lock, session->slot);
    if (*did || status != AIDB_OK) {
        if (status != AIDB_CANCELED) {
            atomic_store(&shared->flush_failed_ns, port_monotonic_ns());
            atomic_store(&shared->flush_failure, (uint32_t)status);
        }
        if (status == AIDB_OK)
            wake_duty(shared, SLOT_COMPACTOR);
        throttle_update(session);
        progress_notify(shared);
    }
    return status;
}

Status db_flush(Session *session)
{
    DbShared *shared = session->shared;
    RETURN_IF_FAILED(db_check(session->db));
    bool did;
    for (;;) {
        uint32_t seen = progress_now(shared);
        lock_acquire(&shared->write_lock, session->slot);
        Status status =
            memtable_entries(shared->active) > 0 ? view_switch_memtable(session) : AIDB_OK;
        lock_release(&shared->write_lock, session->slot);
        if (status == AIDB_OK)
            break;
        if (status != AIDB_BUSY)
            return status;
        /* As many wait as there may be. Perhaps nobody else flushes them (at a clean stop no duty is
         * left), or cannot, and then the caller must hear why. */
        RETURN_IF_FAILED(flush_immutables(session, &did));
        if (!did)
            RETURN_IF_FAILED(progress_wait(session, seen, 100));
        RETURN_IF_FAILED(db_check(session->db));
    }
    return flush_immutables(session, &did);
}

/* ---- compaction --------------------------------------------------------------------------------- */

/* Runs a claimed pick that is counted as running; the claim and the count end with it. */
static Status run_pick(Session *session, const Pick *pick)
{
    DbShared *shared = session->shared;
    VersionEdit edit = {0};
    uint64_t *snapshots = NULL;
    size_t snapshot_count = 0;
    uint64_t started = port_monotonic_ns();
    uint64_t read_bytes = pick->input_bytes;
    TableOptions table;
    JobContext context;
    Status status;
    job_context(session, &table, &context);
    SplitKey split = split_now(session);
    context.split = &split;
    table.hasty = pick->behind;
    context.has_room = compaction_has_room;
    context.has_room_arg = session->db;
    FAILPOINT("compaction.picked");
    if (pick->trivial_move) {
        OUT_IF_FAILED(pick_move(pick, &edit));
        FAILPOINT("compaction.moved");
    } else {
        OUT_IF_FAILED(snapshots_collect(session, &snapshots, &snapshot_count));
        OUT_IF_FAILED(merge_run(&context, pick, snapshots, snapshot_count, &edit));
        FAILPOINT("compaction.tables_written");
    }
    status = view_install(session, &edit, 0);
    FAILPOINT("compaction.installed");
    if (status != AIDB_OK) {
        if (!pick->trivial_move && !db_failed(session->db))
            discard_outputs(session, &edit);
        goto out;
    }
    if (pick->trivial_move) {
        slot_count(session->slot, STAT_TRIVIAL_MOVES, 1);
    } else {
        /* Whoever unlinks the inputs, the disk gets their room back only when they are closed here. */
        for (size_t i = 0; i < edit.removed_count; i++)
            file_cache_forget(session->files, edit.removed[i].number);
        uint64_t bytes = edit_bytes(&edit);
        slot_count(session->slot, STAT_COMPACTIONS, 1);
        slot_count(session->slot, STAT_COMPACT_READ_BYTES, read_bytes);
        slot_count(session->slot, STAT_COMPACT_WRITE_BYTES, bytes);
        server_log(LOG_LEVEL_DEBUG,
                   "compacted level %d to %d: %u+%u tables, %llu bytes to %zu tables, %llu bytes "
                   "in %llu ms",
                   pick->level, pick->output_level, pick->counts[0], pick->counts[1],
                   (unsigned long long)read_bytes, edit.added_count, (unsigned long long)bytes,
                   (unsigned long long)((port_monotonic_ns() - started) / 1000000u));
    }
out:
    if (status != AIDB_OK) {
        lock_acquire(&shared->compaction_lock, session->slot);
        pick_release(pick);
        lock_release(&shared->compaction_lock, session->slot);
    }
    atomic_fetch_sub(&shared->compacting_bytes, read_bytes);
    atomic_fetch_sub(&shared->running_compactions, 1);
    free(snapshots);
    version_edit_deinit(&edit);
    throttle_update(session);
    progress_notify(shared);
    return status;
}

typedef struct ManualRange {
    Slice from;
    Slice to;
    uint64_t started_number;
    uint64_t started_lsn;
} ManualRange;

/* Asks compactors to take part, unless they are asked already or the bounds are long. */
static bool offer_manual(Session *session, const ManualRange *range)
{
    ManualOffer *offer = &session->shared->manual;
    if (range->from.size > sizeof offer->from || range->to.size > sizeof offer->to)
        return false;
    lock_acquire(&session->shared->compaction_lock, session->slot);
    bool free = !offer->open;
    if (free) {
        *offer = (ManualOffer){.open = true,
                               .from_size = (uint32_t)range->from.size,
                               .to_size = (uint32_t)range->to.size,
                               .started_number = range->started_number,
                               .started_lsn = range->started_lsn};
        if (range->from.size > 0)
            memcpy(offer->from, range->from.data, range->from.size);
        if (range->to.size > 0)
            memcpy(offer->to, range->to.data, range->to.size);
    }
    lock_release(&session->shared->compaction_lock, session->slot);
    return free;
}

static void end_offer(Session *session)
{
    lock_acquire(&session->shared->compaction_lock, session->slot);
    session->shared->manual.open = false;
    lock_release(&session->shared->compaction_lock, session->slot);
}

/* A part of the manual compaction that is offered. Compaction lock held. */
static Status pick_offered(const Version *version, const PickOptions *options,
                           const ManualOffer *offer, Pick *pick)
{
    Status status = compaction_pick_range(
        version, options, slice_make(offer->from, offer->from_size),
        slice_make(offer->to, offer->to_size), offer->started_number, offer->started_lsn, pick);
    return status == AIDB_BUSY ? AIDB_OK : status;
}

/* Picks (automatically, or for a manual range), marks and runs one compaction. */
static Status compact_once(Session *session, const ManualRange *range, bool *did)
{
    DbShared *shared = session->shared;
    *did = false;
    RETURN_IF_FAILED(db_check(session->db));
    Pick pick = {.level = -1};
    PickOptions options = pick_options(shared);
    lock_acquire(&shared->compaction_lock, session->slot);
    epoch_enter(&shared->epochs, session->slot);
    const Version *version = atomic_load(&shared->view)->version;
    Status status = range == NULL
                        ? compaction_pick(version, &options, shared->cursors, &pick)
                        : compaction_pick_range(version, &options, range->from, range->to,
                                                range->started_number, range->started_lsn, &pick);
    bool in_turn = range == NULL && pick.level >= 0;
    if (status == AIDB_OK && range == NULL && pick.level < 0 && shared->manual.open)
        status = pick_offered(version, &options, &shared->manual, &pick);
    if (status == AIDB_OK && pick.level >= 0 && !compaction_may_begin(session->db, &pick))
        status = status_set(AIDB_BUSY, "the disk has no room for one more compaction");
    if (status == AIDB_OK && pick.level >= 0) {
        shared->job_sequence = shared->job_sequence % JOB_MAX + 1;
        pick_claim(&pick, shared->job_sequence);
        atomic_fetch_add(&shared->running_compactions, 1);
        atomic_fetch_add(&shared->compacting_bytes, pick.input_bytes);
        if (in_turn)
            pick_advance(&pick, &shared->cursors[pick.level]);
    }
    epoch_leave(session->slot);
    lock_release(&shared->compaction_lock, session->slot);
    if (status == AIDB_OK && pick.level >= 0) {
        *did = true;
        status = run_pick(session, &pick);
    }
    pick_deinit(&pick);
    return status;
}

Status db_compact(Session *session, Slice from, Slice to)
{
    DbShared *shared = session->shared;
    RETURN_IF_FAILED(db_flush(session));
    ManualRange range = {.from = from,
                         .to = to,
                         .started_number = atomic_load(&shared->versions.next_number),
                         .started_lsn = db_visible_lsn(session->db)};
    bool offered = offer_manual(session, &range), did = true;
    Status status = AIDB_OK;
    while (status == AIDB_OK && did) {
        uint32_t seen = progress_now(shared);
        if (offered)
            wake_duty(shared, SLOT_COMPACTOR);
        status = compact_once(session, &range, &did);
        if (status == AIDB_BUSY) {
            did = true;
            status = progress_wait(session, seen, 100);
        }
    }
    if (offered)
        end_offer(session);
    Status removed = remove_dead_tables(session);
    return removed != AIDB_OK ? removed : status;
}

Status db_compact_wait(Session *session)
{
    DbShared *shared = session->shared;
    for (;;) {
        RETURN_IF_FAILED(db_check(session->db));
        uint32_t seen = progress_now(shared);
        PickOptions options = pick_options(shared);
        uint64_t pending;
        /* Under the lock no compaction begins, so that what runs is counted and what is claimed runs.
         * The count comes first: once it is zero the view holds the results of all that have ended. */
        lock_acquire(&shared->compaction_lock, session->slot);
        bool busy = atomic_load(&shared->running_compactions) > 0;
        if (!busy) {
            epoch_enter(&shared->epochs, session->slot);
            const ReadView *view = atomic_load(&shared->view);
            busy = view->immutable_count > 0 ||
                   compaction_score(view->version, &options, &pending) >= 1;
            epoch_leave(session->slot);
        }
        lock_release(&shared->compaction_lock, session->slot);
        if (!busy)
            return AIDB_OK;
        wake_duty(shared, SLOT_COMPACTOR);
        RETURN_IF_FAILED(progress_wait(session, seen, 100));
    }
}

/* ---- steps -------------------------------------------------------------------------------------- */

static Status compactor_step(Session *session, int *wait_ms)
{
    bool did;
    Status status = compact_once(session, NULL, &did);
    if (status == AIDB_BUSY)
        status = AIDB_OK; /* when another has ended */
    /* Also when there is more to do at once, as under steady writes there always is, and when the disk had no
     * room for it: readers may have kept the last one's inputs until now. */
    Status removed = remove_dead_tables(session);
    if (removed != AIDB_OK)
        status = removed;
    *wait_ms = status != AIDB_OK ? RETRY_MS : did ? 0 : IDLE_MS;
    return status == AIDB_CANCELED ? AIDB_OK : status;
}

static Status flusher_step(Session *session, int *wait_ms)
{
    bool did;
    DbShared *shared = session->shared;
    if (atomic_load(&shared->flush_failure) != AIDB_OK) {
        /* Writers who wait for room wake the flusher; a disk that is full needs a pause all the same. */
        uint64_t since_ms =
            (port_monotonic_ns() - atomic_load(&shared->flush_failed_ns)) / 1000000u;
        if (since_ms < RETRY_MS) {
            *wait_ms = RETRY_MS - (int)since_ms;
            return AIDB_CANCELED;
        }
    }
    Status status = flush_immutables(session, &did);
    *wait_ms = status != AIDB_OK ? RETRY_MS : did ? 0 : IDLE_MS;
    return status == AIDB_CANCELED ? AIDB_OK : status;
}

static void preparer_step(Session *session, int *wait_ms)
{
    bool done;
    if (cache_prepare(session->shared->cache, session->slot, &done))
        *wait_ms = 0;
    else if (done)
        *wait_ms = -1;
}

Status db_step(Session *session, int *wait_ms)
{
    *wait_ms = IDLE_MS;
    switch ((SlotKind)atomic_load_explicit(&session->slot->kind, memory_order_relaxed)) {
    case SLOT_WAL_WRITER:
        RETURN_IF_FAILED(db_check(session->db));
        return wal_writer_step(session->db->wal, session->slot, wait_ms);
    case SLOT_FLUSHER:
        return flusher_step(session, wait_ms);
    case SLOT_COMPACTOR:
        return compactor_step(session, wait_ms);
    case SLOT_PREPARER:
        preparer_step(session, wait_ms);
        return AIDB_OK;
    default:
        return status_set(AIDB_INTERNAL, "this session has no background duty");
    }
}
