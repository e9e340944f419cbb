/*
 * iter_test.c - iterators against a model, while the store under them changes.
 *
 * Every iterator must show the store as it was when the iterator was made, however long it stands
 * somewhere between two steps: keys are written and deleted meanwhile, memtables flushed, tables
 * compacted away and their files removed, blocks driven out of a small cache. More iterators are walked
 * than places of scans are kept for.
 */
#include "config.h"

#include "testlib/testlib.h"

#include <aidb.h>
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS       1500
#define VALUE_MAX  (40u << 10)
#define ITERS      90
#define FLUSH_ODDS 60 /* one action of so many */

static const aidb_option small[] = {
    {"create", "true"},           {"memory", "24MiB"},       {"memtable_size", "256KiB"},
    {"cache_size", "1MiB"},       {"batch_max", "4MiB"},     {"table_size", "1MiB"},
    {"level_base_size", "1MiB"},  {"level0_files", "3"},     {"durability", "async"},
    {"wal_segment_size", "1MiB"}, {"wal_ring_size", "1MiB"}, {NULL, NULL}};

static char *directory;
static aidb *db;

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

/* ---- the model ------------------------------------------------------------------------------- */

/* What each key has: 0 nothing, else the number of the write. */
typedef struct Model {
    uint32_t writes[KEYS];
} Model;

static Model now;
static uint32_t write_count;

static size_t key_of(uint32_t index, char key[32])
{
    return (size_t)snprintf(key, 32, "%s%06u", index % 3 == 0 ? "k" : "k0000000000", index);
}

static int compare_keys(const void *a, const void *b)
{
    char x[32], y[32];
    key_of(*(const uint32_t *)a, x);
    key_of(*(const uint32_t *)b, y);
    return strcmp(x, y);
}

/* Positions are ranks of keys in their order. */
static uint32_t by_rank[KEYS];

static size_t rank_key(uint32_t rank, char key[32])
{
    return key_of(by_rank[rank], key);
}

static size_t value_of(uint32_t write, uint8_t *value)
{
    uint64_t state = write;
    uint64_t size = test_random_below(&state, 4) > 0    ? test_random_below(&state, 300)
                    : test_random_below(&state, 20) > 0 ? test_random_below(&state, 3000)
                                                        : test_random_below(&state, VALUE_MAX);
    for (uint64_t i = 0; i < size; i++)
        value[i] = (uint8_t)(i % 7 == 0 ? test_random(&state) : write);
    return size;
}

typedef enum Where { NEW, AT, BEFORE, AFTER } Where;

typedef struct Walker {
    aidb_iter *iter;
    Model seen;
    uint32_t from, to; /* ranks: [from, to) */
    bool keys_only;
    Where where;
    uint32_t rank;
} Walker;

/* The first rank at or after `rank`, or the last at or before it, that the walker can see; -1: none. */
static int find(const Walker *walker, int64_t rank, bool down)
{
    for (; rank >= walker->from && rank < walker->to; rank += down ? -1 : 1) {
        if (walker->seen.writes[rank] != 0)
            return (int)rank;
    }
    return -1;
}

static void expect_at(Walker *walker, int rank, bool down, const aidb_entry *entry)
{
    static _Thread_local uint8_t value[VALUE_MAX];
    char key[32];
    if (rank < 0) {
        ck_assert_ptr_null(entry);
        walker->where = down ? BEFORE : AFTER;
        return;
    }
    walker->where = AT;
    walker->rank = (uint32_t)rank;
    size_t size = rank_key(walker->rank, key);
    ck_assert_ptr_nonnull(entry);
    ck_assert_uint_eq(entry->key_size, size);
    ck_assert_mem_eq(entry->key, key, size);
    if (walker->keys_only) {
        ck_assert_ptr_null(entry->value);
        return;
    }
    size = value_of(walker->seen.writes[rank], value);
    ck_assert_uint_eq(entry->value_size, size);
    ck_assert(size == 0 || memcmp(entry->value, value, size) == 0);
}

/* ---- actions --------------------------------------------------------------------------------- */

static void put(uint32_t rank)
{
    static uint8_t value[VALUE_MAX];
    char key[32];
    size_t size = rank_key(rank, key);
    now.writes[rank] = ++write_count;
    ok(aidb_put(db, key, size, value, value_of(write_count, value)));
}

static void delete_some(void)
{
    char from[32], to[32];
    uint32_t first = test_draw_below(KEYS), count = 1 + test_draw_below(30);
    if (test_draw_below(4) > 0) {
        ok(aidb_delete(db, from, rank_key(first, from)));
        now.writes[first] = 0;
        return;
    }
    uint32_t end = first + count < KEYS ? first + count : KEYS - 1;
    aidb_range range = {{from, rank_key(first, from)}, {to, rank_key(end, to)}};
    aidb_batch *batch = aidb_batch_create();
    ok(aidb_batch_delete_range(batch, &range));
    ok(aidb_write(db, batch, AIDB_DEFAULT, NULL));
    aidb_batch_destroy(batch);
    for (; first < end; first++)
        now.writes[first] = 0;
}

static void begin(Walker *walker)
{
    char from[32], to[32];
    aidb_scan scan = {.keys_only = test_draw_below(5) == 0};
    *walker = (Walker){.seen = now, .to = KEYS, .keys_only = scan.keys_only != 0};
    if (test_draw_below(3) == 0) {
        walker->from = test_draw_below(KEYS);
        scan.range.from = (aidb_key){from, rank_key(walker->from, from)};
    }
    if (test_draw_below(3) == 0) {
        walker->to = walker->from + test_draw_below(KEYS - walker->from);
        scan.range.to = (aidb_key){to, rank_key(walker->to, to)};
    }
    if (test_draw_below(3) == 0)
        scan.limit = 1 + test_draw_below(40);
    ok(aidb_iter_create(db, NULL, &scan, &walker->iter));
}

