/* api_test.c - the public API over a server. */
#include "config.h"

#include "testlib/test_server.h"

#include <aidb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct Answers {
    int count;
    aidb_status last;
} Answers;

static void on_answer(void *arg, aidb_status status, const aidb_value *value,
                      const aidb_commit *commit)
{
    Answers *answers = arg;
    (void)value;
    (void)commit;
    answers->count++;
    answers->last = status;
}

START_TEST(the_api_over_a_server)
{
    aidb *db;
    const aidb_option options[] = {
        {"application", "api test"}, {"connect_timeout", "30s"}, {NULL, NULL}};
    ck_assert_msg(aidb_open(_i == 0 ? unix_uri : tcp_uri, options, &db) == AIDB_OK, "%s",
                  aidb_error_message());
    aidb_value value = {0};
    ck_assert_int_eq(aidb_get(db, NULL, "a", 1, &value), AIDB_NOT_FOUND);
    ck_assert_int_eq(aidb_put(db, "a", 1, "1", 1), AIDB_OK);
    ck_assert_int_eq(aidb_put(db, "b", 1, "", 0), AIDB_OK);
    ck_assert_int_eq(aidb_get(db, NULL, "b", 1, &value), AIDB_OK);
    ck_assert_uint_eq(value.size, 0);
    ck_assert_uint_ne(value.lsn, 0);

    aidb_snapshot *snapshot;
    ck_assert_int_eq(aidb_snapshot_create(db, &snapshot), AIDB_OK);
    aidb_batch *batch = aidb_batch_create();
    aidb_commit commit;
    ck_assert_int_eq(aidb_batch_put(batch, "c", 1, "3", 1), AIDB_OK);
    ck_assert_int_eq(aidb_batch_delete(batch, "a", 1), AIDB_OK);
    ck_assert_int_eq(aidb_batch_expect(batch, "b", 1, AIDB_EXPECT_VERSION, value.lsn), AIDB_OK);
    ck_assert_int_eq(aidb_write(db, batch, AIDB_FSYNC, &commit), AIDB_OK);
    ck_assert_int_eq(aidb_batch_expect(batch, "a", 1, AIDB_EXPECT_PRESENT, 0), AIDB_OK);
    ck_assert_int_eq(aidb_write(db, batch, AIDB_DEFAULT, &commit), AIDB_EXPECTATION);
    ck_assert_uint_eq(commit.failed_expectation, 1);
    ck_assert_uint_eq(commit.present_version, 0);

    const aidb_key keys[] = {{"a", 1}, {"b", 1}, {"c", 1}};
    aidb_value values[3] = {0};
    ck_assert_int_eq(aidb_multi_get(db, snapshot, 3, keys, values), AIDB_OK);
    ck_assert(values[0].lsn != 0 && values[1].lsn != 0 && values[2].lsn == 0);
    ck_assert_int_eq(aidb_multi_get(db, NULL, 3, keys, values), AIDB_OK);
    ck_assert(values[0].lsn == 0 && values[1].lsn != 0 && values[2].lsn != 0);

    aidb_iter *iter;
    const aidb_entry *entry;
    ck_assert_int_eq(aidb_iter_create(db, snapshot, NULL, &iter), AIDB_OK);
    ck_assert_int_eq(aidb_iter_next(iter, &entry), AIDB_OK);
    ck_assert_mem_eq(entry->key, "a", 1);
    ck_assert_int_eq(aidb_iter_seek(iter, AIDB_SEEK_LE, "zzz", 3, &entry), AIDB_OK);
    ck_assert_mem_eq(entry->key, "b", 1);
    ck_assert_int_eq(aidb_iter_next(iter, &entry), AIDB_OK);
    ck_assert_ptr_null(entry);
    ck_assert_int_eq(aidb_iter_prev(iter, &entry), AIDB_OK);
    ck_assert_mem_eq(entry->key, "b", 1);
    aidb_iter_destroy(iter);

    uint64_t count = 0, bytes = 0;
    ck_assert_int_eq(aidb_measure(db, NULL, NULL, &count, &bytes), AIDB_OK);
    ck_assert_uint_eq(count, 2);
    ck_assert_int_eq(aidb_measure(db, snapshot, &(aidb_range){{"b", 1}, {NULL, 0}}, &count, NULL),
                     AIDB_OK);
    ck_assert_uint_eq(count, 1);
    aidb_snapshot_destroy(snapshot);

    char *text;
    ck_assert_int_eq(aidb_property(db, "backends", &text), AIDB_OK);
    ck_assert_ptr_nonnull(strstr(text, "api test"));
    aidb_free(text);
    ck_assert_int_eq(aidb_property(db, "nonsense", &text), AIDB_INVALID);
    ck_assert_int_eq(aidb_control(db, "flush", NULL), AIDB_OK);
    ck_assert_int_eq(aidb_control(db, "compact", NULL), AIDB_OK);

    Answers answers = {0};
    for (int i = 0; i < 500; i++) {
        aidb_request request = {.done = on_answer, .arg = &answers};
        if (i % 2 == 0)
            request.key = (aidb_key){"c", 1};
        else
            request.batch = batch;
        ck_assert_int_eq(aidb_submit(db, &request), AIDB_OK);
    }
    ck_assert_int_eq(aidb_wait(db, 0), AIDB_OK);
    ck_assert_int_eq(answers.count, 500);
    ck_assert_int_eq(answers.last, AIDB_EXPECTATION);
    aidb_batch_destroy(batch);

    pid_t child = fork();
    if (child == 0) {
        bool closed = aidb_put(db, "x", 1, "x", 1) == AIDB_CLOSED;
        aidb_close(db);
        _exit(closed ? 0 : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert_int_eq(aidb_get(db, NULL, "c", 1, &value), AIDB_OK); /* the child has not hurt it */
    aidb_free(value.data);
    for (int i = 0; i < 3; i++)
        aidb_free(values[i].data);
    ck_assert_int_eq(aidb_close(db), AIDB_OK);
    ck_assert_int_eq(aidb_open(unix_uri, (aidb_option[]){{"create", "true"}, {NULL, NULL}}, &db),
                     AIDB_INVALID);
    ck_assert_int_eq(aidb_open(directory, NULL, &db), AIDB_LOCKED);
    ck_assert_ptr_nonnull(strstr(aidb_error_message(), unix_uri));
}
END_TEST

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* The most memory that this process had since the last call, in KiB. */
static long peak_memory(void)
{
    char line[128];
    long peak = 0;
    FILE *file = fopen("/proc/self/status", "r");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof line, file) != NULL)
        sscanf(line, "VmHWM: %ld", &peak);
    fclose(file);
    file = fopen("/proc/self/clear_refs", "w");
    if (file != NULL) {
        fputs("5", file);
        fclose(file);
    }
    return peak;
}

