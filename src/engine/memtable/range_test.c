/* range_test.c - range tombstones by brute force. */
#include "config.h"

#include "engine/memtable/test_memtable.h"

#include <string.h>

#define TOMBSTONES_MAX 40

static uint64_t brute_cover(const RangeTombstone *tombstones, size_t count, Slice key,
                            uint64_t visible)
{
    uint64_t best = 0;
    for (size_t i = 0; i < count; i++) {
        const RangeTombstone *t = &tombstones[i];
        if (t->lsn <= visible && t->lsn > best && slice_compare(t->from, key) <= 0 &&
            (t->to.size == 0 || slice_compare(key, t->to) < 0))
            best = t->lsn;
    }
    return best;
}

static void check_same_fragments(const RangeFragments *a, const RangeFragments *b)
{
    ck_assert_uint_eq(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        ck_assert(slice_equal(a->items[i].from, b->items[i].from));
        ck_assert(slice_equal(a->items[i].to, b->items[i].to));
        ck_assert_uint_eq(a->items[i].lsn_count, b->items[i].lsn_count);
        ck_assert_mem_eq(a->items[i].lsns, b->items[i].lsns,
                         a->items[i].lsn_count * sizeof a->items[i].lsns[0]);
    }
}

START_TEST(ranges_random)
{
    test_draw_seed("ranges_random");
    static const uint8_t letters[] = {0x00, 'b', 0xff};
    World world;
    world_init(&world, 1 << 20);
    for (int round = 0; round < 300; round++) {
        uint8_t bytes[2 * TOMBSTONES_MAX][12];
        RangeTombstone tombstones[TOMBSTONES_MAX];
        size_t count = test_draw_below(TOMBSTONES_MAX + 1);
        size_t shared = test_draw_below(2) * 8; /* with and without a prefix that all share */
        Memtable *memtable = world_create(&world);
        memset(bytes, 's', sizeof bytes);
        for (size_t i = 0; i < 2 * count; i++) {
            for (size_t j = 0; j < 3; j++)
                bytes[i][shared + j] = letters[test_draw_below(3)];
        }
        for (size_t i = 0; i < count; i++) {
            size_t from_size = test_draw_below(4);
            size_t to_size = test_draw_below(4);
            tombstones[i] = (RangeTombstone){
                .from = slice_make(bytes[2 * i], from_size == 0 ? 0 : shared + from_size),
                .to = slice_make(bytes[2 * i + 1], to_size == 0 ? 0 : shared + to_size),
                .lsn = 2 * i + 1};
            delete_range(&world, memtable, tombstones[i].from, tombstones[i].to, tombstones[i].lsn);
        }
        RangeFragments fragments;
        RangeFragments expected;
        ck_assert_int_eq(memtable_fragments(memtable, &fragments), AIDB_OK);
        ck_assert_int_eq(range_fragments_build(tombstones, count, &expected), AIDB_OK);
        check_same_fragments(&fragments, &expected);
        ck_assert_uint_eq(memtable_entries(memtable), count);
        ck_assert_int_eq(memtable_has_ranges(memtable), expected.count > 0);
        for (int probe = 0; probe < 100; probe++) {
            uint8_t key_bytes[12];
            memset(key_bytes, 's', sizeof key_bytes);
            for (size_t j = 0; j < 4; j++)
                key_bytes[shared + j] = letters[test_draw_below(3)];
            Slice key =
                slice_make(key_bytes, test_draw_below(8) == 0 ? 1 + test_draw_below(3)
                                                              : shared + 1 + test_draw_below(4));
            for (uint64_t visible = 0; visible <= 2 * count; visible += 1 + test_draw_below(4)) {
                uint64_t cover = brute_cover(tombstones, count, key, visible);
                ck_assert_uint_eq(memtable_cover(memtable, key, visible), cover);
                ck_assert_uint_eq(
                    range_fragments_cover(fragments.items, fragments.count, key, visible), cover);
            }
        }
        range_fragments_deinit(&fragments);
        range_fragments_deinit(&expected);
        memtable_retire(memtable, world.slot);
    }
    world_deinit(&world);
}
END_TEST

/* The fragments stay whole after the memtable's memory was reused. */
START_TEST(ranges_outlive)
{
    World world;
    world_init(&world, 1 << 16);
    Memtable *memtable = world_create(&world);
    delete_range(&world, memtable, text("bb"), text("dd"), 7);
    delete_range(&world, memtable, text("cc"), text(""), 9);
    RangeFragments fragments;
    ck_assert_int_eq(memtable_fragments(memtable, &fragments), AIDB_OK);
    memtable_retire(memtable, world.slot);
    memtable = world_create(&world);
    for (uint64_t lsn = 1; lsn <= 200; lsn++)
        put(&world, memtable, slice_make(&lsn, 8), text("overwrites what was there"), lsn);
    ck_assert_uint_eq(fragments.count, 3);
    ck_assert(slice_equal(fragments.items[0].from, text("bb")));
    ck_assert_uint_eq(range_fragments_cover(fragments.items, 3, text("bc"), LSN_MAX), 7);
    ck_assert_uint_eq(range_fragments_cover(fragments.items, 3, text("cd"), LSN_MAX), 9);
    ck_assert_uint_eq(range_fragments_cover(fragments.items, 3, text("cd"), 8), 7);
    ck_assert_uint_eq(range_fragments_cover(fragments.items, 3, text("zz"), LSN_MAX), 9);
    range_fragments_deinit(&fragments);
    world_deinit(&world);
}
END_TEST

TCase *range_cases(void)
{
    TCase *tests = tcase_create("range tombstones");
    tcase_add_test(tests, ranges_random);
    tcase_add_test(tests, ranges_outlive);
    return tests;
}
