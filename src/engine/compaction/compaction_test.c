/*
 * compaction_test.c - the picker on drawn versions, and jobs against a model.
 *
 * The model test writes random histories, flushes them, picks and runs compactions (several claimed
 * at once, installed in any order) and after each step reads every key at every live snapshot the
 * way the store does: newest level first, stopping at the first answer.
 */
#include "config.h"

#include "engine/compaction/compaction_internal.h"

#include "testlib/testlib.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- faults ---------------------------------------------------------------------------------- */

static bool faults_armed;
static long faults_calls;
static long faults_at;

static bool call_fails(void)
{
    if (!faults_armed || ++faults_calls != faults_at)
        return false;
    errno = EIO;
    return true;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return call_fails() ? -1 : syscall(SYS_pwrite64, fd, data, size, offset);
}

ssize_t write(int fd, const void *data, size_t size)
{
    return call_fails() ? -1 : syscall(SYS_write, fd, data, size);
}

ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
    return call_fails() ? -1 : syscall(SYS_pread64, fd, data, size, offset);
}

int fdatasync(int fd)
{
    (void)fd;
    return call_fails() ? -1 : 0;
}

int fsync(int fd)
{
    (void)fd;
    return call_fails() ? -1 : 0;
}

/* ---- drawn versions -------------------------------------------------------------------------- */

/*
 * A version as text: "L0 c-f:40 a-d:30 L2 a-b):100". A file is FROM-TO:SIZE; "TO)" is exclusive, no TO
 * is unbounded; then letters: "x3>6" claimed by job 3 for level 6, "g" garbage, "d9" nine deletes of
 * ten entries, "r" one range tombstone and nothing else. Level 0 is newest first. Numbers go up
 * with age: the file drawn first has the greatest number and LSNs.
 */
typedef struct Drawing {
    Version version;
    FileMeta files[64];
    FileMeta *pointers[64];
    char names[64][32];
    uint32_t count;
} Drawing;

static void draw(Drawing *drawing, const char *text)
{
    int level = 0;
    memset(drawing, 0, sizeof *drawing);
    while (*text != '\0') {
        size_t size = strcspn(text, " ");
        if (text[0] == 'L') {
            level = text[1] - '0';
            drawing->version.levels[level].files = drawing->pointers + drawing->count;
        } else if (size > 0) {
            uint32_t index = drawing->count++;
            FileMeta *file = &drawing->files[index];
            char *name = drawing->names[index];
            ck_assert_uint_lt(index, 64);
            ck_assert_uint_lt(size, sizeof drawing->names[0]);
            memcpy(name, text, size);
            size_t dash = strcspn(name, "-");
            size_t colon = strcspn(name, ":");
            file->smallest = slice_make(name, dash);
            file->largest = slice_make(name + dash + 1, colon - dash - 1);
            file->unbounded = colon == dash + 1;
            if (name[colon - 1] == ')') {
                file->largest_exclusive = true;
                file->largest.size--;
            }
            file->level = (uint8_t)level;
            file->info.number = TABLE_NUMBER(1, 100 - index);
            file->info.lsn_min = file->info.lsn_max = 1000 - 10 * index;
            file->info.entries = 10;
            char *rest = name + colon + 1;
            file->info.file_size = strtoull(rest, &rest, 10);
            for (; *rest != '\0'; rest++) {
                if (*rest == 'g') {
                    file->garbage = true;
                } else if (*rest == 'r') {
                    file->info.range_deletes = 1;
                    file->info.entries = 0;
                    file->garbage = true;
                } else if (*rest == 'd') {
                    file->info.deletes = (uint64_t)(*++rest - '0');
                    file->garbage = true;
                } else if (*rest == 'x') {
                    file->compacting =
                        (uint32_t)(rest[1] - '0') << 8 | (uint32_t)(rest[3] - '0' + 1);
                    rest += 3;
                }
            }
            name[colon] = '\0';
            drawing->pointers[index] = file;
            drawing->version.levels[level].count++;
            drawing->version.levels[level].bytes += file->info.file_size;
        }
        text += size;
        while (*text == ' ')
            text++;
    }
}

static void print_pick(const Pick *pick, char *out, size_t size)
{
    size_t at = 0;
    if (pick->level < 0) {
        snprintf(out, size, "nothing");
        return;
    }
    at += (size_t)snprintf(out + at, size - at, "%d>%d", pick->level, pick->output_level);
    for (int part = 0; part < 2; part++) {
        if (part == 1 && pick->counts[1] > 0)
            at += (size_t)snprintf(out + at, size - at, " +");
        for (uint32_t i = 0; i < pick->counts[part]; i++)
            at += (size_t)snprintf(out + at, size - at, " %s",
                                   (const char *)pick->inputs[part][i]->smallest.data);
    }
    snprintf(out + at, size - at, "%s%s", pick->trivial_move ? " move" : "",
             pick->bottom ? " bottom" : "");
}

static const PickOptions pick_options = {
    .table_size = 100,
    .level_base_size = 1000,
    .level_multiplier = 10,
    .level0_files = 4,
};

