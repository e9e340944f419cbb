/*
 * db_test.c - single promises of reads, flushes and compactions; and the program of the tests of a store.
 */
#include "config.h"

#include "engine/db/db_internal.h"
#include "engine/db/test_store.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NUMBERS 3000 /* keys of tests that need tables of some size */

static void put_numbers(Store *store, uint32_t from, uint32_t by)
{
    for (uint32_t i = from; i < NUMBERS; i += by) {
        char key[16], value[100];
        key_of(i, key);
        for (size_t at = 0; at < sizeof value; at++)
            value[at] = (char)test_random(&store->random);
        Batch batch = {0};
        DbCommit commit;
        ok(batch_put(&batch, slice_from_string(key), slice_make(value, sizeof value)));
        ok(write_batch(store, &batch, &commit));
        batch_deinit(&batch);
        step(store->flusher);
    }
}

/* Gets all; returns how many blocks were not in the cache. */
static uint64_t get_numbers(Store *store)
{
    SlotTable *slots = &store->db->shared->slots;
    uint64_t before = slot_stat_sum(slots, STAT_CACHE_MISSES);
    for (uint32_t i = 0; i < NUMBERS; i++) {
        char key[16];
        key_of(i, key);
        uint64_t at;
        Entry entry;
        ok(db_read_begin(store->client, DB_NOW, &at));
        ok(db_read_get(store->client, slice_from_string(key), &entry));
        db_read_end(store->client);
    }
    return slot_stat_sum(slots, STAT_CACHE_MISSES) - before;
}

/* What readers had in memory they have there after flushes and compactions; what nobody reads does not
 * come into the cache. */
START_TEST(tables_are_written_warm)
{
    Store store;
    store_create(&store, 1);
    store_close(&store, true);
    store.options.memory = 40u << 20;
    store.options.cache_size = 16u << 20; /* room for each size of block */
    store_open(&store);
    uint64_t used, capacity, blocks;
    put_numbers(&store, 0, 1);
    ok(db_compact(store.client, slice_make(NULL, 0), slice_make(NULL, 0)));
    cache_usage(store.db->shared->cache, &used, &capacity, &blocks);
    ck_assert_uint_eq(blocks, 0);

    uint64_t data_blocks = NUMBERS / 10; /* of 1 KiB, at least */
    ck_assert_uint_gt(get_numbers(&store), data_blocks);
    ck_assert_uint_eq(get_numbers(&store), 0);
    put_numbers(&store, 0, 3);
    ok(db_flush(store.client));
    ck_assert_uint_lt(get_numbers(&store), data_blocks / 4); /* filters and indexes */
    ok(db_compact(store.client, slice_make(NULL, 0), slice_make(NULL, 0)));
    ck_assert_uint_lt(get_numbers(&store), data_blocks / 4);
    store_destroy(&store);
}
END_TEST

/* Records of random bytes, so that nothing is compressed away, flushed and compacted as they come. */
static void write_noise(Store *store, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t noise[64];
        for (size_t j = 0; j < sizeof noise / sizeof noise[0]; j++)
            noise[j] = test_random(&store->random);
        Batch batch = {0};
        DbCommit commit;
        ok(batch_put(&batch, slice_make(&noise[0], 8), slice_make(noise, sizeof noise)));
        ok(write_batch(store, &batch, &commit));
        batch_deinit(&batch);
        step(store->flusher);
        step(store->compactor);
    }
}

static bool any_row(void *arg, const Entry *entry)
{
    (void)entry;
    ++*(uint32_t *)arg;
    return true;
}

static uint64_t blocks_after_scan(Store *store, uint64_t walked, bool reverse)
{
    DbScan scan = {.reverse = reverse, .walked = walked};
    uint32_t rows = 0;
    bool ended;
    uint64_t at, used, capacity, blocks;
    ok(db_scan(store->client, DB_NOW, &scan, any_row, &rows, &ended, &at));
    ck_assert_uint_eq(rows, 1000);
    cache_usage(store->db->shared->cache, &used, &capacity, &blocks);
    return blocks;
}

/* What a long scan reads once does not push out what others read often. */
START_TEST(long_scans_pass_the_cache)
{
    Store store;
    store_create(&store, 79);
    write_noise(&store, 1000);
    ok(db_compact(store.compactor, slice_make(NULL, 0), slice_make(NULL, 0)));
    uint64_t forward = blocks_after_scan(&store, UINT64_MAX, false);
    uint64_t backward = blocks_after_scan(&store, UINT64_MAX, true);
    ck_assert_uint_eq(forward, backward);
    ck_assert_uint_lt(forward, 100); /* indexes and dictionaries */
    ck_assert_uint_gt(blocks_after_scan(&store, 0, false), backward + 300);
    store_destroy(&store);
}
END_TEST

