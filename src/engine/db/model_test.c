/*
 * model_test.c - the store against a model.
 *
 * The model is an array of keys; snapshots are copies of it. Reopening comes in two forms: after a clean
 * stop, and as a killed process leaves the files.
 */
#include "config.h"

#include "engine/db/db_internal.h"
#include "engine/db/test_store.h"

#include "io/io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEYS           120
#define SNAPSHOTS      4
#define VALUE_MAX_TEST 3000

typedef struct ModelEntry {
    bool present;
    uint64_t lsn; /* 0: not known (written in a batch of several) */
    uint32_t size;
    uint8_t byte;
} ModelEntry;

typedef struct Model {
    ModelEntry entries[KEYS];
} Model;

typedef struct World {
    Store store;
    Model now;
    Model frozen[SNAPSHOTS];
    uint64_t lsns[SNAPSHOTS];
    bool any_options;
} World;

static EngineOptions random_options(uint64_t *random)
{
    static const uint32_t block_sizes[] = {512, 1024, 4096, 32768}, filters[] = {0, 1, 10, 32},
                          multipliers[] = {2, 4, 10};
    static const Compression compressions[] = {COMPRESSION_NONE, COMPRESSION_ZSTD,
#ifdef HAVE_SNAPPY
                                               COMPRESSION_SNAPPY
#else
                                               COMPRESSION_NONE
#endif
    };
    static const int32_t levels[] = {-1, 1, 3};
    static const aidb_durability durabilities[] = {AIDB_ASYNC, AIDB_OS, AIDB_FSYNC};
    EngineOptions options = small_options();
    options.memtable_size = (uint64_t)16384 << test_random_below(random, 6);
    options.cache_size = (uint64_t)1 << (20 + test_random_below(random, 4));
    options.block_size = block_sizes[test_random_below(random, 4)];
    options.compression = compressions[test_random_below(random, 3)];
    options.compression_level = levels[test_random_below(random, 3)];
    options.filter_bits = filters[test_random_below(random, 4)];
    options.table_size = (uint64_t)8192 << test_random_below(random, 6);
    options.level_base_size = (uint64_t)32768 << test_random_below(random, 5);
    options.level_multiplier = multipliers[test_random_below(random, 3)];
    options.level0_files = (uint32_t)1 << test_random_below(random, 4);
    options.durability = durabilities[test_random_below(random, 3)];
    options.wal_segment_size = (uint64_t)16384 << test_random_below(random, 5);
    options.wal_ring_size = (uint64_t)16384 << test_random_below(random, 5);
    return options;
}

static void world_create(World *world, uint64_t seed)
{
    memset(world, 0, sizeof *world);
    store_create(&world->store, seed);
}

static void world_create_any(World *world, uint64_t seed)
{
    EngineOptions options = random_options(&seed);
    memset(world, 0, sizeof *world);
    store_create_with(&world->store, seed, &options);
    world->any_options = true;
}

/* ---- writing -------------------------------------------------------------------------------- */

static void add_put(World *world, Batch *batch, uint32_t index)
{
    static uint8_t value[VALUE_MAX_TEST];
    char key[16];
    key_of(index, key);
    uint32_t size = (uint32_t)test_random_below(
        &world->store.random,
        test_random_below(&world->store.random, 10) == 0 ? VALUE_MAX_TEST : 100);
    uint8_t byte = (uint8_t)test_random(&world->store.random);
    memset(value, byte, size);
    ok(batch_put(batch, slice_from_string(key), slice_make(value, size)));
    world->now.entries[index] = (ModelEntry){.present = true, .size = size, .byte = byte};
}

static void add_delete(World *world, Batch *batch, uint32_t index)
{
    char key[16];
    key_of(index, key);
    ok(batch_delete(batch, slice_from_string(key)));
    world->now.entries[index] = (ModelEntry){0};
}

static void add_delete_range(World *world, Batch *batch)
{
    uint32_t from = (uint32_t)test_random_below(&world->store.random, KEYS);
    uint32_t to = from + (uint32_t)test_random_below(&world->store.random, 12);
    char from_key[16], to_key[16];
    key_of(from, from_key);
    key_of(to, to_key);
    bool open_end = test_random_below(&world->store.random, 40) == 0;
    ok(batch_delete_range(batch, slice_from_string(from_key),
                          open_end ? slice_make(NULL, 0) : slice_from_string(to_key)));
    for (uint32_t i = from; i < KEYS && (open_end || i < to); i++)
        world->now.entries[i] = (ModelEntry){0};
}

