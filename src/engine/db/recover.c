/*
 * recover.c - from files to a running store, and the clean way back.
 *
 * Order: manifest (tables, where the log is needed from); a new incarnation, durable before it is
 * used; the log's end, with everything from the horizon on copied to new files; the new log's start,
 * durable; then the log's operations back into memtables, which are flushed as they fill. Each step
 * may be interrupted by a crash and all of it run again: nothing that an earlier run relied on is
 * changed before what replaces it is durable.
 */
#include "config.h"

#include "engine/db/db_internal.h"

#include "common/failpoint.h"
#include "common/log.h"

#include <assert.h>
#include <string.h>

#define STARTS_FLUSH 8

/* Makes an edit durable before there is a view. */
static Status apply(Session *session, const VersionEdit *edit, Version **version)
{
    Db *db = session->db;
    VersionSet *set = &session->shared->versions;
    Version *previous;
    lock_acquire(&set->manifest_lock, session->slot);
    Status status =
        version_apply(db->versions, session->slot, edit, wal_durable(db->wal), version, &previous);
    if (status == AIDB_OK && previous != NULL)
        version_release(db->versions, session->slot, previous);
    lock_release(&set->manifest_lock, session->slot);
    return status;
}

static Status first_view(Session *session, Version *version)
{
    DbShared *shared = session->shared;
    ReadView *view = arena_alloc(shared->arena, session->slot, sizeof *view);
    if (view == NULL)
        return status_set(AIDB_NO_MEMORY, "the metadata part of the region is used up");
    memset(view, 0, sizeof *view);
    view->version = version;
    Status status = memtable_create(shared->pool, session->slot, &view->active);
    if (status != AIDB_OK) {
        arena_free(shared->arena, session->slot, view);
        return status;
    }
    shared->active = view->active;
    atomic_store(&shared->view, view);
    view_count_bytes(shared, version);
    return AIDB_OK;
}

static void replay_op(Memtable *active, const BatchOp *op, uint64_t lsn)
{
    if (op->type == OP_DELETE_RANGE)
        memtable_add_range(active, op->key, op->value, lsn);
    else
        memtable_add(active, (OpType)op->type, op->key, op->value, lsn);
}

/* Makes room for so many operations, flushing what is in the active memtable when they do not fit beside
 * it. */
static Status secure_replay(Session *session, uint32_t op_count, RangeLoad ranges,
                            uint64_t payload_size)
{
    DbShared *shared = session->shared;
    uint64_t need = memtable_need(shared->active, op_count, ranges, payload_size);
    Status status = AIDB_BUSY;
    if (memtable_entries(shared->active) == 0 ||
        memtable_bytes(shared->active) + need <= shared->memtable_size)
        status = memtable_secure(shared->active, session->slot, op_count, ranges, payload_size);
    if (status != AIDB_BUSY || memtable_entries(shared->active) == 0)
        return status;
    bool did;
    RETURN_IF_FAILED(view_switch_memtable(session));
    RETURN_IF_FAILED(flush_immutables(session, &did));
    FAILPOINT("recover.flushed");
    return memtable_secure(shared->active, session->slot, op_count, ranges, payload_size);
}

/* A batch that was written when memory was larger than now: its operations one by one, over as many
 * memtables as it takes. `visible` stays where the record begins, and with it what the flushes in between
 * say of the log, so a recovery that is killed here does all of it again. */
static Status replay_pieces(Session *session, const WalRecord *record)
{
    uint64_t payload_lsn = record->payload_lsn;
    size_t cursor = 0;
    BatchOp op;
    bool damaged = false;
    while (batch_next(record->payload, &cursor, &op, &damaged)) {
        Status status =
            secure_replay(session, 1, op.type == OP_DELETE_RANGE ? RANGE_LOAD_ONE : RANGE_LOAD_NONE,
                          (uint64_t)op.key.size + op.value.size);
        if (status == AIDB_BUSY || status == AIDB_LIMIT) {
            (void)status_set(AIDB_LIMIT,
                             "an operation of %zu bytes in the log, at LSN %llu, does not fit into "
                             "memory",
                             op.key.size + op.value.size,
                             (unsigned long long)(payload_lsn + op.offset));
            status_hint("Raise memory to what it was, or batch_max to %llu.",
                        (unsigned long long)record->payload.size);
            return AIDB_LIMIT;
        }
        RETURN_IF_FAILED(status);
        replay_op(session->shared->active, &op, payload_lsn + op.offset);
    }
    return AIDB_OK;
}

