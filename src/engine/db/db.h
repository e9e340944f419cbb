/*
 * db.h - the store: what the server's processes and libaidb's threads call.
 *
 * A Db is one open store, a Session one conversation with it (a client's backend, a background
 * process, an embedding thread inside a call). The Db is set up before the first fork; children use
 * the handle they inherit, each with a session of its own. Shared state is reached
 * through the region, private state through the session; there are no globals.
 *
 * Nothing runs by itself here: background duties are steps (db_step), which processes of the server
 * or threads of the library carry out.
 *
 * Life of a store:
 *   db_create                   once: makes the files of an empty store
 *   db_setup                    before fork: identity, region, shared state
 *   db_recover                  in one session, before anything else; may be killed and run again
 *   sessions ... db_step, db_get, db_write ...
 *   db_stop                     clean end, nobody else being in the store
 *   db_reset                    after a crash of a child, all children gone: shared state anew in the
 *                               same mapping; then db_recover again
 *
 * After a failed log or manifest sync everything returns AIDB_FAILED until db_reset and db_recover.
 */
#ifndef AIDB_ENGINE_DB_DB_H
#define AIDB_ENGINE_DB_DB_H

#include "engine/base/base.h"
#include "engine/compaction/compaction.h"
#include "ipc/ipc.h"

typedef struct Db Db;
typedef struct Session Session;

/* ---- life ------------------------------------------------------------------------------------ */

/* Makes an empty store in an existing directory that holds no store yet: CURRENT, MANIFEST, wal/, sst/,
 * all synced. AIDB_EXISTS. */
Status db_create(const char *directory, const EngineOptions *options) MUST_CHECK;
/* Whether the directory holds a store (has CURRENT). */
bool db_exists(const char *directory);

/* Bytes of region that these options need with this many slots; AIDB_INVALID (with the setting's name)
 * when memory cannot hold what the other options ask for, or one largest batch. */
Status db_region_size(const EngineOptions *options, uint32_t slots, size_t *size) MUST_CHECK;

/* The sessions that can exist at once. */
typedef struct DbSlots {
    uint32_t count; /* background duties included */
    bool processes; /* of processes: they sleep on descriptors, and all memory is touched now */
    uint32_t
        hosted; /* slots of clients that a process with others serves, from `hosted_from` on: */
    uint32_t hosted_from; /* nobody sleeps there, so they need no descriptor */
} DbSlots;

/* Maps and initialises the region. Takes options and slots over by value. Does not lock the directory: the
 * caller holds the lock on postmaster.pid. */
Status db_setup(const char *directory, const EngineOptions *options, const DbSlots *slots,
                Db **db) MUST_CHECK;
/* Frees this process's handle; unmaps the region. */
void db_destroy(Db *db);
/* Forgets all shared state, initialises it anew. No child may be left. */
void db_reset(Db *db);
/* New values of options that may change while running (compaction_rate, compactors, durability,
 * level0_files, table_size, level sizes, block_size, compression, filter_bits); by one process (the
 * postmaster), seen by all: they are kept in the region. Others are ignored. */
void db_reload(Db *db, const EngineOptions *options);

Status db_recover(Db *db, Session *session) MUST_CHECK;
/* Flushes the log (not the memtables: the log is replayed at the next start unless `flush`), marks the
 * clean stop. The only session left. */
Status db_stop(Db *db, Session *session, bool flush) MUST_CHECK;

SlotTable *db_slots(Db *db);
bool db_failed(const Db *db);

/* ---- sessions -------------------------------------------------------------------------------- */

/* Claims slot `slot` (or any free one from 0 on when it is UINT32_MAX: AIDB_LIMIT when none is). */
Status db_session_create(Db *db, uint32_t slot, SlotKind kind, Session **session) MUST_CHECK;
/* Releases snapshots and the slot. */
void db_session_destroy(Session *session);
/* Frees a session's private memory and descriptors without touching the region: for a forked child of an
 * embedding program, whose parent still uses the slot. */
void db_session_abandon(Session *session);
/* Gives back what a session that will be idle need not hold: open tables, which may be unlinked while it
 * is, and the memory of large values. Outside of read sections. */
void db_session_rest(Session *session);
Slot *db_session_slot(Session *session);
/*
 * For a process that serves many clients: a slot for each, one session for all. The session acts in the
 * name of the slot that was given last: reads, snapshots, interrupts and counters are that one's. Not
 * inside a read section. Such a session (`hosted`) does not sleep for backpressure: see db_write.
 */
