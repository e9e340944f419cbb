/*
 * embedded_test.c - the public API on a directory, from many threads.
 *
 * The thread sanitizer sees here what the server's processes do to each other: the same engine code
 * runs, with threads in their places. The invariant is a bank's: transfers move money between accounts
 * in batches with expectations, so that every snapshot has the same total.
 */
#include "config.h"

#include "testlib/testlib.h"

#include <aidb.h>
#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ACCOUNTS      64
#define START_BALANCE 1000
#define TRANSFERS     1500
#define WRITERS       3
#define READERS       2

static const aidb_option small[] = {{"create", "true"},
                                    {"memory", "24MiB"},
                                    {"memtable_size", "256KiB"},
                                    {"cache_size", "2MiB"},
                                    {"batch_max", "4MiB"},
                                    {"table_size", "1MiB"},
                                    {"level_base_size", "1MiB"},
                                    {"level0_files", "2"},
                                    {"compactors", "2"},
                                    {"durability", "os"},
                                    {"wal_segment_size", "1MiB"},
                                    {"wal_ring_size", "1MiB"},
                                    {NULL, NULL}};

static char *directory;
static aidb *db;
static _Atomic int running;

static void ok(aidb_status status)
{
    ck_assert_msg(status == AIDB_OK, "status %d: %s", (int)status, aidb_error_message());
}

static void setup(void)
{
    directory = test_directory_create();
    ok(aidb_open(directory, small, &db));
}

static void teardown(void)
{
    if (db != NULL)
        ok(aidb_close(db));
    db = NULL;
    test_directory_destroy(directory);
}

static int account_key(unsigned account, char key[32])
{
    return snprintf(key, 32, "account:%04u", account);
}

static long balance(const aidb_snapshot *snapshot, unsigned account, uint64_t *version)
{
    char key[32], text[32] = "";
    aidb_value value = {0};
    int size = account_key(account, key);
    ok(aidb_get(db, snapshot, key, (size_t)size, &value));
    memcpy(text, value.data, value.size < 31 ? value.size : 31);
    *version = value.lsn;
    aidb_free(value.data);
    return strtol(text, NULL, 10);
}

static void put_balance(aidb_batch *batch, unsigned account, long amount)
{
    char key[32], text[256];
    int key_size = account_key(account, key);
    int size =
        snprintf(text, sizeof text, "%ld %0200d", amount, 0); /* long enough to fill memtables */
    ok(aidb_batch_put(batch, key, (size_t)key_size, text, (size_t)size));
}

static void expect_version(aidb_batch *batch, unsigned account, uint64_t version)
{
    char key[32];
    int key_size = account_key(account, key);
    ok(aidb_batch_expect(batch, key, (size_t)key_size, AIDB_EXPECT_VERSION, version));
}

static void fill_accounts(void)
{
    aidb_batch *batch = aidb_batch_create();
    for (unsigned i = 0; i < ACCOUNTS; i++)
        put_balance(batch, i, START_BALANCE);
    ok(aidb_write(db, batch, AIDB_DEFAULT, NULL));
    aidb_batch_destroy(batch);
}

static void *transfer_money(void *arg)
{
    uint64_t random = (uint64_t)(uintptr_t)arg;
    aidb_batch *batch = aidb_batch_create();
    for (int done = 0; done < TRANSFERS;) {
        unsigned from = (unsigned)test_random_below(&random, ACCOUNTS);
        unsigned to = (unsigned)test_random_below(&random, ACCOUNTS);
        if (from == to)
            continue;
        uint64_t from_version, to_version;
        long from_balance = balance(NULL, from, &from_version);
        long to_balance = balance(NULL, to, &to_version);
        long amount = (long)test_random_below(&random, 50);
        aidb_batch_clear(batch);
        expect_version(batch, from, from_version);
        expect_version(batch, to, to_version);
        put_balance(batch, from, from_balance - amount);
        put_balance(batch, to, to_balance + amount);
        aidb_status status = aidb_write(db, batch, AIDB_DEFAULT, NULL);
        if (status == AIDB_EXPECTATION)
            continue;
        ok(status);
        done++;
    }
    aidb_batch_destroy(batch);
    atomic_fetch_sub(&running, 1);
    return NULL;
}