static void random_write(World *world)
{
    Batch batch = {0};
    uint32_t count = 1 + (uint32_t)test_random_below(&world->store.random, 4);
    uint32_t last_put = KEYS;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = (uint32_t)test_random_below(&world->store.random, KEYS);
        last_put = KEYS;
        switch (test_random_below(&world->store.random, 12)) {
        case 0:
        case 1:
        case 2:
            add_delete(world, &batch, index);
            break;
        case 3:
            if (test_random_below(&world->store.random, 3) == 0) {
                add_delete_range(world, &batch);
                break;
            }
            /* fall through */
        default:
            add_put(world, &batch, index);
            last_put = index;
        }
    }
    DbCommit commit;
    ok(write_batch(&world->store, &batch, &commit));
    if (last_put < KEYS)
        world->now.entries[last_put].lsn = commit.lsn;
    if (test_random_below(&world->store.random, 4) == 0) {
        ok(db_wait(world->store.client, commit.end, AIDB_FSYNC));
        ck_assert_uint_ge(db_durable_lsn(world->store.db), commit.lsn);
    }
    batch_deinit(&batch);
}

/* ---- reading -------------------------------------------------------------------------------- */

static void check_value(const ModelEntry *model, const Entry *entry)
{
    test_check(entry->value.size == model->size, "a value of %zu bytes, %u expected",
               entry->value.size, model->size);
    for (size_t i = 0; i < entry->value.size; i++)
        test_check(entry->value.data[i] == model->byte, "byte %zu of %u is %02x, %02x expected", i,
                   model->size, entry->value.data[i], model->byte);
    test_check(model->lsn == 0 || entry->lsn == model->lsn, "LSN %llu, %llu expected",
               (unsigned long long)entry->lsn, (unsigned long long)model->lsn);
}

/* Many keys together, some of them several times, some that were never there. In a read section. */
static void check_multi_get(World *world, const Model *model)
{
    enum { MANY = 70 };
    char texts[MANY][16];
    uint32_t indexes[MANY];
    Slice keys[MANY];
    Entry entries[MANY];
    size_t count = 1 + test_random_below(&world->store.random, MANY);
    for (size_t i = 0; i < count; i++) {
        indexes[i] = (uint32_t)test_random_below(&world->store.random, KEYS + 10);
        key_of(indexes[i], texts[i]);
        keys[i] = slice_from_string(texts[i]);
    }
    ok(db_read_multi_get(world->store.client, count, keys, entries));
    for (size_t i = 0; i < count; i++) {
        bool present = indexes[i] < KEYS && model->entries[indexes[i]].present;
        test_check((entries[i].lsn != 0) == present, "key %s: expected %s", texts[i],
                   present ? "present" : "absent");
        if (present)
            check_value(&model->entries[indexes[i]], &entries[i]);
    }
}

static void check_gets(World *world, const Model *model, uint64_t snapshot)
{
    uint64_t at;
    ok(db_read_begin(world->store.client, snapshot, &at));
    for (uint32_t i = 0; i < KEYS; i++) {
        char key[16];
        key_of(i, key);
        Entry entry;
        Status status = db_read_get(world->store.client, slice_from_string(key), &entry);
        test_check(status == (model->entries[i].present ? AIDB_OK : AIDB_NOT_FOUND),
                   "key %s: %s, expected %s", key, status_name(status),
                   model->entries[i].present ? "present" : "absent");
        if (status == AIDB_OK)
            check_value(&model->entries[i], &entry);
    }
    check_multi_get(world, model);
    db_read_end(world->store.client);
}

typedef struct ScanCheck {
    const Model *model;
    uint32_t next; /* index that must come next or later */
    bool reverse;
    uint32_t from, to;
    uint32_t left; /* rows until the chunk ends */
    char last[16];
} ScanCheck;

