/*
 * fault_test.c - files that fail: any call once, syncs of the log, a full disk.
 */
#include "config.h"

#include "engine/wal/test_store.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define SEGMENT 4096u
#define RING    8192u

/* ---- the Nth call fails --------------------------------------------------------------------------- */

/* One file operation of a workload fails, whichever it is: what was acknowledged stays, and the log either
 * goes on or has failed for good. */
static void fail_each_call(FaultMode mode)
{
    int failed_logs = 0;
    uint64_t at = 1;
    for (bool reached = true; reached; at++) {
        TestStore store;
        uint64_t durable = 0;
        uint64_t ends[200];
        test_store_make(&store, SEGMENT, RING);
        ck_ok(test_store_open(&store));
        fault_set(mode, at);
        for (int i = 0; i < 120; i++) {
            int wait_ms;
            bool failed_before = wal_failed(store.wal);
            Status status = test_append(&store);
            if (status == AIDB_OK)
                ends[store.next - 1] = wal_copied(store.wal);
            else if (failed_before)
                ck_fails(AIDB_FAILED, status);
            if (i % 5 == 4) {
                status = wal_sync(store.wal, store.slot, wal_copied(store.wal));
                if (status == AIDB_OK)
                    durable = store.next;
                else
                    ck_fails(AIDB_UNKNOWN, status);
                /* Success after a failure would be a lie. */
                ck_assert(!failed_before || status != AIDB_OK ||
                          wal_durable(store.wal) == wal_copied(store.wal));
            }
            if (i % 9 == 8)
                (void)!wal_writer_step(store.wal, store.slot, &wait_ms);
            if (i % 30 == 29 && durable > 12) {
                store.manifest->from = ends[durable - 11];
                store.manifest->from_record = durable - 10;
                wal_release(store.wal, store.slot, store.manifest->from);
            }
        }
        if (!wal_failed(store.wal))
            ck_assert_uint_eq(durable, store.next);
        failed_logs += wal_failed(store.wal);
        reached = fault.calls >= at;
        fault_set(FAULT_NONE, 0);
        uint64_t appended = store.next;
        test_store_crash(&store);
        ck_ok(test_store_open(&store));
        uint64_t found = test_read_all(&store);
        ck_assert_uint_ge(found, durable);
        ck_assert_uint_eq(found, appended); /* the processes died, not the machine */
        test_append_many(&store, 20);
        ck_ok(wal_sync(store.wal, store.slot, wal_copied(store.wal)));
        test_store_remove(&store);
    }
    ck_assert_uint_gt(at, 60);
    ck_assert_int_gt(failed_logs, 20);
    ck_assert_int_lt(failed_logs, (int)at - 10);
}

START_TEST(test_each_call_fails)
{
    fail_each_call(FAULT_ERROR);
    fail_each_call(FAULT_ERROR_LATE);
}
END_TEST

/* Makes a store of 60 records whose processes were killed. Returns the log's end. */
static uint64_t make_killed(TestStore *store)
{
    test_store_make(store, SEGMENT, RING);
    ck_ok(test_store_open(store));
    test_append_many(store, 60);
    uint64_t end = wal_copied(store->wal);
    test_store_crash(store);
    return end;
}

/* Recovery that cannot finish stops, changes nothing for the worse, and succeeds when tried again. */
START_TEST(test_recovery_fails)
{
    for (FaultMode mode = FAULT_ERROR; mode <= FAULT_DEAD; mode++) {
        int failures = 0;
        bool reached = true;
        for (uint64_t at = 1; reached; at++) {
            TestStore store;
            uint64_t end = make_killed(&store);
            fault_set(mode, at);
            Status status = test_store_open(&store);
            reached = fault.calls >= at;
            fault_set(FAULT_NONE, 0);
            if (status != AIDB_OK) {
                ck_fails(AIDB_IO, status);
                failures++;
                ck_ok(test_store_open(&store));
            }
            ck_assert_uint_eq(store.last.end, end);
            ck_assert_uint_eq(test_read_all(&store), 60);
            test_store_remove(&store);
        }
        ck_assert_int_gt(failures, 15);
    }
}
END_TEST