/* The total by gets and by a scan, at one snapshot. */
static void check_total(void)
{
    aidb_snapshot *snapshot;
    ok(aidb_snapshot_create(db, &snapshot));
    long by_gets = 0, by_scan = 0;
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        uint64_t version;
        by_gets += balance(snapshot, i, &version);
    }
    aidb_scan scan = {.prefix = {"account:", 8}};
    aidb_iter *iter;
    const aidb_entry *entry;
    unsigned rows = 0;
    ok(aidb_iter_create(db, snapshot, &scan, &iter));
    for (ok(aidb_iter_next(iter, &entry)); entry != NULL; ok(aidb_iter_next(iter, &entry))) {
        by_scan += strtol(entry->value, NULL, 10);
        rows++;
    }
    aidb_iter_destroy(iter);
    aidb_snapshot_destroy(snapshot);
    ck_assert_uint_eq(rows, ACCOUNTS);
    ck_assert_int_eq(by_gets, ACCOUNTS * START_BALANCE);
    ck_assert_int_eq(by_scan, ACCOUNTS * START_BALANCE);
}

static void *check_totals(void *arg)
{
    (void)arg;
    while (atomic_load(&running) > 0)
        check_total();
    return NULL;
}

static void *administer(void *arg)
{
    (void)arg;
    while (atomic_load(&running) > 0) {
        ok(aidb_control(db, "flush", NULL));
        ok(aidb_control(db, "compact", NULL));
        char *text;
        ok(aidb_property(db, "status", &text));
        aidb_free(text);
        usleep(20000);
    }
    return NULL;
}

START_TEST(totals_hold_between_threads)
{
    pthread_t threads[WRITERS + READERS + 1];
    uint64_t seed = test_seed("totals_hold_between_threads");
    fill_accounts();
    atomic_store(&running, WRITERS);
    int count = 0;
    for (uintptr_t i = 0; i < WRITERS; i++)
        pthread_create(&threads[count++], NULL, transfer_money,
                       (void *)(uintptr_t)((seed + i * 7919) | 1));
    for (int i = 0; i < READERS; i++)
        pthread_create(&threads[count++], NULL, check_totals, NULL);
    pthread_create(&threads[count++], NULL, administer, NULL);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    check_total();
    ok(aidb_close(db));
    ok(aidb_open(directory, small, &db));
    check_total();
}
END_TEST

static void *write_range(void *arg)
{
    unsigned worker = (unsigned)(uintptr_t)arg;
    char key[32], value[200];
    memset(value, 'a' + (int)worker, sizeof value);
    for (unsigned i = 0; i < 3000; i++) {
        int size = snprintf(key, sizeof key, "%u/%08u", worker, i * 7919 % 3000);
        ok(aidb_put(db, key, (size_t)size, value, sizeof value));
        if (i % 100 == 99) {
            /* Deletes its own oldest hundred by range. */
            char from[32], to[32];
            int from_size = snprintf(from, sizeof from, "%u/%08u", worker, i - 99);
            int to_size = snprintf(to, sizeof to, "%u/%08u", worker, i - 49);
            aidb_batch *batch = aidb_batch_create();
            aidb_range range = {{from, (size_t)from_size}, {to, (size_t)to_size}};
            ok(aidb_batch_delete_range(batch, &range));
            ok(aidb_write(db, batch, AIDB_DEFAULT, NULL));
            aidb_batch_destroy(batch);
        }
    }
    atomic_fetch_sub(&running, 1);
    return NULL;
}

static void *scan_everything(void *arg)
{
    int backwards = arg != NULL;
    while (atomic_load(&running) > 0) {
        aidb_iter *iter;
        const aidb_entry *entry;
        ok(aidb_iter_create(db, NULL, NULL, &iter));
        char last[64] = "";
        size_t last_size = 0;
        for (;;) {
            ok(backwards ? aidb_iter_prev(iter, &entry) : aidb_iter_next(iter, &entry));
            if (entry == NULL)
                break;
            const char *value = entry->value;
            ck_assert_uint_eq(entry->value_size, 200);
            ck_assert_int_eq(value[0], 'a' + (((const char *)entry->key)[0] - '0'));
            ck_assert_int_eq(value[199], value[0]);
            if (last_size > 0) {
                int order = memcmp(last, entry->key,
                                   last_size < entry->key_size ? last_size : entry->key_size);
                ck_assert(backwards ? order > 0 : order < 0);
            }
            memcpy(last, entry->key, entry->key_size);
            last_size = entry->key_size;
        }
        aidb_iter_destroy(iter);
    }
    return NULL;
}

START_TEST(scans_run_beside_writes)
{
    pthread_t threads[WRITERS + 3];
    int count = 0;
    atomic_store(&running, WRITERS);
    for (uintptr_t i = 0; i < WRITERS; i++)
        pthread_create(&threads[count++], NULL, write_range, (void *)i);
    pthread_create(&threads[count++], NULL, scan_everything, NULL);
    pthread_create(&threads[count++], NULL, scan_everything, (void *)1);
    pthread_create(&threads[count++], NULL, administer, NULL);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}
