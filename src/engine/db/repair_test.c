/*
 * repair_test.c - a random store, random damage, a repair, and what must hold then:
 *
 *   - nothing is in the new store that was not written under that key;
 *   - a key whose newest state is not there is covered by something that was reported lost;
 *   - what is reported lost of tables lies where bytes were damaged;
 *   - without damage nothing is lost and every key is as it was;
 *   - the damaged store is as it was, the new one opens, verifies and takes writes.
 */
#include "config.h"

#include "engine/db/db.h"

#include "engine/version/version.h"
#include "io/io.h"
#include "testlib/testlib.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEYS 300

static void ok(Status status)
{
    ck_assert_msg(status == AIDB_OK, "%s: %s", status_name(status), status_message());
}

/* ---- a store and all that was ever written ------------------------------------------------------- */

typedef struct Event {
    uint64_t lsn;
    uint32_t number; /* in the value; 0: a deletion */
    bool range;
} Event;

typedef struct History {
    Event *events;
    size_t count, capacity;
} History;

typedef struct World {
    char *directory;
    EngineOptions options;
    Db *db;
    Session *client, *flusher, *compactor, *wal_writer;
    History keys[KEYS];
    uint32_t next_number;
    uint64_t random;
} World;

static EngineOptions small_options(uint64_t random)
{
    return (EngineOptions){.memory = 24u << 20,
                           .memtable_size = 64u << 10,
                           .cache_size = 2u << 20,
                           .block_size = 1024,
                           .compression = random % 3 == 0 ? COMPRESSION_NONE : COMPRESSION_ZSTD,
                           .compression_level = 1,
                           .filter_bits = 10,
                           .table_size = 64u << 10,
                           .level_base_size = 128u << 10,
                           .level_multiplier = 4,
                           .level0_files = 2,
                           .compactors = 1,
                           .durability = AIDB_FSYNC,
                           .wal_segment_size = 64u << 10,
                           .wal_ring_size = 64u << 10,
                           .batch_max = 4u << 20};
}

static void world_open(World *world)
{
    ok(db_setup(world->directory, &world->options, 8, false, &world->db));
    ok(db_session_create(world->db, UINT32_MAX, SLOT_THREAD, &world->client));
    ok(db_recover(world->db, world->client));
    ok(db_session_create(world->db, UINT32_MAX, SLOT_FLUSHER, &world->flusher));
    ok(db_session_create(world->db, UINT32_MAX, SLOT_COMPACTOR, &world->compactor));
    ok(db_session_create(world->db, UINT32_MAX, SLOT_WAL_WRITER, &world->wal_writer));
}

static void world_close(World *world, bool clean)
{
    db_session_destroy(world->flusher);
    db_session_destroy(world->compactor);
    db_session_destroy(world->wal_writer);
    if (clean)
        ok(db_stop(world->db, world->client, test_random_below(&world->random, 2) == 0));
    db_session_destroy(world->client);
    db_destroy(world->db);
}

static uint32_t below(World *world, uint32_t bound)
{
    return (uint32_t)test_random_below(&world->random, bound);
}

static void key_of(uint32_t index, char key[16])
{
    snprintf(key, 16, "key%04u", index);
}

/* A value that says which write made it; some are long, some do not compress. */
static Slice value_of(uint32_t number)
{
    static uint8_t value[3000];
    uint64_t random = number * 0x9e3779b97f4a7c15u + 1;
    uint32_t size = (uint32_t)(8 + test_random_below(&random, number % 16 == 0 ? 2900 : 200));
    for (uint32_t i = 0; i < size; i++)
        value[i] = number % 3 == 0 ? (uint8_t)test_random(&random) : (uint8_t)(i / 8);
    memcpy(value, &number, sizeof number);
    return slice_make(value, size);
}

static void note(World *world, uint32_t key, uint64_t lsn, uint32_t number, bool range)
{
    History *history = &world->keys[key];
    if (history->count == history->capacity) {
        history->capacity = history->capacity == 0 ? 16 : history->capacity * 2;
        history->events = realloc(history->events, history->capacity * sizeof(Event));
        ck_assert_ptr_nonnull(history->events);
    }
    history->events[history->count++] = (Event){.lsn = lsn, .number = number, .range = range};
}

