/*
 * version.h - which tables are live: versions (in the region), the manifest (on disk).
 *
 * A version says which file records are live, level by level, and never changes: arrays of pointers
 * into the metadata arena, where versions share the records. A version edit is logged to the
 * manifest, synced and sealed: a header slot, one of two that lie in different sectors, gets the
 * edit's end under a checksum and is synced too. The edit counts from then on. What is wrong below the
 * seal, or in a slot, is corruption; bytes behind the seal are an edit that nobody used, and are
 * cut off. doc/format-manifest.md has the bytes.
 *
 * One edit at a time: the manifest lock is held across its syncs. A failed sync of the manifest is
 * final: the store fails (a server resets).
 */
#ifndef AIDB_ENGINE_VERSION_VERSION_H
#define AIDB_ENGINE_VERSION_VERSION_H

#include "engine/base/base.h"
#include "engine/sstable/sstable.h"
#include "engine/wal/wal.h"
#include "ipc/arena.h"
#include "ipc/ipc.h"

#define WAL_STARTS_MAX 64

/* A live table. In the metadata arena; immutable but for the fields that name their guard. */
typedef struct FileMeta {
    TableInfo info;
    Slice
        smallest; /* no key of the table is below; may be shorter than any key in it (a safe separator) */
    Slice largest;          /* no key of the table is above */
    bool largest_exclusive; /* `largest` itself is not in the table: where a range tombstone ends */
    bool unbounded;         /* a range tombstone without upper bound: `largest` is +infinity */
    bool garbage; /* tombstones, or versions that only a snapshot needed: droppable later */
    uint8_t level;
    uint32_t references; /* versions that hold it; guard: manifest lock */
    _Atomic uint32_t
        compacting; /* claim of a running compaction, 0: none; see pick_claim. Guard: compaction lock */
    /* Of a record that no version holds any more; guard: manifest lock. */
    bool moved;          /* the table lives on under another record (it changed its level) */
    uint64_t dead_stamp; /* epoch after which nobody sees it; 0: not stamped yet */
    struct FileMeta *dead_next;
} FileMeta;

typedef struct Version {
    struct {
        FileMeta *
            *files; /* level 0: newest first (greatest lsn_max); others: by key, not overlapping */
        uint32_t count;
        uint64_t bytes;
    } levels[LEVELS];
    uint64_t number; /* rises with every edit */
} Version;

/* An edit: what a flush, a compaction or a start changes. Arrays on the heap. */
typedef struct NewFile {
    uint8_t level;
    TableInfo info;
    Slice smallest; /* owned by the edit */
    Slice largest;
    bool largest_exclusive;
    bool unbounded;
    bool garbage;
} NewFile;
/* What a file is beside its numbers: bounds are as in FileMeta. */
typedef struct FileBounds {
    Slice smallest;
    Slice largest;
    bool largest_exclusive;
    bool unbounded;
    bool garbage;
} FileBounds;
typedef struct VersionEdit {
    NewFile *added;
    size_t added_count, added_capacity;
    struct RemovedFile {
        uint8_t level;
        uint64_t number;
    } * removed;
    size_t removed_count, removed_capacity;
    uint64_t flushed_lsn; /* 0: unchanged. Tables hold everything below it */
    bool new_incarnation; /* a start takes this incarnation */
    uint32_t incarnation;
    uint64_t nonce;
    bool new_start; /* its log begins here; drops the starts that the log no longer needs */
    WalStart start;
    bool clean_stop; /* the store was closed after this; any later edit clears it */
    uint32_t term;   /* 0: unchanged */
    /* Filled in by version_apply; 0: unchanged. */
    uint64_t next_number;
    uint64_t version_number;
    bool base_end; /* the last record of the snapshot that a manifest begins with */
} VersionEdit;
/* Copies the keys. In level 0, where files may overlap, bounds over 256 bytes are shortened: smallest by
 * cutting, largest by cutting and incrementing. In other levels they are kept as they are: only the job
 * that makes the files knows where its neighbours begin (merge_run shortens). */
