/* edit_test.c - version edits as bytes, and the bounds of files. */
#include "config.h"

#include "engine/version/test_version.h"

#include <stdio.h>
#include <string.h>

static void random_edit(uint64_t *seed, VersionEdit *edit, uint64_t *durable)
{
    char keys[2][40];
    for (uint64_t i = test_random_below(seed, 4); i > 0; i--) {
        TableInfo info = {
            .number = 1 + test_random_below(seed, 1000),
            .id = {test_random(seed), test_random(seed)},
            .file_size = test_random(seed) >> test_random_below(seed, 63),
            .entries = test_random_below(seed, 100),
            .lsn_min = test_random(seed) >> 8,
            .index_levels = 1,
        };
        snprintf(keys[0], sizeof keys[0], "a%llu", (unsigned long long)test_random(seed));
        snprintf(keys[1], sizeof keys[1], "b%llu", (unsigned long long)test_random(seed));
        FileBounds bounds = {
            .smallest = text(keys[0]),
            .largest = text(keys[1]),
            .largest_exclusive = test_random_below(seed, 2) == 1,
            .unbounded = test_random_below(seed, 4) == 0,
            .garbage = test_random_below(seed, 2) == 1,
        };
        ck_assert_int_eq(
            version_edit_add(edit, (uint8_t)test_random_below(seed, LEVELS), &info, &bounds),
            AIDB_OK);
    }
    for (uint64_t i = test_random_below(seed, 4); i > 0; i--)
        ck_assert_int_eq(version_edit_remove(edit, (uint8_t)test_random_below(seed, LEVELS),
                                             test_random(seed) >> 24),
                         AIDB_OK);
    edit->flushed_lsn = test_random_below(seed, 2) * test_random(seed);
    edit->term = (uint32_t)test_random_below(seed, 3);
    edit->next_number = test_random_below(seed, 100);
    edit->version_number = test_random_below(seed, 100);
    edit->clean_stop = test_random_below(seed, 2) == 1;
    edit->base_end = test_random_below(seed, 2) == 1;
    edit->new_incarnation = test_random_below(seed, 2) == 1;
    edit->incarnation = edit->new_incarnation ? (uint32_t)test_random(seed) : 0;
    edit->nonce = edit->new_incarnation ? test_random(seed) : 0;
    edit->new_start = test_random_below(seed, 2) == 1;
    if (edit->new_start)
        edit->start = (WalStart){.incarnation = (uint32_t)test_random(seed),
                                 .nonce = test_random(seed),
                                 .first_lsn = test_random(seed),
                                 .previous_end = test_random(seed)};
    *durable = test_random(seed) >> 3;
}

START_TEST(test_edit_round_trip)
{
    uint64_t seed = test_seed("edit_round_trip");
    for (int round = 0; round < 500; round++) {
        VersionEdit edit = {0};
        VersionEdit again;
        Buffer bytes = {0};
        Buffer bytes_again = {0};
        uint64_t durable;
        uint64_t durable_again;
        random_edit(&seed, &edit, &durable);
        ck_assert_int_eq(version_edit_encode(&edit, durable, &bytes), AIDB_OK);
        ck_assert_int_eq(version_edit_decode(buffer_slice(&bytes), &again, &durable_again),
                         AIDB_OK);
        ck_assert_uint_eq(durable, durable_again);
        ck_assert_uint_eq(edit.added_count, again.added_count);
        ck_assert_uint_eq(edit.removed_count, again.removed_count);
        ck_assert_int_eq(version_edit_encode(&again, durable_again, &bytes_again), AIDB_OK);
        ck_assert(slice_equal(buffer_slice(&bytes), buffer_slice(&bytes_again)));
        version_edit_deinit(&again);
        /* Whatever is cut off or changed gives an answer, and never the durable LSN twice. */
        for (size_t size = 0; size < bytes.size; size++) {
            if (version_edit_decode(slice_make(bytes.data, size), &again, &durable_again) ==
                AIDB_OK)
                version_edit_deinit(&again);
            else
                ck_assert_uint_eq(again.added_count, 0);
        }
        for (int change = 0; change < 50; change++) {
            bytes.data[test_random_below(&seed, bytes.size)] ^=
                (uint8_t)(1 + test_random_below(&seed, 255));
            if (version_edit_decode(buffer_slice(&bytes), &again, &durable_again) == AIDB_OK)
                version_edit_deinit(&again);
        }
        version_edit_deinit(&edit);
        buffer_deinit(&bytes);
        buffer_deinit(&bytes_again);
    }
}
END_TEST