static const struct {
    const char *version;
    uint64_t oldest_snapshot;
    const char *expected;
} pick_cases[] = {
    /* Too little of anything. */
    {"", 0, "nothing"},
    {"L0 a-c:40 b-d:40 c-e:40 L6 a-z:500", 0, "nothing"},
    /* Level 0 by count: all that overlap, with the base level's part. */
    {"L0 a-c:40 b-d:40 c-e:40 d-f:40 L6 a-b:100 e-g:100 x-z:100", 0,
     "0>6 a-c b-d c-e d-f + a-b e-g bottom"},
    /* Level 0 by bytes. */
    {"L0 a-c:600 b-d:600 L6 x-z:100", 0, "0>6 a-c b-d bottom"},
    {"L0 a-c:1600 L6 x-z:100", 0, "nothing"},
    /* Files that do not overlap go down one by one, the oldest first. */
    {"L0 g-h:40 e-f:40 c-d:40 a-b:40 L6 x-z:100", 0, "0>6 a-b move bottom"},
    /* Small ones together, and with small neighbours below. */
    {"L0 g-h:4 e-f:4 c-d:4 a-b:4 L6 x-z:100", 0, "0>6 g-h e-f c-d a-b bottom"},
    {"L0 g-h:4 e-f:4 c-d:4 a-b:4 L6 A-B:90 C-D:20 o-p:20 q-r:20 x-z:100", 0,
     "0>6 g-h e-f c-d a-b + C-D o-p q-r bottom"},
    /* Overlap through a third file counts. */
    {"L0 a-c:400 e-g:400 b-f:400 x-y:400", 0, "0>6 x-y move bottom"},
    {"L0 x-y:400 a-c:400 e-g:400 b-f:400", 0, "0>6 a-c e-g b-f bottom"},
    /* Claimed files keep those that overlap them waiting, not the others. */
    {"L0 a-c:40 b-d:40 c-e:40 e-e:40 d-f:40x1>6", 0, "nothing"},
    {"L0 a-c:40 b-d:40 c-e:40 o-p:40 d-f:40x1>6 q-r:40 s-t:40", 0, "0>6 s-t move bottom"},
    {"L0 a-c:40 b-d:40 c-e:40 d-f:40 L6 a-g:90x1>6", 0, "nothing"},
    /* The range of a running job, not only its files: m-n lies in the gap. */
    {"L0 m-n:40 m-n:40 m-n:40 m-n:40 a-c:40x1>6 x-z:40x1>6", 0, "nothing"},
    {"L0 m-n:40 m-n:40 m-n:40 m-n:40 a-c:40x1>6 d-e:40x1>6", 0, "0>6 m-n m-n m-n m-n bottom"},
    /* Tombstones do not go to the bottom as they are. */
    {"L0 g-h:40 e-f:40 c-d:40 a-b:40g L6 x-z:100", 0, "0>6 a-b bottom"},
    {"L0 g-h:40 e-f:40 c-d:40 a-b:40r L5 x-z:1000 L6 a-z:9000", 0, "0>5 a-b"},
    /* Exclusive and missing bounds. */
    {"L0 c-d:40 c-d:40 c-d:40 c-d:40 L6 a-c):50 d-f:50", 0, "0>6 c-d c-d c-d c-d + d-f bottom"},
    {"L0 c-:40 d-e:40 c-d):40 b-c):40 L6 a-b):50 z-zz:50", 0, "0>6 b-c) move bottom"},
    {"L0 c-:40 d-e:40 c-d):40 b-c):40 c-c:10 L6 a-b):50 z-zz:50", 0,
     "0>6 c- d-e c-d) c-c + z-zz bottom"},
    /* A level above its target: the file with the least below it for its size. */
    {"L5 a-b:600 c-d:600 e-f:600 L6 a-b:3000 c-d:1000 e-f:6000", 0, "5>6 c-d + c-d bottom"},
    {"L5 a-b:600 c-c:600 e-f:600 L6 a-b:3000 d-e:6000", 0, "5>6 c-c move bottom"},
    {"L5 a-b:600 c-c:600g e-f:600 L6 a-b:3000 d-e:6000", 0, "5>6 c-c bottom"},
    /* More of the level where that costs nothing more below. */
    {"L5 a-b:600 c-d:600 e-f:600 L6 a-d:300 e-f:6000", 0, "5>6 a-b c-d + a-d bottom"},
    /* Not the bottom while something lies below. */
    {"L4 a-b:900 c-d:900 L5 a-b:90 L6 c-d:900 e-f:90000", 0, "4>5 c-d move"},
    {"L4 a-b:900 c-d:900g L5 a-b:90 L6 c-d:900 e-f:90000", 0, "4>5 c-d move"},
    {"L4 a-b:900 c-d:900 L5 a-b:90 d-d:900 L6 a-a:900 e-f:90000", 0, "4>5 a-b + a-b"},
    {"L4 a-b:900 c-d:900 L5 a-b:90 d-d:900 L6 bb-c:900 e-f:90000", 0, "4>5 a-b + a-b bottom"},
    /* Too much of the next level but one for a move: it is cut there. */
    {"L4 a-b:900 c-d:900 L5 a-b:90 L6 c-d:90000 e-f:9000", 0, "4>5 c-d"},
    /* The most urgent level first. */
    {"L0 a-b:40 a-b:40 a-b:40 a-b:40 L5 a-b:900 c-d:900 L6 c-d:9000", 0, "5>6 a-b move bottom"},
    {"L0 a-b:40 a-b:40 a-b:40 a-b:40 a-b:40 a-b:40 a-b:40 a-b:40 L5 a-b:900 c-d:900 L6 c-d:9000", 0,
     "0>5 a-b a-b a-b a-b a-b a-b a-b a-b + a-b bottom"},
    /* Tombstones make a level more urgent. */
    {"L5 a-b:300d9 c-d:300 L6 a-z:9000", 0, "5>6 a-b + a-z bottom"},
    {"L5 a-b:300r c-d:300 L6 a-z:9000", 0, "5>6 a-b + a-z bottom"},
    /* Garbage of the last level once no reader needs it. */
    {"L6 a-b:500 c-d:500g e-f:500", 0, "nothing"},
    {"L6 a-b:500 c-d:500g e-f:500", 989, "nothing"},
    {"L6 a-b:500 c-d:500g e-f:500", 990, "6>6 c-d bottom"},
    {"L6 a-b:500 c-d:500gx1>6 e-f:500", 990, "nothing"},
};

START_TEST(test_pick)
{
    Drawing drawing;
    Pick pick;
    char text[512];
    PickCursor cursors[LEVELS] = {{.size = 0}};
    PickOptions options = pick_options;
    draw(&drawing, pick_cases[_i].version);
    options.oldest_snapshot = pick_cases[_i].oldest_snapshot;
    ck_assert_int_eq(compaction_pick(&drawing.version, &options, cursors, &pick), AIDB_OK);
    print_pick(&pick, text, sizeof text);
    ck_assert_msg(strcmp(text, pick_cases[_i].expected) == 0, "%s\n  picked   %s\n  expected %s",
                  pick_cases[_i].version, text, pick_cases[_i].expected);
    pick_deinit(&pick);
}
END_TEST

static const struct {
    const char *version;
    const char *from, *to;
    uint64_t started_number, started_lsn;
    const char *expected;
} range_cases[] = {
    {"", "", "", 200, 2000, "nothing"},
    {"L6 a-b:100 c-d:100", "", "", 200, 2000, "nothing"},
    {"L0 a-b:100 L6 a-b:100", "", "", 200, 2000, "0>6 a-b + a-b bottom"},
    {"L0 a-b:100 L6 a-b:100", "c", "", 200, 2000, "nothing"},
    {"L0 a-b:100 c-d:100 b-c:100 L6 a-b:100", "a", "a", 200, 2000, "0>6 a-b c-d b-c + a-b bottom"},
    /* What was written since is left alone. */
    {"L0 a-b:100 L6 a-b:100", "", "", 200, 999, "nothing"},
    {"L0 a-b:100 c-d:100 L6 a-b:100", "", "", 200, 999, "0>6 c-d move bottom"},
    /* Level by level, in runs. */
    {"L5 a-b:900 c-d:900 e-f:900 L6 a-b:9000", "", "", 200, 2000, "5>6 a-b + a-b bottom"},
    {"L5 c-d:900 e-f:600 g-h:600 L6 a-b:9000", "", "", 200, 2000, "5>6 c-d e-f move bottom"},
    {"L4 a-b:100 L5 a-b:100 L6 a-b:9000", "", "", 200, 2000, "4>5 a-b + a-b"},
    /* Garbage at the bottom once. */
    {"L6 a-b:100 c-d:100g e-f:100g", "", "", 200, 2000, "6>6 c-d e-f bottom"},
    {"L6 a-b:100 c-d:100g e-f:100g", "", "", 99, 2000, "6>6 e-f bottom"},
    {"L6 a-b:100 c-d:100g e-f:100g", "", "", 98, 2000, "nothing"},
    {"L0 a-b:100x1>6 L6 a-b:100", "", "", 200, 2000, "busy"},
    {"L0 a-b:100 L6 a-b:100x1>6", "", "", 200, 2000, "busy"},
    {"L5 a-b:100x1>6 L6 c-d:100", "", "", 200, 2000, "busy"},
};

START_TEST(test_pick_range)
{
    Drawing drawing;
    Pick pick;
    char text[512];
    draw(&drawing, range_cases[_i].version);
    Status status = compaction_pick_range(
        &drawing.version, &pick_options, slice_from_string(range_cases[_i].from),
        slice_from_string(range_cases[_i].to), range_cases[_i].started_number,
        range_cases[_i].started_lsn, &pick);
    print_pick(&pick, text, sizeof text);
    if (status == AIDB_BUSY)
        snprintf(text, sizeof text, "busy");
    else
        ck_assert_int_eq(status, AIDB_OK);
    ck_assert_msg(strcmp(text, range_cases[_i].expected) == 0, "%s\n  picked   %s\n  expected %s",
                  range_cases[_i].version, text, range_cases[_i].expected);
    pick_deinit(&pick);
}
END_TEST