static void put_sized(Store *store, uint32_t index, size_t size)
{
    static char value[100000];
    char key[16];
    memset(value, 'v', size);
    key_of(index, key);
    Batch batch = {0};
    DbCommit commit;
    ok(batch_put(&batch, slice_from_string(key), slice_make(value, size)));
    ok(write_batch(store, &batch, &commit));
    batch_deinit(&batch);
}

static bool one_row(void *arg, const Entry *entry)
{
    char *key = arg;
    memcpy(key, entry->key.data, entry->key.size);
    key[entry->key.size] = '\0';
    return false;
}

/* Walks over rows 0 to 29 one by one; *kept has a bit for each after which the place was kept. */
static void walk_kept(Store *store, bool reverse, uint32_t *kept)
{
    DbCursor *cursor = db_cursor_create();
    ck_assert_ptr_nonnull(cursor);
    char key[17] = "", wanted[16];
    *kept = 0;
    for (uint32_t i = 0; i < 30; i++) {
        uint32_t row = reverse ? 29 - i : i;
        size_t size =
            i == 0 ? 0 : strlen(key) + (reverse ? 0 : 1); /* behind it: its zero byte is meant */
        DbScan scan = {.reverse = reverse, .cursor = cursor};
        *(reverse ? &scan.to : &scan.from) = slice_make(key, size);
        char last[17] = "";
        bool ended;
        uint64_t at;
        ok(db_scan(store->client, DB_NOW, &scan, one_row, last, &ended, &at));
        key_of(row, wanted);
        ck_assert_str_eq(last, wanted);
        memcpy(key, last, sizeof key);
        *kept |= (uint32_t)db_cursor_stands(cursor) << row;
    }
    db_cursor_destroy(cursor);
}

/* An iterator's memory for a large value, in each of the tables that it is in, is not kept from chunk to chunk. */
START_TEST(places_among_large_values_are_not_kept)
{
    Store store;
    store_create(&store, 81);
    for (uint32_t i = 0; i < 30; i++)
        put_sized(&store, i, i == 10 || i == 20 ? 100000 : 10);
    ok(db_flush(store.client));
    put_sized(&store, 20, 10); /* no row has the large value, but a table does */
    uint32_t kept;
    walk_kept(&store, false, &kept);
    ck_assert_uint_eq(kept & (1u << 10 | 1u << 20), 0);
    ck_assert_uint_eq(kept & 0xff, 0xff);
    ck_assert_uint_eq(kept >> 22, 0xff);
    walk_kept(&store, true, &kept);
    ck_assert_uint_eq(kept & (1u << 10 | 1u << 20), 0);
    ck_assert_uint_eq(kept & 0xfe, 0xfe);
    ck_assert_uint_eq(kept >> 22, 0xff);
    store_destroy(&store);
}
END_TEST

/* Nor does a long count. */
START_TEST(long_counts_pass_the_cache)
{
    Store store;
    store_create(&store, 80);
    write_noise(&store, 1000);
    ok(db_compact(store.compactor, slice_make(NULL, 0), slice_make(NULL, 0)));
    uint64_t snapshot, count, used, capacity, blocks;
    ok(db_snapshot_acquire(store.client, &snapshot));
    ok(db_count(store.client, snapshot, slice_make(NULL, 0), slice_make(NULL, 0), &count));
    db_snapshot_release(store.client, snapshot);
    ck_assert_uint_eq(count, 1000);
    cache_usage(store.db->shared->cache, &used, &capacity, &blocks);
    ck_assert_uint_lt(blocks, 300); /* a quarter of the data, indexes and dictionaries */
    store_destroy(&store);
}
END_TEST