START_TEST(test_edit_refuses)
{
    static const struct {
        const char *bytes;
        size_t size;
    } cases[] = {
        {"", 0},                 /* no durable LSN */
        {"\x03\x01", 2},         /* nor here */
        {"\x08\x01\x08\x01", 4}, /* twice */
        {"\x00\x08\x01", 3},     /* no such tags */
        {"\x0c\x08\x01", 3},
        {"\xff\x08\x01", 3},
        {"\x02\x07\x01\x08\x01", 5},                              /* no such level */
        {"\x02\x01", 2},                                          /* ends early */
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12}, /* not a varint */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        VersionEdit edit;
        uint64_t durable;
        ck_assert_int_eq(
            version_edit_decode(slice_make(cases[i].bytes, cases[i].size), &edit, &durable),
            AIDB_CORRUPTION);
        ck_assert_uint_eq(edit.added_count + edit.removed_count, 0);
    }
}
END_TEST

START_TEST(test_long_bounds)
{
    uint8_t key[1000];
    VersionEdit edit = {0};
    TableInfo info = {.number = 1};
    memset(key, 'x', sizeof key);
    key[255] = 0xff;
    FileBounds bounds = {.smallest = slice_make(key, 700), .largest = slice_make(key, 1000)};
    ck_assert_int_eq(version_edit_add(&edit, 0, &info, &bounds), AIDB_OK);
    ck_assert_int_eq(version_edit_add(&edit, 1, &info, &bounds), AIDB_OK);
    memset(key, 0xff, sizeof key);
    ck_assert_int_eq(version_edit_add(&edit, 0, &info, &bounds), AIDB_OK);
    const NewFile *cut = &edit.added[0];
    ck_assert_uint_eq(cut->smallest.size, BOUND_MAX);
    ck_assert_uint_eq(cut->largest.size, 255); /* ff does not count up: it goes */
    ck_assert_int_eq(cut->largest.data[254], 'y');
    ck_assert(cut->largest_exclusive);
    const NewFile *kept = &edit.added[1];
    ck_assert_uint_eq(kept->smallest.size, 700);
    ck_assert_uint_eq(kept->largest.size, 1000);
    ck_assert(!kept->largest_exclusive);
    const NewFile *highest = &edit.added[2];
    ck_assert_uint_eq(highest->largest.size, 1000);
    ck_assert(!highest->largest_exclusive);
    version_edit_deinit(&edit);
}
END_TEST

START_TEST(test_file_bounds)
{
    FileMeta closed = {.smallest = text("b"), .largest = text("d")};
    FileMeta open = {.smallest = text("b"), .largest = text("d"), .largest_exclusive = true};
    FileMeta endless = {.smallest = text("b"), .unbounded = true};
    FileMeta next = {.smallest = text("d"), .largest = text("f")};
    Slice none = {0};
    ck_assert(file_covers(&closed, text("d")) && !file_covers(&open, text("d")));
    ck_assert(file_covers(&open, text("czz")) && file_covers(&endless, text("zz")));
    ck_assert(!file_covers(&endless, text("azz")));
    ck_assert(file_ends_before(&open, text("d")) && !file_ends_before(&closed, text("d")));
    ck_assert(!file_ends_before(&endless, text("\xff\xff")));
    ck_assert(file_overlaps(&closed, text("d"), text("e")));
    ck_assert(!file_overlaps(&open, text("d"), text("e")));
    ck_assert(file_overlaps(&open, none, text("b")) && !file_overlaps(&open, none, text("azz")));
    ck_assert(file_overlaps(&open, none, none) && file_overlaps(&endless, text("x"), none));
    ck_assert(files_overlap(&closed, &next) && !files_overlap(&open, &next));
    ck_assert(files_overlap(&next, &endless) && files_overlap(&endless, &next));
}
END_TEST

TCase *edit_cases(void)
{
    TCase *tests = tcase_create("edits");
    tcase_add_test(tests, test_edit_round_trip);
    tcase_add_test(tests, test_edit_refuses);
    tcase_add_test(tests, test_long_bounds);
    tcase_add_test(tests, test_file_bounds);
    return tests;
}
