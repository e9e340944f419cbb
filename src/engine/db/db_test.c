/*
 * db_test.c - the store against a model.
 *
 * One process plays writer, reader and all background duties in turn, so a seed replays exactly. The
 * model is an array of keys; snapshots are copies of it. Reopening comes in two forms: after a clean
 * stop, and as a killed process leaves the files (everything written survives, since the ring is a
 * mapped file).
 */
#include "config.h"

#include "engine/db/db.h"
#include "engine/db/db_internal.h"

#include "io/io.h"
#include "testlib/testlib.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define KEYS           120
#define SNAPSHOTS      4
#define NUMBERS        3000 /* keys of tests that need tables of some size */
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
    char *directory;
    EngineOptions options;
    Db *db;
    Session *client;
    Session *flusher;
    Session *compactor;
    Session *wal_writer;
    Model now;
    Model frozen[SNAPSHOTS];
    uint64_t lsns[SNAPSHOTS];
    uint64_t random;
} World;

static EngineOptions small_options(void)
{
    return (EngineOptions){.memory = 24u << 20,
                           .memtable_size = 128u << 10,
                           .cache_size = 2u << 20,
                           .block_size = 1024,
                           .compression = COMPRESSION_ZSTD,
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

static void ok(Status status)
{
    ck_assert_msg(status == AIDB_OK, "%s: %s", status_name(status), status_message());
}

static void key_of(uint32_t index, char key[16])
{
    snprintf(key, 16, "key%04u", index);
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

static void world_create(World *world, uint64_t seed)
{
    memset(world, 0, sizeof *world);
    world->random = seed;
    world->options = small_options();
    world->directory = test_directory_create();
    ok(db_create(world->directory, &world->options));
    world_open(world);
}

static void world_destroy(World *world)
{
    world_close(world, true);
    test_directory_destroy(world->directory);
}

/* ---- writing -------------------------------------------------------------------------------- */

static void step(Session *session)
{
    int wait_ms;
    ok(db_step(session, &wait_ms));
}

static Status write_batch(World *world, const Batch *batch, DbCommit *commit)
{
    DbWrite write = {.ops = buffer_slice(&batch->ops),
                     .op_count = batch->op_count,
                     .range_count = batch->range_count,
                     .expectations = buffer_slice(&batch->expectations),
                     .expectation_count = batch->expectation_count};
    return db_write(world->client, &write, commit);
}

static void add_put(World *world, Batch *batch, uint32_t index)
{
    static uint8_t value[VALUE_MAX_TEST];
    char key[16];
    key_of(index, key);
    uint32_t size = (uint32_t)test_random_below(
        &world->random, test_random_below(&world->random, 10) == 0 ? VALUE_MAX_TEST : 100);
    uint8_t byte = (uint8_t)test_random(&world->random);
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
    uint32_t from = (uint32_t)test_random_below(&world->random, KEYS);
    uint32_t to = from + (uint32_t)test_random_below(&world->random, 12);
    char from_key[16], to_key[16];
    key_of(from, from_key);
    key_of(to, to_key);
    bool open_end = test_random_below(&world->random, 40) == 0;
    ok(batch_delete_range(batch, slice_from_string(from_key),
                          open_end ? slice_make(NULL, 0) : slice_from_string(to_key)));
    for (uint32_t i = from; i < KEYS && (open_end || i < to); i++)
        world->now.entries[i] = (ModelEntry){0};
}

static void random_write(World *world)
{
    Batch batch = {0};
    uint32_t count = 1 + (uint32_t)test_random_below(&world->random, 4);
    uint32_t last_put = KEYS;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = (uint32_t)test_random_below(&world->random, KEYS);
        last_put = KEYS;
        switch (test_random_below(&world->random, 12)) {
        case 0:
        case 1:
        case 2:
            add_delete(world, &batch, index);
            break;
        case 3:
            if (test_random_below(&world->random, 3) == 0) {
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
    ok(write_batch(world, &batch, &commit));
    if (last_put < KEYS)
        world->now.entries[last_put].lsn = commit.lsn;
    if (test_random_below(&world->random, 4) == 0) {
        ok(db_wait(world->client, commit.end, AIDB_FSYNC));
        ck_assert_uint_ge(db_durable_lsn(world->db), commit.lsn);
    }
    batch_deinit(&batch);
}

/* ---- reading -------------------------------------------------------------------------------- */

static void check_value(const ModelEntry *model, const Entry *entry)
{
    ck_assert_uint_eq(entry->value.size, model->size);
    for (size_t i = 0; i < entry->value.size; i++)
        ck_assert_uint_eq(entry->value.data[i], model->byte);
    if (model->lsn != 0)
        ck_assert_uint_eq(entry->lsn, model->lsn);
}

/* Many keys together, some of them several times, some that were never there. In a read section. */
static void check_multi_get(World *world, const Model *model)
{
    enum { MANY = 70 };
    char texts[MANY][16];
    uint32_t indexes[MANY];
    Slice keys[MANY];
    Entry entries[MANY];
    size_t count = 1 + test_random_below(&world->random, MANY);
    for (size_t i = 0; i < count; i++) {
        indexes[i] = (uint32_t)test_random_below(&world->random, KEYS + 10);
        key_of(indexes[i], texts[i]);
        keys[i] = slice_from_string(texts[i]);
    }
    ok(db_read_multi_get(world->client, count, keys, entries));
    for (size_t i = 0; i < count; i++) {
        bool present = indexes[i] < KEYS && model->entries[indexes[i]].present;
        ck_assert_msg((entries[i].lsn != 0) == present, "key %s: expected %s", texts[i],
                      present ? "present" : "absent");
        if (present)
            check_value(&model->entries[indexes[i]], &entries[i]);
    }
}

static void check_gets(World *world, const Model *model, uint64_t snapshot)
{
    uint64_t at;
    ok(db_read_begin(world->client, snapshot, &at));
    for (uint32_t i = 0; i < KEYS; i++) {
        char key[16];
        key_of(i, key);
        Entry entry;
        Status status = db_read_get(world->client, slice_from_string(key), &entry);
        ck_assert_msg(status == (model->entries[i].present ? AIDB_OK : AIDB_NOT_FOUND),
                      "key %s: %s, expected %s", key, status_name(status),
                      model->entries[i].present ? "present" : "absent");
        if (status == AIDB_OK)
            check_value(&model->entries[i], &entry);
    }
    check_multi_get(world, model);
    db_read_end(world->client);
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
            ck_assert_msg(!check->model->entries[--check->next].present || check->next == index,
                          "reverse scan skipped %u", check->next);
        ck_assert_uint_eq(check->next, index);
    } else {
        while (check->next < index) {
            ck_assert_msg(!check->model->entries[check->next].present, "scan skipped %u",
                          check->next);
            check->next++;
        }
        ck_assert_uint_eq(check->next, index);
        check->next++;
    }
    ck_assert_msg(check->model->entries[index].present, "scan found deleted key %u", index);
    check_value(&check->model->entries[index], entry);
    return --check->left > 0;
}

static void check_scan(World *world, const Model *model, uint64_t snapshot, bool reverse)
{
    char from[16] = "", to[17] = "";
    uint32_t low = 0, high = KEYS;
    if (test_random_below(&world->random, 2) == 0) {
        low = (uint32_t)test_random_below(&world->random, KEYS);
        key_of(low, from);
    }
    if (test_random_below(&world->random, 2) == 0) {
        high = (uint32_t)test_random_below(&world->random, KEYS);
        key_of(high, to);
    }
    if (low > high)
        return;
    uint32_t chunk = 1 + (uint32_t)test_random_below(&world->random, KEYS);
    ScanCheck check = {.model = model, .next = reverse ? high : low, .reverse = reverse};
    DbScan scan = {.from = slice_from_string(from),
                   .to = slice_from_string(to),
                   .reverse = reverse,
                   .walked = test_random_below(&world->random, 2) == 0 ? UINT64_MAX : 0};
    bool ended = false;
    char bound[17];
    while (!ended) {
        uint64_t at;
        check.left = chunk;
        ok(db_scan(world->client, snapshot, &scan, check_row, &check, &ended, &at));
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
            ck_assert_msg(!model->entries[check.next].present, "reverse scan missed %u",
                          check.next);
        }
    } else {
        for (; check.next < high; check.next++)
            ck_assert_msg(!model->entries[check.next].present, "scan missed %u", check.next);
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
    int i = (int)test_random_below(&world->random, SNAPSHOTS);
    if (world->lsns[i] != 0) {
        db_snapshot_release(world->client, world->lsns[i]);
        world->lsns[i] = 0;
    } else {
        ok(db_snapshot_acquire(world->client, &world->lsns[i]));
        world->frozen[i] = world->now;
    }
}

static void reopen(World *world, bool clean)
{
    for (int i = 0; i < SNAPSHOTS; i++) {
        if (world->lsns[i] != 0)
            db_snapshot_release(world->client, world->lsns[i]);
        world->lsns[i] = 0;
    }
    world_close(world, clean);
    world_open(world);
}

static void random_action(World *world)
{
    switch (test_random_below(&world->random, 400)) {
    case 0:
        reopen(world, true);
        break;
    case 1:
    case 2:
        reopen(world, false);
        break;
    case 3:
        ok(db_flush(world->client));
        break;
    case 4:
        ok(db_compact(world->client, slice_make(NULL, 0), slice_make(NULL, 0)));
        break;
    case 5:
        ok(db_compact(world->client, slice_from_string("key0030"), slice_from_string("key0060")));
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
        step(world->wal_writer);
        break;
    case 21:
    case 22:
    case 23:
    case 24:
    case 25:
    case 26:
    case 27:
    case 28:
        step(world->compactor);
        break;
    default:
        random_write(world);
        step(world->flusher);
    }
}

static void run_model(uint64_t seed, int actions)
{
    World world;
    world_create(&world, seed);
    for (int i = 0; i < actions; i++)
        random_action(&world);
    check_all(&world);
    world_destroy(&world);
}

START_TEST(model_matches)
{
    uint64_t seed = test_seed("model_matches") + (uint64_t)_i * 7919;
    run_model(seed, 1500);
}
END_TEST

/* ---- single promises ------------------------------------------------------------------------ */

START_TEST(expectations_are_checked_with_the_write)
{
    World world;
    world_create(&world, 1);
    Batch batch = {0};
    DbCommit commit;
    ok(batch_put(&batch, slice_from_string("a"), slice_from_string("1")));
    ok(batch_expect(&batch, slice_from_string("a"), AIDB_EXPECT_ABSENT, 0));
    ok(write_batch(&world, &batch, &commit));
    uint64_t version = commit.lsn;
    ck_assert_int_eq(write_batch(&world, &batch, &commit), AIDB_EXPECTATION);
    ck_assert_uint_eq(commit.present_version, version);
    ck_assert_uint_eq(commit.failed_expectation, 0);
    batch_clear(&batch);
    ok(batch_put(&batch, slice_from_string("a"), slice_from_string("2")));
    ok(batch_expect(&batch, slice_from_string("a"), AIDB_EXPECT_VERSION, version));
    ok(write_batch(&world, &batch, &commit));
    ck_assert_uint_gt(commit.lsn, version);
    ck_assert_int_eq(write_batch(&world, &batch, &commit), AIDB_EXPECTATION);
    /* The same when what was read has gone to tables. */
    ok(db_flush(world.client));
    ck_assert_int_eq(write_batch(&world, &batch, &commit), AIDB_EXPECTATION);
    batch_clear(&batch);
    ok(batch_delete(&batch, slice_from_string("b")));
    ok(batch_expect(&batch, slice_from_string("b"), AIDB_EXPECT_PRESENT, 0));
    ck_assert_int_eq(write_batch(&world, &batch, &commit), AIDB_EXPECTATION);
    ck_assert_uint_eq(commit.present_version, 0);
    batch_deinit(&batch);
    world_destroy(&world);
}
END_TEST

static void put_numbers(World *world, uint32_t from, uint32_t by)
{
    for (uint32_t i = from; i < NUMBERS; i += by) {
        char key[16], value[100];
        key_of(i, key);
        for (size_t at = 0; at < sizeof value; at++)
            value[at] = (char)test_random(&world->random);
        Batch batch = {0};
        DbCommit commit;
        ok(batch_put(&batch, slice_from_string(key), slice_make(value, sizeof value)));
        ok(write_batch(world, &batch, &commit));
        batch_deinit(&batch);
        step(world->flusher);
    }
}

/* Gets all; returns how many blocks were not in the cache. */
static uint64_t get_numbers(World *world)
{
    SlotTable *slots = &world->db->shared->slots;
    uint64_t before = slot_stat_sum(slots, STAT_CACHE_MISSES);
    for (uint32_t i = 0; i < NUMBERS; i++) {
        char key[16];
        key_of(i, key);
        uint64_t at;
        Entry entry;
        ok(db_read_begin(world->client, DB_NOW, &at));
        ok(db_read_get(world->client, slice_from_string(key), &entry));
        db_read_end(world->client);
    }
    return slot_stat_sum(slots, STAT_CACHE_MISSES) - before;
}

/* What readers had in memory they have there after flushes and compactions; what nobody reads does not
 * come into the cache. */
START_TEST(tables_are_written_warm)
{
    World world;
    world_create(&world, 1);
    world_close(&world, true);
    world.options.memory = 40u << 20;
    world.options.cache_size = 16u << 20; /* room for each size of block */
    world_open(&world);
    uint64_t used, capacity, blocks;
    put_numbers(&world, 0, 1);
    ok(db_compact(world.client, slice_make(NULL, 0), slice_make(NULL, 0)));
    cache_usage(world.db->shared->cache, &used, &capacity, &blocks);
    ck_assert_uint_eq(blocks, 0);

    uint64_t data_blocks = NUMBERS / 10; /* of 1 KiB, at least */
    ck_assert_uint_gt(get_numbers(&world), data_blocks);
    ck_assert_uint_eq(get_numbers(&world), 0);
    put_numbers(&world, 0, 3);
    ok(db_flush(world.client));
    ck_assert_uint_lt(get_numbers(&world), data_blocks / 4); /* filters and indexes */
    ok(db_compact(world.client, slice_make(NULL, 0), slice_make(NULL, 0)));
    ck_assert_uint_lt(get_numbers(&world), data_blocks / 4);
    world_destroy(&world);
}
END_TEST

/* A write that comes between the reading of an expectation and the check under the lock must be seen,
 * also when it is in a memtable that was sealed meanwhile and the active one is still empty. */
START_TEST(expectations_see_a_sealed_memtable)
{
    World world;
    world_create(&world, 1);
    Batch batch = {0};
    DbCommit first, commit;
    ok(batch_put(&batch, slice_from_string("a"), slice_from_string("1")));
    ok(write_batch(&world, &batch, &first));
    ok(write_batch(&world, &batch, &commit)); /* the version moves on */
    lock_acquire(&world.db->shared->write_lock, world.client->slot);
    ok(view_switch_memtable(world.client)); /* the active memtable is empty now */
    lock_release(&world.db->shared->write_lock, world.client->slot);
    epoch_enter(&world.db->shared->epochs, world.client->slot);
    const ReadView *view = atomic_load(&world.db->shared->view);
    ck_assert(view_changed_since(view, slice_from_string("a"), first.lsn));
    ck_assert(!view_changed_since(view, slice_from_string("a"), commit.lsn));
    ck_assert(!view_changed_since(view, slice_from_string("b"), first.lsn));
    epoch_leave(world.client->slot);
    batch_deinit(&batch);
    world_destroy(&world);
}
END_TEST

START_TEST(large_batches_pass)
{
    World world;
    world_create(&world, 1);
    size_t size = 3u << 20; /* many times the ring and the memtable */
    uint8_t *value = malloc(size);
    ck_assert_ptr_nonnull(value);
    for (int round = 0; round < 4; round++) {
        memset(value, 'a' + round, size);
        Batch batch = {0};
        ok(batch_put(&batch, slice_from_string("large"), slice_make(value, size)));
        DbCommit commit;
        ok(write_batch(&world, &batch, &commit));
        ok(db_flush(world.client)); /* nobody else would make room for the next one */
        batch_deinit(&batch);
        if (round == 2) {
            world_close(&world, false);
            world_open(&world);
        }
        uint64_t at;
        Entry entry;
        ok(db_read_begin(world.client, DB_NOW, &at));
        ok(db_read_get(world.client, slice_from_string("large"), &entry));
        ck_assert_uint_eq(entry.value.size, size);
        ck_assert_int_eq(memcmp(entry.value.data, value, size), 0);
        db_read_end(world.client);
    }
    Batch batch = {0};
    free(value);
    value = calloc(1, 5u << 20);
    ok(batch_put(&batch, slice_from_string("too large"), slice_make(value, 5u << 20)));
    DbCommit commit;
    ck_assert_int_eq(write_batch(&world, &batch, &commit), AIDB_LIMIT);
    batch_deinit(&batch);
    free(value);
    world_destroy(&world);
}
END_TEST

/* With every memtable waiting and none that can be flushed, a flush and a stop end with the reason. */
/* Range deletes that do not overlap need memory for each of them, not for each two. */
START_TEST(many_range_deletes_in_a_batch)
{
    enum { RANGES = 5000 };
    World world;
    world_create(&world, 1);
    DbCommit commit;
    for (int pass = 0; pass < 2; pass++) {
        Batch batch = {0};
        for (int i = 0; i < 2 * RANGES; i++) {
            char from[16], to[16];
            snprintf(from, sizeof from, "range%06d", i);
            snprintf(to, sizeof to, "range%06d", i + 1);
            if (pass == 0)
                ok(batch_put(&batch, slice_from_string(from), slice_make("v", 1)));
            else if (i % 2 == 0)
                ok(batch_delete_range(&batch, slice_from_string(from), slice_from_string(to)));
        }
        ok(write_batch(&world, &batch, &commit));
        batch_deinit(&batch);
        if (pass == 0)
            ok(db_flush(world.client)); /* nobody else would make room */
    }
    ok(db_wait(world.client, commit.end, AIDB_FSYNC));
    for (int look = 0; look < 3; look++) {
        uint64_t snapshot, count;
        ok(db_snapshot_acquire(world.client, &snapshot));
        ok(db_count(world.client, snapshot, slice_make(NULL, 0), slice_make(NULL, 0), &count));
        db_snapshot_release(world.client, snapshot);
        ck_assert_uint_eq(count, RANGES);
        if (look == 0) { /* from the log */
            world_close(&world, false);
            world_open(&world);
        } else { /* from tables */
            ok(db_flush(world.client));
        }
    }
    Batch nested = {0};
    for (int i = 0; i < RANGES; i++) {
        char from[16], to[16];
        snprintf(from, sizeof from, "a%06d", i);
        snprintf(to, sizeof to, "z%06d", RANGES - i);
        ok(batch_delete_range(&nested, slice_from_string(from), slice_from_string(to)));
    }
    ck_assert_int_eq(write_batch(&world, &nested, &commit), AIDB_LIMIT);
    ck_assert_ptr_nonnull(strstr(status_text(), "range deletes"));
    batch_deinit(&nested);
    world_destroy(&world);
}
END_TEST

START_TEST(a_flush_that_cannot_be_done_ends)
{
    World world;
    world_create(&world, 1);
    char *sst = path_join(world.directory, "sst");
    char *aside = path_join(world.directory, "aside");
    ck_assert_int_eq(rename(sst, aside), 0);
    for (int i = 0; i < 2 * MEMTABLES_MAX; i++) {
        Batch batch = {0};
        DbCommit commit;
        char key[16];
        key_of((uint32_t)i, key);
        ok(batch_put(&batch, slice_from_string(key), slice_make("v", 1)));
        ok(write_batch(&world, &batch, &commit));
        batch_deinit(&batch);
        Status status = db_flush(world.client);
        ck_assert(status != AIDB_OK && status != AIDB_FAILED);
    }
    Status status = db_stop(world.db, world.client, true);
    ck_assert(status != AIDB_OK && status != AIDB_FAILED);
    ck_assert_int_eq(rename(aside, sst), 0);
    ok(db_flush(world.client));
    uint64_t at;
    Entry entry;
    ok(db_read_begin(world.client, DB_NOW, &at));
    for (uint32_t i = 0; i < 2 * MEMTABLES_MAX; i++) {
        char key[16];
        key_of(i, key);
        ok(db_read_get(world.client, slice_from_string(key), &entry));
    }
    db_read_end(world.client);
    free(sst);
    free(aside);
    world_destroy(&world);
}
END_TEST

static uint32_t deleted_files_open(void)
{
    uint32_t count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        char path[64], name[512];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t size = readlink(path, name, sizeof name - 1);
        if (size > 0) {
            name[size] = '\0';
            count += strstr(name, ".sst (deleted)") != NULL;
        }
    }
    return count;
}

/* A compactor keeps no table open that it did away with, whoever unlinks it. */
START_TEST(inputs_are_closed)
{
    World world;
    world_create(&world, 1);
    Session *other;
    ok(db_session_create(world.db, UINT32_MAX, SLOT_COMPACTOR, &other));
    int wait_ms;
    for (uint32_t i = 0; i < 12; i++) {
        Batch batch = {0};
        DbCommit commit;
        ok(batch_put(&batch, slice_from_string("key"), slice_make(&i, sizeof i)));
        ok(write_batch(&world, &batch, &commit));
        ok(db_flush(world.client));
        batch_deinit(&batch);
        ok(db_step(other, &wait_ms));
    }
    do
        ok(db_step(world.compactor, &wait_ms));
    while (wait_ms == 0);
    ck_assert_uint_gt(slot_stat_sum(&world.db->shared->slots, STAT_COMPACTIONS), 0);
    ck_assert_uint_eq(deleted_files_open(), 0);

    /* Nor do readers, from their next read on or when they rest. */
    Session *idle;
    ok(db_session_create(world.db, UINT32_MAX, SLOT_THREAD, &idle));
    Session *readers[] = {world.client, idle};
    uint64_t at;
    for (int i = 0; i < 2; i++) {
        Entry entry;
        ok(db_read_begin(readers[i], DB_NOW, &at));
        ok(db_read_get(readers[i], slice_from_string("key"), &entry));
        db_read_end(readers[i]);
    }
    ok(db_compact(other, slice_make(NULL, 0), slice_make(NULL, 0)));
    {
        Batch batch = {0};
        DbCommit commit;
        ok(batch_put(&batch, slice_from_string("key"), slice_make("v", 1)));
        ok(write_batch(&world, &batch, &commit));
        batch_deinit(&batch);
    }
    ok(db_compact(other, slice_make(NULL, 0), slice_make(NULL, 0)));
    ck_assert_uint_gt(deleted_files_open(), 0); /* or this shows nothing */
    db_session_rest(idle);
    ok(db_read_begin(world.client, DB_NOW, &at));
    db_read_end(world.client);
    ck_assert_uint_eq(deleted_files_open(), 0);
    db_session_destroy(idle);
    db_session_destroy(other);
    world_destroy(&world);
}
END_TEST

static bool never_called(void *arg, const Entry *entry)
{
    (void)arg;
    (void)entry;
    ck_abort_msg("a deleted key is a row");
    return true;
}

/* A scan that finds no row for long must not be deaf. */
START_TEST(a_scan_over_deleted_keys_is_canceled)
{
    World world;
    world_create(&world, 1);
    Batch batch = {0};
    DbCommit commit;
    for (uint32_t i = 0; i < 20000; i++) {
        char key[16];
        key_of(i, key);
        ok(batch_put(&batch, slice_from_string(key), slice_make(NULL, 0)));
    }
    ok(batch_delete_range(&batch, slice_make(NULL, 0), slice_make(NULL, 0)));
    ok(write_batch(&world, &batch, &commit));
    batch_deinit(&batch);
    for (int reverse = 0; reverse <= 1; reverse++) {
        DbScan scan = {.reverse = reverse == 1};
        bool ended;
        uint64_t at;
        atomic_store(&db_session_slot(world.client)->interrupt, SLOT_INTERRUPT_CANCEL);
        ck_assert_int_eq(db_scan(world.client, DB_NOW, &scan, never_called, NULL, &ended, &at),
                         AIDB_CANCELED);
        ck_assert(!ended);
        atomic_store(&db_session_slot(world.client)->interrupt, 0);
        ok(db_scan(world.client, DB_NOW, &scan, never_called, NULL, &ended, &at));
        ck_assert(ended);
    }
    world_destroy(&world);
}
END_TEST

/* What writers owe is scaled with the rate, and forgotten when there is no pressure any more. */
START_TEST(debts_follow_the_rate)
{
    World world;
    world_create(&world, 1);
    DbShared *shared = world.db->shared;
    for (uint32_t i = 0; i < 4; i++) {
        Batch batch = {0};
        DbCommit commit;
        ok(batch_put(&batch, slice_from_string("key"), slice_make(&i, sizeof i)));
        ok(write_batch(&world, &batch, &commit));
        ok(db_flush(world.client));
        batch_deinit(&batch);
    }
    DbDebt debt;
    for (int pressure = 1; pressure >= 0; pressure--) {
        atomic_store(&shared->throttle_rate, 1000);
        ok(throttle_write(world.client, 100u << 20, &debt)); /* more than a day */
        ck_assert_uint_gt(atomic_load(&shared->throttle_next_ns), port_monotonic_ns());
        shared->options.level0_files = pressure == 1 ? 1 : 100;
        throttle_update(world.client);
        ck_assert_int_eq(atomic_load(&shared->throttle_rate) != 0, pressure);
        if (pressure == 0)
            atomic_store(&shared->throttle_rate, 1u << 20);
        ok(throttle_write(world.client, 1, &debt)); /* what is left is seconds, or nothing */
        ck_assert_uint_eq(debt.left_ns, 0);
    }
    /* Who acts for many does not sleep: the debt is handed on, and runs off with the rate. */
    world.client->hosted = true;
    atomic_store(&shared->throttle_next_ns, 0);
    atomic_store(&shared->throttle_rate, 1000);
    ok(throttle_write(world.client, 100u << 20, &debt));
    ok(throttle_write(world.client, 1, &debt));
    uint64_t left = db_debt_left(world.db, &debt);
    ck_assert_uint_gt(left, 3600 * UINT64_C(1000000000));
    atomic_store(&shared->throttle_rate, 1000000);
    ck_assert_uint_lt(db_debt_left(world.db, &debt), left / 999);
    atomic_store(&shared->throttle_rate, 0);
    ck_assert_uint_eq(db_debt_left(world.db, &debt), 0);
    world.client->hosted = false;
    world_destroy(&world);
}
END_TEST

/* Writes records that compress, the same each time, and flushes them. How large is the new table? */
static uint64_t flushed_size(World *world)
{
    uint64_t random = 5;
    for (uint32_t i = 0; i < 600; i++) {
        Batch batch = {0};
        DbCommit commit;
        char key[16], value[160];
        key_of(i, key);
        int size = snprintf(value, sizeof value,
                            "{\"number\": %u, \"name\": \"%s\", \"balance\": %u, \"city\": %u}",
                            (unsigned)test_random_below(&random, 1000000), key,
                            (unsigned)test_random_below(&random, 1000),
                            (unsigned)test_random_below(&random, 20));
        ok(batch_put(&batch, slice_from_string(key), slice_make(value, (size_t)size)));
        ok(write_batch(world, &batch, &commit));
        batch_deinit(&batch);
    }
    ok(db_flush(world->client));
    return atomic_load(&world->db->shared->view)->version->levels[0].files[0]->info.file_size;
}

/* A flush that writers wait for spares effort; the next one does not. */
START_TEST(flushes_hurry_for_writers)
{
    World world = {.random = 1, .options = small_options()};
    world.options.compression_level = 19;
    world.options.memtable_size = 1u << 20;
    world.directory = test_directory_create();
    ok(db_create(world.directory, &world.options));
    world_open(&world);
    DbShared *shared = world.db->shared;
    uint64_t careful = flushed_size(&world);
    /* Slowed, by a rate at which nobody sleeps. */
    atomic_store(&shared->throttle_rate, UINT64_C(1) << 40);
    atomic_store(&shared->throttle_reason, THROTTLE_LEVEL0);
    ck_assert_uint_lt(flushed_size(&world), careful + careful / 100);
    atomic_store(&shared->throttle_rate, UINT64_C(1) << 40);
    atomic_store(&shared->throttle_reason, THROTTLE_MEMTABLES);
    uint64_t hasty = flushed_size(&world);
    uint64_t later = flushed_size(&world);
    printf("flushed: %" PRIu64 " bytes, hastily %" PRIu64 ", then %" PRIu64 "\n", careful, hasty,
           later);
    ck_assert_uint_gt(hasty, careful + careful / 100);
    ck_assert_uint_lt(later, careful + careful / 100);
    world_destroy(&world);
}
END_TEST

/* The active memtable's pieces may stand so that what is free between them is too short for a batch,
 * while nothing waits to be flushed. */
START_TEST(a_pool_in_pieces_is_joined)
{
    World world = {.random = 1, .options = small_options()};
    world.options.memtable_size = 2u << 20;
    world.options.batch_max = 1u << 20;
    world.directory = test_directory_create();
    ok(db_create(world.directory, &world.options));
    world_open(&world);
    MemPool *pool = world.db->shared->pool;
    Slot *slot = db_session_slot(world.client);
    size_t chunk = 60u << 10, large = 1000u << 10;
    uint8_t *value = calloc(1, large);
    ck_assert_ptr_nonnull(value);
    Memtable *others[MEMTABLES_MAX];
    int count = 0;
    /* Pieces of the active memtable between those of others, which go away then. */
    while (count < MEMTABLES_MAX - 2) {
        Batch batch = {0};
        DbCommit commit;
        char key[16];
        key_of((uint32_t)count, key);
        ok(batch_put(&batch, slice_from_string(key), slice_make(value, chunk)));
        ok(write_batch(&world, &batch, &commit));
        batch_deinit(&batch);
        ok(memtable_create(pool, slot, &others[count]));
        Status status = memtable_secure(others[count], slot, 1, RANGE_LOAD_NONE, large / 2);
        count++;
        if (status == AIDB_BUSY)
            break;
        ok(status);
    }
    for (int i = 0; i < count; i++)
        memtable_retire(others[i], slot);
    Batch batch = {0};
    DbCommit commit;
    ok(batch_put(&batch, slice_from_string("large"), slice_make(value, large)));
    DbWrite write = {.ops = buffer_slice(&batch.ops), .op_count = 1};
    Status status = AIDB_BUSY;
    for (int tries = 0; status == AIDB_BUSY && tries < 3; tries++) {
        /* The write waits for a flush when there is something to flush; here nobody else does it. */
        atomic_store(&slot->interrupt, SLOT_INTERRUPT_CANCEL);
        status = db_write(world.client, &write, &commit);
        atomic_store(&slot->interrupt, 0);
        if (status == AIDB_CANCELED) {
            step(world.flusher);
            status = AIDB_BUSY;
        }
    }
    ok(status);
    batch_deinit(&batch);
    free(value);
    world_destroy(&world);
}
END_TEST

START_TEST(options_that_do_not_fit_are_refused)
{
    EngineOptions options = small_options();
    size_t size;
    ok(db_region_size(&options, 8, &size));
    ck_assert_uint_le(size, options.memory + (4u << 20));
    options.batch_max = 64u << 20;
    ck_assert_int_eq(db_region_size(&options, 8, &size), AIDB_INVALID);
    ck_assert_ptr_nonnull(strstr(status_text(), "batch_max"));
}
END_TEST

START_TEST(a_missing_table_is_corruption)
{
    World world;
    world_create(&world, 1);
    for (int i = 0; i < 200; i++)
        random_write(&world);
    ok(db_flush(world.client));
    uint64_t number = 0;
    for (int level = 0; level < LEVELS; level++)
        if (world.db->shared->versions.current->levels[level].count > 0)
            number = world.db->shared->versions.current->levels[level].files[0]->info.number;
    world_close(&world, true);
    char name[TABLE_NAME_SIZE];
    table_name(number, name);
    char *sst = path_join(world.directory, "sst");
    char *path = path_join(sst, name);
    ok(file_unlink(path));
    ok(db_setup(world.directory, &world.options, 8, false, &world.db));
    ok(db_session_create(world.db, UINT32_MAX, SLOT_THREAD, &world.client));
    ck_assert_int_eq(db_recover(world.db, world.client), AIDB_CORRUPTION);
    ck_assert_ptr_nonnull(strstr(status_message(), name));
    db_session_destroy(world.client);
    db_destroy(world.db);
    free(path);
    free(sst);
    test_directory_destroy(world.directory);
}
END_TEST

START_TEST(many_starts_in_a_row)
{
    World world;
    world_create(&world, 5);
    /* Nothing written, little written, clean and not: more often than the manifest can list logs. */
    for (int i = 0; i < WAL_STARTS_MAX + 6; i++) {
        if (i % 3 == 1)
            random_write(&world);
        reopen(&world, i % 2 == 0);
        ck_assert_uint_lt(world.db->shared->versions.start_count, WAL_STARTS_MAX / 2);
    }
    check_all(&world);
    world_destroy(&world);
}
END_TEST

/* A batch in the log that memory, lowered since, cannot hold as one: recovered all the same, also when a
 * first attempt got half-way. */
START_TEST(batch_larger_than_memory)
{
    World world;
    memset(&world, 0, sizeof world);
    world.random = 9;
    world.options = small_options();
    world.options.memory = 64u << 20;
    world.options.batch_max = 16u << 20;
    world.directory = test_directory_create();
    ok(db_create(world.directory, &world.options));
    world_open(&world);
    static uint8_t value[10000];
    Batch batch = {0};
    for (uint32_t i = 0; i < 1200; i++) {
        char key[16];
        snprintf(key, sizeof key, "big%05u", (i * 7919) % 1200);
        memset(value, (int)i, sizeof value);
        ok(batch_put(&batch, slice_from_string(key), slice_make(value, sizeof value)));
    }
    DbCommit commit;
    ok(write_batch(&world, &batch, &commit));
    batch_deinit(&batch);
    world_close(&world, false);
    world.options = small_options();
    world.options.memory = 8u << 20;
    world.options.cache_size = 1u << 20;
    world.options.batch_max = 1u << 20;
    for (int round = 0; round < 2; round++) {
        world_open(&world);
        for (uint32_t i = 0; i < 1200; i++) {
            char key[16];
            Entry entry;
            uint64_t at;
            snprintf(key, sizeof key, "big%05u", (i * 7919) % 1200);
            ok(db_read_begin(world.client, DB_NOW, &at));
            ok(db_read_get(world.client, slice_from_string(key), &entry));
            ck_assert_uint_eq(entry.value.size, sizeof value);
            ck_assert_uint_eq(entry.value.data[i % sizeof value], i & 0xff);
            db_read_end(world.client);
        }
        world_close(&world, round == 1);
    }
    test_directory_destroy(world.directory);
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
        step(world.flusher);
        if (i % 50 == 0)
            step(world.compactor);
    }
    int damage = 0;
    ok(db_verify(world.directory, true, count_damage, &damage));
    ck_assert_int_eq(damage, 0);
    world_close(&world, false);
    ok(db_verify(world.directory, false, count_damage, &damage));
    ck_assert_int_eq(damage, 0);
    world_open(&world);
    check_all(&world);
    world_destroy(&world);
}
END_TEST

/* Records of random bytes, so that nothing is compressed away, flushed and compacted as they come. */
static void write_noise(World *world, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t noise[64];
        for (size_t j = 0; j < sizeof noise / sizeof noise[0]; j++)
            noise[j] = test_random(&world->random);
        Batch batch = {0};
        DbCommit commit;
        ok(batch_put(&batch, slice_make(&noise[0], 8), slice_make(noise, sizeof noise)));
        ok(write_batch(world, &batch, &commit));
        batch_deinit(&batch);
        step(world->flusher);
        step(world->compactor);
    }
}

/* The number of tables stays bounded by making them larger. */
START_TEST(tables_grow_with_the_data)
{
    World world;
    world_create(&world, 78);
    world.db->shared->tables_sought = 2;
    write_noise(&world, 2000);
    ok(db_compact(world.compactor, slice_make(NULL, 0), slice_make(NULL, 0)));
    const Version *version = atomic_load(&world.db->shared->view)->version;
    uint64_t bytes = 0, largest = 0;
    uint32_t tables = 0;
    for (int level = 0; level < LEVELS; level++) {
        tables += version->levels[level].count;
        for (uint32_t i = 0; i < version->levels[level].count; i++) {
            uint64_t size = version->levels[level].files[i]->info.file_size;
            bytes += size;
            largest = size > largest ? size : largest;
        }
    }
    ck_assert_uint_eq(bytes, atomic_load(&world.db->shared->table_bytes));
    ck_assert_uint_gt(bytes, 8 * world.options.table_size);
    ck_assert_uint_gt(largest, 2 * world.options.table_size);
    ck_assert_uint_lt(tables, 8);
    world_destroy(&world);
}
END_TEST

static bool any_row(void *arg, const Entry *entry)
{
    (void)entry;
    ++*(uint32_t *)arg;
    return true;
}

static uint64_t blocks_after_scan(World *world, uint64_t walked, bool reverse)
{
    DbScan scan = {.reverse = reverse, .walked = walked};
    uint32_t rows = 0;
    bool ended;
    uint64_t at, used, capacity, blocks;
    ok(db_scan(world->client, DB_NOW, &scan, any_row, &rows, &ended, &at));
    ck_assert_uint_eq(rows, 1000);
    cache_usage(world->db->shared->cache, &used, &capacity, &blocks);
    return blocks;
}

/* What a long scan reads once does not push out what others read often. */
START_TEST(long_scans_pass_the_cache)
{
    World world;
    world_create(&world, 79);
    write_noise(&world, 1000);
    ok(db_compact(world.compactor, slice_make(NULL, 0), slice_make(NULL, 0)));
    uint64_t forward = blocks_after_scan(&world, UINT64_MAX, false);
    uint64_t backward = blocks_after_scan(&world, UINT64_MAX, true);
    ck_assert_uint_eq(forward, backward);
    ck_assert_uint_lt(forward, 100); /* indexes and dictionaries */
    ck_assert_uint_gt(blocks_after_scan(&world, 0, false), backward + 300);
    world_destroy(&world);
}
END_TEST

/* Nor does a long count. */
START_TEST(long_counts_pass_the_cache)
{
    World world;
    world_create(&world, 80);
    write_noise(&world, 1000);
    ok(db_compact(world.compactor, slice_make(NULL, 0), slice_make(NULL, 0)));
    uint64_t snapshot, count, used, capacity, blocks;
    ok(db_snapshot_acquire(world.client, &snapshot));
    ok(db_count(world.client, snapshot, slice_make(NULL, 0), slice_make(NULL, 0), &count));
    db_snapshot_release(world.client, snapshot);
    ck_assert_uint_eq(count, 1000);
    cache_usage(world.db->shared->cache, &used, &capacity, &blocks);
    ck_assert_uint_lt(blocks, 300); /* a quarter of the data, indexes and dictionaries */
    world_destroy(&world);
}
END_TEST

START_TEST(properties_are_there)
{
    World world;
    world_create(&world, 1);
    random_write(&world);
    static const char *const names[] = {"status", "levels", "wal", "visible_lsn", "durable_lsn"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        Buffer text = {0};
        ok(db_property(world.client, names[i], &text));
        ck_assert_uint_gt(text.size, 0);
        buffer_deinit(&text);
    }
    Buffer text = {0};
    ck_assert_int_eq(db_property(world.client, "nonsense", &text), AIDB_INVALID);
    buffer_deinit(&text);
    world_destroy(&world);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("db");
    TCase *model = tcase_create("model");
    tcase_set_timeout(model, 0);
    tcase_add_loop_test(model, model_matches, 0, 6);
    suite_add_tcase(suite, model);
    TCase *promises = tcase_create("promises");
    tcase_set_timeout(promises, 300);
    tcase_add_test(promises, expectations_are_checked_with_the_write);
    tcase_add_test(promises, expectations_see_a_sealed_memtable);
    tcase_add_test(promises, tables_are_written_warm);
    tcase_add_test(promises, large_batches_pass);
    tcase_add_test(promises, many_range_deletes_in_a_batch);
    tcase_add_test(promises, a_flush_that_cannot_be_done_ends);
    tcase_add_test(promises, a_pool_in_pieces_is_joined);
    tcase_add_test(promises, debts_follow_the_rate);
    tcase_add_test(promises, flushes_hurry_for_writers);
    tcase_add_test(promises, inputs_are_closed);
    tcase_add_test(promises, a_scan_over_deleted_keys_is_canceled);
    tcase_add_test(promises, options_that_do_not_fit_are_refused);
    tcase_add_test(promises, a_missing_table_is_corruption);
    tcase_add_test(promises, verify_finds_nothing_in_a_sound_store);
    tcase_add_test(promises, many_starts_in_a_row);
    tcase_add_test(promises, batch_larger_than_memory);
    tcase_add_test(promises, tables_grow_with_the_data);
    tcase_add_test(promises, long_scans_pass_the_cache);
    tcase_add_test(promises, long_counts_pass_the_cache);
    tcase_add_test(promises, properties_are_there);
    suite_add_tcase(suite, promises);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