static uint32_t count_files(const char *directory)
{
    DIR *folder = opendir(directory);
    ck_assert_ptr_nonnull(folder);
    uint32_t count = 0;
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

/* Where the disk is full, a start that fails must not take more room each time. */
START_TEST(test_failed_recoveries_take_no_more_room)
{
    TestStore store;
    uint64_t end = make_killed(&store);
    uint32_t failures = 0, most = 0;
    for (uint64_t round = 0; round < 40; round++) {
        fault_set(FAULT_ERROR, 8 + round % 8);
        Status status = test_store_open(&store);
        fault_set(FAULT_NONE, 0);
        if (status == AIDB_OK) {
            test_store_crash(&store);
            continue;
        }
        failures++;
        uint32_t count = count_files(store.wal_directory);
        most = count > most ? count : most;
    }
    ck_assert_uint_gt(failures, 30);
    ck_assert_uint_le(most, 20); /* without limit it would be 85 */
    ck_ok(test_store_open(&store));
    ck_assert_uint_eq(store.last.end, end);
    ck_assert_uint_eq(test_read_all(&store), 60);
    test_store_remove(&store);
}
END_TEST

/* ---- a failed sync -------------------------------------------------------------------------------- */

static void *run_waiter(void *arg)
{
    TestStore *store = arg;
    Slot *slot = slot_claim_any(&store->slots, 1, SLOT_THREAD);
    Status status = wal_sync(store->wal, slot, wal_copied(store->wal));
    slot_release(slot);
    return (void *)(intptr_t)status;
}

START_TEST(test_failed_sync_is_final)
{
    for (FaultMode mode = FAULT_ERROR; mode <= FAULT_ERROR_LATE; mode++) {
        TestStore store;
        test_store_make(&store, SEGMENT, RING);
        ck_ok(test_store_open(&store));
        test_append_many(&store, 10);
        ck_ok(wal_sync(store.wal, store.slot, wal_copied(store.wal)));
        uint64_t durable = wal_durable(store.wal);
        test_append_many(&store, 10);
        fault_set(mode, 1);
        fault.syncs_only = true;
        pthread_t waiters[4];
        for (int i = 0; i < 4; i++)
            ck_assert_int_eq(pthread_create(&waiters[i], NULL, run_waiter, &store), 0);
        for (int i = 0; i < 4; i++) {
            void *status;
            pthread_join(waiters[i], &status);
            ck_assert_int_eq((Status)(intptr_t)status, AIDB_UNKNOWN);
        }
        /* The sync was tried once and never again. */
        ck_assert_uint_eq(fault.calls, 1);
        ck_assert(wal_failed(store.wal));
        ck_assert_uint_eq(wal_durable(store.wal), durable);
        ck_ok(wal_sync(store.wal, store.slot, durable));
        ck_fails(AIDB_UNKNOWN, wal_sync(store.wal, store.slot, durable + 8));
        ck_assert(!wal_has_room(store.wal, 8));
        ck_fails(AIDB_FAILED, wal_make_room(store.wal, store.slot, 8));
        uint64_t lsn;
        Slice payload = test_payload(store.next);
        ck_fails(AIDB_FAILED,
                 wal_append_large(store.wal, store.slot, payload, wal_payload_hash(payload), &lsn));
        int wait_ms;
        ck_fails(AIDB_FAILED, wal_writer_step(store.wal, store.slot, &wait_ms));
        ck_fails(AIDB_FAILED, wal_stop(store.wal, store.slot));
        ck_assert_uint_eq(wal_durable(store.wal), durable);
        ck_assert_uint_eq(fault.calls, 1);
        fault_set(FAULT_NONE, 0);
        test_store_crash(&store);
        ck_ok(test_store_open(&store));
        ck_assert_uint_eq(test_read_all(&store), 20);
        /* All that was not known durable was written again, into files of this incarnation. */
        Catalog catalog;
        ck_ok(catalog_load(&store.options, &catalog));
        const SegmentFile *file = catalog_find(&catalog, segment_start(&store.options, durable), 1);
        ck_assert_ptr_nonnull(file);
        ck_assert_uint_eq(file->incarnation, 2);
        ck_assert_uint_eq(file->header.kind, SEGMENT_COPIED);
        catalog_deinit(&catalog);
        test_store_remove(&store);
    }
}
END_TEST

/* A large record whose write fails half-way is never found, and fails the log. */
START_TEST(test_failed_large_record)
{
    static uint8_t bytes[4 * SEGMENT];
    Slice payload = slice_make(bytes, sizeof bytes);
    int failures = 0;
    bool reached = true;
    for (uint64_t at = 1; reached; at++) {
        TestStore store;
        test_store_make(&store, SEGMENT, RING);
        ck_ok(test_store_open(&store));
        test_append_many(&store, 10);
        ck_ok(wal_make_room(store.wal, store.slot, payload.size));
        fault_set(FAULT_ERROR, at);
        uint64_t lsn;
        Status status =
            wal_append_large(store.wal, store.slot, payload, wal_payload_hash(payload), &lsn);
        reached = fault.calls >= at;
        fault_set(FAULT_NONE, 0);
        if (status != AIDB_OK) {
            failures++;
            ck_fails(AIDB_UNKNOWN, status);
            ck_assert(wal_failed(store.wal));
        }
        test_store_crash(&store);
        ck_ok(test_store_open(&store));
        /* Nothing of it, or all of it when only the last sync failed. */
        WalReader *reader;
        WalRecord record;
        ck_ok(wal_reader_create(&store.options, store.manifest->starts, store.manifest->count, 0,
                                store.last.end, &reader));
        for (uint64_t i = 0; i < 10; i++) {
            ck_ok(wal_reader_next(reader, &record));
            ck_assert(slice_equal(record.payload, test_payload(i)));
        }
        Status next = wal_reader_next(reader, &record);
        if (next == AIDB_OK)
            ck_assert(slice_equal(record.payload, payload));
        else
            ck_assert(next == AIDB_NOT_FOUND && status != AIDB_OK);
        wal_reader_destroy(reader);
        test_store_remove(&store);
    }
    ck_assert_int_gt(failures, 4); /* at least once in each segment */
}
END_TEST

/* ---- a full disk ---------------------------------------------------------------------------------- */

/* Segments cannot be prepared: what is prepared still works, writers hear of it, and it passes. */
START_TEST(test_no_space_injected)
{
    TestStore store;
    test_store_make(&store, SEGMENT, RING);
    ck_ok(test_store_open(&store));
    int wait_ms;
    ck_ok(wal_writer_step(store.wal, store.slot, &wait_ms));
    uint64_t prepared = atomic_load(&store.shared->prepared_end);
    while (wal_has_room(store.wal, 1000) || wal_copied(store.wal) + 1100 < prepared) {
        /* Nothing but room in the ring is missing here. */
        ck_ok(wal_make_room(store.wal, store.slot, 1000));
        Slice payload = test_payload(store.next);
        wal_append(store.wal, payload, wal_payload_hash(payload));
        store.next++;
    }
    ck_ok(wal_sync(store.wal, store.slot, wal_copied(store.wal)));
    fault_set(FAULT_DEAD, 1);
    fault.code = AIDB_NO_SPACE;
    ck_fails(AIDB_NO_SPACE, wal_make_room(store.wal, store.slot, 2000));
    ck_ok(wal_writer_step(store.wal, store.slot, &wait_ms));
    uint64_t lsn;
    static uint8_t bytes[3 * SEGMENT];
    Slice large = slice_make(bytes, sizeof bytes);
    ck_fails(AIDB_NO_SPACE,
             wal_append_large(store.wal, store.slot, large, wal_payload_hash(large), &lsn));
    ck_assert(!wal_failed(store.wal));
    fault_set(FAULT_NONE, 0);
    ck_ok(wal_sync(store.wal, store.slot, wal_copied(store.wal)));
    test_append_many(&store, 50);
    uint64_t written = store.next;
    test_store_crash(&store);
    ck_ok(test_store_open(&store));
    ck_assert_uint_eq(test_read_all(&store), written);
    test_store_remove(&store);
}
END_TEST

/* The same on a file system that really is full. */
START_TEST(test_no_space)
{
    TestStore store;
    test_store_make(&store, 16u << 10, 16u << 10);
    char mounted[300];
    snprintf(mounted, sizeof mounted, "%s/small", store.directory);
    ck_assert_int_eq(mkdir(mounted, 0700), 0);
    if (mount("none", mounted, "tmpfs", 0, "size=256k") != 0) {
        fprintf(stderr, "skipped: a small file system could not be mounted (%s)\n",
                strerror(errno));
        test_store_remove(&store);
        return;
    }
    snprintf(store.wal_directory, sizeof store.wal_directory, "%.200s/wal", mounted);
    ck_ok(wal_create(&store.options));
    ck_ok(test_store_open(&store));
    Status status;
    while ((status = test_append(&store)) == AIDB_OK)
        if (store.next % 8 == 0)
            ck_ok(wal_sync(store.wal, store.slot, wal_copied(store.wal)));
    ck_fails(AIDB_NO_SPACE, status);
    ck_assert(!wal_failed(store.wal));
    ck_ok(wal_sync(store.wal, store.slot, wal_copied(store.wal)));
    uint64_t written = store.next;
    ck_assert_uint_gt(written, 500);
    /* A large record gets its error before anything is written. */
    static uint8_t bytes[100 << 10];
    Slice large = slice_make(bytes, sizeof bytes);
    uint64_t lsn;
    ck_fails(AIDB_NO_SPACE,
             wal_append_large(store.wal, store.slot, large, wal_payload_hash(large), &lsn));
    ck_assert(!wal_failed(store.wal));
    /* Tables take over: segments come free and writing goes on, without a restart. */
    store.manifest->from = wal_durable(store.wal);
    store.manifest->from_record = written;
    wal_release(store.wal, store.slot, store.manifest->from);
    test_append_many(&store, 300);
    ck_ok(wal_sync(store.wal, store.slot, wal_copied(store.wal)));
    test_store_crash(&store);
    ck_ok(test_store_open(&store));
    ck_assert_uint_eq(test_read_all(&store), written + 300);
    wal_close(store.wal);
    store.wal = NULL;
    ck_assert_int_eq(umount(mounted), 0);
    test_store_remove(&store);
}
END_TEST

TCase *fault_cases(void)
{
    TCase *tests = tcase_create("faults");
    tcase_set_timeout(tests, 300); /* only against hanging */
    tcase_add_test(tests, test_each_call_fails);
    tcase_add_test(tests, test_recovery_fails);
    tcase_add_test(tests, test_failed_recoveries_take_no_more_room);
    tcase_add_test(tests, test_failed_sync_is_final);
    tcase_add_test(tests, test_failed_large_record);
    tcase_add_test(tests, test_no_space_injected);
    tcase_add_test(tests, test_no_space);
    return tests;
}