static void on_value(void *arg, aidb_status status, const aidb_value *value,
                     const aidb_commit *commit)
{
    (void)commit;
    ck_assert_int_eq(status, AIDB_OK);
    *(uint64_t *)arg += value->size;
}

/* A program that only submits: replies are handed to it, and do not pile up in the library. */
START_TEST(replies_do_not_pile_up)
{
    enum { REQUESTS = 4000, VALUE = 96 << 10 };
    aidb *db;
    ck_assert_int_eq(aidb_open(unix_uri, NULL, &db), AIDB_OK);
    char key[100];
    uint8_t *bytes = calloc(1, VALUE);
    memset(key, 'k', sizeof key);
    ck_assert_int_eq(aidb_put(db, key, sizeof key, bytes, VALUE), AIDB_OK);
    free(bytes);
    uint64_t got = 0;
    (void)peak_memory();
    long before = peak_memory();
    for (int i = 0; i < REQUESTS; i++) {
        aidb_request request = {.key = {key, sizeof key}, .done = on_value, .arg = &got};
        ck_assert_int_eq(aidb_submit(db, &request), AIDB_OK);
    }
    ck_assert_int_eq(aidb_wait(db, 0), AIDB_OK);
    ck_assert_int_lt(peak_memory() - before, 10 << 10);
    ck_assert_uint_eq(got, (uint64_t)REQUESTS * VALUE);
    ck_assert_int_eq(aidb_close(db), AIDB_OK);
}
END_TEST
#endif