/* Puts one record's operations into the active memtable, flushing when it is full. */
static Status replay_record(Session *session, const WalRecord *record)
{
    DbShared *shared = session->shared;
    uint32_t op_count, range_count;
    Status status = batch_check(record->payload, &op_count, &range_count);
    if (status != AIDB_OK)
        return status_set(AIDB_CORRUPTION, "the log record at LSN %llu holds no batch",
                          (unsigned long long)record->lsn);
    RangeLoad ranges;
    status = batch_range_load(record->payload, range_count, &ranges);
    if (status == AIDB_OK)
        status = secure_replay(session, op_count, ranges, record->payload.size);
    if (status == AIDB_BUSY || status == AIDB_LIMIT) {
        RETURN_IF_FAILED(replay_pieces(session, record));
    } else {
        RETURN_IF_FAILED(status);
        uint64_t payload_lsn = record->payload_lsn;
        size_t cursor = 0;
        BatchOp op;
        bool damaged = false;
        while (batch_next(record->payload, &cursor, &op, &damaged))
            replay_op(shared->active, &op, payload_lsn + op.offset);
    }
    atomic_store(&shared->visible, record->end);
    FAILPOINT("recover.record_replayed");
    shared->recovered_records++;
    return AIDB_OK;
}

static Status replay(Session *session, uint64_t end)
{
    Db *db = session->db;
    VersionSet *set = &session->shared->versions;
    WalReader *reader;
    RETURN_IF_FAILED(wal_reader_create(&db->wal_options, set->starts, set->start_count,
                                       atomic_load(&set->flushed_lsn), end, &reader));
    Status status;
    WalRecord record;
    while ((status = wal_reader_next(reader, &record)) == AIDB_OK) {
        status = replay_record(session, &record);
        if (status != AIDB_OK)
            break;
    }
    wal_reader_destroy(reader);
    return status == AIDB_NOT_FOUND ? AIDB_OK : status;
}

Status db_recover(Db *db, Session *session)
{
    DbShared *shared = session->shared;
    VersionSet *set = &shared->versions;
    uint64_t started = port_monotonic_ns();
    RETURN_IF_FAILED(versions_recover(db->versions, session->slot));
    RETURN_IF_FAILED(FAILPOINT_STATUS("recover.manifest_read"));

    WalRecovery recovery = {.starts = set->starts,
                            .start_count = set->start_count,
                            .from = atomic_load(&set->flushed_lsn),
                            .horizon = set->horizon,
                            .incarnation = set->incarnation + 1};
    if (!port_random(&recovery.nonce, sizeof recovery.nonce))
        return status_set(AIDB_IO, "could not get random bytes from the operating system");
    Version *version;
    VersionEdit take = {
        .new_incarnation = true, .incarnation = recovery.incarnation, .nonce = recovery.nonce};
    RETURN_IF_FAILED(apply(session, &take, &version));
    FAILPOINT("recover.incarnation_taken");
    RETURN_IF_FAILED(wal_recover(db->wal, session->slot, &recovery));
    VersionEdit begin = {.new_start = true, .start = recovery.next};
    if (recovery.from >= recovery.end) /* nothing to replay: no older log is needed any more */
        begin.flushed_lsn = recovery.next.first_lsn;
    RETURN_IF_FAILED(apply(session, &begin, &version));
    FAILPOINT("recover.start_taken");

    RETURN_IF_FAILED(first_view(session, version));
    atomic_store(&shared->visible, atomic_load(&set->flushed_lsn));
    RETURN_IF_FAILED(replay(session, recovery.end));
    FAILPOINT("recover.replayed");
    atomic_store(&shared->visible, recovery.next.first_lsn);
    /* Each start adds a log that the next one must read; many crashes in a row must not pile them up. */
    if (set->start_count >= STARTS_FLUSH)
        RETURN_IF_FAILED(db_flush(session));
    wal_release(db->wal, session->slot, atomic_load(&set->flushed_lsn));
    FAILPOINT("recover.released");
    throttle_update(session);
    shared->recovery_us = (port_monotonic_ns() - started) / 1000u;
    atomic_store(&shared->recovered, 1);
    server_log(LOG_LEVEL_INFO,
               "recovered %llu log records up to LSN %llu in %llu ms (%s stop); the log goes on at "
               "LSN %llu",
               (unsigned long long)shared->recovered_records, (unsigned long long)recovery.end,
               (unsigned long long)(shared->recovery_us / 1000u),
               recovery.start_count == 0 ? "a new database, no"
               : recovery.clean          ? "clean"
                                         : "unclean",
               (unsigned long long)recovery.next.first_lsn);
    return AIDB_OK;
}