static bool check_row(void *arg, const Entry *entry)
{
    ScanCheck *check = arg;
    memcpy(check->last, entry->key.data, entry->key.size);
    check->last[entry->key.size] = '\0';
    uint32_t index = (uint32_t)strtoul(check->last + 3, NULL, 10);
    if (check->reverse) {
        while (check->next > index) /* what is skipped must be absent */
            test_check(!check->model->entries[--check->next].present || check->next == index,
                       "reverse scan skipped %u", check->next);
    } else {
        while (check->next < index) {
            test_check(!check->model->entries[check->next].present, "scan skipped %u", check->next);
            check->next++;
        }
    }
    test_check(check->next == index, "scan found %u, %u was next", index, check->next);
    check->next += !check->reverse;
    test_check(check->model->entries[index].present, "scan found deleted key %u", index);
    check_value(&check->model->entries[index], entry);
    return --check->left > 0;
}

static void check_scan(World *world, const Model *model, uint64_t snapshot, bool reverse)
{
    char from[16] = "", to[17] = "";
    uint32_t low = 0, high = KEYS;
    if (test_random_below(&world->store.random, 2) == 0) {
        low = (uint32_t)test_random_below(&world->store.random, KEYS);
        key_of(low, from);
    }
    if (test_random_below(&world->store.random, 2) == 0) {
        high = (uint32_t)test_random_below(&world->store.random, KEYS);
        key_of(high, to);
    }
    if (low > high)
        return;
    uint32_t chunk = 1 + (uint32_t)test_random_below(&world->store.random, KEYS);
    ScanCheck check = {.model = model, .next = reverse ? high : low, .reverse = reverse};
    DbScan scan = {.from = slice_from_string(from),
                   .to = slice_from_string(to),
                   .reverse = reverse,
                   .walked = test_random_below(&world->store.random, 2) == 0 ? UINT64_MAX : 0};
    bool ended = false;
    char bound[17];
    while (!ended) {
        uint64_t at;
        check.left = chunk;
        ok(db_scan(world->store.client, snapshot, &scan, check_row, &check, &ended, &at));
        if (ended)
            break;
        memcpy(bound, check.last, sizeof check.last);
        if (reverse)
            scan.to = slice_from_string(bound);
        else
            scan.from = slice_make(bound, strlen(bound) + 1);
    }
    if (reverse) {
        while (check.next > low) {
            check.next--;
            test_check(!model->entries[check.next].present, "reverse scan missed %u", check.next);
        }
    } else {
        for (; check.next < high; check.next++)
            test_check(!model->entries[check.next].present, "scan missed %u", check.next);
    }
}

static void check_all(World *world)
{
    check_gets(world, &world->now, DB_NOW);
    check_scan(world, &world->now, DB_NOW, false);
    check_scan(world, &world->now, DB_NOW, true);
    for (int i = 0; i < SNAPSHOTS; i++) {
        if (world->lsns[i] == 0)
            continue;
        check_gets(world, &world->frozen[i], world->lsns[i]);
        check_scan(world, &world->frozen[i], world->lsns[i], false);
        check_scan(world, &world->frozen[i], world->lsns[i], true);
    }
}

static void toggle_snapshot(World *world)
{
    int i = (int)test_random_below(&world->store.random, SNAPSHOTS);
    if (world->lsns[i] != 0) {
        db_snapshot_release(world->store.client, world->lsns[i]);
        world->lsns[i] = 0;
    } else {
        ok(db_snapshot_acquire(world->store.client, &world->lsns[i]));
        world->frozen[i] = world->now;
    }
}

static void reopen(World *world, bool clean)
{
    for (int i = 0; i < SNAPSHOTS; i++) {
        if (world->lsns[i] != 0)
            db_snapshot_release(world->store.client, world->lsns[i]);
        world->lsns[i] = 0;
    }
    store_close(&world->store, clean);
    /* Tables made under other settings stay readable. */
    if (world->any_options && test_random_below(&world->store.random, 3) == 0)
        world->store.options = random_options(&world->store.random);
    store_open(&world->store);
    check_all(world);
}

static void random_action(World *world)
{
    switch (test_random_below(&world->store.random, 400)) {
    case 0:
        reopen(world, true);
        break;
    case 1:
    case 2:
        reopen(world, false);
        break;
    case 3:
        ok(db_flush(world->store.client));
        break;
    case 4:
        ok(db_compact(world->store.client, slice_make(NULL, 0), slice_make(NULL, 0)));
        break;
    case 5:
        ok(db_compact(world->store.client, slice_from_string("key0030"),
                      slice_from_string("key0060")));
        break;
    case 6:
    case 7:
    case 8:
    case 9:
    case 10:
        check_all(world);
        break;
    case 11:
    case 12:
    case 13:
    case 14:
        toggle_snapshot(world);
        break;
    case 15:
    case 16:
    case 17:
    case 18:
    case 19:
    case 20:
        step(world->store.wal_writer);
        break;
    case 21:
    case 22:
    case 23:
    case 24:
    case 25:
    case 26:
    case 27:
    case 28:
        step(world->store.compactor);
        break;
    default:
        random_write(world);
        step(world->store.flusher);
    }
}

