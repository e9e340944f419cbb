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
} PickOptions;

/* Dynamic level sizes: targets[n] for each level, 0 for levels between 0 and the base level, which hold
 * nothing; `base` is the level that level 0 is compacted into. */
typedef struct LevelTargets {
    uint64_t bytes[LEVELS];
    int base;
} LevelTargets;
void compaction_targets(const Version *version, const PickOptions *options, LevelTargets *targets);

typedef struct Pick {
    int level;                /* inputs[0] come from here; -1: nothing is due */
    int output_level;
    FileMeta **inputs[2];     /* heap arrays; inputs[1] from output_level. Level 0 inputs newest first */
    uint32_t counts[2];
    bool trivial_move;        /* inputs[0] may be moved down as they are */
    bool bottom;              /* no level below holds keys of the range: tombstones may be dropped */
    double score;             /* >= 1 when due */
    FileMeta **grandparents;  /* files of output_level + 1 that overlap: where outputs are better cut */
    uint32_t grandparent_count;
} Pick;

/* Chooses the most urgent compaction whose files are not compacting; pick->level is -1 when none is
 * due. `cursors[n]` remembers where the last pick of level n ended (round robin; lsn-free: a key copied
 * into 64 bytes). Compaction lock held. */
typedef struct PickCursor {
    uint8_t key[64];
    uint32_t size;
} PickCursor;
Status compaction_pick(const Version *version, const PickOptions *options, const PickCursor cursors[LEVELS], Pick *pick) MUST_CHECK;
/* The next step of a manual compaction of [from, to] (empty: open): level -1 when the range is only in
 * the last level that it can reach; AIDB_BUSY when files that it needs are compacting. `started_number`:
 * tables with a number at or above it were made by this manual compaction or later and are left alone in
 * the bottom level. */
Status compaction_pick_range(const Version *version, const PickOptions *options, Slice from, Slice to,
                             uint64_t started_number, Pick *pick) MUST_CHECK;
void pick_deinit(Pick *pick);
/* Highest score over levels and bytes above target: for backpressure and "is any compaction due". */
double compaction_score(const Version *version, const PickOptions *options, uint64_t *pending_bytes);

/* ---- jobs -------------------------------------------------------------------------------------- */

typedef enum KeepDecision { KEEP = 0, DROP = 1, KEEP_TOMBSTONES = 2 } KeepDecision;

typedef struct JobContext {
    const TableOptions *table;
    const char *directory;       /* data/sst */
    VersionSet *set;             /* for file numbers and term */
    TableReader *reader;         /* bypasses the block cache */
    Slot *slot;
    uint64_t table_size;
    uint64_t rate;               /* bytes written a second, 0: no limit */
    /* Asked now and then: true stops the job with AIDB_CANCELED (shutdown). */
    bool (*stop)(void *arg);
    void *stop_arg;
    /* What to do with a key; NULL: keep everything. */
    KeepDecision (*keep)(void *arg, Slice key);
    void *keep_arg;
} JobContext;

/* Writes memtables (oldest first; all their entries, minus versions that no snapshot can see) to level 0
 * tables and adds them to the edit. `snapshots`: ascending LSNs, each visible inclusive; everything newer
 * than the last is always kept at its newest version. */
Status flush_run(JobContext *context, Memtable *const *memtables, size_t count, const uint64_t *snapshots,
                 size_t snapshot_count, VersionEdit *edit) MUST_CHECK;
/* Merges a pick's inputs into tables of the output level: adds outputs and removes inputs in the edit. All
 * versions of a user key stay in one output; range tombstones are cut at output boundaries. Output files
 * and their directory are synced. Outputs are removed when it fails. */
Status merge_run(JobContext *context, const Pick *pick, const uint64_t *snapshots, size_t snapshot_count,
                 VersionEdit *edit) MUST_CHECK;

#endif