/* Whether somebody else is inside an epoch: a program that closes with open iterators, a process that
 * is gone without having left. */
static bool others_read(const Session *session)
{
    const SlotTable *slots = &session->shared->slots;
    for (uint32_t i = 0; i < slots->count; i++)
        if (&slots->slots[i] != session->slot && atomic_load(&slots->slots[i].epoch) != 0)
            return true;
    return false;
}

/* Gives back all that stands in the region once the store has stopped. What is left then has been lost by
 * somebody: that costs no data, but in a server that runs for months it costs the region. */
static void check_balance(Session *session, Version *version)
{
    DbShared *shared = session->shared;
    Slot *slot = session->slot;
    uint64_t numbers[64], pool_used, capacity;
    size_t arena_used, arena_size, retired;
    if (others_read(session)) {
        if (session->db->latch_fds != NULL) {
            server_log(LOG_LEVEL_WARNING, "a process ended inside a read and did not leave it");
#ifdef AIDB_ASSERTIONS
            assert(session->db->latch_fds == NULL);
#endif
        }
        return;
    }
    ReadView *view = atomic_load(&shared->view);
    atomic_store(&shared->view, NULL);
    memtable_retire(view->active, slot);
    for (uint32_t i = 0; i < view->immutable_count; i++)
        memtable_retire(view->immutables[i], slot);
    arena_retire(shared->arena, slot, view);
    lock_acquire(&shared->versions.manifest_lock, slot);
    version_release(session->db->versions, slot, version);
    lock_release(&shared->versions.manifest_lock, slot);
    /* The tables stay: only their records go. */
    while (versions_take_dead(session->db->versions, slot, &shared->epochs, numbers, 64) > 0)
        continue;
    arena_reclaim(shared->arena, slot);
    (void)mempool_has_room(shared->pool, slot, UINT64_MAX); /* reclaims */
    arena_usage(shared->arena, &arena_used, &arena_size, &retired);
    mempool_usage(shared->pool, &pool_used, &capacity);
    uint64_t frames = cache_lost_frames(shared->cache);
    if (arena_used + pool_used + frames > 0) {
        server_log(
            LOG_LEVEL_WARNING,
            "the region does not balance: %zu bytes of metadata, %llu bytes of memtables and "
            "%llu frames of the cache are in use by nobody",
            arena_used, (unsigned long long)pool_used, (unsigned long long)frames);
#ifdef AIDB_ASSERTIONS
        assert(arena_used + pool_used + frames == 0);
#endif
    }
}

Status db_stop(Db *db, Session *session, bool flush)
{
    RETURN_IF_FAILED(db_check(db));
    if (flush)
        RETURN_IF_FAILED(db_flush(session));
    FAILPOINT("stop.flushed");
    RETURN_IF_FAILED(wal_stop(db->wal, session->slot));
    Version *version;
    VersionEdit edit = {.clean_stop = true};
    RETURN_IF_FAILED(apply(session, &edit, &version));
    check_balance(session, version);
    FAILPOINT("stop.done");
    return AIDB_OK;
}
