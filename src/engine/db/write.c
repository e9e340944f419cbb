/*
 * write.c - the way of a write.
 *
 * Everything that can run out is secured before the log record is made: log room, memtable room,
 * limits. From wal_append to the new visible LSN there is no system call, allocation, lock or log
 * line; a process that dies in between leaves the write lock held, and the supervisor resets the
 * region: the record is in the ring, so recovery finds it - its writer had no acknowledgement yet,
 * and either outcome is right.
 *
 * One writer at a time, under the write lock; it is also the gate for the memtable switch and for
 * batches with expectations. Durability is waited for outside.
 *
 * Expectations are read before the lock is taken, at LSN r; under it only memtable entries newer
 * than r are looked at. If a memtable was flushed since, they are read again.
 */
#include "config.h"

#include "engine/db/db_internal.h"

#include "common/failpoint.h"

#define ROOM_WAIT_MS 100

bool view_changed_since(const ReadView *view, Slice key, uint64_t since)
{
    for (uint32_t i = 0; i <= view->immutable_count; i++) {
        const Memtable *memtable = i == 0 ? view->active : view->immutables[i - 1];
        if (memtable_entries(memtable) == 0)
            continue; /* just switched to: what is newer than `since` may be in the ones behind it */
        if (memtable_last_lsn(memtable) <= since)
            break;
        Entry entry;
        if (memtable_get(memtable, key, LSN_MAX, &entry) && entry.lsn > since)
            return true;
        if (memtable_has_ranges(memtable) && memtable_cover(memtable, key, LSN_MAX) > since)
            return true;
    }
    return false;
}

/* Reads what the expectations are about. *at: the LSN; *flushed: the tables that were looked at. */
static Status read_expectations(Session *session, const DbWrite *write, uint64_t *at,
                                uint64_t *flushed, DbCommit *commit)
{
    /* Before the read point: all that comes after it is then in memtables as long as this stands. */
    *flushed = atomic_load(&session->shared->versions.flushed_lsn);
    RETURN_IF_FAILED(db_read_begin(session, DB_NOW, at));
    Status status = AIDB_OK;
    size_t cursor = 0, index = 0;
    Expectation expectation;
    bool damaged = false;
    while (expectation_next(write->expectations, &cursor, &expectation, &damaged)) {
        Entry entry;
        status = db_read_get(session, expectation.key, &entry);
        uint64_t version = status == AIDB_OK ? entry.lsn : 0;
        if (status != AIDB_OK && status != AIDB_NOT_FOUND)
            break;
        bool met = expectation.kind == AIDB_EXPECT_ABSENT    ? version == 0
                   : expectation.kind == AIDB_EXPECT_PRESENT ? version != 0
                                                             : version == expectation.version;
        status = AIDB_OK;
        if (!met) {
            commit->failed_expectation = index;
            commit->present_version = version;
            status = version != 0 ? status_set(AIDB_EXPECTATION, "the key is at version %llu",
                                               (unsigned long long)version)
                                  : status_set(AIDB_EXPECTATION, "the key does not exist");
            break;
        }
        index++;
    }
    db_read_end(session);
    if (status == AIDB_OK && damaged)
        status = status_set(AIDB_INVALID, "malformed expectations");
    return status;
}

/* Under the write lock: whether every expectation that held at `at` still does. */
static bool expectations_hold(Session *session, const DbWrite *write, uint64_t at, uint64_t flushed)
{
    DbShared *shared = session->shared;
    if (atomic_load(&shared->versions.flushed_lsn) != flushed)
        return false;
    if (db_visible_lsn(session->db) == at)
        return true;
    /* The memtables cannot go while flushed_lsn may move: an epoch keeps them. */
    epoch_enter(&shared->epochs, session->slot);
    ReadView *view = atomic_load_explicit(&shared->view, memory_order_acquire);
    bool hold = true;
    size_t cursor = 0;
    Expectation expectation;
    bool damaged = false;
    while (hold && expectation_next(write->expectations, &cursor, &expectation, &damaged))
        hold = !view_changed_since(view, expectation.key, at);
    hold = hold && atomic_load(&shared->versions.flushed_lsn) == flushed;
    epoch_leave(session->slot);
    return hold;
}

static bool has_immutables(Session *session)
{
    DbShared *shared = session->shared;
    epoch_enter(&shared->epochs, session->slot);
    bool has = atomic_load_explicit(&shared->view, memory_order_acquire)->immutable_count > 0;
    epoch_leave(session->slot);
    return has;
}