/* The number of tables stays bounded by making them larger. */
START_TEST(tables_grow_with_the_data)
{
    Store store;
    store_create(&store, 78);
    store.db->shared->tables_sought = 2;
    write_noise(&store, 2000);
    ok(db_compact(store.compactor, slice_make(NULL, 0), slice_make(NULL, 0)));
    const Version *version = atomic_load(&store.db->shared->view)->version;
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
    ck_assert_uint_eq(bytes, atomic_load(&store.db->shared->table_bytes));
    ck_assert_uint_gt(bytes, 8 * store.options.table_size);
    ck_assert_uint_gt(largest, 2 * store.options.table_size);
    ck_assert_uint_lt(tables, 8);
    store_destroy(&store);
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

/* Compactors with nothing due take part in a manual compaction, and in none that has ended. */
START_TEST(compactors_take_part)
{
    Store store;
    Batch batch = {0};
    DbCommit commit;
    store_create(&store, 1);
    DbShared *shared = store.db->shared;
    ok(batch_put(&batch, slice_from_string("key"), slice_make("v", 1)));
    ok(write_batch(&store, &batch, &commit));
    batch_deinit(&batch);
    ok(db_flush(store.client));
    step(store.compactor);
    ck_assert_uint_eq(atomic_load(&shared->view)->version->levels[0].count, 1);
    shared->manual = (ManualOffer){.open = true,
                                   .from = {0xff},
                                   .from_size = 1,
                                   .started_number = UINT64_MAX,
                                   .started_lsn = UINT64_MAX};
    step(store.compactor);
    ck_assert_uint_eq(atomic_load(&shared->view)->version->levels[0].count, 1);
    shared->manual.from_size = 0;
    step(store.compactor);
    ck_assert_uint_eq(atomic_load(&shared->view)->version->levels[0].count, 0);
    ck_assert(shared->manual.open);
    shared->manual.open = false;
    ok(db_compact(store.client, slice_make(NULL, 0), slice_make(NULL, 0)));
    ck_assert(!shared->manual.open);
    store_destroy(&store);
}
END_TEST

static uint32_t table_files(const Store *store)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/sst", store->directory);
    DIR *folder = opendir(path);
    ck_assert_ptr_nonnull(folder);
    uint32_t count = 0;
    for (struct dirent *file; (file = readdir(folder)) != NULL;)
        count += strstr(file->d_name, ".sst") != NULL;
    closedir(folder);
    return count;
}

static uint32_t tables_in_use(const Store *store)
{
    const Version *version = atomic_load(&store->db->shared->view)->version;
    uint32_t count = 0;
    for (int level = 0; level < LEVELS; level++)
        count += version->levels[level].count;
    return count;
}

/* Under steady writes a compactor never comes to rest, and the disk must not fill up with what it replaced. */
START_TEST(a_busy_compactor_removes_what_it_replaced)
{
    Store store;
    store_create(&store, 83);
    int wait_ms = 0, busy = 0;
    for (uint32_t i = 0; i < 6; i++) {
        put_numbers(&store, i, 3);
        ok(db_flush(store.client));
    }
    for (;;) {
        ok(db_step(store.compactor, &wait_ms));
        ck_assert_uint_eq(table_files(&store), tables_in_use(&store));
        if (wait_ms != 0)
            break;
        busy++;
    }
    ck_assert_int_gt(busy, 0); /* or this shows nothing */
    store_destroy(&store);
}
END_TEST

/* The disk may have no room for the next compaction because of what the last one replaced. */
START_TEST(a_compactor_that_fails_removes_what_was_replaced)
{
    Store store;
    store_create(&store, 84);
    int wait_ms = 0;
    for (uint32_t i = 0; i < 6; i++) {
        put_numbers(&store, i, 3);
        ok(db_flush(store.client));
    }
    uint64_t at;
    ok(db_read_begin(store.client, DB_NOW, &at));
    ok(db_step(store.compactor, &wait_ms));
    ck_assert_uint_gt(table_files(&store), tables_in_use(&store)); /* for the reader */
    db_read_end(store.client);
    for (uint32_t i = 0; i < 12; i++) {
        put_numbers(&store, i, 3);
        ok(db_flush(store.client));
    }
    const VersionSet *versions = &store.db->shared->versions;
    char name[TABLE_NAME_SIZE], path[4200];
    table_name(TABLE_NUMBER(versions->term, atomic_load(&versions->next_number)), name);
    snprintf(path, sizeof path, "%s/sst/%s", store.directory, name);
    ck_assert_int_eq(mkdir(path, 0700), 0); /* in the way of its output */
    ck_assert_int_ne(db_step(store.compactor, &wait_ms), AIDB_OK);
    ck_assert_int_eq(rmdir(path), 0);
    ck_assert_uint_eq(table_files(&store), tables_in_use(&store));
    store_destroy(&store);
}
END_TEST

/* A new database in their place would remove tables that can be repaired. */
START_TEST(nothing_is_made_over_tables)
{
    Store store;
    store_create(&store, 85);
    put_numbers(&store, 1, 3);
    ok(db_flush(store.client));
    store_close(&store, true);
    char command[9000];
    snprintf(command, sizeof command, "rm %s/CURRENT %s/MANIFEST-* %s/wal/*", store.directory,
             store.directory, store.directory);
    ck_assert_int_eq(system(command), 0);
    uint32_t before = table_files(&store);
    ck_assert_int_eq(db_create(store.directory, &store.options), AIDB_EXISTS);
    ck_assert_uint_eq(table_files(&store), before);
    snprintf(command, sizeof command, "rm %s/sst/*", store.directory);
    ck_assert_int_eq(system(command), 0);
    ok(db_create(store.directory, &store.options));
    store_open(&store);
    store_destroy(&store);
}
END_TEST

