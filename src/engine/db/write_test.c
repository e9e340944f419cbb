/*
 * write_test.c - the write path: expectations, batches of any size, and writers that wait for memory.
 */
#include "config.h"

#include "engine/db/db_internal.h"
#include "engine/db/test_store.h"

#include "io/io.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

START_TEST(expectations_are_checked_with_the_write)
{
    Store store;
    store_create(&store, 1);
    Batch batch = {0};
    DbCommit commit;
    ok(batch_put(&batch, slice_from_string("a"), slice_from_string("1")));
    ok(batch_expect(&batch, slice_from_string("a"), AIDB_EXPECT_ABSENT, 0));
    ok(write_batch(&store, &batch, &commit));
    uint64_t version = commit.lsn;
    ck_assert_int_eq(write_batch(&store, &batch, &commit), AIDB_EXPECTATION);
    ck_assert_uint_eq(commit.present_version, version);
    ck_assert_uint_eq(commit.failed_expectation, 0);
    batch_clear(&batch);
    ok(batch_put(&batch, slice_from_string("a"), slice_from_string("2")));
    ok(batch_expect(&batch, slice_from_string("a"), AIDB_EXPECT_VERSION, version));
    ok(write_batch(&store, &batch, &commit));
    ck_assert_uint_gt(commit.lsn, version);
    ck_assert_int_eq(write_batch(&store, &batch, &commit), AIDB_EXPECTATION);
    /* The same when what was read has gone to tables. */
    ok(db_flush(store.client));
    ck_assert_int_eq(write_batch(&store, &batch, &commit), AIDB_EXPECTATION);
    batch_clear(&batch);
    ok(batch_delete(&batch, slice_from_string("b")));
    ok(batch_expect(&batch, slice_from_string("b"), AIDB_EXPECT_PRESENT, 0));
    ck_assert_int_eq(write_batch(&store, &batch, &commit), AIDB_EXPECTATION);
    ck_assert_uint_eq(commit.present_version, 0);
    batch_deinit(&batch);
    store_destroy(&store);
}
END_TEST

/* A write that comes between the reading of an expectation and the check under the lock must be seen,
 * also when it is in a memtable that was sealed meanwhile and the active one is still empty. */
START_TEST(expectations_see_a_sealed_memtable)
{
    Store store;
    store_create(&store, 1);
    Batch batch = {0};
    DbCommit first, commit;
    ok(batch_put(&batch, slice_from_string("a"), slice_from_string("1")));
    ok(write_batch(&store, &batch, &first));
    ok(write_batch(&store, &batch, &commit)); /* the version moves on */
    lock_acquire(&store.db->shared->write_lock, store.client->slot);
    ok(view_switch_memtable(store.client)); /* the active memtable is empty now */
    lock_release(&store.db->shared->write_lock, store.client->slot);
    epoch_enter(&store.db->shared->epochs, store.client->slot);
    const ReadView *view = atomic_load(&store.db->shared->view);
    ck_assert(view_changed_since(view, slice_from_string("a"), first.lsn));
    ck_assert(!view_changed_since(view, slice_from_string("a"), commit.lsn));
    ck_assert(!view_changed_since(view, slice_from_string("b"), first.lsn));
    epoch_leave(store.client->slot);
    batch_deinit(&batch);
    store_destroy(&store);
}
END_TEST

START_TEST(large_batches_pass)
{
    Store store;
    store_create(&store, 1);
    size_t size = 3u << 20; /* many times the ring and the memtable */
    uint8_t *value = malloc(size);
    ck_assert_ptr_nonnull(value);
    for (int round = 0; round < 4; round++) {
        memset(value, 'a' + round, size);
        Batch batch = {0};
        ok(batch_put(&batch, slice_from_string("large"), slice_make(value, size)));
        DbCommit commit;
        ok(write_batch(&store, &batch, &commit));
        ok(db_flush(store.client)); /* nobody else would make room for the next one */
        batch_deinit(&batch);
        if (round == 2) {
            store_close(&store, false);
            store_open(&store);
        }
        uint64_t at;
        Entry entry;
        ok(db_read_begin(store.client, DB_NOW, &at));
        ok(db_read_get(store.client, slice_from_string("large"), &entry));
        ck_assert_uint_eq(entry.value.size, size);
        ck_assert_int_eq(memcmp(entry.value.data, value, size), 0);
        db_read_end(store.client);
    }
    Batch batch = {0};
    free(value);
    value = calloc(1, 5u << 20);
    ok(batch_put(&batch, slice_from_string("too large"), slice_make(value, 5u << 20)));
    DbCommit commit;
    ck_assert_int_eq(write_batch(&store, &batch, &commit), AIDB_LIMIT);
    batch_deinit(&batch);
    free(value);
    store_destroy(&store);
}
END_TEST