END_TEST

static void *write_burst(void *arg)
{
    char key[32], value[300];
    memset(value, 'b', sizeof value);
    for (unsigned i = 0; i < 1500; i++) {
        int size = snprintf(key, sizeof key, "%u/%08u", (unsigned)(uintptr_t)arg, i * 7919 % 1500);
        ok(aidb_put(db, key, (size_t)size, value, sizeof value));
    }
    atomic_fetch_sub(&running, 1);
    return NULL;
}

/* With flushes and compactions on their way. */
START_TEST(a_busy_store_is_closed)
{
    for (int round = 0; round < 4; round++) {
        pthread_t threads[WRITERS];
        aidb_snapshot *snapshot;
        aidb_iter *iter;
        const aidb_entry *entry;
        atomic_store(&running, WRITERS);
        for (uintptr_t i = 0; i < WRITERS; i++)
            pthread_create(&threads[i], NULL, write_burst, (void *)i);
        while (atomic_load(&running) > 0) {
            ok(aidb_snapshot_create(db, &snapshot));
            ok(aidb_iter_create(db, snapshot, NULL, &iter));
            for (int i = 0; i < 50; i++)
                ok(aidb_iter_next(iter, &entry));
            aidb_iter_destroy(iter);
            aidb_snapshot_destroy(snapshot);
        }
        for (int i = 0; i < WRITERS; i++)
            pthread_join(threads[i], NULL);
        ok(aidb_close(db));
        ok(aidb_open(directory, small, &db));
        uint64_t count = 0;
        ok(aidb_measure(db, NULL, NULL, &count, NULL));
        ck_assert_uint_eq(count, WRITERS * 1500);
    }
}
END_TEST

static void *hold_snapshots(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20000; i++) {
        aidb_snapshot *snapshot;
        ok(aidb_snapshot_create(db, &snapshot));
        aidb_snapshot_destroy(snapshot);
    }
    return NULL;
}

static void *count_entries(void *arg)
{
    (void)arg;
    for (int i = 0; i < 500; i++) {
        uint64_t count = 0;
        ok(aidb_measure(db, NULL, NULL, &count, NULL));
        ck_assert_uint_eq(count, 2000);
    }
    return NULL;
}

/* All at one LSN: each release must take away one registration, whosever slot it is in. */
START_TEST(no_snapshot_stays_behind)
{
    pthread_t threads[4];
    for (int i = 0; i < 2000; i++)
        ok(aidb_put(db, &i, sizeof i, "v", 1));
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, i < 2 ? hold_snapshots : count_entries, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    char *text;
    ok(aidb_property(db, "status", &text));
    ck_assert_ptr_nonnull(strstr(text, "\nsnapshots\t0\n"));
    aidb_free(text);
}
END_TEST

/* An error in the middle of a scan is no end of it, however often it is asked. */
START_TEST(a_failed_scan_has_no_end)
{
    ok(aidb_put(db, "a", 1, "v", 1));
    ok(aidb_close(db)); /* flushes */
    ok(aidb_open(directory, small, &db));
    char sst[512], aside[512];
    snprintf(sst, sizeof sst, "%s/sst", directory);
    snprintf(aside, sizeof aside, "%s/aside", directory);
    aidb_iter *iter;
    const aidb_entry *entry;
    ok(aidb_iter_create(db, NULL, NULL, &iter));
    ck_assert_int_eq(rename(sst, aside), 0);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_ne(aidb_iter_next(iter, &entry), AIDB_OK);
        ck_assert_int_ne(aidb_iter_prev(iter, &entry), AIDB_OK);
    }
    ck_assert_int_eq(rename(aside, sst), 0);
    ck_assert_int_ne(aidb_iter_next(iter, &entry), AIDB_OK);
    ok(aidb_iter_seek(iter, AIDB_SEEK_FIRST, NULL, 0, &entry));
    ck_assert_ptr_nonnull(entry);
    ok(aidb_iter_next(iter, &entry));
    ck_assert_ptr_null(entry);
    aidb_iter_destroy(iter);
}
END_TEST

START_TEST(a_directory_is_opened_once)
{
    aidb *second;
    ck_assert_int_eq(aidb_open(directory, NULL, &second), AIDB_LOCKED);
    ck_assert_ptr_null(second);
    char pid[32];
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    ck_assert_ptr_nonnull(strstr(aidb_error_message(), pid));
}
END_TEST