static void random_write(World *world)
{
    Batch batch = {0};
    uint32_t count = 1 + below(world, 4);
    for (uint32_t i = 0; i < count; i++) {
        char key[16], to[16];
        uint32_t index = below(world, KEYS);
        key_of(index, key);
        uint32_t what = below(world, 24);
        if (what < 4) {
            ok(batch_delete(&batch, slice_from_string(key)));
        } else if (what == 4) {
            key_of(index + below(world, 20), to);
            ok(batch_delete_range(&batch, slice_from_string(key), slice_from_string(to)));
        } else {
            ok(batch_put(&batch, slice_from_string(key), value_of(++world->next_number)));
        }
    }
    DbWrite write = {.ops = buffer_slice(&batch.ops),
                     .op_count = batch.op_count,
                     .range_count = batch.range_count};
    DbCommit commit;
    ok(db_write(world->client, &write, &commit));
    if (below(world, 4) == 0)
        ok(db_wait(world->client, commit.end, AIDB_FSYNC));
    size_t cursor = 0;
    BatchOp op;
    bool damaged = false;
    uint32_t last_offset = 0;
    while (batch_next(write.ops, &cursor, &op, &damaged))
        last_offset = op.offset;
    cursor = 0;
    while (batch_next(write.ops, &cursor, &op, &damaged)) {
        uint64_t lsn = commit.lsn - last_offset + op.offset;
        uint32_t number = 0;
        if (op.type == OP_PUT)
            memcpy(&number, op.value.data, sizeof number);
        for (uint32_t i = 0; i < KEYS; i++) {
            char key[16];
            key_of(i, key);
            Slice own = slice_from_string(key);
            if (op.type == OP_DELETE_RANGE
                    ? slice_compare(op.key, own) <= 0 && slice_compare(own, op.value) < 0
                    : slice_equal(op.key, own))
                note(world, i, lsn, number, op.type == OP_DELETE_RANGE);
        }
    }
    batch_deinit(&batch);
}

static void step(Session *session)
{
    int wait_ms;
    ok(db_step(session, &wait_ms));
}

static void world_run(World *world, uint64_t seed)
{
    memset(world, 0, sizeof *world);
    world->random = seed | 1;
    world->options = small_options(test_random(&world->random));
    world->directory = test_directory_create();
    ok(db_create(world->directory, &world->options));
    world_open(world);
    uint32_t writes = 200 + below(world, 3000);
    for (uint32_t i = 0; i < writes; i++) {
        random_write(world);
        step(world->wal_writer);
        step(world->flusher);
        if (below(world, 3) == 0)
            step(world->compactor);
        if (below(world, 700) == 0) {
            world_close(world, below(world, 2) == 0);
            world_open(world);
        }
    }
    world_close(world, below(world, 3) == 0);
}

static void world_destroy(World *world)
{
    for (uint32_t i = 0; i < KEYS; i++)
        free(world->keys[i].events);
    test_directory_destroy(world->directory);
}

/* ---- damage --------------------------------------------------------------------------------------- */

typedef enum DamageKind {
    DAMAGE_NONE,
    DAMAGE_TABLE_FLIP,
    DAMAGE_TABLE_FLIPS,
    DAMAGE_TABLE_TAIL, /* a flip among filter, index, properties, footer */
    DAMAGE_TABLE_CUT,
    DAMAGE_TABLE_GONE,
    DAMAGE_TABLE_PAGE,
    DAMAGE_TABLE_MOVED, /* bytes copied over others */
    DAMAGE_MANIFEST_FLIP,
    DAMAGE_MANIFEST_CUT,
    DAMAGE_MANIFEST_GONE,
    DAMAGE_CURRENT_GONE,
    DAMAGE_SEGMENT_FLIP,
    DAMAGE_SEGMENT_CUT,
    DAMAGE_SEGMENT_GONE,
    DAMAGE_RING_FLIP,
    DAMAGE_RING_HEADER,
    DAMAGE_RING_GONE,
    DAMAGE_RING_AND_SEGMENT, /* the ring's bytes are zero, and a segment is cut */
    DAMAGE_MANIFEST_AND_TABLE,
    DAMAGE_MANIFEST_AND_LOG,
    DAMAGE_KINDS
} DamageKind;

typedef struct Hurt {
    char path[300];
    uint64_t begin, end;
} Hurt;

typedef struct Damage {
    DamageKind kind;
    char *directory; /* the damaged copy */
    uint64_t random;
    Hurt hurts[32];
    size_t hurt_count;
    bool log; /* log or ring */
    bool manifest;
    bool table;
    uint64_t horizon; /* that the manifest states; 0 when it is damaged */
} Damage;

typedef struct Listing {
    const char *folder;
    const char *wanted; /* the name holds this */
    char *paths[512];
    size_t count;
} Listing;

