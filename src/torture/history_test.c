/*
 * history_test.c - the checker of histories: what it must accept, and what it must not.
 *
 * Random histories come from a register that is linearizable by construction: each operation takes effect
 * at a moment of its own within its time. Each is accepted, and then broken in one answer.
 */
#include "config.h"

#include "testlib/testlib.h"
#include "torture/history.h"

#include <check.h>

#define READ(call, answer, v)                                                                \
    {                                                                                        \
        .kind = HISTORY_READ, .outcome = HISTORY_DONE, .call_ns = call, .answer_ns = answer, \
        .value = v                                                                           \
    }
#define WRITE(call, answer, v)                                                                \
    {                                                                                         \
        .kind = HISTORY_WRITE, .outcome = HISTORY_DONE, .call_ns = call, .answer_ns = answer, \
        .value = v                                                                            \
    }
#define LOST(call, v)                                                                  \
    {                                                                                  \
        .kind = HISTORY_WRITE, .outcome = HISTORY_UNKNOWN, .call_ns = call, .value = v \
    }
#define SWAP(call, answer, from, v, what)                                                \
    {                                                                                    \
        .kind = HISTORY_IF_VALUE, .outcome = what, .call_ns = call, .answer_ns = answer, \
        .expected = from, .value = v, .present = HISTORY_ANY                             \
    }

typedef struct Case {
    const char *name;
    HistoryVerdict verdict;
    HistoryOp ops[6];
    size_t count;
} Case;

static const Case cases[] = {
    {"nothing", HISTORY_LINEARIZABLE, {LOST(1, 1)}, 0},
    {"read what was written", HISTORY_LINEARIZABLE, {WRITE(1, 2, 7), READ(3, 4, 7)}, 2},
    {"stale read", HISTORY_VIOLATED, {WRITE(1, 2, 7), WRITE(3, 4, 8), READ(5, 6, 7)}, 3},
    {"acknowledged and not visible", HISTORY_VIOLATED, {WRITE(1, 2, 7), READ(3, 4, 0)}, 2},
    {"beside the write either is right",
     HISTORY_LINEARIZABLE,
     {WRITE(1, 9, 7), READ(2, 3, 0), READ(4, 5, 7)},
     3},
    {"back in time", HISTORY_VIOLATED, {WRITE(1, 9, 7), READ(2, 3, 7), READ(4, 5, 0)}, 3},
    {"unknown, and seen", HISTORY_LINEARIZABLE, {LOST(1, 7), READ(3, 4, 0), READ(5, 6, 7)}, 3},
    {"unknown, and never seen", HISTORY_LINEARIZABLE, {LOST(1, 7), READ(3, 4, 0)}, 2},
    {"seen before it was called", HISTORY_VIOLATED, {READ(1, 2, 7), LOST(3, 7)}, 2},
    {"both of two swaps",
     HISTORY_VIOLATED,
     {WRITE(1, 2, 7), SWAP(3, 6, 7, 8, HISTORY_DONE), SWAP(4, 5, 7, 9, HISTORY_DONE)},
     3},
    {"one of two swaps",
     HISTORY_LINEARIZABLE,
     {WRITE(1, 2, 7), SWAP(3, 6, 7, 8, HISTORY_DONE), SWAP(4, 5, 7, 9, HISTORY_REFUSED)},
     3},
    {"refused without a reason",
     HISTORY_VIOLATED,
     {WRITE(1, 2, 7), SWAP(3, 4, 7, 8, HISTORY_REFUSED)},
     2},
    {"swap of unknown outcome that cannot have been",
     HISTORY_VIOLATED,
     {WRITE(1, 2, 7), SWAP(3, 3, 6, 8, HISTORY_UNKNOWN), READ(5, 6, 8)},
     3},
    {"deleted", HISTORY_LINEARIZABLE, {WRITE(1, 2, 7), WRITE(3, 4, 0), READ(5, 6, 0)}, 3},
    {"back from the dead",
     HISTORY_VIOLATED,
     {WRITE(1, 2, 7), WRITE(3, 4, 0), READ(5, 6, 0), READ(7, 8, 7)},
     4},
};