START_TEST(test_targets)
{
    static const struct {
        const char *version;
        int base;
        uint64_t last, above, above_that;
    } cases[] = {
        {"", 6, 1000, 0, 0},
        {"L0 a-b:9999", 6, 1000, 0, 0},
        {"L6 a-b:900", 6, 1000, 0, 0},
        {"L6 a-b:1500", 5, 1500, 1000, 0},
        {"L6 a-b:20000", 4, 20000, 2000, 1000},
        {"L4 a-b:1 L6 a-b:900", 4, 10100, 1010, 1000},
        {"L1 a-b:1 L6 a-b:90000", 1, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Drawing drawing;
        LevelTargets targets;
        draw(&drawing, cases[i].version);
        compaction_targets(&drawing.version, &pick_options, &targets);
        ck_assert_int_eq(targets.base, cases[i].base);
        for (int level = 0; level < LEVELS; level++) {
            ck_assert_int_eq(targets.bytes[level] == 0, level < targets.base);
            if (level > targets.base)
                ck_assert_uint_ge(targets.bytes[level], targets.bytes[level - 1]);
        }
        if (cases[i].last == 0)
            continue;
        ck_assert_uint_eq(targets.bytes[4], cases[i].above_that);
        ck_assert_uint_eq(targets.bytes[5], cases[i].above);
        /* Divided and multiplied again: nearly the same. */
        ck_assert_uint_le(targets.bytes[6], cases[i].last);
        ck_assert_uint_ge(targets.bytes[6], cases[i].last - cases[i].last / 100);
    }
}
END_TEST

START_TEST(test_table_size)
{
    const uint64_t mib = 1u << 20;
    ck_assert_uint_eq(compaction_table_size(64 * mib, 0, 10000), 64 * mib);
    ck_assert_uint_eq(compaction_table_size(64 * mib, 10000 * 64 * mib - 1, 10000), 64 * mib);
    ck_assert_uint_eq(compaction_table_size(64 * mib, 10000 * 64 * mib, 10000), 128 * mib);
    ck_assert_uint_eq(compaction_table_size(mib, 100 * mib, 1), 128 * mib);
    ck_assert_uint_eq(compaction_table_size(1, UINT64_MAX, 1), (uint64_t)1 << 63);
}
END_TEST

START_TEST(test_score)
{
    Drawing drawing;
    uint64_t pending;
    draw(&drawing, "L0 a-b:40 a-b:40 a-b:40 a-b:40 a-b:40 a-b:40 L5 a-b:900 c-d:900 L6 c-d:9000");
    ck_assert(compaction_score(&drawing.version, &pick_options, &pending) > 1.7);
    ck_assert_uint_eq(pending, 240 + 800);
    draw(&drawing, "L0 a-b:40 L6 c-d:9000");
    ck_assert(compaction_score(&drawing.version, &pick_options, &pending) < 1);
    ck_assert_uint_eq(pending, 0);
}
END_TEST

/* Equal files take turns. */
START_TEST(test_cursor)
{
    Drawing drawing;
    PickCursor cursors[LEVELS] = {{.size = 0}};
    static const char *turns[] = {"a-b", "c-d", "e-f", "a-b"};
    draw(&drawing, "L5 a-b:600 c-d:600 e-f:600 L6 a-b:3000 c-d:3000 e-f:3000");
    for (int i = 0; i < 4; i++) {
        Pick pick;
        ck_assert_int_eq(compaction_pick(&drawing.version, &pick_options, cursors, &pick), AIDB_OK);
        ck_assert_int_eq(pick.level, 5);
        ck_assert_str_eq((const char *)pick.inputs[0][0]->smallest.data, turns[i]);
        pick_advance(&pick, &cursors[5]);
        pick_deinit(&pick);
    }
}
END_TEST

/* ---- a small store --------------------------------------------------------------------------- */

#define ARENA_SIZE     (16u << 20)
#define POOL_CAPACITY  (64u << 20)
#define SNAPSHOTS_MAX  8
#define OPEN_PICKS_MAX 3

typedef struct Store {
    char *directory;
    char *tables;
    void *memory;
    void *pool_memory;
    SlotTable slots;
    EpochDomain *epochs;
    Slot *slot;
    Arena *arena;
    VersionSet *set;
    Versions *versions;
    MemPool *pool;
    FileCache *files;
    TableReader reader;
    TableOptions table;
    JobContext context;
    PickOptions options;
    PickCursor cursors[LEVELS];
    uint64_t snapshots[SNAPSHOTS_MAX]; /* ascending */
    size_t snapshot_count;
    uint64_t lsn;
    uint32_t job;
} Store;

static const StoreIdentity identity = {
    .system_id = "fedcba987654321", .wal_segment_size = 1u << 20, .wal_ring_size = 1u << 20};

static void store_attach(Store *store)
{
    size_t slots_size = (slot_table_size(2) + 127) / 128 * 128;
    size_t total = slots_size + sizeof(EpochDomain) + sizeof(VersionSet) + ARENA_SIZE + 1024;
    store->memory = aligned_alloc(PORT_CACHE_LINE, (total + 127) / 128 * 128);
    ck_assert_ptr_nonnull(store->memory);
    uint8_t *at = store->memory;
    slot_table_init(&store->slots, at, 2, NULL);
    at += slots_size;
    store->epochs = (EpochDomain *)at;
    epoch_init(store->epochs, &store->slots);
    at += (sizeof(EpochDomain) + 127) / 128 * 128;
    store->set = (VersionSet *)at;
    at += (sizeof(VersionSet) + 127) / 128 * 128;
    store->arena = arena_init(at, ARENA_SIZE, store->epochs);
    store->slot = slot_claim(&store->slots, 0, SLOT_COMPACTOR);
    store->pool = mempool_init(store->pool_memory, POOL_CAPACITY, store->epochs);
    ck_assert_int_eq(
        versions_open(store->directory, &identity, store->set, store->arena, &store->versions),
        AIDB_OK);
    ck_assert_int_eq(versions_recover(store->versions, store->slot), AIDB_OK);
    ck_assert_int_eq(file_cache_create(store->tables, 16, &store->files), AIDB_OK);
    store->reader =
        (TableReader){.files = store->files, .epochs = store->epochs, .slot = store->slot};
    store->context.set = store->set;
    store->context.slot = store->slot;
}

static void store_detach(Store *store)
{
    table_reader_deinit(&store->reader);
    file_cache_destroy(store->files);
    versions_close(store->versions);
    free(store->memory);
}

static void store_create(Store *store)
{
    *store = (Store){.lsn = 100};
    store->directory = test_directory_create();
    store->tables = path_join(store->directory, "sst");
    ck_assert_int_eq(manifest_create(store->directory, &identity), AIDB_OK);
    store->table = (TableOptions){.block_size = 1024, .filter_bits = 10};
    memcpy(store->table.system_id, identity.system_id, 16);
    store->options = (PickOptions){
        .table_size = 8192, .level_base_size = 32768, .level_multiplier = 4, .level0_files = 3};
    store->context = (JobContext){.table = &store->table,
                                  .directory = store->tables,
                                  .reader = &store->reader,
                                  .table_size = store->options.table_size};
    size_t pool_size = (mempool_size(POOL_CAPACITY) + 4095) / 4096 * 4096;
    store->pool_memory = aligned_alloc(4096, pool_size);
    ck_assert_ptr_nonnull(store->pool_memory);
    store_attach(store);
}

static void store_destroy(Store *store)
{
    store_detach(store);
    free(store->pool_memory);
    free(store->tables);
    test_directory_destroy(store->directory);
}

static size_t count_tables(const Store *store)
{
    size_t count = 0;
    DIR *directory = opendir(store->tables);
    for (struct dirent *item; (item = readdir(directory)) != NULL;)
        count += item->d_name[0] != '.';
    closedir(directory);
    return count;
}

static size_t count_files(const Store *store)
{
    size_t count = 0;
    for (int level = 0; level < LEVELS; level++)
        count += store->set->current->levels[level].count;
    return count;
}

static void install(Store *store, const VersionEdit *edit)
{
    Version *next;
    Version *previous;
    uint64_t dead[32];
    size_t count;
    lock_acquire(&store->set->manifest_lock, store->slot);
    uint64_t durable = store->lsn + 1; /* where the log ends, as all of it is durable here */
    ck_assert_msg(version_apply(store->versions, store->slot, edit, durable, &next, &previous) ==
                      AIDB_OK,
                  "%s", status_message());
    version_release(store->versions, store->slot, previous);
    lock_release(&store->set->manifest_lock, store->slot);
    while ((count = versions_take_dead(store->versions, store->slot, store->epochs, dead, 32)) >
           0) {
        for (size_t i = 0; i < count; i++) {
            char name[TABLE_NAME_SIZE];
            table_name(dead[i], name);
            char *path = path_join(store->tables, name);
            ck_assert_int_eq(unlink(path), 0); /* each is handed out once */
            file_cache_forget(store->files, dead[i]);
            free(path);
        }
    }
}

static void damage_report(void *arg, const char *path, uint64_t offset, const char *what)
{
    (void)arg;
    ck_abort_msg("%s: %llu: %s", path, (unsigned long long)offset, what);
}

/* What an output must be: sound, inside its bounds, honest about garbage. */
static void check_output(Store *store, const NewFile *file)
{
    FileMeta meta = {.info = file->info,
                     .smallest = file->smallest,
                     .largest = file->largest,
                     .largest_exclusive = file->largest_exclusive,
                     .unbounded = file->unbounded};
    char name[TABLE_NAME_SIZE];
    Iter *iter;
    Buffer last = {0};
    bool repeated = false;
    table_name(file->info.number, name);
    char *path = path_join(store->tables, name);
    ck_assert_int_eq(table_verify(path, identity.system_id, &file->info, damage_report, NULL),
                     AIDB_OK);
    free(path);
    ck_assert_uint_gt(file->info.entries + file->info.range_deletes, 0);
    ck_assert_int_eq(table_iter_create(&store->reader, &file->info, true, &iter), AIDB_OK);
    ck_assert_int_eq(iter->ops->seek_first(iter), AIDB_OK);
    while (iter->valid) {
        ck_assert(file_covers(&meta, iter->entry.key));
        repeated |= last.size > 0 && slice_equal(buffer_slice(&last), iter->entry.key);
        buffer_clear(&last);
        ck_assert_int_eq(buffer_append(&last, iter->entry.key.data, iter->entry.key.size), AIDB_OK);
        ck_assert_int_eq(iter->ops->next(iter), AIDB_OK);
    }
    iter_destroy(iter);
    buffer_deinit(&last);
    if ((repeated || file->info.deletes > 0 || file->info.range_deletes > 0) &&
        store->context.keep == NULL)
        ck_assert(file->garbage);
    if (file->info.range_size > 0) {
        RangeFragments fragments = {0};
        ck_assert_int_eq(table_fragments(&store->reader, &file->info, &fragments), AIDB_OK);
        ck_assert_uint_gt(fragments.count, 0);
        const RangeFragment *first = &fragments.items[0];
        const RangeFragment *end = &fragments.items[fragments.count - 1];
        ck_assert_int_ge(slice_compare(first->from, file->smallest), 0);
        if (end->to.size == 0)
            ck_assert(file->unbounded);
        else
            ck_assert(file->unbounded || slice_compare(end->to, file->largest) <= 0);
        range_fragments_deinit(&fragments);
    }
}

static void check_outputs(Store *store, const VersionEdit *edit)
{
    for (size_t i = 0; i < edit->added_count; i++)
        check_output(store, &edit->added[i]);
}

static void run_pick(Store *store, const Pick *pick)
{
    VersionEdit edit = {0};
    if (pick->trivial_move) {
        ck_assert_int_eq(pick_move(pick, &edit), AIDB_OK);
    } else {
        ck_assert_msg(merge_run(&store->context, pick, store->snapshots, store->snapshot_count,
                                &edit) == AIDB_OK,
                      "%s", status_message());
        /* A compactor runs jobs for months: none may leave blocks of its inputs behind. */
        ck_assert_ptr_null(store->reader.private_blocks);
        check_outputs(store, &edit);
    }
    install(store, &edit);
    version_edit_deinit(&edit);
    ck_assert_uint_ge(count_tables(store), count_files(store));
}

static void compact_all(Store *store)
{
    uint64_t number = atomic_load(&store->set->next_number); /* as engine/db gives it */
    for (int step = 0;; step++) {
        Pick pick;
        ck_assert_int_lt(step, 10000); /* it ends */
        ck_assert_int_eq(compaction_pick_range(store->set->current, &store->options, (Slice){0},
                                               (Slice){0}, number, store->lsn, &pick),
                         AIDB_OK);
        if (pick.level < 0)
            break;
        run_pick(store, &pick);
        pick_deinit(&pick);
    }
}

/* ---- the model ------------------------------------------------------------------------------- */

typedef struct Op {
    uint64_t lsn;
    uint8_t type;
    Buffer key;
    Buffer to; /* of a range */
    Buffer value;
} Op;

typedef struct Model {
    Op *ops;
    size_t count, capacity;
    Buffer *keys; /* every key that may occur */
    size_t key_count;
    size_t flushed; /* operations that are in tables */
} Model;

static Op *model_add(Model *model)
{
    if (model->count == model->capacity) {
        model->capacity = model->capacity > 0 ? 2 * model->capacity : 256;
        model->ops = realloc(model->ops, model->capacity * sizeof model->ops[0]);
        ck_assert_ptr_nonnull(model->ops);
    }
    Op *op = &model->ops[model->count++];
    *op = (Op){0};
    return op;
}

static void model_deinit(Model *model)
{
    for (size_t i = 0; i < model->count; i++) {
        buffer_deinit(&model->ops[i].key);
        buffer_deinit(&model->ops[i].to);
        buffer_deinit(&model->ops[i].value);
    }
    for (size_t i = 0; i < model->key_count; i++)
        buffer_deinit(&model->keys[i]);
    free(model->ops);
    free(model->keys);
}

/* The value of the key at an LSN, NULL when it has none, by going over all that ever happened. */
static const Op *model_get(const Model *model, Slice key, uint64_t visible)
{
    for (size_t i = model->count; i-- > 0;) {
        const Op *op = &model->ops[i];
        if (op->lsn > visible)
            continue;
        if (op->type == OP_DELETE_RANGE) {
            if (slice_compare(buffer_slice(&op->key), key) <= 0 &&
                (op->to.size == 0 || slice_compare(key, buffer_slice(&op->to)) < 0))
                return NULL;
        } else if (slice_equal(buffer_slice(&op->key), key)) {
            return op->type == OP_PUT ? op : NULL;
        }
    }
    return NULL;
}

/* One table's answer: true when it decides. */
static bool table_answer(Store *store, const FileMeta *file, Slice key, uint64_t visible,
                         Entry *entry, bool *found)
{
    uint64_t cover;
    bool has;
    if (!file_covers(file, key))
        return false;
    ck_assert_int_eq(table_cover(&store->reader, &file->info, key, visible, &cover), AIDB_OK);
    ck_assert_int_eq(
        table_get(&store->reader, &file->info, key, table_key_hash(key), visible, entry, &has),
        AIDB_OK);
    if (has && entry->lsn > cover) {
        *found = entry->type == OP_PUT;
        return true;
    }
    *found = false;
    return has || cover > 0;
}

static bool store_get(Store *store, Slice key, uint64_t visible, Entry *entry)
{
    const Version *version = store->set->current;
    bool found = false;
    for (uint32_t i = 0; i < version->levels[0].count; i++) {
        if (table_answer(store, version->levels[0].files[i], key, visible, entry, &found))
            return found;
    }
    for (int level = 1; level < LEVELS; level++) {
        uint32_t index = version_find_file(version, level, key);
        if (index < version->levels[level].count &&
            table_answer(store, version->levels[level].files[index], key, visible, entry, &found))
            return found;
    }
    return false;
}

static void compare_at(Store *store, const Model *model, uint64_t visible)
{
    for (size_t i = 0; i < model->key_count; i++) {
        Slice key = buffer_slice(&model->keys[i]);
        const Op *expected = model_get(model, key, visible);
        Entry entry;
        epoch_enter(store->epochs, store->slot);
        bool found = store_get(store, key, visible, &entry);
        ck_assert_msg(found == (expected != NULL), "key %zu at %llu: %s, expected %s", i,
                      (unsigned long long)visible, found ? "found" : "missing",
                      expected != NULL ? "found" : "missing");
        if (found) {
            ck_assert_uint_eq(entry.lsn, expected->lsn);
            ck_assert(slice_equal(entry.value, buffer_slice(&expected->value)));
        }
        table_reader_release(&store->reader);
        epoch_leave(store->slot);
    }
}

static void compare(Store *store, const Model *model)
{
    for (size_t i = 0; i < store->snapshot_count; i++)
        compare_at(store, model, store->snapshots[i]);
    compare_at(store, model, store->lsn);
}

/* Keys of several shapes, some longer than bounds are kept, with long prefixes in common. */
static void model_make_keys(Model *model, uint64_t *seed, size_t count)
{
    model->keys = calloc(count, sizeof model->keys[0]);
    ck_assert_ptr_nonnull(model->keys);
    model->key_count = count;
    size_t shape = test_random_below(seed, 3);
    for (size_t i = 0; i < count; i++) {
        Buffer *key = &model->keys[i];
        size_t prefix = shape == 0 ? 0 : (shape == 1 ? 3 : 250 + 10 * (i % 7));
        for (size_t j = 0; j < prefix; j++)
            ck_assert_int_eq(buffer_append_byte(key, (uint8_t)('a' + i % 7 + (j == 250))), AIDB_OK);
        ck_assert_int_eq(buffer_append_format(key, "%05zu", i * 7), AIDB_OK);
        for (uint64_t pad = test_random_below(seed, shape == 2 ? 400 : 3); pad > 0; pad--)
            ck_assert_int_eq(buffer_append_byte(key, 0xff), AIDB_OK);
    }
}

static void write_op(Store *store, Memtable *memtable, const Op *op)
{
    if (op->type == OP_DELETE_RANGE) {
        ck_assert_int_eq(memtable_secure(memtable, store->slot, 0, RANGE_LOAD_ONE,
                                         op->key.size + op->to.size + 16),
                         AIDB_OK);
        memtable_add_range(memtable, buffer_slice(&op->key), buffer_slice(&op->to), op->lsn);
    } else {
        ck_assert_int_eq(memtable_secure(memtable, store->slot, 1, RANGE_LOAD_NONE,
                                         op->key.size + op->value.size + 16),
                         AIDB_OK);
        memtable_add(memtable, (OpType)op->type, buffer_slice(&op->key), buffer_slice(&op->value),
                     op->lsn);
    }
}

/* On keys [first, first + width) of the model. */
static void random_op(Store *store, Model *model, uint64_t *seed, uint64_t range_weight,
                      uint64_t first, uint64_t width)
{
    Op *op = model_add(model);
    store->lsn += 1 + test_random_below(seed, 5);
    op->lsn = store->lsn;
    uint64_t kind = test_random_below(seed, 100);
    const Buffer *key = &model->keys[first + test_random_below(seed, width)];
    if (kind < range_weight) {
        /* Mostly narrow; now and then half of everything, or without a bound. */
        uint64_t start = first + test_random_below(seed, width);
        uint64_t most = test_random_below(seed, 20) == 0 ? model->key_count : 12;
        uint64_t end = start + 1 + test_random_below(seed, most);
        Slice from = buffer_slice(&model->keys[start]);
        Slice to = end < model->key_count ? buffer_slice(&model->keys[end]) : (Slice){0};
        if (to.size > 0 && slice_compare(from, to) > 0) {
            Slice swap = from;
            from = to;
            to = swap;
        }
        if (test_random_below(seed, 50) == 0)
            from = (Slice){0};
        op->type = OP_DELETE_RANGE;
        ck_assert_int_eq(buffer_append(&op->key, from.data, from.size), AIDB_OK);
        ck_assert_int_eq(buffer_append(&op->to, to.data, to.size), AIDB_OK);
        return;
    }
    op->type = kind < 25 ? OP_DELETE : OP_PUT;
    ck_assert_int_eq(buffer_append(&op->key, key->data, key->size), AIDB_OK);
    if (op->type == OP_PUT) {
        uint64_t size = test_random_below(seed, 30) == 0 ? 3000 : test_random_below(seed, 200);
        for (; size > 0; size--)
            ck_assert_int_eq(buffer_append_byte(&op->value, (uint8_t)test_random(seed)), AIDB_OK);
    }
}

/* Writes what is new in the model to one or two memtables and flushes them. */
static void flush(Store *store, Model *model, uint64_t *seed)
{
    Memtable *memtables[2] = {NULL, NULL};
    size_t count = 1 + test_random_below(seed, 2);
    size_t half = model->flushed + (model->count - model->flushed) / 2;
    VersionEdit edit = {0};
    for (size_t i = 0; i < count; i++) {
        ck_assert_int_eq(memtable_create(store->pool, store->slot, &memtables[i]), AIDB_OK);
        size_t end = count == 2 && i == 0 ? half : model->count;
        for (; model->flushed < end; model->flushed++)
            write_op(store, memtables[i], &model->ops[model->flushed]);
    }
    ck_assert_int_eq(flush_run(&store->context, memtables, count, store->snapshots,
                               store->snapshot_count, &edit),
                     AIDB_OK);
    ck_assert_uint_le(edit.added_count, 1);
    check_outputs(store, &edit);
    edit.flushed_lsn = store->lsn + 1;
    install(store, &edit);
    version_edit_deinit(&edit);
    for (size_t i = 0; i < count; i++)
        memtable_retire(memtables[i], store->slot);
}

static void random_snapshots(Store *store, uint64_t *seed)
{
    if (store->snapshot_count < SNAPSHOTS_MAX && test_random_below(seed, 3) == 0 &&
        (store->snapshot_count == 0 || store->snapshots[store->snapshot_count - 1] < store->lsn)) {
        store->snapshots[store->snapshot_count++] = store->lsn;
    } else if (store->snapshot_count > 0 && test_random_below(seed, 3) == 0) {
        size_t gone = test_random_below(seed, store->snapshot_count);
        memmove(store->snapshots + gone, store->snapshots + gone + 1,
                (--store->snapshot_count - gone) * sizeof store->snapshots[0]);
    }
    store->options.oldest_snapshot = store->snapshot_count > 0 ? store->snapshots[0] : store->lsn;
}

static bool try_pick(Store *store, uint64_t *seed, Pick *pick)
{
    Status status;
    if (test_random_below(seed, 5) == 0)
        status = compaction_pick_range(store->set->current, &store->options, (Slice){0}, (Slice){0},
                                       UINT64_MAX, store->lsn, pick);
    else
        status = compaction_pick(store->set->current, &store->options, store->cursors, pick);
    ck_assert(status == AIDB_OK || status == AIDB_BUSY);
    if (status == AIDB_BUSY || pick->level < 0)
        return false;
    pick_claim(pick, ++store->job);
    pick_advance(pick, &store->cursors[pick->level]);
    return true;
}

static void random_options(Store *store, uint64_t *seed)
{
    store->options.table_size = 1024u << test_random_below(seed, 6);
    store->options.level_base_size = store->options.table_size << test_random_below(seed, 4);
    store->options.level_multiplier = (uint32_t)(2 + test_random_below(seed, 9));
    store->options.level0_files = (uint32_t)(1 + test_random_below(seed, 6));
    store->context.table_size = store->options.table_size;
    store->table.block_size = 256u << test_random_below(seed, 6);
    store->table.compression =
        test_random_below(seed, 2) == 0 ? COMPRESSION_NONE : COMPRESSION_ZSTD;
    store->table.compression_level = 1;
    store->table.filter_bits = test_random_below(seed, 2) == 0 ? 0 : 10;
}

/* Nothing but one version of each live key is left when nobody needs more. */
static void check_clean(Store *store, const Model *model)
{
    uint64_t live = 0;
    uint64_t entries = 0;
    for (size_t i = 0; i < model->key_count; i++)
        live += model_get(model, buffer_slice(&model->keys[i]), store->lsn) != NULL;
    for (int level = 0; level < LEVELS; level++) {
        const Version *version = store->set->current;
        if (level < LEVELS - 1)
            ck_assert_uint_eq(version->levels[level].count, 0);
        for (uint32_t i = 0; i < version->levels[level].count; i++) {
            const TableInfo *info = &version->levels[level].files[i]->info;
            entries += info->entries;
            ck_assert_uint_eq(info->deletes, 0);
            ck_assert_uint_eq(info->range_deletes, 0);
        }
    }
    ck_assert_uint_eq(entries, live);
}

static void run_history(uint64_t *seed)
{
    Store store;
    Model model = {0};
    Pick picks[OPEN_PICKS_MAX];
    size_t pick_count = 0;
    uint64_t range_weight = test_random_below(seed, 3) * 5;
    store_create(&store);
    random_options(&store, seed);
    model_make_keys(&model, seed, 40 + test_random_below(seed, 200));
    for (int round = 0; round < 60; round++) {
        random_snapshots(&store, seed);
        switch (test_random_below(seed, 4)) {
        case 0:
        case 1: {
            /* Most flushes touch a part of the keys only, so that jobs meet in gaps. */
            uint64_t first = 0;
            uint64_t width = model.key_count;
            if (test_random_below(seed, 4) > 0) {
                first = test_random_below(seed, model.key_count);
                width = 1 + test_random_below(seed, model.key_count / 8);
                if (width > model.key_count - first)
                    width = model.key_count - first;
            }
            for (uint64_t i = 1 + test_random_below(seed, 120); i > 0; i--)
                random_op(&store, &model, seed, range_weight, first, width);
            flush(&store, &model, seed);
            break;
        }
        case 2:
            if (pick_count < OPEN_PICKS_MAX && try_pick(&store, seed, &picks[pick_count]))
                pick_count++;
            break;
        default:
            if (pick_count > 0) {
                size_t which = test_random_below(seed, pick_count);
                if (test_random_below(seed, 6) == 0)
                    pick_release(&picks[which]);
                else
                    run_pick(&store, &picks[which]);
                pick_deinit(&picks[which]);
                picks[which] = picks[--pick_count];
            }
            break;
        }
        compare(&store, &model);
    }
    while (pick_count > 0) {
        run_pick(&store, &picks[--pick_count]);
        pick_deinit(&picks[pick_count]);
    }
    compare(&store, &model);
    store_detach(&store);
    store_attach(&store);
    compare(&store, &model);
    ck_assert_uint_eq(count_tables(&store), count_files(&store));
    compact_all(&store);
    compare(&store, &model);
    store.snapshot_count = 0;
    compact_all(&store);
    compare(&store, &model);
    check_clean(&store, &model);
    model_deinit(&model);
    store_destroy(&store);
}

START_TEST(test_model)
{
    uint64_t seed = test_seed("compaction_model") + 77 * (uint64_t)_i;
    for (int i = 0; i < 4; i++)
        run_history(&seed);
}
END_TEST

/* Automatic compaction comes to an end, and levels keep near their targets. */
START_TEST(test_settles)
{
    uint64_t seed = test_seed("settles");
    Store store;
    Model model = {0};
    store_create(&store);
    model_make_keys(&model, &seed, 400);
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < 100; i++)
            random_op(&store, &model, &seed, 1, 0, model.key_count);
        flush(&store, &model, &seed);
        store.options.oldest_snapshot = store.lsn;
        for (int step = 0;; step++) {
            Pick pick;
            ck_assert_int_lt(step, 200);
            if (compaction_score(store.set->current, &store.options, NULL) < 1)
                break;
            ck_assert_int_eq(
                compaction_pick(store.set->current, &store.options, store.cursors, &pick), AIDB_OK);
            ck_assert_int_ge(pick.level, 0); /* nobody is in the way */
            run_pick(&store, &pick);
            pick_deinit(&pick);
        }
    }
    compare(&store, &model);
    ck_assert_uint_lt(store.set->current->levels[0].count, store.options.level0_files);
    model_deinit(&model);
    store_destroy(&store);
}
END_TEST