Slot *db_client_slot_claim(Session *session, uint32_t slot);
void db_session_act_for(Session *session, Slot *slot);
/* Another session for a claimed slot, for a thread that works for it meanwhile. It may sleep. Ended by
 * db_session_abandon. */
Status db_session_create_for(Db *db, Slot *slot, Session **session) MUST_CHECK;

/* ---- background duties ----------------------------------------------------------------------- */

/* One step of the duty of this session's kind (SLOT_WAL_WRITER, SLOT_FLUSHER, SLOT_COMPACTOR,
 * SLOT_PREPARER). Sets *wait_ms: 0 = there is more to do at once; else latch_wait(slot, -1, *wait_ms) and
 * step again (-1: for an interrupt only); the engine wakes the latch when work comes up. A compaction inside a step ends early when the slot's
 * interrupt is set. A failed step is logged by the caller: AIDB_NO_SPACE and AIDB_IO of tables are
 * retried after *wait_ms, AIDB_FAILED means that the store must be reset. */
Status db_step(Session *session, int *wait_ms) MUST_CHECK;

/* ---- reading --------------------------------------------------------------------------------- */

#define DB_NOW 0u /* as a snapshot: the newest visible LSN */

/*
 * A read section: one point in time, inside an epoch. Entries got in it are valid until
 * db_read_end. Never wait for a client, timer or lock inside. *at gets the LSN that is read at.
 */
Status db_read_begin(Session *session, uint64_t snapshot, uint64_t *at) MUST_CHECK;
/* AIDB_OK with the entry (type OP_PUT), or AIDB_NOT_FOUND. */
Status db_read_get(Session *session, Slice key, Entry *entry) MUST_CHECK;
/* The same for many keys, looked up together: entries[i].lsn is 0 for a missing key. */
Status db_read_multi_get(Session *session, size_t count, const Slice *keys,
                         Entry *entries) MUST_CHECK;
void db_read_end(Session *session);

/* The place of a scan between two chunks. For one scan at one snapshot in one direction, whose bounds each
 * call gives as if there were none; holds memory of the process only, and up to 64 KiB for each table it
 * is in, and does not keep anything from being flushed or deleted. */
typedef struct DbCursor DbCursor;
DbCursor *db_cursor_create(void); /* NULL when memory is short */
/* Whether there is a place in it: not before the first call, nor after the end of the range, an error or values
 * of more than 64 KiB, whose memory a program with many iterators could not spare. */
bool db_cursor_stands(const DbCursor *cursor);
void db_cursor_destroy(DbCursor *cursor);

typedef struct DbScan {
    Slice from; /* inclusive; empty: no bound */
    Slice to;   /* exclusive; empty: no bound */
    bool reverse;
    bool keys_only; /* the rows' values are empty */
    /* Bytes that earlier chunks of the same scan returned. One that has walked over a sixteenth of the
     * block cache reads far ahead, and no longer puts into the cache what it reads once. */
    uint64_t walked;
    /* NULL, or where the scan stands: kept at the end of the call and, as long as nothing was flushed or
     * compacted since, used by the next, which is then spared opening and searching all sources. */
    DbCursor *cursor;
} DbScan;
/* Calls `row` for the live entries of the range in order, inside one epoch, until it returns false or
 * the range ends (*ended then true). The row's slices are valid during the call only. To go on in
 * another chunk: forward with from = last key + one zero byte, reverse with to = last key; a scan over
 * several chunks registers a snapshot first. AIDB_CANCELED when the slot's interrupt is set and much that
 * is no row (deleted, or not visible) is passed over. */
Status db_scan(Session *session, uint64_t snapshot, const DbScan *scan,
               bool (*row)(void *arg, const Entry *entry), void *arg, bool *ended,
               uint64_t *at) MUST_CHECK;

/* How many live entries [from, to) has as of a snapshot that is registered. Counts in steps, so that no
 * epoch lasts long. AIDB_CANCELED when the slot's interrupt is set. */
Status db_count(Session *session, uint64_t snapshot, Slice from, Slice to,
                uint64_t *count) MUST_CHECK;

/* Registers the newest visible LSN (AIDB_LIMIT: SLOT_SNAPSHOTS in this session). */
Status db_snapshot_acquire(Session *session, uint64_t *lsn) MUST_CHECK;
void db_snapshot_release(Session *session, uint64_t lsn);