/* A batch in the log that memory, lowered since, cannot hold as one: recovered all the same, also when a
 * first attempt got half-way. */
START_TEST(batch_larger_than_memory)
{
    Store store;
    memset(&store, 0, sizeof store);
    store.random = 9;
    store.options = small_options();
    store.options.memory = 64u << 20;
    store.options.batch_max = 16u << 20;
    store.directory = test_directory_create();
    ok(db_create(store.directory, &store.options));
    store_open(&store);
    static uint8_t value[10000];
    Batch batch = {0};
    for (uint32_t i = 0; i < 1200; i++) {
        char key[16];
        snprintf(key, sizeof key, "big%05u", (i * 7919) % 1200);
        memset(value, (int)i, sizeof value);
        ok(batch_put(&batch, slice_from_string(key), slice_make(value, sizeof value)));
    }
    DbCommit commit;
    ok(write_batch(&store, &batch, &commit));
    batch_deinit(&batch);
    store_close(&store, false);
    store.options = small_options();
    store.options.memory = 8u << 20;
    store.options.cache_size = 1u << 20;
    store.options.batch_max = 1u << 20;
    for (int round = 0; round < 2; round++) {
        store_open(&store);
        for (uint32_t i = 0; i < 1200; i++) {
            char key[16];
            Entry entry;
            uint64_t at;
            snprintf(key, sizeof key, "big%05u", (i * 7919) % 1200);
            ok(db_read_begin(store.client, DB_NOW, &at));
            ok(db_read_get(store.client, slice_from_string(key), &entry));
            ck_assert_uint_eq(entry.value.size, sizeof value);
            ck_assert_uint_eq(entry.value.data[i % sizeof value], i & 0xff);
            db_read_end(store.client);
        }
        store_close(&store, round == 1);
    }
    test_directory_destroy(store.directory);
}
END_TEST

/* Range deletes that do not overlap need memory for each of them, not for each two. */
START_TEST(many_range_deletes_in_a_batch)
{
    enum { RANGES = 5000 };
    Store store;
    store_create(&store, 1);
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
        ok(write_batch(&store, &batch, &commit));
        batch_deinit(&batch);
        if (pass == 0)
            ok(db_flush(store.client)); /* nobody else would make room */
    }
    ok(db_wait(store.client, commit.end, AIDB_FSYNC));
    for (int look = 0; look < 3; look++) {
        uint64_t snapshot, count;
        ok(db_snapshot_acquire(store.client, &snapshot));
        ok(db_count(store.client, snapshot, slice_make(NULL, 0), slice_make(NULL, 0), &count));
        db_snapshot_release(store.client, snapshot);
        ck_assert_uint_eq(count, RANGES);
        if (look == 0) { /* from the log */
            store_close(&store, false);
            store_open(&store);
        } else { /* from tables */
            ok(db_flush(store.client));
        }
    }
    Batch nested = {0};
    for (int i = 0; i < RANGES; i++) {
        char from[16], to[16];
        snprintf(from, sizeof from, "a%06d", i);
        snprintf(to, sizeof to, "z%06d", RANGES - i);
        ok(batch_delete_range(&nested, slice_from_string(from), slice_from_string(to)));
    }
    ck_assert_int_eq(write_batch(&store, &nested, &commit), AIDB_LIMIT);
    ck_assert_ptr_nonnull(strstr(status_text(), "range deletes"));
    batch_deinit(&nested);
    store_destroy(&store);
}
END_TEST

