/*
 * corpus_test.c - every file of every corpus, run once, by any compiler. What the fuzzers found stays in
 * the corpora, so this is also the test of what was fixed. The inputs are tried as they are, cut short,
 * and with a byte changed here and there: a fuzzer's few steps where there is none.
 */
#include "config.h"

#include "fuzz/fuzz.h"
#include "fuzz/seeds.h"
#include "testlib/testlib.h"

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#define FILE_MAX   (1u << 20)
#define VARIATIONS 8

static size_t read_file(const char *folder, const char *name, uint8_t *data)
{
    char path[1400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    ck_assert_msg(file != NULL, "could not open %s", path);
    size_t size = fread(data, 1, FILE_MAX, file);
    fclose(file);
    return size;
}

static void run_exact(const FuzzTarget *target, const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size > 0 ? size : 1);
    ck_assert_ptr_nonnull(exact);
    memcpy(exact, data, size);
    target->run(exact, size);
    free(exact);
}

START_TEST(corpus)
{
    const FuzzTarget *target = &fuzz_targets[_i];
    const char *source = getenv("AIDB_SRCDIR");
    uint64_t state = test_seed(target->name) | 1;
    char folder[1000];
    snprintf(folder, sizeof folder, "%s/src/fuzz/corpus/%s", source != NULL ? source : AIDB_SOURCE,
             target->name);
    DIR *listing = opendir(folder);
    ck_assert_msg(listing != NULL, "there is no corpus %s", folder);
    uint8_t *data = malloc(FILE_MAX);
    struct dirent *item;
    unsigned files = 0;
    while ((item = readdir(listing)) != NULL) {
        if (item->d_name[0] == '.')
            continue;
        size_t size = read_file(folder, item->d_name, data);
        run_exact(target, data, size);
        for (int i = 0; i < VARIATIONS && size > 0; i++) {
            size_t place = test_random_below(&state, size);
            uint8_t kept = data[place];
            data[place] = (uint8_t)test_random(&state);
            run_exact(target, data, i % 2 == 0 ? size : test_random_below(&state, size));
            data[place] = kept;
        }
        files++;
    }
    closedir(listing);
    free(data);
    fuzz_end();
    ck_assert_uint_gt(files, 0);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--seeds") == 0) {
        seeds_write(argv[2]);
        return EXIT_SUCCESS;
    }
    Suite *suite = suite_create("fuzz");
    TCase *tests = tcase_create("corpus");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, corpus, 0, (int)fuzz_target_count);
    suite_add_tcase(suite, tests);
    return test_run(suite);
}