/* ---- single properties ----------------------------------------------------------------------- */

static void put(Store *store, Memtable *memtable, const char *key, const char *value, uint64_t lsn)
{
    ck_assert_int_eq(memtable_secure(memtable, store->slot, 1, RANGE_LOAD_NONE,
                                     strlen(key) + strlen(value) + 16),
                     AIDB_OK);
    memtable_add(memtable, value[0] == '-' ? OP_DELETE : OP_PUT, slice_from_string(key),
                 value[0] == '-' ? (Slice){0} : slice_from_string(value), lsn);
    store->lsn = lsn;
}

/* Everything in a level, as text: "key@lsn=value " and "key@lsn- ". */
static void print_level(Store *store, int level, char *out, size_t size)
{
    size_t at = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < store->set->current->levels[level].count; i++) {
        const FileMeta *file = store->set->current->levels[level].files[i];
        Iter *iter;
        ck_assert_int_eq(table_iter_create(&store->reader, &file->info, true, &iter), AIDB_OK);
        ck_assert_int_eq(iter->ops->seek_first(iter), AIDB_OK);
        while (iter->valid) {
            const Entry *entry = &iter->entry;
            at += (size_t)snprintf(out + at, size - at, "%.*s@%llu%s%.*s ", (int)entry->key.size,
                                   (const char *)entry->key.data, (unsigned long long)entry->lsn,
                                   entry->type == OP_PUT ? "=" : "-", (int)entry->value.size,
                                   (const char *)entry->value.data);
            ck_assert_int_eq(iter->ops->next(iter), AIDB_OK);
        }
        iter_destroy(iter);
        RangeFragments fragments = {0};
        if (file->info.range_size > 0)
            ck_assert_int_eq(table_fragments(&store->reader, &file->info, &fragments), AIDB_OK);
        for (size_t j = 0; j < fragments.count; j++) {
            const RangeFragment *fragment = &fragments.items[j];
            at += (size_t)snprintf(out + at, size - at, "[%.*s,%.*s)", (int)fragment->from.size,
                                   (const char *)fragment->from.data, (int)fragment->to.size,
                                   (const char *)fragment->to.data);
            for (uint32_t k = 0; k < fragment->lsn_count; k++)
                at += (size_t)snprintf(out + at, size - at, "@%llu",
                                       (unsigned long long)fragment->lsns[k]);
            at += (size_t)snprintf(out + at, size - at, " ");
        }
        range_fragments_deinit(&fragments);
        at += (size_t)snprintf(out + at, size - at, "| ");
    }
}