typedef struct ManyAnswers {
    int answers;
    aidb_status last;
    int found;
} ManyAnswers;

static void on_values(void *arg, aidb_status status, const aidb_value *values,
                      const aidb_commit *commit)
{
    ManyAnswers *many = arg;
    ck_assert_ptr_null(commit);
    ck_assert_int_eq(values != NULL, status == AIDB_OK);
    many->last = status;
    many->answers++;
    for (int i = 0; values != NULL && i < 3; i++) {
        many->found += values[i].lsn != 0;
        ck_assert_uint_eq(values[i].size, values[i].lsn != 0 ? 5 : 0);
        if (values[i].lsn != 0)
            ck_assert_mem_eq(values[i].data, "value", 5);
    }
}

START_TEST(multi_gets_are_submitted)
{
    enum { ROUNDS = 300, LARGE = 1 << 20, TIMES = 80 };
    aidb *db;
    ck_assert_int_eq(aidb_open(unix_uri, NULL, &db), AIDB_OK);
    const aidb_key keys[] = {{"a", 1}, {"b", 1}, {"c", 1}};
    ManyAnswers many = {0};
    Answers answers = {0};
    aidb_batch *batch = aidb_batch_create();
    for (int i = 0; i < ROUNDS; i++) { /* b comes and goes */
        aidb_batch_clear(batch);
        if (i % 2 == 0)
            ck_assert_int_eq(aidb_batch_put(batch, "b", 1, "value", 5), AIDB_OK);
        else
            ck_assert_int_eq(aidb_batch_delete(batch, "b", 1), AIDB_OK);
        aidb_request request = {.batch = batch, .done = on_answer, .arg = &answers};
        ck_assert_int_eq(aidb_submit(db, &request), AIDB_OK);
        request = (aidb_request){.keys = keys, .key_count = 3, .done = on_values, .arg = &many};
        ck_assert_int_eq(aidb_submit(db, &request), AIDB_OK);
    }
    ck_assert_int_eq(aidb_wait(db, 0), AIDB_OK);
    ck_assert_int_eq(answers.count, ROUNDS);
    ck_assert_int_eq(many.answers, ROUNDS);
    ck_assert_int_eq(many.last, AIDB_OK);
    ck_assert_int_eq(many.found, ROUNDS / 2);

    /* Values for which one reply has no room: this one is told, those behind it are answered. */
    void *large = calloc(1, LARGE);
    ck_assert_ptr_nonnull(large);
    ck_assert_int_eq(aidb_put(db, "large", 5, large, LARGE), AIDB_OK);
    free(large);
    aidb_key often[TIMES];
    for (int i = 0; i < TIMES; i++)
        often[i] = (aidb_key){"large", 5};
    ManyAnswers too_large = {0};
    aidb_request request = {
        .keys = often, .key_count = TIMES, .done = on_values, .arg = &too_large};
    ck_assert_int_eq(aidb_submit(db, &request), AIDB_OK);
    request = (aidb_request){.keys = keys, .key_count = 3, .done = on_values, .arg = &many};
    ck_assert_int_eq(aidb_submit(db, &request), AIDB_OK);
    ck_assert_int_eq(aidb_wait(db, 0), AIDB_OK);
    ck_assert_int_eq(too_large.last, AIDB_LIMIT);
    ck_assert_int_eq(many.answers, ROUNDS + 1);
    aidb_batch_destroy(batch);

    /* A multi-get that waits does not disturb what was submitted before it. */
    aidb_value values[3] = {0};
    ck_assert_int_eq(aidb_submit(db, &request), AIDB_OK);
    ck_assert_int_eq(aidb_multi_get(db, NULL, 3, keys, values), AIDB_OK);
    ck_assert_int_eq(many.answers, ROUNDS + 2);
    for (int i = 0; i < 3; i++)
        aidb_free(values[i].data);
    ck_assert_int_eq(aidb_close(db), AIDB_OK);
}
END_TEST

