/* spin_test.c - when a process waits for its client awake, and who is counted. */
#include "config.h"
#include "backend/backend_internal.h"
#include "testlib/testlib.h"

#include <check.h>
#include <stdlib.h>

#define TRIES \
    1000000 /* waits that last no time, of which a few in a row are short on any machine */

static ServerShared shared;
static BackendProcess *first, *second;
static const int one_client, another;

static BackendProcess *make_process(void)
{
    BackendProcess *process = calloc(1, sizeof *process);
    ck_assert_ptr_nonnull(process);
    process->shared = &shared;
    spin_init(process);
    process->spin.brisk_max = 1; /* as on two processors */
    return process;
}

static void setup(void)
{
    atomic_store(&shared.brisk, 0);
    first = make_process();
    second = make_process();
}

static void teardown(void)
{
    free(first);
    free(second);
}

/* Waits that end at once with input of `client`. */
static void wait_for(BackendProcess *process, const void *client, bool brisk)
{
    for (int i = 0; i < TRIES && process->spin.brisk != brisk; i++) {
        (void)spin_begin(process);
        spin_end(process, client);
    }
    ck_assert_int_eq(process->spin.brisk, brisk);
}

START_TEST(one_client_that_comes_back_at_once)
{
    ck_assert(!spin_begin(first));
    spin_end(first, &one_client);
    ck_assert(!spin_begin(first));
    spin_end(first, &one_client);
    wait_for(first, &one_client, true);
    ck_assert_uint_eq(atomic_load(&shared.brisk), 1);
    ck_assert(spin_begin(first));
    spin_end(first, &another);
    ck_assert_uint_eq(atomic_load(&shared.brisk), 0);
    ck_assert(!spin_begin(first));
}
END_TEST

START_TEST(several_clients_or_nobody)
{
    for (int i = 0; i < 1000; i++) {
        ck_assert(!spin_begin(first));
        spin_end(first, i % 2 == 0 ? &one_client : &another);
    }
    for (int i = 0; i < 1000; i++) {
        ck_assert(!spin_begin(first));
        spin_end(first, NULL);
    }
    ck_assert_uint_eq(atomic_load(&shared.brisk), 0);
}
END_TEST

START_TEST(nobody_spins_when_too_many_are_brisk)
{
    wait_for(first, &one_client, true);
    wait_for(second, &another, true);
    ck_assert_uint_eq(atomic_load(&shared.brisk), 2);
    ck_assert(!spin_begin(first));
    ck_assert(!spin_begin(second));
    spin_rest(second);
    spin_rest(second);
    ck_assert_uint_eq(atomic_load(&shared.brisk), 1);
    ck_assert(spin_begin(first));
}
END_TEST

/* How much trust it costs is not the same when another process took the processor meanwhile. */
START_TEST(a_spin_in_vain_ends)
{
    uint32_t least = first->spin.needed, before = least;
    for (int i = 0; i < 20; i++) {
        wait_for(first, &one_client, true);
        ck_assert(spin_begin(first));
        while (spin_go_on(first))
            ;
        ck_assert_uint_eq(atomic_load(&shared.brisk), 0);
        ck_assert(first->spin.needed == before || first->spin.needed == 2 * before);
        before = first->spin.needed;
        ck_assert(!spin_begin(first));
        spin_end(first, NULL);
    }
    ck_assert_uint_le(before, 64);
}
END_TEST

START_TEST(a_spin_that_was_worth_it_brings_trust_back)
{
    uint32_t least = first->spin.needed;
    first->spin.needed = 16 * least;
    for (int i = 0; i < TRIES && first->spin.needed != least; i++) {
        wait_for(first, &one_client, true);
        ck_assert(spin_begin(first));
        spin_end(first, &one_client);
    }
    ck_assert_uint_eq(first->spin.needed, least);
}
END_TEST

START_TEST(nobody_spins_on_one_processor)
{
    first->spin.brisk_max = 0;
    wait_for(first, &one_client, true);
    ck_assert(!spin_begin(first));
    spin_end(first, &one_client);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("spin");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, one_client_that_comes_back_at_once);
    tcase_add_test(tests, several_clients_or_nobody);
    tcase_add_test(tests, nobody_spins_when_too_many_are_brisk);
    tcase_add_test(tests, a_spin_in_vain_ends);
    tcase_add_test(tests, a_spin_that_was_worth_it_brings_trust_back);
    tcase_add_test(tests, nobody_spins_on_one_processor);

    Suite *suite = suite_create("backend");
    suite_add_tcase(suite, tests);
    return test_run(suite);
}