/* Room in the active memtable, switching it when it is full. Write lock held. AIDB_BUSY: after a flush. */
static Status secure_memtable(Session *session, const DbWrite *write, RangeLoad ranges)
{
    DbShared *shared = session->shared;
    uint64_t need = memtable_need(shared->active, write->op_count, ranges, write->ops.size);
    if (memtable_entries(shared->active) > 0 &&
        memtable_bytes(shared->active) + need > shared->memtable_size)
        RETURN_IF_FAILED(view_switch_memtable(session));
    Status status =
        memtable_secure(shared->active, session->slot, write->op_count, ranges, write->ops.size);
    if (status == AIDB_BUSY && memtable_entries(shared->active) > 0 && !has_immutables(session)) {
        /* The free memory is in pieces between those of the active memtable, and no flush is on its way
         * that would join them: this one's will. */
        RETURN_IF_FAILED(view_switch_memtable(session));
        status = memtable_secure(shared->active, session->slot, write->op_count, ranges,
                                 write->ops.size);
    }
    if (status == AIDB_LIMIT && ranges.depth > 1)
        status_hint(
            "Split the batch: range deletes that overlap take memory for every two of them.");
    return status;
}

/* Adds the operations to the active memtable. Cannot fail. */
static void insert(Session *session, const DbWrite *write, uint64_t payload_lsn, uint64_t *last)
{
    Memtable *active = session->shared->active;
    size_t cursor = 0;
    BatchOp op;
    bool damaged = false;
    while (batch_next(write->ops, &cursor, &op, &damaged)) {
        *last = payload_lsn + op.offset;
        if (op.type == OP_DELETE_RANGE)
            memtable_add_range(active, op.key, op.value, *last);
        else
            memtable_add(active, (OpType)op.type, op.key, op.value, *last);
    }
}

/* One attempt under the write lock. AIDB_BUSY: wait as *wait tells and try again. */
typedef enum WaitFor { WAIT_NOTHING, WAIT_LOG, WAIT_MEMTABLE } WaitFor;

static Status attempt(Session *session, const DbWrite *write, RangeLoad ranges, uint64_t hash,
                      uint64_t at, uint64_t flushed, DbCommit *commit, WaitFor *wait)
{
    Db *db = session->db;
    DbShared *shared = session->shared;
    *wait = WAIT_NOTHING;
    if (write->expectation_count > 0 && !expectations_hold(session, write, at, flushed))
        return AIDB_BUSY;
    if (write->op_count == 0) {
        commit->lsn = db_visible_lsn(db);
        commit->end = commit->lsn;
        return AIDB_OK;
    }
    Status status = secure_memtable(session, write, ranges);
    if (status != AIDB_OK) {
        *wait = WAIT_MEMTABLE;
        return status;
    }
    uint64_t payload_lsn;
    if (write->ops.size > wal_ring_payload_max(db->wal)) {
        status = wal_append_large(db->wal, session->slot, write->ops, hash, &payload_lsn);
        if (status == AIDB_NO_SPACE)
            *wait = WAIT_LOG;
        RETURN_IF_FAILED(status);
    } else {
        if (!wal_has_room(db->wal, write->ops.size)) {
            *wait = WAIT_LOG;
            return AIDB_BUSY;
        }
        payload_lsn = wal_append(db->wal, write->ops, hash);
    }
    insert(session, write, payload_lsn, &commit->lsn);
    commit->end = wal_copied(db->wal);
    FAILPOINT("write.inserted");
    atomic_store_explicit(&shared->visible, commit->end, memory_order_release);
    FAILPOINT("write.visible");
    return AIDB_OK;
}

/* Room in the log for this write. When the disk is short of it a flush gives back what memtables hold: of the
 * log, and of what was kept for them. Once only: what it leaves short is a full disk. */
static Status make_log_room(Session *session, const DbWrite *write, bool *flushed)
{
    Db *db = session->db;
    Status status = wal_make_room(db->wal, session->slot, write->ops.size);
    if (status != AIDB_NO_SPACE || *flushed ||
        atomic_load(&session->shared->flush_failure) != AIDB_OK)
        return status;
    *flushed = true;
    status = db_flush(session);
    if (status == AIDB_CANCELED || status == AIDB_FAILED)
        return status;
    return wal_make_room(db->wal, session->slot, write->ops.size);
}