static int socket_of(aidb *db)
{
    char *text;
    ck_assert_int_eq(aidb_property(db, "socket", &text), AIDB_OK);
    int fd = atoi(text);
    aidb_free(text);
    return fd;
}

/* Polls two connections until both have all their answers. */
static void poll_both(aidb *const dbs[2], const Answers answers[2], int wanted)
{
    struct pollfd ready[2];
    for (int i = 0; i < 2; i++)
        ready[i] = (struct pollfd){.fd = socket_of(dbs[i]), .events = POLLIN};
    while (answers[0].count < wanted || answers[1].count < wanted) {
        ck_assert_int_gt(poll(ready, 2, -1), 0);
        for (int i = 0; i < 2; i++)
            if (ready[i].revents != 0)
                ck_assert_int_eq(aidb_wait(dbs[i], SIZE_MAX), AIDB_OK);
    }
}

START_TEST(answers_are_polled_for)
{
    enum { ROUNDS = 100, LARGE = 1 << 20, TIMES = 30 };
    aidb *dbs[2];
    Answers answers[2] = {{0}};
    ck_assert_int_eq(aidb_open(unix_uri, NULL, &dbs[0]), AIDB_OK);
    ck_assert_int_eq(aidb_open(tcp_uri, NULL, &dbs[1]), AIDB_OK);
    void *large = calloc(1, LARGE);
    ck_assert_ptr_nonnull(large);
    ck_assert_int_eq(aidb_put(dbs[0], "large", 5, large, LARGE), AIDB_OK);
    free(large);
    for (int round = 1; round <= ROUNDS; round++) {
        for (int i = 0; i < 2; i++) {
            aidb_request request = {.key = {"none", 4}, .done = on_answer, .arg = &answers[i]};
            for (int k = 0; k < 3; k++)
                ck_assert_int_eq(aidb_submit(dbs[i], &request), AIDB_OK);
            ck_assert_int_eq(aidb_wait(dbs[i], SIZE_MAX), AIDB_OK); /* they are on their way */
        }
        poll_both(dbs, answers, 3 * round);
        ck_assert_int_eq(answers[0].last, AIDB_NOT_FOUND);
    }
    /* More than sockets and buffers hold. */
    for (int i = 0; i < 2; i++) {
        answers[i].count = 0;
        aidb_request request = {.key = {"large", 5}, .done = on_answer, .arg = &answers[i]};
        for (int k = 0; k < TIMES; k++)
            ck_assert_int_eq(aidb_submit(dbs[i], &request), AIDB_OK);
        ck_assert_int_eq(aidb_wait(dbs[i], TIMES), AIDB_OK);
    }
    poll_both(dbs, answers, TIMES);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(answers[i].last, AIDB_OK);
        ck_assert_int_eq(aidb_wait(dbs[i], SIZE_MAX), AIDB_OK); /* nothing has come */
        ck_assert_int_eq(answers[i].count, TIMES);
        ck_assert_int_eq(aidb_close(dbs[i]), AIDB_OK);
    }
}
END_TEST