/* A compactor keeps no table open that it did away with, whoever unlinks it. */
START_TEST(inputs_are_closed)
{
    Store store;
    store_create(&store, 1);
    Session *other;
    ok(db_session_create(store.db, UINT32_MAX, SLOT_COMPACTOR, &other));
    int wait_ms;
    for (uint32_t i = 0; i < 12; i++) {
        Batch batch = {0};
        DbCommit commit;
        ok(batch_put(&batch, slice_from_string("key"), slice_make(&i, sizeof i)));
        ok(write_batch(&store, &batch, &commit));
        ok(db_flush(store.client));
        batch_deinit(&batch);
        ok(db_step(other, &wait_ms));
    }
    do
        ok(db_step(store.compactor, &wait_ms));
    while (wait_ms == 0);
    ck_assert_uint_gt(slot_stat_sum(&store.db->shared->slots, STAT_COMPACTIONS), 0);
    ck_assert_uint_eq(deleted_files_open(), 0);

    /* Nor do readers, from their next read on or when they rest. */
    Session *idle;
    ok(db_session_create(store.db, UINT32_MAX, SLOT_THREAD, &idle));
    Session *readers[] = {store.client, idle};
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
        ok(write_batch(&store, &batch, &commit));
        batch_deinit(&batch);
    }
    ok(db_compact(other, slice_make(NULL, 0), slice_make(NULL, 0)));
    ck_assert_uint_gt(deleted_files_open(), 0); /* or this shows nothing */
    db_session_rest(idle);
    ok(db_read_begin(store.client, DB_NOW, &at));
    db_read_end(store.client);
    ck_assert_uint_eq(deleted_files_open(), 0);
    db_session_destroy(idle);
    db_session_destroy(other);
    store_destroy(&store);
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
    Store store;
    store_create(&store, 1);
    Batch batch = {0};
    DbCommit commit;
    for (uint32_t i = 0; i < 20000; i++) {
        char key[16];
        key_of(i, key);
        ok(batch_put(&batch, slice_from_string(key), slice_make(NULL, 0)));
    }
    ok(batch_delete_range(&batch, slice_make(NULL, 0), slice_make(NULL, 0)));
    ok(write_batch(&store, &batch, &commit));
    batch_deinit(&batch);
    for (int reverse = 0; reverse <= 1; reverse++) {
        DbScan scan = {.reverse = reverse == 1};
        bool ended;
        uint64_t at;
        atomic_store(&db_session_slot(store.client)->interrupt, SLOT_INTERRUPT_CANCEL);
        ck_assert_int_eq(db_scan(store.client, DB_NOW, &scan, never_called, NULL, &ended, &at),
                         AIDB_CANCELED);
        ck_assert(!ended);
        atomic_store(&db_session_slot(store.client)->interrupt, 0);
        ok(db_scan(store.client, DB_NOW, &scan, never_called, NULL, &ended, &at));
        ck_assert(ended);
    }
    store_destroy(&store);
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

START_TEST(properties_are_there)
{
    Store store;
    store_create(&store, 1);
    write_noise(&store, 1);
    static const char *const names[] = {"status", "levels", "wal", "visible_lsn", "durable_lsn"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        Buffer text = {0};
        ok(db_property(store.client, names[i], &text));
        ck_assert_uint_gt(text.size, 0);
        buffer_deinit(&text);
    }
    Buffer text = {0};
    ck_assert_int_eq(db_property(store.client, "nonsense", &text), AIDB_INVALID);
    buffer_deinit(&text);
    store_destroy(&store);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("db");
    suite_add_tcase(suite, model_cases());
    suite_add_tcase(suite, write_cases());
    TCase *promises = tcase_create("promises");
    tcase_set_timeout(promises, 300);
    tcase_add_test(promises, tables_are_written_warm);
    tcase_add_test(promises, long_scans_pass_the_cache);
    tcase_add_test(promises, long_counts_pass_the_cache);
    tcase_add_test(promises, places_among_large_values_are_not_kept);
    tcase_add_test(promises, tables_grow_with_the_data);
    tcase_add_test(promises, compactors_take_part);
    tcase_add_test(promises, inputs_are_closed);
    tcase_add_test(promises, a_busy_compactor_removes_what_it_replaced);
    tcase_add_test(promises, a_compactor_that_fails_removes_what_was_replaced);
    tcase_add_test(promises, nothing_is_made_over_tables);
    tcase_add_test(promises, a_scan_over_deleted_keys_is_canceled);
    tcase_add_test(promises, options_that_do_not_fit_are_refused);
    tcase_add_test(promises, properties_are_there);
    suite_add_tcase(suite, promises);
    return test_run(suite);
}
