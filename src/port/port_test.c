/* port_test.c - words that are wiped in a forked child. */
#include "config.h"

#include "port/port.h"
#include "testlib/testlib.h"

#include <check.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORDS 200 /* more than one page has room for */

START_TEST(words_are_wiped_in_a_child)
{
    _Atomic uint32_t *words[WORDS];
    for (int i = 0; i < WORDS; i++) {
        words[i] = port_wipe_on_fork_create();
        ck_assert_ptr_nonnull(words[i]);
        ck_assert_uint_eq(atomic_load(words[i]), 0);
        atomic_store(words[i], (uint32_t)i + 1);
    }
    pid_t child = fork();
    if (child == 0) {
        int wrong = 0;
        for (int i = 0; i < WORDS; i++)
            wrong += atomic_load(words[i]) != 0;
        /* Words of its own are not those of its parent, and stay. */
        _Atomic uint32_t *own = port_wipe_on_fork_create();
        atomic_store(own, 1);
        for (int i = 0; i < WORDS; i++) {
            wrong += words[i] == own;
            port_wipe_on_fork_destroy(words[i]);
        }
        wrong += atomic_load(own) != 1;
        port_wipe_on_fork_destroy(own);
        _exit(wrong == 0 ? 0 : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (int i = 0; i < WORDS; i++)
        ck_assert_uint_eq(atomic_load(words[i]), (uint32_t)i + 1);
    for (int i = 0; i < WORDS; i += 2)
        port_wipe_on_fork_destroy(words[i]);
    for (int i = 0; i < WORDS; i += 2) {
        words[i] = port_wipe_on_fork_create();
        ck_assert_uint_eq(atomic_load(words[i]), 0);
        ck_assert_uint_eq(atomic_load(words[i + 1]), (uint32_t)i + 2);
    }
    for (int i = 0; i < WORDS; i++)
        port_wipe_on_fork_destroy(words[i]);
    port_wipe_on_fork_destroy(NULL);
}
END_TEST

/* Takes words and gives them back; counts those that another thread has as well. */
static void *take_words(void *arg)
{
    uint32_t number = (uint32_t)(uintptr_t)arg;
    uintptr_t shared = 0;
    for (int round = 0; round < 300; round++) {
        _Atomic uint32_t *words[24];
        for (int i = 0; i < 24; i++) {
            words[i] = port_wipe_on_fork_create();
            shared += words[i] == NULL || atomic_exchange(words[i], number) != 0;
        }
        for (int i = 0; i < 24; i++) {
            shared += atomic_load(words[i]) != number;
            port_wipe_on_fork_destroy(words[i]);
        }
    }
    return (void *)shared;
}

START_TEST(no_two_threads_have_the_same_word)
{
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, take_words, (void *)(i + 1)), 0);
    for (int i = 0; i < 4; i++) {
        void *shared;
        ck_assert_int_eq(pthread_join(threads[i], &shared), 0);
        ck_assert_ptr_null(shared);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("port");
    TCase *all = tcase_create("all");
    suite_add_tcase(suite, all);
    tcase_add_test(all, words_are_wiped_in_a_child);
    tcase_add_test(all, no_two_threads_have_the_same_word);
    return test_run(suite);
}