static Status list_name(void *arg, const char *name)
{
    Listing *listing = arg;
    if (strstr(name, listing->wanted) != NULL && listing->count < 512)
        listing->paths[listing->count++] = path_join(listing->folder, name);
    return AIDB_OK;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A file of the damaged copy; false when there is none. */
static bool choose_file(Damage *damage, const char *folder, const char *wanted, char path[300])
{
    char *full = path_join(damage->directory, folder);
    Listing listing = {.folder = full, .wanted = wanted};
    ok(directory_list(full, list_name, &listing));
    bool found = listing.count > 0;
    if (found) {
        qsort(listing.paths, listing.count, sizeof listing.paths[0], compare_paths);
        snprintf(path, 300, "%s", listing.paths[test_random_below(&damage->random, listing.count)]);
    }
    for (size_t i = 0; i < listing.count; i++)
        free(listing.paths[i]);
    free(full);
    return found;
}

static uint64_t size_of(const char *path)
{
    struct stat info;
    ck_assert_int_eq(stat(path, &info), 0);
    return (uint64_t)info.st_size;
}

static void hurt(Damage *damage, const char *path, uint64_t begin, uint64_t end)
{
    Hurt *one = &damage->hurts[damage->hurt_count++];
    snprintf(one->path, sizeof one->path, "%s", path);
    one->begin = begin;
    one->end = end;
}

static void flip(Damage *damage, const char *path, uint64_t from, uint64_t to)
{
    if (from >= to)
        return;
    uint64_t at = from + test_random_below(&damage->random, to - from);
    int fd = open(path, O_RDWR);
    uint8_t byte;
    ck_assert_int_eq(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= (uint8_t)(1 + test_random_below(&damage->random, 255));
    ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
    hurt(damage, path, at, at + 1);
}

static void cut(Damage *damage, const char *path)
{
    uint64_t size = size_of(path);
    uint64_t at = test_random_below(&damage->random, size);
    ck_assert_int_eq(truncate(path, (off_t)at), 0);
    hurt(damage, path, at, UINT64_MAX);
}

static void gone(Damage *damage, const char *path)
{
    ck_assert_int_eq(unlink(path), 0);
    hurt(damage, path, 0, UINT64_MAX);
}

static void overwrite(Damage *damage, const char *path, bool zeros)
{
    uint64_t size = size_of(path);
    uint8_t bytes[1024] = {0};
    uint64_t pages = (size + sizeof bytes - 1) / sizeof bytes;
    uint64_t from = test_random_below(&damage->random, pages) * sizeof bytes;
    uint64_t to = test_random_below(&damage->random, pages) * sizeof bytes;
    int fd = open(path, O_RDWR);
    ssize_t got = zeros ? (ssize_t)sizeof bytes : pread(fd, bytes, sizeof bytes, (off_t)from);
    if (got > (ssize_t)(size - to))
        got = (ssize_t)(size - to);
    uint8_t before[1024];
    ck_assert_int_eq(pread(fd, before, (size_t)got, (off_t)to), got);
    if (memcmp(before, bytes, (size_t)got) != 0) {
        ck_assert_int_eq(pwrite(fd, bytes, (size_t)got, (off_t)to), got);
        hurt(damage, path, to, to + (uint64_t)got);
    }
    close(fd);
}

static void apply_damage(Damage *damage)
{
    char path[300];
    DamageKind kind = damage->kind;
    damage->table = (kind >= DAMAGE_TABLE_FLIP && kind <= DAMAGE_TABLE_MOVED) ||
                    kind == DAMAGE_MANIFEST_AND_TABLE;
    damage->manifest = (kind >= DAMAGE_MANIFEST_FLIP && kind <= DAMAGE_CURRENT_GONE) ||
                       kind == DAMAGE_MANIFEST_AND_TABLE || kind == DAMAGE_MANIFEST_AND_LOG;
    damage->log = (kind >= DAMAGE_SEGMENT_FLIP && kind <= DAMAGE_RING_AND_SEGMENT) ||
                  kind == DAMAGE_MANIFEST_AND_LOG;
    if (damage->table && choose_file(damage, "sst", ".sst", path)) {
        uint64_t size = size_of(path);
        if (kind == DAMAGE_TABLE_TAIL)
            flip(damage, path, size - size / 4, size);
        else if (kind == DAMAGE_TABLE_CUT)
            cut(damage, path);
        else if (kind == DAMAGE_TABLE_GONE)
            gone(damage, path);
        else if (kind == DAMAGE_TABLE_PAGE || kind == DAMAGE_TABLE_MOVED)
            overwrite(damage, path, kind == DAMAGE_TABLE_PAGE);
        else
            for (int i = 0; i < (kind == DAMAGE_TABLE_FLIPS ? 8 : 1); i++)
                flip(damage, path, 0, size);
    }
    if (damage->manifest && kind == DAMAGE_CURRENT_GONE) {
        ck_assert(choose_file(damage, "", "CURRENT", path));
        gone(damage, path);
    } else if (damage->manifest && choose_file(damage, "", "MANIFEST", path)) {
        if (kind == DAMAGE_MANIFEST_CUT)
            cut(damage, path);
        else if (kind == DAMAGE_MANIFEST_GONE)
            gone(damage, path);
        else if (test_random_below(&damage->random, 3) == 0)
            flip(damage, path, 0, size_of(path));
        else
            flip(damage, path, 12288, size_of(path));
    }
    if (kind == DAMAGE_RING_AND_SEGMENT) {
        static const uint8_t zeros[64 << 10];
        ck_assert(choose_file(damage, "wal", "ring", path));
        int fd = open(path, O_WRONLY);
        ck_assert_int_eq(pwrite(fd, zeros, sizeof zeros, 4096), sizeof zeros);
        close(fd);
        hurt(damage, path, 4096, 4096 + sizeof zeros);
    }
    if (kind == DAMAGE_RING_FLIP || kind == DAMAGE_RING_HEADER || kind == DAMAGE_RING_GONE) {
        ck_assert(choose_file(damage, "wal", "ring", path));
        if (kind == DAMAGE_RING_GONE)
            gone(damage, path);
        else if (kind == DAMAGE_RING_FLIP)
            flip(damage, path, 4096, size_of(path));
        else
            flip(damage, path, 0, 4096);
    } else if (damage->log && choose_file(damage, "wal", ".0", path)) {
        if (kind == DAMAGE_SEGMENT_CUT || kind == DAMAGE_RING_AND_SEGMENT)
            cut(damage, path);
        else if (kind == DAMAGE_SEGMENT_GONE)
            gone(damage, path);
        else
            flip(damage, path, 0, size_of(path));
    }
}

/* ---- checks --------------------------------------------------------------------------------------- */

typedef struct Loss {
    DbLoss loss;
    char from[64], to[64];
    char path[300];
    char what[128];
} Loss;

typedef struct Losses {
    Loss items[4000];
    size_t count;
} Losses;

static Losses losses;

static void keep_loss(void *arg, const DbLoss *loss)
{
    (void)arg;
    ck_assert_uint_lt(losses.count, 4000);
    Loss *kept = &losses.items[losses.count++];
    kept->loss = *loss;
    snprintf(kept->path, sizeof kept->path, "%s", loss->path);
    snprintf(kept->what, sizeof kept->what, "%s", loss->what);
    snprintf(kept->from, sizeof kept->from, "%.*s", (int)loss->from.size,
             (const char *)loss->from.data);
    snprintf(kept->to, sizeof kept->to, "%.*s", (int)loss->to.size, (const char *)loss->to.data);
}

static void print_losses(void)
{
    for (size_t i = 0; i < losses.count; i++) {
        const Loss *kept = &losses.items[i];
        const DbLoss *loss = &kept->loss;
        printf("  lost: %s: %llu + %llu: %s%s%s%s [%s, %s] LSN %llu-%llu\n", kept->path,
               (unsigned long long)loss->offset, (unsigned long long)loss->size, kept->what,
               loss->entries ? " entries" : "", loss->range_deletes ? " ranges" : "",
               loss->log ? " log" : "", loss->has_from ? kept->from : "-",
               loss->has_to ? kept->to : "-", (unsigned long long)loss->lsn_from,
               (unsigned long long)loss->lsn_to);
    }
}

static bool covered(const Damage *damage, const DbRepair *repair, const char *key,
                    const Event *newest)
{
    for (size_t i = 0; i < losses.count; i++) {
        const Loss *kept = &losses.items[i];
        const DbLoss *loss = &kept->loss;
        bool in_keys = (!loss->has_from || strcmp(kept->from, key) <= 0) &&
                       (!loss->has_to || strcmp(key, kept->to) <= 0);
        if (loss->entries && in_keys)
            return true;
        if (loss->range_deletes && newest->range && in_keys)
            return true;
        if (loss->log && newest->lsn >= loss->lsn_from &&
            (loss->lsn_to == 0 || newest->lsn < loss->lsn_to))
            return true;
        /* Without the manifest a deletion that compaction dropped may be undone. */
        if (loss->manifest && newest->number == 0)
            return true;
        /* ... and what is missing as a whole cannot be told. */
        if (loss->manifest && (damage->table || damage->log))
            return true;
    }
    /* At or above the horizon damage is the end of the log, and nothing says that more was there. */
    return damage->log && newest->lsn >= repair->log_end && newest->lsn >= damage->horizon;
}

static void check_key(const World *world, const Damage *damage, const DbRepair *repair,
                      Session *session, uint32_t index)
{
    const History *history = &world->keys[index];
    Event never = {0};
    const Event *newest = history->count > 0 ? &history->events[history->count - 1] : &never;
    char key[16];
    key_of(index, key);
    Entry entry;
    Status status = db_read_get(session, slice_from_string(key), &entry);
    uint32_t number = 0;
    if (status == AIDB_OK) {
        ck_assert_uint_ge(entry.value.size, 8);
        memcpy(&number, entry.value.data, sizeof number);
        const Event *source = NULL;
        for (size_t i = 0; i < history->count; i++)
            if (history->events[i].number == number)
                source = &history->events[i];
        ck_assert_msg(source != NULL && number != 0 && slice_equal(entry.value, value_of(number)),
                      "%s holds a value that nobody wrote", key);
        ck_assert_msg(entry.lsn == source->lsn || damage->manifest, "%s has another version", key);
    } else {
        ck_assert_int_eq(status, AIDB_NOT_FOUND);
    }
    if (number != newest->number && !covered(damage, repair, key, newest)) {
        print_losses();
        ck_abort_msg("%s: write %u expected (LSN %llu), %u found, and nothing is said to be lost",
                     key, newest->number, (unsigned long long)newest->lsn, number);
    }
}

static void count_finding(void *arg, const char *path, uint64_t offset, const char *what)
{
    (void)path;
    (void)offset;
    (void)what;
    ++*(uint64_t *)arg;
}

static void print_finding(void *arg, const char *path, uint64_t offset, const char *what)
{
    printf("  %s: %llu: %s\n", path, (unsigned long long)offset, what);
    ++*(uint64_t *)arg;
}

/* What is said to be lost of tables must be where the damage is. */
static void check_places(const Damage *damage)
{
    for (size_t i = 0; i < losses.count; i++) {
        const Loss *kept = &losses.items[i];
        if (kept->loss.log || kept->loss.manifest || damage->manifest)
            continue;
        bool met = false;
        for (size_t j = 0; j < damage->hurt_count && !met; j++)
            met = strcmp(damage->hurts[j].path, kept->path) == 0 &&
                  damage->hurts[j].begin < kept->loss.offset + kept->loss.size &&
                  kept->loss.offset < damage->hurts[j].end;
        if (!met) {
            print_losses();
            ck_abort_msg("lost without damage: %s at %llu", kept->path,
                         (unsigned long long)kept->loss.offset);
        }
    }
}

typedef struct Print {
    Buffer text;
    const char *folder;
} Print;

static Status print_file(void *arg, const char *name)
{
    Print *print = arg;
    char *path = path_join(print->folder, name);
    struct stat info;
    ck_assert_int_eq(stat(path, &info), 0);
    Status status = AIDB_OK;
    if (S_ISREG(info.st_mode))
        status =
            buffer_append_format(&print->text, "%s %lld %lld.%ld\n", path, (long long)info.st_size,
                                 (long long)info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
    free(path);
    return status;
}

/* Names, sizes and times of everything: what a repair must leave alone. */
static Buffer fingerprint(const char *directory)
{
    Print print = {0};
    static const char *const folders[] = {"", "/wal", "/sst"};
    for (size_t i = 0; i < 3; i++) {
        char folder[300];
        snprintf(folder, sizeof folder, "%s%s", directory, folders[i]);
        print.folder = folder;
        ok(directory_list(folder, print_file, &print));
    }
    return print.text;
}

static void check_repaired(const World *world, const Damage *damage, const DbRepair *repair)
{
    uint64_t findings = 0;
    ok(db_verify(repair->new_directory, false, print_finding, &findings));
    ck_assert_uint_eq(findings, 0);
    World again = {
        .directory = (char *)repair->new_directory, .options = world->options, .random = 1};
    world_open(&again);
    uint64_t at;
    ok(db_read_begin(again.client, DB_NOW, &at));
    for (uint32_t i = 0; i < KEYS; i++)
        check_key(world, damage, repair, again.client, i);
    db_read_end(again.client);
    again.next_number = 1000000000;
    for (int i = 0; i < 20; i++)
        random_write(&again);
    world_close(&again, true);
    for (uint32_t i = 0; i < KEYS; i++)
        free(again.keys[i].events);
}

static void damage_and_repair(const World *world, DamageKind kind, uint64_t seed)
{
    Damage damage = {.kind = kind, .random = seed | 1};
    damage.directory = test_directory_create();
    char *fresh = test_directory_create();
    test_directory_copy(world->directory, damage.directory);
    apply_damage(&damage);
    ManifestState state;
    if (manifest_load(damage.directory, &state) == AIDB_OK) {
        damage.horizon = state.counters.horizon;
        manifest_state_deinit(&state);
    }
    Buffer before = fingerprint(damage.directory);
    uint64_t findings = 0;
    Status verified = db_verify(damage.directory, false, count_finding, &findings);
    ck_assert(verified == AIDB_OK || kind == DAMAGE_CURRENT_GONE);
    losses.count = 0;
    DbRepair repair = {.directory = damage.directory,
                       .new_directory = fresh,
                       .options = &world->options,
                       .report = keep_loss};
    ok(db_repair(&repair));
    ck_assert_uint_eq(repair.losses, losses.count);
    /* Behind the end of the log verification looks at nothing: it may have been torn there. */
    if (verified == AIDB_OK && findings == 0 && !damage.log)
        ck_assert_msg(losses.count == 0, "lost without damage that verify finds: %s, %s",
                      losses.items[0].path, losses.items[0].what);
    if (damage.table && damage.hurt_count > 0 && !damage.manifest &&
        strstr(damage.hurts[0].path, ".sst") != NULL && losses.count > 0)
        ck_assert_uint_gt(findings, 0);
    check_places(&damage);
    check_repaired(world, &damage, &repair);
    Buffer after = fingerprint(damage.directory);
    ck_assert(slice_equal(buffer_slice(&before), buffer_slice(&after)));
    buffer_deinit(&before);
    buffer_deinit(&after);
    test_directory_destroy(damage.directory);
    test_directory_destroy(fresh);
}

START_TEST(random_damage)
{
    const char *rounds_text = getenv("AIDB_ROUNDS");
    int rounds = rounds_text != NULL ? atoi(rounds_text) : 8;
    uint64_t seed = test_seed("repair");
    for (int round = 0; round < rounds; round++) {
        World world;
        world_run(&world, seed + (uint64_t)round * 7919);
        for (int kind = 0; kind < DAMAGE_KINDS; kind++) {
            uint64_t own = (seed + (uint64_t)round) * 1000003 + (uint64_t)kind;
            for (int again = 0; again < 2; again++) {
                damage_and_repair(&world, (DamageKind)kind, own * 31 + (uint64_t)again * 17);
            }
        }
        world_destroy(&world);
    }
}
END_TEST

/* ---- files put where they do not belong ------------------------------------------------------------ */

typedef struct Fixture {
    World world; /* killed, with tables and log */
    char *older; /* a copy of it from before */
    char *
        diverged; /* that copy, which went on by itself: same system id, same numbers, other contents */
    World foreign;   /* another database */
    uint64_t checks; /* figures */
    uint64_t refused, failed_reads, right;
} Fixture;

static void copy_file(const char *from_directory, const char *to_directory, const char *name,
                      const char *new_name)
{
    Buffer bytes = {0};
    char *from = path_join(from_directory, name), *to = path_join(to_directory, new_name);
    ok(file_read_whole(from, 64u << 20, &bytes));
    ok(file_replace(to, bytes.data, bytes.size, 0600));
    buffer_deinit(&bytes);
    free(from);
    free(to);
}

static void run_more(World *world, uint32_t writes)
{
    for (uint32_t i = 0; i < writes; i++) {
        random_write(world);
        step(world->wal_writer);
        step(world->flusher);
        if (below(world, 3) == 0)
            step(world->compactor);
    }
}

static void fixture_make(Fixture *fixture, uint64_t seed)
{
    memset(fixture, 0, sizeof *fixture);
    World *world = &fixture->world;
    world_run(world, seed);
    fixture->older = test_directory_create();
    fixture->diverged = test_directory_create();
    test_directory_copy(world->directory, fixture->older);
    test_directory_copy(world->directory, fixture->diverged);
    world_open(world);
    run_more(world, 1500);
    world_close(world, false);
    World other = {.directory = fixture->diverged,
                   .options = world->options,
                   .random = world->random * 3 | 1,
                   .next_number = 2000000000};
    world_open(&other);
    run_more(&other, 1500);
    world_close(&other, false);
    for (uint32_t i = 0; i < KEYS; i++)
        free(other.keys[i].events);
    world_run(&fixture->foreign, seed + 1);
}

static void fixture_free(Fixture *fixture)
{
    test_directory_destroy(fixture->older);
    test_directory_destroy(fixture->diverged);
    world_destroy(&fixture->foreign);
    world_destroy(&fixture->world);
}

/* What a key held after all operations below an LSN: the write's number, 0 for none. */
static uint32_t state_at(const World *world, uint32_t index, uint64_t lsn)
{
    const History *history = &world->keys[index];
    for (size_t i = history->count; i-- > 0;)
        if (history->events[i].lsn < lsn)
            return history->events[i].number;
    return 0;
}

/* Opens a damaged copy. It refuses, or what it gives is right: an error that names a file, or the state
 * after all operations up to one place in the log, at or above the horizon. */
static void open_damaged(Fixture *fixture, const char *directory, const char *what)
{
    const World *world = &fixture->world;
    Db *db;
    Session *session = NULL;
    ManifestState state;
    uint32_t numbers[KEYS];
    uint64_t horizon = 0;
    fixture->checks++;
    if (manifest_load(directory, &state) == AIDB_OK) {
        horizon = state.counters.horizon;
        manifest_state_deinit(&state);
    }
    Status status = db_setup(directory, &world->options, 8, false, &db);
    if (status == AIDB_OK) {
        ok(db_session_create(db, UINT32_MAX, SLOT_THREAD, &session));
        status = db_recover(db, session);
    }
    if (status != AIDB_OK) {
        ck_assert_msg(status == AIDB_CORRUPTION || status == AIDB_NO_DATABASE, "%s: %s", what,
                      status_message());
        fixture->refused++;
        goto out;
    }
    uint64_t at, cut = UINT64_MAX;
    ok(db_read_begin(session, DB_NOW, &at));
    bool failed = false, same = true;
    for (uint32_t i = 0; i < KEYS; i++) {
        char key[16];
        Entry entry;
        key_of(i, key);
        status = db_read_get(session, slice_from_string(key), &entry);
        numbers[i] = 0;
        if (status == AIDB_OK) {
            memcpy(&numbers[i], entry.value.data, sizeof numbers[i]);
            ck_assert_msg(slice_equal(entry.value, value_of(numbers[i])), "%s: a wrong value",
                          what);
        } else if (status == AIDB_CORRUPTION) {
            ck_assert_msg(strstr(status_message(), directory) != NULL, "%s: %s", what,
                          status_message());
            failed = true;
            numbers[i] = UINT32_MAX;
        } else {
            ck_assert_int_eq(status, AIDB_NOT_FOUND);
        }
        same = same && (numbers[i] == UINT32_MAX || numbers[i] == state_at(world, i, UINT64_MAX));
    }
    db_read_end(session);
    /* The end of the log may be cut off, but only as a whole. */
    for (uint32_t key = 0; key < KEYS && !same; key++)
        for (size_t i = 0; i < world->keys[key].count && !same; i++) {
            cut = world->keys[key].events[i].lsn;
            if (cut < horizon)
                continue;
            same = true;
            for (uint32_t j = 0; j < KEYS && same; j++)
                same = numbers[j] == UINT32_MAX || numbers[j] == state_at(world, j, cut);
        }
    ck_assert_msg(same, "%s: what is read was never the state of the store", what);
    fixture->failed_reads += failed;
    fixture->right += !failed;
out:
    if (session != NULL)
        db_session_destroy(session);
    db_destroy(db);
}

/* `must`: verification has to find it. */
static void check_damaged(Fixture *fixture, char *directory, const char *file, bool must,
                          const char *what)
{
    for (int online = 0; online <= 1; online++) {
        uint64_t findings = 0;
        Status status = db_verify(directory, online != 0, count_finding, &findings);
        ck_assert(status == AIDB_OK || status == AIDB_NO_DATABASE);
        ck_assert_msg(!must || findings > 0 || status == AIDB_NO_DATABASE,
                      "%s (%s) is not found by verify%s", what, file, online ? " online" : "");
    }
    open_damaged(fixture, directory, what);
}

static char *fresh_copy(const Fixture *fixture)
{
    char *directory = test_directory_create();
    test_directory_copy(fixture->world.directory, directory);
    return directory;
}

/* Names in a folder that hold a text; all free with free(). */
static size_t names_in(const char *directory, const char *folder, const char *wanted, char **paths,
                       size_t room)
{
    char *full = path_join(directory, folder);
    Listing listing = {.folder = folder, .wanted = wanted};
    ok(directory_list(full, list_name, &listing));
    free(full);
    ck_assert_uint_le(listing.count, room);
    if (listing.count > 0)
        qsort(listing.paths, listing.count, sizeof listing.paths[0], compare_paths);
    memcpy(paths, listing.paths, listing.count * sizeof *paths);
    return listing.count;
}

/* A file of another store in the place of one of ours. */
static void put_other(Fixture *fixture, const char *from, const char *folder, const char *wanted,
                      const char *what)
{
    char *own[512], *other[512];
    size_t own_count = names_in(fixture->world.directory, folder, wanted, own, 512);
    size_t other_count = names_in(from, folder, wanted, other, 512);
    bool must = strcmp(folder, "wal") != 0;
    for (size_t i = 0; i < own_count && other_count > 0; i++) {
        const char *source = other[i % other_count];
        for (size_t j = 0; j < other_count; j++) /* the one with this name, if there is one */
            if (strcmp(other[j], own[i]) == 0)
                source = other[j];
        Buffer mine = {0}, theirs = {0};
        char *mine_path = path_join(fixture->world.directory, own[i]);
        char *their_path = path_join(from, source);
        ok(file_read_whole(mine_path, 64u << 20, &mine));
        ok(file_read_whole(their_path, 64u << 20, &theirs));
        free(mine_path);
        free(their_path);
        if (!slice_equal(buffer_slice(&mine), buffer_slice(&theirs))) {
            char *copy = fresh_copy(fixture);
            copy_file(from, copy, source, own[i]);
            check_damaged(fixture, copy, own[i], must, what);
            test_directory_destroy(copy);
        }
        buffer_deinit(&mine);
        buffer_deinit(&theirs);
    }
    for (size_t i = 0; i < own_count; i++)
        free(own[i]);
    for (size_t i = 0; i < other_count; i++)
        free(other[i]);
}

/* Each file gone, cut at each step of 4 KiB, with a page of zeros; tables and manifest are always found. */
static void hurt_each(Fixture *fixture, const char *folder, const char *wanted, uint32_t one_in,
                      uint64_t *random)
{
    char *own[512];
    size_t count = names_in(fixture->world.directory, folder, wanted, own, 512);
    bool must = strcmp(folder, "wal") != 0;
    for (size_t i = 0; i < count; i++) {
        char *source = path_join(fixture->world.directory, own[i]);
        uint64_t size = size_of(source);
        free(source);
        for (uint64_t at = 0; at < size; at += 4096) {
            for (int zeros = 0; zeros <= 1; zeros++) {
                if (test_random_below(random, one_in) != 0)
                    continue;
                Damage damage = {.directory = fresh_copy(fixture), .random = at | 1};
                char *path = path_join(damage.directory, own[i]);
                bool changed = true;
                if (at == 0 && zeros == 0) {
                    gone(&damage, path);
                } else if (zeros == 0) {
                    ck_assert_int_eq(truncate(path, (off_t)at), 0);
                } else {
                    uint8_t page[4096] = {0}, before[4096];
                    size_t piece = size - at < 4096 ? (size_t)(size - at) : 4096;
                    int fd = open(path, O_RDWR);
                    ck_assert_int_eq(pread(fd, before, piece, (off_t)at), (ssize_t)piece);
                    changed = memcmp(before, page, piece) != 0;
                    ck_assert_int_eq(pwrite(fd, page, piece, (off_t)at), (ssize_t)piece);
                    close(fd);
                }
                check_damaged(fixture, damage.directory, own[i], must && changed,
                              zeros ? "a page of zeros" : "a file cut short or gone");
                free(path);
                test_directory_destroy(damage.directory);
            }
        }
        free(own[i]);
    }
}

START_TEST(misplaced_files)
{
    uint64_t seed = test_seed("misplaced");
    const char *full = getenv("AIDB_DAMAGE");
    bool all = full != NULL && strcmp(full, "full") == 0;
    for (int round = 0; round < (all ? 20 : 1); round++) {
        Fixture fixture;
        fixture_make(&fixture, seed + (uint64_t)round * 104729);
        uint64_t random = (seed + (uint64_t)round) | 1;
        const char *foreign = fixture.foreign.directory;
        put_other(&fixture, foreign, "sst", ".sst", "a table of another database");
        put_other(&fixture, fixture.diverged, "sst", ".sst", "a table of a copy that went on");
        put_other(&fixture, foreign, "", "MANIFEST", "the manifest of another database");
        put_other(&fixture, fixture.older, "", "MANIFEST", "an older manifest");
        put_other(&fixture, fixture.diverged, "", "MANIFEST",
                  "the manifest of a copy that went on");
        put_other(&fixture, foreign, "", "CURRENT", "CURRENT of another database");
        put_other(&fixture, foreign, "wal", ".0", "a segment of another database");
        put_other(&fixture, fixture.older, "wal", ".0", "an older segment");
        put_other(&fixture, fixture.diverged, "wal", ".0", "a segment of a copy that went on");
        put_other(&fixture, foreign, "wal", "ring", "the ring of another database");
        put_other(&fixture, fixture.older, "wal", "ring", "an older ring");
        put_other(&fixture, fixture.diverged, "wal", "ring", "the ring of a copy that went on");
        hurt_each(&fixture, "sst", ".sst", all ? 1 : 8, &random);
        hurt_each(&fixture, "", "MANIFEST", 1, &random);
        hurt_each(&fixture, "", "CURRENT", 1, &random);
        hurt_each(&fixture, "wal", ".0", all ? 1 : 4, &random);
        hurt_each(&fixture, "wal", "ring", all ? 1 : 2, &random);
        printf(
            "%llu stores with a file of another place or time, cut or zeroed: %llu did not open, "
            "%llu gave errors for some keys, %llu were right\n",
            (unsigned long long)fixture.checks, (unsigned long long)fixture.refused,
            (unsigned long long)fixture.failed_reads, (unsigned long long)fixture.right);
        fixture_free(&fixture);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("repair");
    TCase *random_case = tcase_create("random");
    tcase_set_timeout(random_case, 0);
    tcase_add_test(random_case, random_damage);
    suite_add_tcase(suite, random_case);
    TCase *damage = tcase_create("damage");
    tcase_set_timeout(damage, 0);
    tcase_add_test(damage, misplaced_files);
    suite_add_tcase(suite, damage);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