/* Approximate bytes in tables and memtables of [from, to). */
Status db_approximate_size(Session *session, Slice from, Slice to, uint64_t *bytes) MUST_CHECK;

/* ---- writing --------------------------------------------------------------------------------- */

typedef struct DbWrite {
    Slice ops; /* encoded batch; checked with batch_check by whoever took it from outside */
    uint32_t op_count;
    uint32_t range_count;
    Slice expectations;
    uint32_t expectation_count;
} DbWrite;

/* What a writer owes for its bytes: it pays by waiting until db_debt_left says 0. */
typedef struct DbDebt {
    uint64_t left_ns; /* at `rate` */
    uint64_t rate;
    uint64_t seen_ns;
} DbDebt;

typedef struct DbCommit {
    uint64_t lsn; /* of the last operation */
    uint64_t end; /* pass to db_wait */
    size_t failed_expectation;
    uint64_t present_version;
    DbDebt debt; /* of a hosted session: to be paid before its client writes again */
} DbCommit;

/* Applies the batch: visible to all on return. Slows down or waits under backpressure (returns
 * AIDB_CANCELED when the slot's interrupt is set meanwhile). AIDB_EXPECTATION fills the commit's last two
 * fields. AIDB_LIMIT: larger than batch_max. AIDB_NO_SPACE: the log cannot grow; nothing was written.
 * A hosted session gets AIDB_BUSY instead of waiting for a flush: nothing was written, try again soon. */
Status db_write(Session *session, const DbWrite *write, DbCommit *commit) MUST_CHECK;
/* Waits until what ends at `end` has this durability (AIDB_DEFAULT: the store's). Once for many writes:
 * pass the greatest end. AIDB_UNKNOWN when the log failed. */
Status db_wait(Session *session, uint64_t end, aidb_durability durability) MUST_CHECK;
/* Whether db_wait would wait for the log. */
bool db_must_wait(const Session *session, uint64_t end, aidb_durability durability) MUST_CHECK;

/* What is left of a debt now: it runs off with time, faster when the pressure goes. */
uint64_t db_debt_left(Db *db, DbDebt *debt);

uint64_t db_visible_lsn(const Db *db);
uint64_t db_durable_lsn(const Db *db);

/* ---- administration -------------------------------------------------------------------------- */

/* Both return when done and durable; they may run in any session, beside the background duties. */
Status db_flush(Session *session) MUST_CHECK;
Status db_compact(Session *session, Slice from, Slice to) MUST_CHECK;
/* Returns when no compaction is due and no memtable waits to be flushed. */
Status db_compact_wait(Session *session) MUST_CHECK;

/* "status" (name TAB value lines of the engine), "levels", "wal", "durable_lsn", "visible_lsn": appends
 * text. AIDB_INVALID for other names. */
Status db_property(Session *session, const char *name, Buffer *text) MUST_CHECK;

/* Checks every file of a store, offline or online; never writes. Calls report for each problem. */
Status db_verify(const char *directory, bool online, DamageReport report, void *arg) MUST_CHECK;

/* Something that a repair could not read. Lost versions of a key let older ones come back; lost deletions
 * bring back what they deleted. */
typedef struct DbLoss {
    const char *path;
    uint64_t offset;
    uint64_t size; /* bytes; 0: not known */
    const char *what;
    bool manifest;      /* what was live is not known */
    bool entries;       /* versions of keys in [from, to], both inclusive, open where not known */
    bool range_deletes; /* range deletions between these keys */
    bool has_from, has_to;
    Slice from, to;
    bool log; /* operations with LSNs in [lsn_from, lsn_to); 0: not known */
    uint64_t lsn_from, lsn_to;
} DbLoss;

typedef struct DbRepair {
    /* in */
    const char *directory;     /* read, never changed; nobody has it open */
    const char *new_directory; /* missing or empty */
    const EngineOptions *options;
    void (*report)(void *arg, const DbLoss *loss);
    void *arg;
    /* out */
    uint64_t losses; /* reported */
    uint64_t tables; /* read, in whole or in part */
    uint64_t written_tables;
    uint64_t log_records;
    uint64_t log_unproven; /* of these, records that only their hash speaks for */
    uint64_t log_end;      /* where the log was found to end */
    uint64_t keys;         /* in the new store */
} DbRepair;
/* Makes a new store from what can be read of a damaged one. When it fails, the new directory holds no
 * database, but perhaps files. */
Status db_repair(DbRepair *repair) MUST_CHECK;

#endif