Status version_edit_add(VersionEdit *edit, uint8_t level, const TableInfo *info,
                        const FileBounds *bounds) MUST_CHECK;
/* Removes the file from its level and adds it to another. */
Status version_edit_move(VersionEdit *edit, const FileMeta *file, uint8_t to_level) MUST_CHECK;
Status version_edit_remove(VersionEdit *edit, uint8_t level, uint64_t number) MUST_CHECK;
void version_edit_deinit(VersionEdit *edit);
Status version_edit_encode(const VersionEdit *edit, uint64_t durable, Buffer *to) MUST_CHECK;
Status version_edit_decode(Slice bytes, VersionEdit *edit, uint64_t *durable) MUST_CHECK;

/* ---- the set of versions ---------------------------------------------------------------------- */

/* State in the region. Guard: manifest lock, but for the atomics. */
typedef struct VersionSet {
    Lock manifest_lock;
    Version *current; /* replaced under the manifest lock; readers use engine/db's read view */
    _Atomic uint64_t next_number; /* of tables and manifests; taken with version_next_number */
    _Atomic uint64_t flushed_lsn;
    _Atomic uint32_t term; /* jobs read it without the lock */
    uint32_t incarnation;  /* newest ever taken */
    uint64_t nonce;        /* its random part */
    WalStart starts[WAL_STARTS_MAX];
    uint32_t start_count;
    bool clean_stop;
    uint64_t manifest_number;
    uint64_t manifest_end;    /* sealed end of the file */
    uint64_t manifest_base;   /* its size after the last snapshot: when to begin a new file */
    uint64_t seal_sequence;   /* of the newest seal */
    uint64_t record_sequence; /* of the last record */
    FileMeta *dead;           /* records that no version holds any more */
    uint64_t horizon;         /* highest durable LSN in the manifest */
    uint64_t version_number;
    uint64_t live_files;
    _Atomic uint32_t failed;
} VersionSet;

/* A process's handle. */
typedef struct Versions Versions;

/* Makes MANIFEST-000001 and CURRENT for a new database; everything synced. */
typedef struct StoreIdentity {
    uint8_t system_id[16];
    uint64_t wal_segment_size; /* fixed when the database is made */
    uint64_t wal_ring_size;
} StoreIdentity;
Status manifest_create(const char *directory, const StoreIdentity *identity) MUST_CHECK;
/* Reads CURRENT and the manifest's header only. AIDB_NO_DATABASE when there is no CURRENT. */
Status manifest_identity(const char *directory, StoreIdentity *identity) MUST_CHECK;

Status versions_open(const char *directory, const StoreIdentity *identity, VersionSet *set,
                     Arena *arena, Versions **versions) MUST_CHECK;
void versions_close(Versions *versions);
/* At start, single: replays the manifest into *set (initialised here) and builds the current version;
 * checks that every live table exists with its size; removes orphan tables and old manifests (syncs the
 * directory); next_number is past every name seen. */
Status versions_recover(Versions *versions, Slot *slot) MUST_CHECK;

uint64_t version_next_number(VersionSet *set);

/*
 * Makes an edit durable and current. Manifest lock held by the caller (across log, sync, seal and the
 * caller's replacement of the read view). `durable` is the log's durable frontier, recorded as horizon.
 * On success *next is the new current version; the old one is retired once the caller has replaced the
 * view: call version_release on it. File records that no version holds any more are listed for
 * deletion (see versions_take_dead). Errors before anything was written leave everything as it was
 * (AIDB_NO_SPACE, AIDB_NO_MEMORY: metadata arena; AIDB_INTERNAL: tables ahead of the durable log); a failed
 * write or sync sets `failed`.
 */
Status version_apply(Versions *versions, Slot *slot, const VersionEdit *edit, uint64_t durable,
                     Version **next, Version **previous) MUST_CHECK;
