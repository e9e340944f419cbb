/*
 * wal.h - the write-ahead log: an endless byte stream. An LSN is a position in it.
 *
 * A record is copied into the ring (data/wal/ring, mapped; its blocks are allocated and synced ahead,
 * and what is in it outlives the processes) and from there written in batches to segments (data/wal/<first LSN, 16
 * hex>.<incarnation, 8 hex>), which are zero-filled or recycled and carry their header outside LSN
 * space: the byte of LSN x is at header size + x % segment size of the segment that starts at
 * x - x % segment size. doc/format-wal.md has the byte tables.
 *
 * Every start of the store takes a new incarnation (counter and 64 random bits), mixed into every
 * checksum, so that bytes of an earlier start are never taken for records. Records and segment
 * headers state what was known to be durable when they were made; the highest such statement is the
 * horizon. What is damaged below it is corruption (file and offset are named); from it on, the first
 * damage is where the log ends.
 *
 * Frontiers: copied (everything below is in the ring: survives every process) and durable
 * (everything below is synced in segments). Ring space is free once durable has passed it.
 *
 * Callers: one writer at a time appends (the write lock of engine/db); anybody syncs and reads the
 * frontiers. A failed log sync is final: `failed` is set before the flush lock is released, nothing
 * is acknowledged after it, and every call returns AIDB_FAILED until the store is recovered.
 */
#ifndef AIDB_ENGINE_WAL_WAL_H
#define AIDB_ENGINE_WAL_WAL_H

#include "engine/base/base.h"
#include "ipc/ipc.h"

#define WAL_SEGMENT_HEADER_SIZE 4096u

/* An incarnation and where its log begins; the manifest keeps the list of those the log still needs,
 * oldest first. The log of the previous incarnation ends at `previous_end`, exactly. */
typedef struct WalStart {
    uint32_t incarnation;
    uint64_t nonce;
    uint64_t first_lsn;
    uint64_t previous_end;
} WalStart;

/* Whether a new start takes the place of the last one, whose log holds nothing: then it follows the log
 * before that. So recoveries that are killed again and again leave one start. */
static inline bool wal_start_replaces(const WalStart *next, const WalStart *last)
{
    return next->previous_end == last->previous_end && next->previous_end < last->first_lsn;
}

typedef struct WalOptions {
    const char *directory; /* data/wal, borrowed for the handle's life */
    uint8_t system_id[16];
    uint64_t
        segment_size;    /* LSN bytes in a segment; fixed when the database is made; power of two */
    uint64_t ring_size;  /* multiple of 4096, fixed likewise */
    bool syncs_expected; /* writers wait for syncs as a rule: segments are made for that */
} WalOptions;

/* State in the region. */
typedef struct WalShared WalShared;
size_t wal_shared_size(void);
void wal_shared_init(WalShared *shared);

/* A process's handle: descriptors and the ring's mapping. A forked child uses the one it inherits. */
typedef struct Wal Wal;

/* Makes an empty log (ring and directory) for a new database; everything synced. */
Status wal_create(const WalOptions *options) MUST_CHECK;
/* The same for a database whose first log begins at `first_lsn`, a multiple of the segment size, and whose
 * tables hold everything before it. */
Status wal_create_at(const WalOptions *options, uint64_t first_lsn) MUST_CHECK;
/* Opens the handle: maps the ring (AIDB_CORRUPTION when it is missing or unreadable) and locks it in
 * memory (logged when refused). Nothing may be appended before wal_recover. */
Status wal_open(const WalOptions *options, WalShared *shared, Wal **wal) MUST_CHECK;
void wal_close(Wal *wal);
/* New segments leave as many bytes of the disk free as `keep` tells, which is asked each time; without it they
 * take what there is. `keep` takes no lock. */
void wal_keep_room(Wal *wal, uint64_t (*keep)(void *arg), void *arg);

typedef struct WalRecovery {
    /* in */
    const WalStart *starts; /* from the manifest; empty for a new database */
    size_t start_count;
    uint64_t from;    /* everything below is in tables */
    uint64_t horizon; /* highest durable LSN known from elsewhere (manifest) */
    uint32_t
        incarnation; /* of this start, already durable in the manifest; taken anew for each call */
    uint64_t nonce;
    /* out */
    uint64_t end;  /* where the log found ends */
    WalStart next; /* the new log: becomes the last of the starts, or replaces it
                             * (wal_start_replaces), to be made durable in the manifest before the first append; a durable LSN of the new log may be
                             * recorded as horizon only together with it or later */
    bool clean;    /* the log had been closed */
} WalRecovery;

/*
 * Finds the end of the log, validates everything from `from` to it, copies whole segments from the
 * horizon's segment to the end verbatim into files of the new incarnation (bytes synced, then
 * headers), and only then re-initialises the ring and makes the first segment of the new log. May
 * be killed anywhere and run again. A log that ends below `from` is AIDB_CORRUPTION. Sets the
 * frontiers: afterwards records can be appended at next.first_lsn.
 */
Status wal_recover(Wal *wal, Slot *slot, WalRecovery *recovery) MUST_CHECK;

/* ---- reading --------------------------------------------------------------------------------- */

typedef struct WalRecord {
    uint64_t lsn;         /* of the header */
    uint64_t payload_lsn; /* operations count from here */
    uint64_t end;         /* of the record: where the next one begins */
    /* As the newest record up to this one says that was read and says it; 0: none did. Records between two that
     * do were written before the first sync behind the former had ended. */
    uint64_t time_us; /* when it was written, never going back */
    uint64_t durable; /* durable frontier known when it was written */
    uint32_t incarnation;
    Slice payload; /* until the next call */
} WalRecord;