START_TEST(known_histories)
{
    const Case *test = &cases[_i];
    HistoryResult result = history_check(test->ops, test->count);
    ck_assert_msg(result.verdict == test->verdict, "%s: verdict %d", test->name, result.verdict);
}
END_TEST

#define OPS     160 /* unknown outcomes float: what they cost grows by powers of two */
#define CLIENTS 6

typedef struct Moment {
    uint64_t at;
    size_t op;
} Moment;

static int by_moment(const void *a, const void *b)
{
    const Moment *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Calls and answers at random; effects in between. */
static void make_history(uint64_t *random, HistoryOp ops[OPS])
{
    uint64_t free_at[CLIENTS] = {0};
    static Moment moments[OPS];
    uint64_t state = HISTORY_ABSENT;
    for (size_t i = 0; i < OPS; i++) {
        uint16_t client = (uint16_t)test_random_below(random, CLIENTS);
        uint64_t call = free_at[client] + 1 + test_random_below(random, 20);
        uint64_t effect = call + test_random_below(random, 20);
        uint64_t answer = effect + 1 + test_random_below(random, 20);
        ops[i] = (HistoryOp){.client = client,
                             .kind = (uint8_t)test_random_below(random, 5),
                             .outcome = HISTORY_DONE,
                             .call_ns = call,
                             .answer_ns = answer,
                             .value = i + 1,
                             .present = HISTORY_ANY};
        moments[i] = (Moment){effect, i};
        free_at[client] = answer;
    }
    qsort(moments, OPS, sizeof moments[0], by_moment);
    for (size_t i = 0; i < OPS; i++) {
        HistoryOp *op = &ops[moments[i].op];
        bool holds = true;
        if (op->kind == HISTORY_READ) {
            op->value = state;
            continue;
        }
        if (op->kind == HISTORY_WRITE && moments[i].op % 7 == 0)
            op->value = HISTORY_ABSENT;
        if (op->kind == HISTORY_IF_VALUE) {
            op->expected = test_random_below(random, 2) == 0 ? state : 1 + i / 2;
            holds = op->expected == state;
        } else if (op->kind == HISTORY_IF_ABSENT) {
            holds = state == HISTORY_ABSENT;
        } else if (op->kind == HISTORY_IF_PRESENT) {
            holds = state != HISTORY_ABSENT;
        }
        if (!holds) {
            op->outcome = HISTORY_REFUSED;
            op->present = test_random_below(random, 2) == 0 ? state : HISTORY_ANY;
        } else if (test_random_below(random, 40) == 0) {
            op->outcome = HISTORY_UNKNOWN; /* half of them took effect */
            if (test_random_below(random, 2) == 0)
                state = op->value;
        } else {
            state = op->value;
        }
    }
}

START_TEST(random_histories)
{
    uint64_t random = test_seed("history") | 1;
    static HistoryOp ops[OPS];
    unsigned caught = 0, broken = 0;
    for (int round = 0; round < 60; round++) {
        make_history(&random, ops);
        HistoryResult result = history_check(ops, OPS);
        ck_assert_msg(result.verdict == HISTORY_LINEARIZABLE, "round %d: stuck at %zu", round,
                      result.stuck);
        /* A read that shows a value of long ago; not that of a write of unknown outcome, which may take
         * effect at any time. */
        for (size_t i = OPS - 1; i > OPS / 2; i--) {
            if (ops[i].kind != HISTORY_READ)
                continue;
            size_t stale = i / 8;
            while (ops[stale].outcome == HISTORY_UNKNOWN)
                stale++;
            ops[i].value = stale + 1;
            broken++;
            caught += history_check(ops, OPS).verdict == HISTORY_VIOLATED;
            break;
        }
    }
    ck_assert_uint_gt(broken, 50);
    ck_assert_uint_eq(caught, broken);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("history");
    TCase *tests = tcase_create("check");
    tcase_set_timeout(tests, 0);
    tcase_add_loop_test(tests, known_histories, 0, sizeof cases / sizeof cases[0]);
    tcase_add_test(tests, random_histories);
    suite_add_tcase(suite, tests);
    return test_run(suite);
}
