/* db_internal.h - what the files of engine/db share. */
#ifndef AIDB_ENGINE_DB_DB_INTERNAL_H
#define AIDB_ENGINE_DB_DB_INTERNAL_H

#include "engine/db/db.h"

#include <stdatomic.h>

/*
 * All that a read needs, behind one pointer that is replaced whole (under the view lock), so that a
 * reader sees memtables and tables that belong together. In the metadata arena; the memtables and
 * the version that it names live at least as long as an epoch that could have seen it.
 */
typedef struct ReadView {
    uint64_t generation; /* of how many views it is the last */
    Memtable *active;
    uint32_t immutable_count;
    Memtable *immutables[MEMTABLES_MAX]; /* newest first */
    uint64_t sealed_at[MEMTABLES_MAX];   /* everything below is in this one or in older ones */
    Version *version;
} ReadView;

/* Why writers are slowed; shown in the status. */
typedef enum ThrottleReason {
    THROTTLE_NONE = 0,
    THROTTLE_MEMTABLES,
    THROTTLE_LEVEL0,
    THROTTLE_COMPACTION,
    THROTTLE_DISK
} ThrottleReason;

/* A manual compaction under way, which compactors with nothing else to do take part in. */
typedef struct ManualOffer {
    bool open;
    uint8_t from[256], to[256];
    uint32_t from_size, to_size;
    uint64_t started_number;
    uint64_t started_lsn;
} ManualOffer;

/* In the region. */
typedef struct DbShared {
    SlotTable slots;
    EpochDomain epochs;

    _Alignas(PORT_CACHE_LINE) ReadView *_Atomic view; /* guard for replacing: view lock */
    _Atomic uint64_t
        unlinked; /* rises when tables were unlinked: readers close those they have open */
    _Alignas(PORT_CACHE_LINE) _Atomic uint64_t
        visible; /* every operation below is visible; guard: write lock */
    _Alignas(PORT_CACHE_LINE) Lock write_lock;
    Memtable *active; /* the view's, for writers, who are in no epoch; guard: write lock */
    _Alignas(PORT_CACHE_LINE) Lock view_lock;
    Lock flush_lock;
    Lock compaction_lock;
    PickCursor cursors[LEVELS]; /* guard: compaction lock */
    uint32_t job_sequence;      /* guard: compaction lock */
    ManualOffer manual;         /* guard: compaction lock */
    SplitKey split;             /* where flushes are cut; guard: view lock */

    /* Rises with every flush, compaction and failure; people who wait for one sleep on it. */
    _Alignas(PORT_CACHE_LINE) _Atomic uint32_t progress;
    _Atomic uint32_t progress_waiters;

    /* Backpressure: writers share this rate (bytes a second, 0: unlimited). `throttle_next_ns` is when
     * the bytes admitted so far are paid for. */
    _Alignas(PORT_CACHE_LINE) _Atomic uint64_t throttle_rate;
    _Atomic uint64_t throttle_next_ns;
    _Atomic uint32_t throttle_reason;
    _Atomic uint64_t flush_failed_ns; /* when, if `flush_failure` is set */
    _Atomic uint32_t
        flush_failure; /* Status of the last flush; a writer that needs its room is told */
    _Atomic uint64_t
        flush_rate; /* bytes of memtables a second that flushes took lately, 0: not known */
    _Atomic uint32_t
        flush_awaited; /* writers were slowed for memtables since the last flush began */

    /* Guard: flush lock. */
    uint64_t gets_seen;   /* up to the last flush */
    uint64_t gets_lately; /* between flushes, half as much of each further back */

    _Atomic uint32_t failed;
    _Atomic uint32_t running_compactions;
    _Atomic uint64_t compacting_bytes; /* of their inputs: at most so much they may write */
    _Atomic uint32_t recovered;
    EngineOptions options; /* live values; written by db_reload only */
    uint64_t memtable_size;
    uint64_t cache_size;
    uint32_t tables_sought;       /* so many that the metadata arena holds them with ease */
    _Atomic uint64_t table_bytes; /* of all tables in the view */
    uint64_t recovered_records;
    uint64_t recovery_us;

    VersionSet versions;
    Arena *arena;
    MemPool *pool;
    BlockCache *cache;
    WalShared *wal;
} DbShared;

struct Db {
    char *directory;
    char *wal_directory;
    char *sst_directory;
    StoreIdentity identity;
    WalOptions wal_options;
    EngineOptions options; /* as set up: sizes of the region */
    uint32_t slot_count;
    int *latch_fds; /* NULL in one process */
    Region region;
    DbShared *shared;
    Wal *wal;
    Versions *versions;
};

struct Session {
    Db *db;
    DbShared *shared;
    Slot *slot;
    bool hosted; /* acts for many slots in turn, and must not sleep for one of them */
    FileCache *files;
    TableReader reader;     /* through the block cache */
    TableReader job_reader; /* flush and compaction: bypasses it */
    TableWarmth warmth;     /* of the job under way */
    /* The read section, when inside one. */
    bool reading;
    ReadView *view;
    uint64_t read_lsn;
    uint64_t unlinked_seen; /* files are swept up to here */
    /* Scratch of scans. */
    Buffer key;
    Buffer value;
};

/* ---- db.c ---- */
Status db_fail(Db *db, Status status);
Status db_check(const Db *db) MUST_CHECK; /* AIDB_FAILED once the store has failed */

/* ---- view.c ---- */
/* Makes a new memtable active. Write lock held. AIDB_BUSY: no memory until a flush. */
Status view_switch_memtable(Session *session) MUST_CHECK;
/* Makes an edit durable, current and visible. */
void view_count_bytes(DbShared *shared, const Version *version);
Status view_install(Session *session, const VersionEdit *edit,
                    uint32_t flushed_memtables) MUST_CHECK;

/* ---- write.c ---- */
/* Whether the key changed after `since`: looks at memtables only. Inside an epoch, write lock held. */
bool view_changed_since(const ReadView *view, Slice key, uint64_t since);

/* ---- background.c ---- */
void progress_notify(DbShared *shared);
uint32_t progress_now(const DbShared *shared);
/* Sleeps until progress is not `seen` any more, at most timeout_ms. AIDB_CANCELED on an interrupt. */
Status progress_wait(Session *session, uint32_t seen, int timeout_ms) MUST_CHECK;
void wake_duty(DbShared *shared, SlotKind kind);
/* Bytes of the disk that flushing all memtables may take, which nothing else may use up: flushes give the log's
 * room back, and without them no write can go on. `arg`: the Db. */
uint64_t flush_room(void *arg);
/* What compactions leave free: that, and a segment of the log. */
uint64_t compaction_leaves(Db *db);
/* Flushes all immutable memtables; *did: whether there were any. */
Status flush_immutables(Session *session, bool *did) MUST_CHECK;
/* The engine's picker options out of the live ones. */
PickOptions pick_options(DbShared *shared);

/* ---- throttle.c ---- */
void throttle_update(Session *session);
/* Charges for the bytes; sleeps until they are paid for, or (hosted) leaves the debt to the caller. */
Status throttle_write(Session *session, uint64_t bytes, DbDebt *debt) MUST_CHECK;
const char *throttle_reason_name(ThrottleReason reason);

/* ---- snapshot.c ---- */
/* The LSNs of all registered snapshots, ascending, without duplicates, in *lsns (heap). */
Status snapshots_collect(Session *session, uint64_t **lsns, size_t *count) MUST_CHECK;
/* The oldest LSN that somebody may still read at; 0 when it cannot be told right now. */
uint64_t snapshots_oldest(DbShared *shared);

#endif