/* Reads records in [from, end) over all the incarnations of `starts`. `from` is a record's place or
 * the place between two logs. */
typedef struct WalReader WalReader;
Status wal_reader_create(const WalOptions *options, const WalStart *starts, size_t start_count,
                         uint64_t from, uint64_t end, WalReader **reader) MUST_CHECK;
/* AIDB_NOT_FOUND at the end; AIDB_CORRUPTION names file and offset. */
Status wal_reader_next(WalReader *reader, WalRecord *record) MUST_CHECK;
void wal_reader_destroy(WalReader *reader);

/* ---- writing --------------------------------------------------------------------------------- */

/* Whether a record with this payload can be appended now without waiting: ring space and prepared
 * segments. Called with the write lock held. Payloads over wal_ring_payload_max must go through
 * wal_append_large; for them only segments count. */
bool wal_has_room(const Wal *wal, size_t payload_size);
/* Waits (leading a flush, preparing segments) until there was room for it; called without the write
 * lock; the caller takes the lock and asks wal_has_room again. AIDB_NO_SPACE when a segment cannot
 * be prepared, AIDB_FAILED. */
Status wal_make_room(Wal *wal, Slot *slot, size_t payload_size) MUST_CHECK;
size_t wal_ring_payload_max(const Wal *wal); /* a quarter of the ring */

/* Copies one record into the ring and advances `copied`. Cannot fail; makes no system call. Write
 * lock held and wal_has_room just answered true. `payload_hash` is wal_payload_hash(payload),
 * computed before the lock was taken. Returns the LSN of the payload. */
uint64_t wal_append(Wal *wal, Slice payload, uint64_t payload_hash);
uint64_t wal_payload_hash(Slice payload);
/* Writes a large record straight to segments and syncs it. Write lock held. On failure nothing of it
 * will be found again (AIDB_NO_SPACE and others, before anything was written) or the log has failed
 * (AIDB_UNKNOWN). */
Status wal_append_large(Wal *wal, Slot *slot, Slice payload, uint64_t payload_hash,
                        uint64_t *payload_lsn) MUST_CHECK;

uint64_t wal_copied(const Wal *wal);
uint64_t wal_durable(const Wal *wal);
bool wal_failed(const Wal *wal);

/* Returns once everything below `lsn` is durable. The first waiter leads: one batched write from the
 * ring and one fdatasync for all. AIDB_UNKNOWN when the log fails meanwhile. */
Status wal_sync(Wal *wal, Slot *slot, uint64_t lsn) MUST_CHECK;

/* Wakes the WAL writer when a quarter of the ring is unsynced. For writers that do not sync: called
 * after the write lock was released; usually two loads. */
void wal_nudge(Wal *wal);
/* One step of the WAL writer: writes and syncs once a quarter of the ring is unsynced, or a byte has
 * been for 100 ms; prepares segments ahead of need, touches ring pages ahead of the head.
 * *wait_ms tells when to come again at the latest. */
Status wal_writer_step(Wal *wal, Slot *slot, int *wait_ms) MUST_CHECK;
/* Tells that tables hold everything below `lsn`: whole segments below may be recycled. */
void wal_release(Wal *wal, Slot *slot, uint64_t lsn);
/* Clean stop: syncs what the ring holds, then notes in its header that the log ends here, durably. */
Status wal_stop(Wal *wal, Slot *slot) MUST_CHECK;
/* Numbers for people: name TAB value lines. */
Status wal_describe(const Wal *wal, Buffer *text) MUST_CHECK;

/* ---- inspection (aidbctl) -------------------------------------------------------------------- */

/* Calls `report` for each problem in the log files of a stopped or running database: path, offset,
 * text. Reads only. */
typedef void (*DamageReport)(void *arg, const char *path, uint64_t offset, const char *what);
Status wal_verify(const WalOptions *options, const WalStart *starts, size_t start_count,
                  uint64_t from, uint64_t horizon, bool online, DamageReport report,
                  void *arg) MUST_CHECK;

/* ---- repair ----------------------------------------------------------------------------------- */

/* A part of the log that could not be read, or is left out. */
typedef struct WalLoss {
    const char *path;
    uint64_t offset;
    uint64_t from; /* LSNs */
    uint64_t to;   /* 0: not known */
    const char *what;
} WalLoss;

/* Reads what is left of a log. */
typedef struct WalSalvage {
    /* in */
    const WalOptions *options;
    const WalStart *starts; /* as far as they are known */
    size_t start_count;
    bool complete; /* the manifest is whole: `starts` are all, and `from` is right */
    bool clean;    /* and says that the log was closed: the ring holds nothing */
    uint64_t from;
    uint64_t horizon;
    Status (*visit)(void *arg, const WalRecord *record);
    void (*report)(void *arg, const WalLoss *loss);
    void *arg;
    /* out */
    uint64_t end;     /* above every LSN that anything tells of */
    uint64_t log_end; /* where the newest log was found to end */
    uint64_t records;
    uint64_t unproven; /* records of logs whose nonce is lost */
} WalSalvage;
Status wal_salvage(WalSalvage *salvage) MUST_CHECK;
/* The highest incarnation that a header of the log names. */
Status wal_newest_incarnation(const WalOptions *options, uint32_t *incarnation) MUST_CHECK;
/* Which database a log's directory belongs to, as its ring says; *found false when nothing can be read.
 * The directory of `options` is left as it is. */
Status wal_identify(const char *directory, WalOptions *options, bool *found) MUST_CHECK;

#endif