/* With every memtable waiting and none that can be flushed, a flush and a stop end with the reason. */
START_TEST(a_flush_that_cannot_be_done_ends)
{
    Store store;
    store_create(&store, 1);
    char *sst = path_join(store.directory, "sst");
    char *aside = path_join(store.directory, "aside");
    ck_assert_int_eq(rename(sst, aside), 0);
    for (int i = 0; i < 2 * MEMTABLES_MAX; i++) {
        Batch batch = {0};
        DbCommit commit;
        char key[16];
        key_of((uint32_t)i, key);
        ok(batch_put(&batch, slice_from_string(key), slice_make("v", 1)));
        ok(write_batch(&store, &batch, &commit));
        batch_deinit(&batch);
        Status status = db_flush(store.client);
        ck_assert(status != AIDB_OK && status != AIDB_FAILED);
    }
    Status status = db_stop(store.db, store.client, true);
    ck_assert(status != AIDB_OK && status != AIDB_FAILED);
    ck_assert_int_eq(rename(aside, sst), 0);
    ok(db_flush(store.client));
    uint64_t at;
    Entry entry;
    ok(db_read_begin(store.client, DB_NOW, &at));
    for (uint32_t i = 0; i < 2 * MEMTABLES_MAX; i++) {
        char key[16];
        key_of(i, key);
        ok(db_read_get(store.client, slice_from_string(key), &entry));
    }
    db_read_end(store.client);
    free(sst);
    free(aside);
    store_destroy(&store);
}
END_TEST

/* The active memtable's pieces may stand so that what is free between them is too short for a batch,
 * while nothing waits to be flushed. */
START_TEST(a_pool_in_pieces_is_joined)
{
    Store store = {.random = 1, .options = small_options()};
    store.options.memtable_size = 2u << 20;
    store.options.batch_max = 1u << 20;
    store.directory = test_directory_create();
    ok(db_create(store.directory, &store.options));
    store_open(&store);
    MemPool *pool = store.db->shared->pool;
    Slot *slot = db_session_slot(store.client);
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
        ok(write_batch(&store, &batch, &commit));
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
        status = db_write(store.client, &write, &commit);
        atomic_store(&slot->interrupt, 0);
        if (status == AIDB_CANCELED) {
            step(store.flusher);
            status = AIDB_BUSY;
        }
    }
    ok(status);
    batch_deinit(&batch);
    free(value);
    store_destroy(&store);
}
END_TEST

/* What writers owe is scaled with the rate, and forgotten when there is no pressure any more. */
START_TEST(debts_follow_the_rate)
{
    Store store;
    store_create(&store, 1);
    DbShared *shared = store.db->shared;
    for (uint32_t i = 0; i < 4; i++) {
        Batch batch = {0};
        DbCommit commit;
        ok(batch_put(&batch, slice_from_string("key"), slice_make(&i, sizeof i)));
        ok(write_batch(&store, &batch, &commit));
        ok(db_flush(store.client));
        batch_deinit(&batch);
    }
    DbDebt debt;
    for (int pressure = 1; pressure >= 0; pressure--) {
        atomic_store(&shared->throttle_rate, 1000);
        ok(throttle_write(store.client, 100u << 20, &debt)); /* more than a day */
        ck_assert_uint_gt(atomic_load(&shared->throttle_next_ns), port_monotonic_ns());
        shared->options.level0_files = pressure == 1 ? 1 : 100;
        throttle_update(store.client);
        ck_assert_int_eq(atomic_load(&shared->throttle_rate) != 0, pressure);
        if (pressure == 0)
            atomic_store(&shared->throttle_rate, 1u << 20);
        ok(throttle_write(store.client, 1, &debt)); /* what is left is seconds, or nothing */
        ck_assert_uint_eq(debt.left_ns, 0);
    }
    /* Who acts for many does not sleep: the debt is handed on, and runs off with the rate. */
    store.client->hosted = true;
    atomic_store(&shared->throttle_next_ns, 0);
    atomic_store(&shared->throttle_rate, 1000);
    ok(throttle_write(store.client, 100u << 20, &debt));
    ok(throttle_write(store.client, 1, &debt));
    uint64_t left = db_debt_left(store.db, &debt);
    ck_assert_uint_gt(left, 3600 * UINT64_C(1000000000));
    atomic_store(&shared->throttle_rate, 1000000);
    left = left / 999;
    ck_assert_uint_lt(db_debt_left(store.db, &debt), left);
    /* But a debt does not grow when the rate falls. */
    atomic_store(&shared->throttle_rate, 1000);
    ck_assert_uint_lt(db_debt_left(store.db, &debt), left);
    uint64_t next = port_monotonic_ns() + 3600 * UINT64_C(1000000000);
    atomic_store(&shared->throttle_rate, UINT64_C(1) << 50);
    atomic_store(&shared->throttle_next_ns, next);
    shared->options.level0_files = 1;
    throttle_update(store.client);
    ck_assert_uint_gt(atomic_load(&shared->throttle_rate), 0);
    ck_assert_uint_lt(atomic_load(&shared->throttle_rate), UINT64_C(1) << 50);
    ck_assert_uint_eq(atomic_load(&shared->throttle_next_ns), next);
    atomic_store(&shared->throttle_rate, 0);
    ck_assert_uint_eq(db_debt_left(store.db, &debt), 0);
    store.client->hosted = false;
    store_destroy(&store);
}
END_TEST