static void step(Walker *walker, bool down)
{
    const aidb_entry *entry;
    int64_t rank = down ? (int64_t)walker->to - 1 : (int64_t)walker->from;
    if (walker->where == AT)
        rank = (int64_t)walker->rank + (down ? -1 : 1);
    else if (walker->where == (down ? BEFORE : AFTER))
        rank = -1;
    ok(down ? aidb_iter_prev(walker->iter, &entry) : aidb_iter_next(walker->iter, &entry));
    expect_at(walker, find(walker, rank, down), down, entry);
}

static void seek(Walker *walker)
{
    const aidb_entry *entry;
    char key[32];
    uint32_t rank = test_draw_below(KEYS);
    bool down = test_draw_below(2) == 0;
    size_t size = rank_key(rank, key);
    ok(aidb_iter_seek(walker->iter, down ? AIDB_SEEK_LE : AIDB_SEEK_GE, key, size, &entry));
    int64_t start = rank;
    if (down && start >= walker->to)
        start = (int64_t)walker->to - 1;
    if (!down && start < walker->from)
        start = walker->from;
    expect_at(walker, find(walker, start, down), down, entry);
}

static void walk(Walker *walker)
{
    bool down = test_draw_below(2) == 0;
    uint32_t steps = test_draw_below(4) > 0 ? test_draw_below(12) : test_draw_below(700);
    if (walker->where != AT || test_draw_below(4) == 0)
        seek(walker);
    for (; steps > 0; steps--) {
        if (test_draw_below(100) == 0)
            down = !down;
        step(walker, down);
    }
}

START_TEST(walks_show_what_was_there)
{
    static Walker walkers[ITERS];
    test_draw_seed("walks_show_what_was_there");
    memset(&now, 0, sizeof now);
    memset(walkers, 0, sizeof walkers);
    for (uint32_t i = 0; i < KEYS; i++)
        by_rank[i] = i;
    qsort(by_rank, KEYS, sizeof by_rank[0], compare_keys);
    for (uint32_t i = 0; i < KEYS; i += 2)
        put(i);
    for (int action = 0; action < 6000; action++) {
        Walker *walker = &walkers[test_draw_below(action < 3000 ? 8 : ITERS)];
        uint32_t what = test_draw_below(20);
        if (test_draw_below(FLUSH_ODDS) == 0)
            ok(aidb_control(db, test_draw_below(3) == 0 ? "compact" : "flush", NULL));
        if (what < 6) {
            put(test_draw_below(KEYS));
        } else if (what < 8) {
            delete_some();
        } else if (walker->iter == NULL) {
            begin(walker);
        } else if (what == 8) {
            aidb_iter_destroy(walker->iter);
            walker->iter = NULL;
        } else {
            walk(walker);
        }
    }
    for (int i = 0; i < ITERS; i++)
        aidb_iter_destroy(walkers[i].iter);
}
END_TEST

/* ---- handed from thread to thread ------------------------------------------------------------- */

static void *walk_on(void *arg)
{
    for (int i = 0; i < 40; i++)
        step(arg, false);
    return NULL;
}

/* The place belongs to a session, which another thread may not get. */
START_TEST(an_iterator_goes_on_in_other_threads)
{
    static Walker walkers[2];
    memset(&now, 0, sizeof now);
    for (uint32_t i = 0; i < KEYS; i++) {
        by_rank[i] = i;
        now.writes[i] = 0;
    }
    qsort(by_rank, KEYS, sizeof by_rank[0], compare_keys);
    for (uint32_t i = 0; i < KEYS; i++)
        put(i);
    ok(aidb_control(db, "flush", NULL));
    for (int i = 0; i < 2; i++) {
        walkers[i] = (Walker){.seen = now, .to = KEYS};
        ok(aidb_iter_create(db, NULL, NULL, &walkers[i].iter));
    }
    for (int round = 0; round < 30; round++) {
        pthread_t threads[2];
        for (int i = 0; i < 2; i++)
            ck_assert_int_eq(pthread_create(&threads[i], NULL, walk_on, &walkers[i]), 0);
        for (int i = 0; i < 2; i++)
            ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        walk_on(&walkers[round % 2]);
    }
    for (int i = 0; i < 2; i++)
        aidb_iter_destroy(walkers[i].iter);
}
END_TEST

/* A store that is closed frees the iterators that are left, with their places. */
START_TEST(a_closed_store_leaves_no_iterator)
{
    memset(&now, 0, sizeof now);
    for (uint32_t i = 0; i < KEYS; i++)
        by_rank[i] = i;
    qsort(by_rank, KEYS, sizeof by_rank[0], compare_keys);
    for (uint32_t i = 0; i < KEYS; i++)
        put(i);
    for (int i = 0; i < 5; i++) {
        Walker walker = {.seen = now, .to = KEYS};
        ok(aidb_iter_create(db, NULL, NULL, &walker.iter));
        for (int j = 0; j < 300; j++)
            step(&walker, i % 2 == 0);
    }
    ok(aidb_close(db));
    db = NULL;
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("iter");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 0);
    tcase_add_checked_fixture(all, setup, teardown);
    suite_add_tcase(suite, all);
    tcase_add_test(all, walks_show_what_was_there);
    tcase_add_test(all, an_iterator_goes_on_in_other_threads);
    tcase_add_test(all, a_closed_store_leaves_no_iterator);
    return test_run(suite);
}