START_TEST(a_forked_child_cannot_use_the_handle)
{
    ok(aidb_put(db, "k", 1, "v", 1));
    pid_t child = fork();
    if (child == 0) {
        aidb_value value = {0};
        int wrong = aidb_get(db, NULL, "k", 1, &value) != AIDB_CLOSED ||
                    aidb_put(db, "x", 1, "", 0) != AIDB_CLOSED;
        aidb_close(db);
        _exit(wrong);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    aidb_value value = {0};
    ok(aidb_get(db, NULL, "k", 1, &value));
    aidb_free(value.data);
    /* And the lock is still the parent's. */
    aidb *second;
    ck_assert_int_eq(aidb_open(directory, NULL, &second), AIDB_LOCKED);
}
END_TEST

START_TEST(a_killed_program_loses_nothing_it_wrote)
{
    ok(aidb_close(db));
    db = NULL;
    int pipes[2];
    ck_assert_int_eq(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0) {
        aidb *own;
        if (aidb_open(directory, small, &own) != AIDB_OK)
            _exit(1);
        for (unsigned i = 0;; i++) {
            char key[32], value[300];
            memset(value, 'v', sizeof value);
            int size = snprintf(key, sizeof key, "%08u", i);
            if (aidb_put(own, key, (size_t)size, value, sizeof value) != AIDB_OK)
                _exit(2);
            if (write(pipes[1], &i, sizeof i) !=
                sizeof i) /* the acknowledgement, outside the store */
                _exit(3);
        }
    }
    unsigned acknowledged = 0, got;
    while (acknowledged < 5000 && read(pipes[0], &got, sizeof got) == sizeof got)
        acknowledged = got;
    kill(child, SIGKILL);
    int status;
    waitpid(child, &status, 0);
    ck_assert(WIFSIGNALED(status));
    close(pipes[1]);
    while (read(pipes[0], &got, sizeof got) == sizeof got)
        acknowledged = got;
    close(pipes[0]);
    ok(aidb_open(directory, small, &db));
    uint64_t count;
    ok(aidb_measure(db, NULL, NULL, &count, NULL));
    ck_assert_uint_ge(count, acknowledged + 1);
    ck_assert_uint_le(count, acknowledged + 2); /* one may have been on its way */
}
END_TEST

START_TEST(wrong_arguments_are_told)
{
    aidb *other;
    aidb_value value = {0};
    ck_assert_int_eq(aidb_open("/nonexistent/place", NULL, &other), AIDB_NO_DATABASE);
    ck_assert_ptr_nonnull(strstr(aidb_error_message(), "/nonexistent/place"));
    char *empty = test_directory_create();
    ck_assert_int_eq(aidb_open(empty, NULL, &other), AIDB_NO_DATABASE);
    ck_assert_int_eq(
        aidb_open(empty, (aidb_option[]){{"create", "true"}, {"memroy", "1GiB"}, {NULL, NULL}},
                  &other),
        AIDB_INVALID);
    ck_assert_ptr_nonnull(strstr(aidb_error_message(), "memory")); /* suggested */
    ck_assert_int_eq(
        aidb_open(empty, (aidb_option[]){{"create", "true"}, {"memory", "10MiB"}, {NULL, NULL}},
                  &other),
        AIDB_INVALID);
    ck_assert_int_eq(aidb_open(empty, (aidb_option[]){{"port", "5"}, {NULL, NULL}}, &other),
                     AIDB_INVALID);
    test_directory_destroy(empty);
    ck_assert_int_eq(aidb_get(db, NULL, "", 0, &value), AIDB_INVALID);
    char *longer = calloc(1, AIDB_KEY_MAX + 1);
    ck_assert_int_eq(aidb_put(db, longer, AIDB_KEY_MAX + 1, "", 0), AIDB_INVALID);
    ok(aidb_put(db, longer, AIDB_KEY_MAX, "", 0));
    ok(aidb_get(db, NULL, longer, AIDB_KEY_MAX, &value));
    ck_assert_uint_eq(value.size, 0);
    free(longer);
    aidb_free(value.data);
    char *text;
    ck_assert_int_eq(aidb_property(db, "nonsense", &text), AIDB_INVALID);
    ck_assert_int_eq(aidb_control(db, "nonsense", NULL), AIDB_INVALID);
    ck_assert_int_eq(aidb_property(db, "backends", &text), AIDB_UNSUPPORTED);
}
END_TEST

static void note_done(void *arg, aidb_status status, const aidb_value *value,
                      const aidb_commit *commit)
{
    uint64_t *sum = arg;
    if (status == AIDB_OK)
        *sum += commit != NULL ? 1 : value->size;
}

START_TEST(submitted_requests_are_answered_in_order)
{
    uint64_t writes = 0, bytes = 0;
    aidb_batch *batch = aidb_batch_create();
    for (unsigned i = 0; i < 1000; i++) {
        char key[16];
        int size = snprintf(key, sizeof key, "%u", i);
        aidb_batch_clear(batch);
        ok(aidb_batch_put(batch, key, (size_t)size, key, (size_t)size));
        ok(aidb_submit(
            db, &(aidb_request){
                    .batch = batch, .durability = AIDB_FSYNC, .done = note_done, .arg = &writes}));
        ok(aidb_submit(
            db, &(aidb_request){.key = {key, (size_t)size}, .done = note_done, .arg = &bytes}));
    }
    ok(aidb_wait(db, 0));
    char *text = NULL;
    ck_assert_int_eq(aidb_property(db, "socket", &text), AIDB_UNSUPPORTED);
    ck_assert_ptr_null(text);
    aidb_batch_destroy(batch);
    ck_assert_uint_eq(writes, 1000);
    ck_assert_uint_eq(bytes, 10 + 90 * 2 + 900 * 3);
}
END_TEST

/* Of three keys the first multi-get finds one, the second two. */
static void check_many(void *arg, aidb_status status, const aidb_value *values,
                       const aidb_commit *commit)
{
    unsigned *answers = arg;
    ck_assert_int_eq(status, AIDB_OK);
    ck_assert_ptr_null(commit);
    for (unsigned i = 0; i < 3; i++) {
        int there = i == 0 || (i == 1 && *answers > 0);
        ck_assert_int_eq(values[i].lsn != 0, there);
        ck_assert_uint_eq(values[i].size, there ? i : 0);
    }
    ++*answers;
}

START_TEST(submitted_multi_gets_see_what_was_submitted_before)
{
    const aidb_key keys[] = {{"a", 1}, {"b", 1}, {"c", 1}};
    unsigned answers = 0;
    uint64_t writes = 0;
    const aidb_request ask = {.keys = keys, .key_count = 3, .done = check_many, .arg = &answers};
    aidb_batch *batch = aidb_batch_create();
    for (unsigned i = 0; i < 2; i++) {
        aidb_batch_clear(batch);
        ok(aidb_batch_put(batch, keys[i].data, keys[i].size, "v", i));
        ok(aidb_submit(db, &(aidb_request){.batch = batch, .done = note_done, .arg = &writes}));
        ok(aidb_submit(db, &ask));
    }
    ok(aidb_wait(db, 0));
    ck_assert_uint_eq(writes, 2);
    ck_assert_uint_eq(answers, 2);

    aidb_request wrong = ask;
    wrong.key_count = 0;
    ck_assert_int_eq(aidb_submit(db, &wrong), AIDB_INVALID);
    wrong.key_count = 65537;
    ck_assert_int_eq(aidb_submit(db, &wrong), AIDB_LIMIT);
    wrong = ask;
    wrong.key = keys[0];
    ck_assert_int_eq(aidb_submit(db, &wrong), AIDB_INVALID);
    wrong = ask;
    wrong.batch = batch;
    ck_assert_int_eq(aidb_submit(db, &wrong), AIDB_INVALID);
    wrong = ask;
    wrong.keys = (const aidb_key[]){{"a", 1}, {"", 0}, {"c", 1}};
    ck_assert_int_eq(aidb_submit(db, &wrong), AIDB_INVALID);
    ck_assert_uint_eq(answers, 2);
    aidb_batch_destroy(batch);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("embedded");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 0);
    tcase_add_checked_fixture(all, setup, teardown);
    suite_add_tcase(suite, all);
    tcase_add_test(all, totals_hold_between_threads);
    tcase_add_test(all, scans_run_beside_writes);
    tcase_add_test(all, a_busy_store_is_closed);
    tcase_add_test(all, no_snapshot_stays_behind);
    tcase_add_test(all, a_failed_scan_has_no_end);
    tcase_add_test(all, a_directory_is_opened_once);
    tcase_add_test(all, a_forked_child_cannot_use_the_handle);
    tcase_add_test(all, a_killed_program_loses_nothing_it_wrote);
    tcase_add_test(all, wrong_arguments_are_told);
    tcase_add_test(all, submitted_requests_are_answered_in_order);
    tcase_add_test(all, submitted_multi_gets_see_what_was_submitted_before);
    return test_run(suite);
}