/* Who acts for many comes again and again while memtables are full, and owes nothing for what was not written. */
START_TEST(a_write_that_comes_again_owes_once)
{
    Store store;
    store_create(&store, 31);
    DbShared *shared = store.db->shared;
    store.client->hosted = true;
    uint8_t value[1000] = {0};
    Status status = AIDB_OK;
    for (uint32_t i = 0; i < 100000 && status == AIDB_OK; i++) {
        Batch batch = {0};
        DbCommit commit;
        ok(batch_put(&batch, slice_make(&i, sizeof i), slice_make(value, sizeof value)));
        status = write_batch(&store, &batch, &commit);
        batch_deinit(&batch);
    }
    ck_assert_int_eq(status, AIDB_BUSY); /* nobody flushes */
    atomic_store(&shared->throttle_rate, 1u << 20);
    atomic_store(&shared->throttle_next_ns, 0);
    for (uint32_t i = 0; i < 100; i++) {
        Batch batch = {0};
        DbCommit commit;
        ok(batch_put(&batch, slice_make(&i, sizeof i), slice_make(value, sizeof value)));
        ck_assert_int_eq(write_batch(&store, &batch, &commit), AIDB_BUSY);
        batch_deinit(&batch);
    }
    ck_assert_uint_eq(atomic_load(&shared->throttle_next_ns), 0);
    store.client->hosted = false;
    store_destroy(&store);
}
END_TEST

/* Writes records that compress, the same each time, and flushes them. How large is the new table? */
static uint64_t flushed_size(Store *store)
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
        ok(write_batch(store, &batch, &commit));
        batch_deinit(&batch);
    }
    ok(db_flush(store->client));
    return atomic_load(&store->db->shared->view)->version->levels[0].files[0]->info.file_size;
}

/* A flush that writers wait for spares effort; the next one does not. */
START_TEST(flushes_hurry_for_writers)
{
    Store store = {.random = 1, .options = small_options()};
    store.options.compression_level = 19;
    store.options.table_size = 64u << 20; /* one table a flush */
    store.options.memtable_size = 1u << 20;
    store.directory = test_directory_create();
    ok(db_create(store.directory, &store.options));
    store_open(&store);
    DbShared *shared = store.db->shared;
    uint64_t careful = flushed_size(&store);
    /* Slowed, by a rate at which nobody sleeps. */
    atomic_store(&shared->throttle_rate, UINT64_C(1) << 40);
    atomic_store(&shared->throttle_reason, THROTTLE_LEVEL0);
    ck_assert_uint_lt(flushed_size(&store), careful + careful / 100);
    atomic_store(&shared->throttle_rate, UINT64_C(1) << 40);
    atomic_store(&shared->throttle_reason, THROTTLE_MEMTABLES);
    uint64_t hasty = flushed_size(&store);
    uint64_t later = flushed_size(&store);
    printf("flushed: %" PRIu64 " bytes, hastily %" PRIu64 ", then %" PRIu64 "\n", careful, hasty,
           later);
    ck_assert_uint_gt(hasty, careful + careful / 100);
    ck_assert_uint_lt(later, careful + careful / 100);
    store_destroy(&store);
}
END_TEST

TCase *write_cases(void)
{
    TCase *tests = tcase_create("write");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, expectations_are_checked_with_the_write);
    tcase_add_test(tests, expectations_see_a_sealed_memtable);
    tcase_add_test(tests, large_batches_pass);
    tcase_add_test(tests, batch_larger_than_memory);
    tcase_add_test(tests, many_range_deletes_in_a_batch);
    tcase_add_test(tests, a_flush_that_cannot_be_done_ends);
    tcase_add_test(tests, a_pool_in_pieces_is_joined);
    tcase_add_test(tests, debts_follow_the_rate);
    tcase_add_test(tests, a_write_that_comes_again_owes_once);
    tcase_add_test(tests, flushes_hurry_for_writers);
    return tests;
}