static void flush_one(Store *store, Memtable **memtable)
{
    VersionEdit edit = {0};
    ck_assert_int_eq(
        flush_run(&store->context, memtable, 1, store->snapshots, store->snapshot_count, &edit),
        AIDB_OK);
    check_outputs(store, &edit);
    install(store, &edit);
    version_edit_deinit(&edit);
    memtable_retire(*memtable, store->slot);
    *memtable = NULL;
}

START_TEST(test_stripes)
{
    /* Versions of k at 10, 20, 30, 40 and a delete at 50; m is covered by a range delete at 35. */
    static const struct {
        uint64_t snapshots[3];
        size_t count;
        const char *flushed;
        const char *merged;
    } cases[] = {
        {{0}, 0, "k@50- [m,n)@35 | ", ""},
        {{50}, 1, "k@50- [m,n)@35 | ", ""},
        {{49}, 1, "k@50- k@40=d [m,n)@35 | ", "k@50- k@40=d | "},
        {{40}, 1, "k@50- k@40=d [m,n)@35 | ", "k@50- k@40=d | "},
        {{39}, 1, "k@50- k@30=c [m,n)@35 | ", "k@50- k@30=c | "},
        {{34}, 1, "k@50- k@30=c m@15=x [m,n)@35 | ", "k@50- k@30=c m@15=x [m,n)@35 | "},
        {{15, 25},
         2,
         "k@50- k@20=b k@10=a m@15=x [m,n)@35 | ",
         "k@50- k@20=b k@10=a m@15=x [m,n)@35 | "},
        {{5, 12, 60}, 3, "k@50- k@10=a [m,n)@35 | ", "k@50- k@10=a [m,n)@35 | "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Store store;
        Memtable *memtable;
        char text[512];
        store_create(&store);
        ck_assert_int_eq(memtable_create(store.pool, store.slot, &memtable), AIDB_OK);
        put(&store, memtable, "k", "a", 10);
        put(&store, memtable, "m", "x", 15);
        put(&store, memtable, "k", "b", 20);
        put(&store, memtable, "k", "c", 30);
        ck_assert_int_eq(memtable_secure(memtable, store.slot, 0, RANGE_LOAD_ONE, 20), AIDB_OK);
        memtable_add_range(memtable, slice_from_string("m"), slice_from_string("n"), 35);
        put(&store, memtable, "k", "d", 40);
        put(&store, memtable, "k", "-", 50);
        memcpy(store.snapshots, cases[i].snapshots, sizeof cases[i].snapshots);
        store.snapshot_count = cases[i].count;
        flush_one(&store, &memtable);
        print_level(&store, 0, text, sizeof text);
        ck_assert_str_eq(text, cases[i].flushed);
        compact_all(&store);
        print_level(&store, LEVELS - 1, text, sizeof text);
        ck_assert_str_eq(text, cases[i].merged);
        store_destroy(&store);
    }
}
END_TEST

static KeepDecision keep_by_first_byte(void *arg, Slice key)
{
    ++*(int *)arg;
    return key.data[0] == 'd' ? DROP : (key.data[0] == 't' ? KEEP_TOMBSTONES : KEEP);
}

START_TEST(test_keep)
{
    Store store;
    Memtable *memtable;
    char text[512];
    int asked = 0;
    store_create(&store);
    ck_assert_int_eq(memtable_create(store.pool, store.slot, &memtable), AIDB_OK);
    put(&store, memtable, "a1", "v", 10);
    put(&store, memtable, "d1", "v", 11);
    put(&store, memtable, "d2", "-", 12);
    put(&store, memtable, "t1", "v", 13);
    put(&store, memtable, "t2", "-", 14);
    put(&store, memtable, "z1", "-", 15);
    store.context.keep = keep_by_first_byte;
    store.context.keep_arg = &asked;
    flush_one(&store, &memtable);
    ck_assert_int_eq(asked, 0); /* flushes keep all */
    compact_all(&store);
    ck_assert_int_eq(asked, 6);
    print_level(&store, LEVELS - 1, text, sizeof text);
    ck_assert_str_eq(text, "a1@10=v t2@14- | ");
    store_destroy(&store);
}
END_TEST

static bool stop_after(void *arg)
{
    return --*(int *)arg < 0;
}

/* Level 0 with several files of many keys that overlap. */
static void fill(Store *store, int files)
{
    for (int file = 0; file < files; file++) {
        Memtable *memtable;
        ck_assert_int_eq(memtable_create(store->pool, store->slot, &memtable), AIDB_OK);
        for (int i = 0; i < 1500; i++) {
            char key[32];
            snprintf(key, sizeof key, "key%06d", i * files + file);
            put(store, memtable, key, "some value that takes a little room", store->lsn + 1);
        }
        flush_one(store, &memtable);
    }
}

/* A job that was stopped or failed leaves nothing behind, and its inputs as they were. */
static void check_failed_merge(Store *store, Status expected)
{
    Pick pick;
    VersionEdit edit = {0};
    size_t tables = count_tables(store);
    ck_assert_int_eq(compaction_pick(store->set->current, &store->options, store->cursors, &pick),
                     AIDB_OK);
    ck_assert_int_eq(pick.level, 0);
    ck_assert_int_eq(merge_run(&store->context, &pick, NULL, 0, &edit), expected);
    ck_assert_uint_eq(count_tables(store), tables);
    version_edit_deinit(&edit);
    pick_deinit(&pick);
}

START_TEST(test_stop)
{
    Store store;
    int calls = 3;
    store_create(&store);
    fill(&store, 3);
    store.context.stop = stop_after;
    store.context.stop_arg = &calls;
    check_failed_merge(&store, AIDB_CANCELED);
    /* At one byte a second it sleeps, and is stopped in its sleep. */
    calls = 20;
    store.context.rate = 1;
    check_failed_merge(&store, AIDB_CANCELED);
    ck_assert_int_lt(calls, 0);
    store.context.stop = NULL;
    store.context.rate = UINT64_MAX;
    compact_all(&store);
    store_destroy(&store);
}
END_TEST

START_TEST(test_faults)
{
    Store store;
    long n = 1;
    store_create(&store);
    fill(&store, 3);
    for (;; n += 1 + n / 10) {
        Pick pick;
        VersionEdit edit = {0};
        size_t tables = count_tables(&store);
        ck_assert_int_eq(compaction_pick(store.set->current, &store.options, store.cursors, &pick),
                         AIDB_OK);
        /* A fresh reader, so that files are opened and read again. */
        file_cache_destroy(store.files);
        ck_assert_int_eq(file_cache_create(store.tables, 16, &store.files), AIDB_OK);
        store.reader.files = store.files;
        faults_armed = true;
        faults_calls = 0;
        faults_at = n;
        Status status = merge_run(&store.context, &pick, NULL, 0, &edit);
        bool reached = faults_calls >= n;
        faults_armed = false;
        ck_assert_int_eq(status, reached ? AIDB_IO : AIDB_OK);
        if (reached)
            ck_assert_uint_eq(count_tables(&store), tables);
        else
            install(&store, &edit);
        version_edit_deinit(&edit);
        pick_deinit(&pick);
        if (!reached)
            break;
    }
    ck_assert_int_gt(n, 20);
    ck_assert_uint_eq(count_tables(&store), count_files(&store));
    store_destroy(&store);
}
END_TEST

START_TEST(test_flush_faults)
{
    Store store;
    store_create(&store);
    for (long n = 1;; n++) {
        Memtable *memtable;
        VersionEdit edit = {0};
        ck_assert_int_eq(memtable_create(store.pool, store.slot, &memtable), AIDB_OK);
        put(&store, memtable, "a", "b", store.lsn + 1);
        faults_armed = true;
        faults_calls = 0;
        faults_at = n;
        Status status = flush_run(&store.context, &memtable, 1, NULL, 0, &edit);
        bool reached = faults_calls >= n;
        faults_armed = false;
        ck_assert_int_eq(status, reached ? AIDB_IO : AIDB_OK);
        ck_assert_uint_eq(count_tables(&store), reached ? 0 : 1);
        version_edit_deinit(&edit);
        memtable_retire(memtable, store.slot);
        if (!reached)
            break;
    }
    store_destroy(&store);
}
END_TEST

START_TEST(test_empty_flush)
{
    Store store;
    Memtable *memtable;
    VersionEdit edit = {0};
    store_create(&store);
    ck_assert_int_eq(flush_run(&store.context, NULL, 0, NULL, 0, &edit), AIDB_OK);
    ck_assert_int_eq(memtable_create(store.pool, store.slot, &memtable), AIDB_OK);
    ck_assert_int_eq(flush_run(&store.context, &memtable, 1, NULL, 0, &edit), AIDB_OK);
    ck_assert_uint_eq(edit.added_count, 0);
    ck_assert_uint_eq(count_tables(&store), 0);
    /* Nothing but a range tombstone is a table too. */
    ck_assert_int_eq(memtable_secure(memtable, store.slot, 0, RANGE_LOAD_ONE, 20), AIDB_OK);
    memtable_add_range(memtable, slice_from_string("b"), (Slice){0}, 200);
    store.lsn = 200;
    flush_one(&store, &memtable);
    const FileMeta *file = store.set->current->levels[0].files[0];
    ck_assert(file->unbounded && file->garbage);
    ck_assert_uint_eq(file->info.range_deletes, 1);
    ck_assert(slice_equal(file->smallest, slice_from_string("b")));
    compact_all(&store);
    ck_assert_uint_eq(count_files(&store), 0);
    ck_assert_uint_eq(count_tables(&store), 0);
    store_destroy(&store);
}
END_TEST

/* Many range tombstones without a point between them are cut into several files too. */
START_TEST(test_many_ranges)
{
    Store store;
    Memtable *memtable;
    store_create(&store);
    store.snapshots[0] = 1; /* nothing may be dropped */
    store.snapshot_count = 1;
    ck_assert_int_eq(memtable_create(store.pool, store.slot, &memtable), AIDB_OK);
    for (int i = 0; i < 3000; i++) {
        char from[32];
        char to[32];
        snprintf(from, sizeof from, "k%06d", 2 * i);
        snprintf(to, sizeof to, "k%06d", 2 * i + 1 + i % 2);
        ck_assert_int_eq(memtable_secure(memtable, store.slot, 0, RANGE_LOAD_ONE, 64), AIDB_OK);
        memtable_add_range(memtable, slice_from_string(from), slice_from_string(to), ++store.lsn);
    }
    flush_one(&store, &memtable);
    compact_all(&store);
    uint64_t fragments = 0;
    for (uint32_t i = 0; i < store.set->current->levels[LEVELS - 1].count; i++)
        fragments += store.set->current->levels[LEVELS - 1].files[i]->info.range_deletes;
    ck_assert_uint_gt(store.set->current->levels[LEVELS - 1].count, 3);
    ck_assert_uint_eq(fragments, 3000);
    store_destroy(&store);
}
END_TEST

START_TEST(test_large_values)
{
    Store store;
    size_t size = 12u << 20;
    char *value = malloc(size + 1);
    Entry entry;
    ck_assert_ptr_nonnull(value);
    store_create(&store);
    for (int i = 0; i < 4; i++) {
        Memtable *memtable;
        char key[8];
        memset(value, 'a' + i, size);
        value[size] = '\0';
        snprintf(key, sizeof key, "k%d", i % 3);
        ck_assert_int_eq(memtable_create(store.pool, store.slot, &memtable), AIDB_OK);
        put(&store, memtable, key, value, store.lsn + 1);
        flush_one(&store, &memtable);
    }
    compact_all(&store);
    ck_assert_uint_eq(store.set->current->levels[LEVELS - 1].count, 3);
    epoch_enter(store.epochs, store.slot);
    ck_assert(store_get(&store, slice_from_string("k0"), store.lsn, &entry));
    ck_assert_uint_eq(entry.value.size, size);
    ck_assert_int_eq(entry.value.data[size - 1], 'd');
    table_reader_release(&store.reader);
    epoch_leave(store.slot);
    free(value);
    store_destroy(&store);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("compaction");
    TCase *picker = tcase_create("picker");
    tcase_add_loop_test(picker, test_pick, 0, sizeof pick_cases / sizeof pick_cases[0]);
    tcase_add_loop_test(picker, test_pick_range, 0, sizeof range_cases / sizeof range_cases[0]);
    tcase_add_test(picker, test_targets);
    tcase_add_test(picker, test_table_size);
    tcase_add_test(picker, test_score);
    tcase_add_test(picker, test_cursor);
    suite_add_tcase(suite, picker);
    TCase *jobs = tcase_create("jobs");
    tcase_set_timeout(jobs, 240);
    tcase_add_test(jobs, test_stripes);
    tcase_add_test(jobs, test_keep);
    tcase_add_test(jobs, test_stop);
    tcase_add_test(jobs, test_faults);
    tcase_add_test(jobs, test_flush_faults);
    tcase_add_test(jobs, test_empty_flush);
    tcase_add_test(jobs, test_many_ranges);
    tcase_add_test(jobs, test_large_values);
    tcase_add_test(jobs, test_settles);
    tcase_add_loop_test(jobs, test_model, 0, 3);
    suite_add_tcase(suite, jobs);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