START_TEST(an_iterator_walks_many_chunks)
{
    enum { COUNT = 3000 };
    aidb *db;
    ck_assert_int_eq(aidb_open(unix_uri, NULL, &db), AIDB_OK);
    aidb_batch *batch = aidb_batch_create();
    char key[16], value[200];
    memset(value, 'v', sizeof value);
    for (int i = 0; i < COUNT; i++) {
        snprintf(key, sizeof key, "%06d", i * 2);
        ck_assert_int_eq(aidb_batch_put(batch, key, 6, value, sizeof value), AIDB_OK);
    }
    ck_assert_int_eq(aidb_write(db, batch, AIDB_ASYNC, NULL), AIDB_OK);
    aidb_batch_destroy(batch);
    uint64_t seed = test_seed("server_test"), state = seed | 1;
    aidb_iter *iter;
    const aidb_entry *entry;
    ck_assert_int_eq(aidb_iter_create(db, NULL, NULL, &iter), AIDB_OK);
    int at = -1; /* index of the entry, -1 before the first, COUNT behind the last */
    for (int step = 0; step < 30000; step++) {
        uint64_t what = test_random_below(&state, 1000);
        if (what < 4) {
            int target = (int)test_random_below(&state, 2 * COUNT + 2) - 1;
            snprintf(key, sizeof key, "%06d", target < 0 ? 0 : target);
            bool up = what < 2;
            at = up ? (target + 1) / 2 : target / 2;
            if (target < 0)
                at = 0;
            if (!up && at >= COUNT)
                at = COUNT - 1;
            ck_assert_int_eq(aidb_iter_seek(iter, up ? AIDB_SEEK_GE : AIDB_SEEK_LE, key, 6, &entry),
                             AIDB_OK);
        } else if (what < 4 + (step / 3000 % 2 == 0 ? 900 : 96)) {
            at = at < COUNT ? at + 1 : COUNT;
            ck_assert_int_eq(aidb_iter_next(iter, &entry), AIDB_OK);
        } else {
            at = step == 0 ? COUNT - 1 : at >= 0 ? at - 1 : -1;
            ck_assert_int_eq(aidb_iter_prev(iter, &entry), AIDB_OK);
        }
        if (at < 0 || at >= COUNT) {
            ck_assert_ptr_null(entry);
        } else {
            snprintf(key, sizeof key, "%06d", at * 2);
            ck_assert_ptr_nonnull(entry);
            ck_assert_mem_eq(entry->key, key, 6);
            ck_assert_uint_eq(entry->value_size, sizeof value);
        }
    }
    aidb_iter_destroy(iter);
    ck_assert_int_eq(aidb_close(db), AIDB_OK);
}
END_TEST

START_TEST(a_write_in_flight_has_an_unknown_outcome)
{
    aidb *db;
    ck_assert_int_eq(aidb_open(unix_uri, NULL, &db), AIDB_OK);
    ck_assert_int_eq(aidb_put(db, "k", 1, "v", 1), AIDB_OK);
    pid_t backend = nth_child(3);
    ck_assert_int_gt(backend, 0);
    ck_assert_int_eq(kill(backend, SIGKILL), 0);
    ck_assert_int_eq(aidb_put(db, "k", 1, "w", 1), AIDB_UNKNOWN);
    ck_assert_int_eq(aidb_wait(db, SIZE_MAX), AIDB_CONNECTION);
    aidb_value value = {0};
    ck_assert_int_eq(aidb_get(db, NULL, "k", 1, &value), AIDB_CONNECTION);
    ck_assert_int_eq(aidb_close(db), AIDB_OK);
    wait_restarted();
}
END_TEST

void add_api_tests(TCase *tests)
{
    tcase_add_loop_test(tests, the_api_over_a_server, 0, 2);
    tcase_add_test(tests, multi_gets_are_submitted);
    tcase_add_test(tests, answers_are_polled_for);
    tcase_add_test(tests, an_iterator_walks_many_chunks);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    tcase_add_test(tests, replies_do_not_pile_up);
#endif
    tcase_add_test(tests, a_write_in_flight_has_an_unknown_outcome);
}
