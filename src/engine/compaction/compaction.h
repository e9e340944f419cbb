/*
 * compaction.h - turning memtables into tables and tables into fewer tables.
 *
 * The picker is a pure function of a version. Jobs read their inputs, write outputs under fresh
 * numbers and leave an edit; installing it is engine/db's work. A crash at any point leaves orphan
 * files, which the next start removes.
 */
#ifndef AIDB_ENGINE_COMPACTION_COMPACTION_H
#define AIDB_ENGINE_COMPACTION_COMPACTION_H

#include "engine/memtable/memtable.h"
#include "engine/version/version.h"

/* ---- picking ---------------------------------------------------------------------------------- */

typedef struct PickOptions {
    uint64_t table_size;
    uint64_t level_base_size;
    uint32_t level_multiplier;
    uint32_t level0_files;
    /* Oldest LSN that a reader may still ask for (oldest snapshot, or the visible LSN): tables of the last
     * level that hold garbage from before it are rewritten when nothing else is due. 0: leave them. */
    uint64_t oldest_snapshot;
} PickOptions;

/* The size that tables should have: as set, or doubled until `table_bytes` of data make no more than
 * `tables_sought` of them, so that the records of all tables fit into the memory there is for them. */
uint64_t compaction_table_size(uint64_t set, uint64_t table_bytes, uint32_t tables_sought);

/* Dynamic level sizes: targets[n] for each level, 0 for levels between 0 and the base level, which hold
 * nothing; `base` is the level that level 0 is compacted into. */
typedef struct LevelTargets {
    uint64_t bytes[LEVELS];
    int base;
} LevelTargets;
void compaction_targets(const Version *version, const PickOptions *options, LevelTargets *targets);

typedef struct Pick {
    int level; /* inputs[0] come from here; -1: nothing is due */
    int output_level;
    FileMeta *
        *inputs[2]; /* heap arrays; inputs[1] from output_level. Level 0 inputs newest first */
    uint32_t counts[2];
    bool trivial_move; /* inputs[0] may be moved down as they are */
    bool bottom;       /* no level below holds keys of the range: tombstones may be dropped */
    double score;      /* >= 1 when due */
    /* Level 0 has grown past what makes it due: what this job writes, the next one of its range soon writes
     * again. */
    bool behind;
    uint64_t input_bytes; /* of both */
    /* The key range that the job owns in its levels: every output stays inside. */
    Slice smallest, largest;
    bool largest_exclusive, unbounded;
    /* Files of output_level + 1 that overlap: where outputs are better cut. Copies, because these files
     * are not claimed and may go away while the job runs. */
    struct Grandparent {
        Slice largest;
        uint64_t bytes;
    } * grandparents;
    uint32_t grandparent_count;
    uint8_t *memory; /* of the copied keys */
} Pick;

/* Chooses the most urgent compaction that no running one is in the way of; pick->level is -1 when none is
 * due. The version must stay alive during the call (epoch, or manifest lock); the input files of a pick
 * that was claimed stay alive until its edit is installed, because nobody else may remove them.
 * `cursors[n]` remembers where the last pick of level n ended (round robin; lsn-free: a key copied
 * into 64 bytes). Compaction lock held. */
typedef struct PickCursor {
    uint8_t key[64];
    uint32_t size;
} PickCursor;
/* (Among the files of a level the one with the least overlap for its size is taken; the cursor decides
 * between equals.) */
Status compaction_pick(const Version *version, const PickOptions *options,
                       const PickCursor cursors[LEVELS], Pick *pick) MUST_CHECK;
/* The next step of a manual compaction of [from, to] (empty: open): level -1 when the range is only in
 * the last level that it can reach; AIDB_BUSY when files that it needs are compacting. `started_number` and
 * `started_lsn` are next_number and the visible LSN when the manual compaction began: tables that hold only
 * newer entries are left alone everywhere, and in the last level only tables with a lower number that hold
 * garbage are rewritten. Hence the steps come to an end beside any writer. */
Status compaction_pick_range(const Version *version, const PickOptions *options, Slice from,
                             Slice to, uint64_t started_number, uint64_t started_lsn,
                             Pick *pick) MUST_CHECK;
void pick_deinit(Pick *pick);
/* Marks the inputs as compacting, so that other picks keep out of the range. `job`: not 0, below 2^24,
 * different for each running compaction. Compaction lock held since the pick. */
void pick_claim(const Pick *pick, uint32_t job);
/* Takes the marks back when the edit was not installed. After an installed edit there is nothing to do, and
 * the inputs must not be touched any more: their records may be gone. Compaction lock held. */
void pick_release(const Pick *pick);
/* The edit of a trivial move. */
Status pick_move(const Pick *pick, VersionEdit *edit) MUST_CHECK;
/* Where the next pick of pick->level should go on. */
void pick_advance(const Pick *pick, PickCursor *cursor);
/* Runs of level 0: the tables of a flush are one, as no key is in two of them. */
uint32_t compaction_level0_runs(const Version *version);
/* Highest score over levels and bytes above target: for backpressure and "is any compaction due". */
double compaction_score(const Version *version, const PickOptions *options,
                        uint64_t *pending_bytes);

/* ---- jobs -------------------------------------------------------------------------------------- */

typedef enum KeepDecision { KEEP = 0, DROP = 1, KEEP_TOMBSTONES = 2 } KeepDecision;

/* A key that parts the key space in two about equal halves, as flushes see it; any bytes will do. Tables of level 0
 * and of the level below it end before it, so that the halves can be compacted side by side. size 0: not known. */
typedef struct SplitKey {
    uint8_t key[64];
    uint32_t size;
} SplitKey;

typedef struct JobContext {
    const TableOptions *table;
    const char *directory; /* data/sst */
    VersionSet *set;       /* for file numbers and term */
    TableReader *reader;   /* bypasses the block cache; what it holds is released at a job's end */
    Slot *slot;
    uint64_t table_size;
    uint64_t rate;   /* bytes written a second, 0: no limit */
    SplitKey *split; /* NULL: none; a flush that it does not part into halves sets another one */
    /* Asked now and then: true stops the job with AIDB_CANCELED (shutdown). */
    bool (*stop)(void *arg);
    void *stop_arg;
    /* Asked after every 256 KiB: false stops it with AIDB_NO_SPACE. NULL: it takes what there is. */
    bool (*has_room)(void *arg);
    void *has_room_arg;
    /* What to do with a key; NULL: keep everything. */
    KeepDecision (*keep)(void *arg, Slice key);
    void *keep_arg;
} JobContext;

/* Writes memtables (oldest first; all their entries, minus versions that no snapshot can see) to level 0
 * tables and adds them to the edit. `snapshots`: ascending LSNs, each visible inclusive; everything newer
 * than the last is always kept at its newest version. */
Status flush_run(JobContext *context, Memtable *const *memtables, size_t count,
                 const uint64_t *snapshots, size_t snapshot_count, VersionEdit *edit) MUST_CHECK;
/* Merges a pick's inputs into tables of the output level: adds outputs and removes inputs in the edit. A
 * user key's versions are never divided between outputs; range tombstones are cut where outputs meet. Output files
 * and their directory are synced. Outputs are removed when it fails. */
Status merge_run(JobContext *context, const Pick *pick, const uint64_t *snapshots,
                 size_t snapshot_count, VersionEdit *edit) MUST_CHECK;

#endif