Status db_write(Session *session, const DbWrite *write, DbCommit *commit)
{
    Db *db = session->db;
    DbShared *shared = session->shared;
    *commit = (DbCommit){0};
    RETURN_IF_FAILED(db_check(db));
    if (write->ops.size > db->options.batch_max) {
        Status status =
            status_set(AIDB_LIMIT, "a batch of %zu bytes is larger than batch_max (%llu bytes)",
                       write->ops.size, (unsigned long long)db->options.batch_max);
        status_hint("Split the batch, or raise batch_max and perhaps memory.");
        return status;
    }
    RangeLoad ranges;
    RETURN_IF_FAILED(batch_range_load(write->ops, write->range_count, &ranges));
    if (!session->hosted)
        RETURN_IF_FAILED(throttle_write(session, write->ops.size, &commit->debt));
    uint64_t hash = wal_payload_hash(write->ops);
    bool flushed_for_log = false;
    for (;;) {
        uint64_t at = 0, flushed = 0;
        if (write->expectation_count > 0) {
            Status status = read_expectations(session, write, &at, &flushed, commit);
            if (status == AIDB_EXPECTATION)
                slot_count(session->slot, STAT_EXPECTATIONS_FAILED, 1);
            RETURN_IF_FAILED(status);
        }
        uint32_t seen = progress_now(shared);
        WaitFor wait = WAIT_NOTHING;
        lock_acquire(&shared->write_lock, session->slot);
        const Memtable *before = shared->active;
        Status status = db_failed(db)
                            ? db_check(db)
                            : attempt(session, write, ranges, hash, at, flushed, commit, &wait);
        bool switched = shared->active != before;
        lock_release(&shared->write_lock, session->slot);
        if (switched)
            throttle_update(session);
        if (status == AIDB_OK)
            break;
        if (status != AIDB_BUSY && wait != WAIT_LOG)
            return status;
        if (wait == WAIT_LOG) {
            RETURN_IF_FAILED(make_log_room(session, write, &flushed_for_log));
        } else if (wait == WAIT_MEMTABLE) {
            /* Waiting would be for ever: the disk must be looked at, and the writer can say so. Whatever
             * the flusher met, of this write nothing was done and the store goes on. */
            Status failure = (Status)atomic_load(&shared->flush_failure);
            if (failure != AIDB_OK)
                return status_set(failure == AIDB_NO_SPACE || failure == AIDB_NO_MEMORY ? failure
                                                                                        : AIDB_IO,
                                  "no room for the write: memtables are full and cannot be "
                                  "flushed to tables%s",
                                  failure == AIDB_NO_SPACE ? ": no space left on the disk" : "");
            wake_duty(shared, SLOT_FLUSHER);
            if (session->hosted) {
                if (atomic_load(&session->slot->interrupt) != 0)
                    return status_set(AIDB_CANCELED, "canceled");
                return AIDB_BUSY;
            }
            uint64_t stalled_at = port_monotonic_ns();
            slot_count(session->slot, STAT_STALLS, 1);
            RETURN_IF_FAILED(progress_wait(session, seen, ROOM_WAIT_MS));
            slot_count(session->slot, STAT_STALL_US, (port_monotonic_ns() - stalled_at) / 1000u);
            RETURN_IF_FAILED(db_check(db));
        }
    }
    /* Who does not sleep here may come several times before there is room, and owes but for what was written. */
    if (session->hosted)
        RETURN_IF_FAILED(throttle_write(session, write->ops.size, &commit->debt));
    wal_nudge(db->wal);
    slot_count(session->slot, STAT_WRITES, 1);
    slot_count(session->slot, STAT_OPERATIONS, write->op_count);
    slot_count(session->slot, STAT_WRITE_BYTES, write->ops.size);
    return AIDB_OK;
}

/* Everything visible is copied: os durability holds as soon as db_write returns. */
bool db_must_wait(const Session *session, uint64_t end, aidb_durability durability)
{
    if (durability == AIDB_DEFAULT)
        durability = session->shared->options.durability;
    return durability == AIDB_FSYNC && wal_durable(session->db->wal) < end;
}

Status db_wait(Session *session, uint64_t end, aidb_durability durability)
{
    if (!db_must_wait(session, end, durability))
        return AIDB_OK;
    Status status = wal_sync(session->db->wal, session->slot, end);
    FAILPOINT("write.durable");
    return status;
}