/* Retires a version that is no longer reachable from a view (epoch-protected). Manifest lock held. */
void version_release(Versions *versions, Slot *slot, Version *version);
/* Numbers of tables that no version holds and whose epoch is past; each is handed out once, to be
 * unlinked. Returns how many were written to `numbers`. Takes the manifest lock. */
size_t versions_take_dead(Versions *versions, Slot *slot, EpochDomain *epochs, uint64_t *numbers,
                          size_t capacity);

/* Binary search: index of the first file of a level >= 1 whose largest >= key (count when none). */
uint32_t version_find_file(const Version *version, int level, Slice key);
/* Whether every key of the file is below `key`. */
bool file_ends_before(const FileMeta *file, Slice key);
/* Whether `key` lies within the file's bounds. */
bool file_covers(const FileMeta *file, Slice key);
/* Whether [from, to] (inclusive; to.data NULL: unbounded) overlaps the file. */
bool file_overlaps(const FileMeta *file, Slice from, Slice to);
/* Whether two files' bounds have a key in common. */
bool files_overlap(const FileMeta *a, const FileMeta *b);

/* ---- inspection ------------------------------------------------------------------------------- */

/* What the edits say beside the files. */
typedef struct StoreCounters {
    uint64_t next_number;
    uint64_t flushed_lsn;
    uint64_t horizon;
    uint64_t version_number;
    uint32_t term;
    uint32_t incarnation;
    uint64_t nonce;
    bool clean_stop;
    WalStart starts[WAL_STARTS_MAX];
    uint32_t start_count;
} StoreCounters;
/* What a manifest says, in heap memory. */
typedef struct ManifestState {
    StoreIdentity identity;
    uint64_t manifest_number;
    uint64_t file_size;
    uint64_t sealed_end;
    uint64_t base_end; /* where the snapshot that the file begins with ends */
    uint64_t seal_sequence;
    uint64_t record_sequence;
    NewFile *files; /* live tables by number */
    size_t file_count, file_capacity;
    StoreCounters counters;
} ManifestState;
/* Replays the manifest that CURRENT names; reads only. */
Status manifest_load(const char *directory, ManifestState *state) MUST_CHECK;
void manifest_state_deinit(ManifestState *state);

/* Reads a manifest file without a region (dump, verify, repair): calls visit for each sealed edit. */
Status manifest_read(const char *path, const uint8_t *system_id,
                     Status (*visit)(void *arg, uint64_t offset, const VersionEdit *edit,
                                     uint64_t durable),
                     void *arg, StoreIdentity *identity) MUST_CHECK;
/* Checks CURRENT and the manifest's every byte up to the sealed end, that the edits fit together and that
 * live tables exist with their sizes; reports problems. May run beside a server. */
Status manifest_verify(const char *directory, DamageReport report, void *arg) MUST_CHECK;

/* ---- repair ------------------------------------------------------------------------------------ */

/* What can be read of all manifests in a directory, seals or not. Records that are damaged are passed over,
 * so counters are the greatest seen, and a table may be missing from `files` or be there wrongly. */
typedef struct ManifestRemains {
    StoreIdentity identity; /* when `identified` */
    bool identified;
    NewFile *files; /* tables that were added and, as far as is known, not removed */
    size_t file_count, file_capacity;
    uint64_t *removed; /* ascending; tables that were, and are not in `files` */
    size_t removed_count;
    WalStart *starts; /* every one that a record names, by first LSN */
    size_t start_count, start_capacity;
    StoreCounters counters; /* `starts` are not filled in here */
} ManifestRemains;
/* `system_id`: for manifests whose header is damaged; NULL: not known. */
Status manifest_salvage(const char *directory, const uint8_t *system_id,
                        ManifestRemains *remains) MUST_CHECK;
void manifest_remains_deinit(ManifestRemains *remains);
/* Makes the manifest and CURRENT of a new database that holds these tables; all synced, CURRENT last. The
 * tables are synced already. */
Status manifest_create_filled(const char *directory, const StoreIdentity *identity,
                              const NewFile *files, size_t count,
                              const StoreCounters *counters) MUST_CHECK;

#endif
