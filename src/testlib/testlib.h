/*
 * testlib.h - what unit tests share: the end of main, temporary directories, seeds, a random generator.
 *
 * Installed programs do not link it.
 */
#ifndef AIDB_TESTLIB_TESTLIB_H
#define AIDB_TESTLIB_TESTLIB_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/* An assertion for what is done a million times: those of Check write down each that holds. */
#define test_expect(condition, ...) ((condition) ? (void)0 : ck_abort_msg(__VA_ARGS__))

/* Runs the suite, as CK_VERBOSITY and other variables of Check say, and frees it; returns the exit code. */
int test_run(Suite *suite);

/* Makes an empty directory under $TMPDIR (or /tmp) and returns its path (heap). Ends the test program
 * when it cannot. */
char *test_directory_create(void);
/* Removes it with all that is in it and frees the path. */
void test_directory_destroy(char *path);
/* Copies the regular files of a directory tree, as a crash would leave them. */
void test_directory_copy(const char *from, const char *to);

/* $AIDB_TEST_SEED or a fresh one, printed so that a failure can be replayed. */
uint64_t test_seed(const char *name);
/* Whether $AIDB_DAMAGE asks for more than there is time for in each build that is tested: "each" for each byte and bit
 * of a file, "full" for everything. */
bool test_damage(const char *what);

/* ck_assert_msg for what is checked many thousand times: Check writes a note for each of its own assertions that holds,
 * which costs more than most of what they compare. */
#define test_check(condition, ...)     \
    do {                               \
        if (!(condition))              \
            ck_abort_msg(__VA_ARGS__); \
    } while (0)

/* xorshift64*: small, and the same everywhere. `state` is not 0. */
static inline uint64_t test_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1du;
}
static inline uint64_t test_random_below(uint64_t *state, uint64_t bound)
{
    return test_random(state) % bound;
}

/* A generator that all of a test program shares: test_draw_seed begins it and prints the seed. */
void test_draw_seed(const char *test);
uint64_t test_draw(void);
uint32_t test_draw_below(uint32_t bound);

#endif