#define ACTIONS     5000
#define OPTION_SETS 20 /* AIDB_ROUNDS says how many a release takes */

static int option_sets(void)
{
    const char *rounds = getenv("AIDB_ROUNDS");
    return rounds != NULL ? atoi(rounds) : OPTION_SETS;
}

START_TEST(model_matches)
{
    uint64_t seed = test_seed("model_matches") + (uint64_t)_i * 7919;
    World world;
    /* No power is lost here, so thousands of syncs need no disk. */
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0);
    if (_i == 0)
        world_create(&world, seed);
    else
        world_create_any(&world, seed);
    for (int i = 0; i < ACTIONS; i++)
        random_action(&world);
    check_all(&world);
    store_destroy(&world.store);
}
END_TEST

/* ---- what holds of any store ---------------------------------------------------------------- */

START_TEST(many_starts_in_a_row)
{
    World world;
    world_create(&world, 5);
    /* Nothing written, little written, clean and not: more often than the manifest can list logs. */
    for (int i = 0; i < WAL_STARTS_MAX + 6; i++) {
        if (i % 3 == 1)
            random_write(&world);
        reopen(&world, i % 2 == 0);
        ck_assert_uint_lt(world.store.db->shared->versions.start_count, WAL_STARTS_MAX / 2);
    }
    check_all(&world);
    store_destroy(&world.store);
}
END_TEST

static void count_damage(void *arg, const char *path, uint64_t offset, const char *what)
{
    (void)offset;
    printf("damage: %s: %s\n", path, what);
    ++*(int *)arg;
}

START_TEST(verify_finds_nothing_in_a_sound_store)
{
    World world;
    world_create(&world, 77);
    for (int i = 0; i < 3000; i++) {
        random_write(&world);
        step(world.store.flusher);
        if (i % 50 == 0)
            step(world.store.compactor);
    }
    int damage = 0;
    ok(db_verify(world.store.directory, true, count_damage, &damage));
    ck_assert_int_eq(damage, 0);
    store_close(&world.store, false);
    ok(db_verify(world.store.directory, false, count_damage, &damage));
    ck_assert_int_eq(damage, 0);
    store_open(&world.store);
    check_all(&world);
    store_destroy(&world.store);
}
END_TEST

START_TEST(a_missing_table_is_corruption)
{
    World world;
    world_create(&world, 1);
    for (int i = 0; i < 200; i++)
        random_write(&world);
    ok(db_flush(world.store.client));
    uint64_t number = 0;
    for (int level = 0; level < LEVELS; level++)
        if (world.store.db->shared->versions.current->levels[level].count > 0)
            number = world.store.db->shared->versions.current->levels[level].files[0]->info.number;
    store_close(&world.store, true);
    char name[TABLE_NAME_SIZE];
    table_name(number, name);
    char *sst = path_join(world.store.directory, "sst");
    char *path = path_join(sst, name);
    ok(file_unlink(path));
    ok(db_setup(world.store.directory, &world.store.options, &(DbSlots){.count = 8},
                &world.store.db));
    ok(db_session_create(world.store.db, UINT32_MAX, SLOT_THREAD, &world.store.client));
    ck_assert_int_eq(db_recover(world.store.db, world.store.client), AIDB_CORRUPTION);
    ck_assert_ptr_nonnull(strstr(status_message(), name));
    db_session_destroy(world.store.client);
    db_destroy(world.store.db);
    free(path);
    free(sst);
    test_directory_destroy(world.store.directory);
}
END_TEST

TCase *model_cases(void)
{
    TCase *tests = tcase_create("model");
    tcase_set_timeout(tests, 0);
    tcase_add_loop_test(tests, model_matches, 0, option_sets());
    tcase_add_test(tests, many_starts_in_a_row);
    tcase_add_test(tests, verify_finds_nothing_in_a_sound_store);
    tcase_add_test(tests, a_missing_table_is_corruption);
    return tests;
}
