/*
 * block_test.c - data blocks, index blocks and filters against simple models.
 */
#include "config.h"

#include "engine/sstable/test_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- data blocks ----------------------------------------------------------------------------- */

static const Shape block_shapes[] = {
    {"one", 1, 0, 8, 20, 1, 4096},        {"short keys", 60, 0, 6, 30, 4, 4096},
    {"prefixes", 80, 1, 40, 30, 2, 4096}, {"binary", 70, 2, 9, 200, 3, 4096},
    {"versions", 30, 4, 0, 5, 40, 4096},  {"long keys", 20, 1, 3000, 0, 2, 4096},
};

/* The payload of one block with all entries that differ; duplicates of (key, lsn) do not occur. */
static void build_block(const Model *model, Buffer *payload)
{
    BlockBuilder builder = {0};
    size_t expected = 0;
    for (size_t i = 0; i < model->count; i++) {
        const Entry *entry = &model->entries[i];
        size_t shared = i > 0 ? key_shared_prefix(model->entries[i - 1].key, entry->key) : 0;
        expected = block_builder_size_with(&builder, entry, shared);
        OK(block_builder_add(&builder, entry, shared));
    }
    Slice last = model->count > 0 ? model->entries[model->count - 1].key : (Slice){0};
    size_t plain;
    OK(block_builder_finish(&builder, last, &plain));
    ck_assert_uint_eq(expected, builder.payload.size);
    ck_assert_uint_lt(plain, expected);
    *payload = builder.payload;
    builder.payload = (Buffer){0};
    block_builder_deinit(&builder);
}

START_TEST(block_model)
{
    test_draw_seed("block_model");
    uint8_t *room = malloc(AIDB_KEY_MAX + 1);
    for (int round = 0; round < 20; round++) {
        const Shape *shape = &block_shapes[_i];
        Model model;
        model_build(&model, shape);
        Buffer payload;
        build_block(&model, &payload);
        BlockCursor cursor = {0};
        ck_assert(block_cursor_init(&cursor, buffer_slice(&payload)));
        BlockView view;
        ck_assert(block_view_init(&view, buffer_slice(&payload)));

        size_t place = model.count; /* model.count: invalid */
        for (int step = 0; step < 2000; step++) {
            Slice key = probe_key(&model, room);
            uint64_t lsn = probe_lsn(&model);
            switch (test_draw_below(8)) {
            case 0:
                ck_assert(block_cursor_first(&cursor));
                place = 0;
                break;
            case 1:
                ck_assert(block_cursor_last(&cursor));
                place = model.count - 1;
                break;
            case 2:
                ck_assert(block_cursor_seek(&cursor, key, lsn));
                place = model_seek(&model, key, lsn);
                break;
            case 3:
                ck_assert(block_cursor_seek_before(&cursor, key, lsn));
                place = model_seek(&model, key, lsn);
                place = place == 0 ? model.count : place - 1;
                break;
            case 4:
            case 5:
                if (place == model.count)
                    continue;
                ck_assert(block_cursor_next(&cursor));
                place++;
                break;
            case 6:
                if (place == model.count)
                    continue;
                ck_assert(block_cursor_prev(&cursor));
                place = place == 0 ? model.count : place - 1;
                break;
            default: {
                Entry entry;
                size_t at = model_seek(&model, key, lsn);
                bool there = at < model.count && slice_equal(model.entries[at].key, key);
                BlockFind found = block_find(&view, key, lsn, &entry);
                ck_assert_int_eq(found, there ? BLOCK_FOUND : BLOCK_MISSING);
                if (there)
                    ck_assert(entry_equal(&entry, &model.entries[at]));
                continue;
            }
            }
            ck_assert_int_eq(cursor.valid, place < model.count);
            if (cursor.valid)
                ck_assert(entry_equal(&cursor.entry, &model.entries[place]));
        }
        block_cursor_deinit(&cursor);
        buffer_deinit(&payload);
        model_free(&model);
    }
    free(room);
}
END_TEST

/* Any bytes: no read outside (sanitizers tell), and every walk ends. */
START_TEST(block_total)
{
    test_draw_seed("block_total");
    uint8_t *room = malloc(AIDB_KEY_MAX + 1);
    Model model;
    model_build(&model, &block_shapes[2]);
    Buffer payload;
    build_block(&model, &payload);
    for (int round = 0; round < 20000; round++) {
        size_t size =
            test_draw_below(4) == 0 ? test_draw_below((uint32_t)payload.size) : payload.size;
        uint8_t *copy = malloc(size + 1);
        memcpy(copy, payload.data, size);
        for (uint32_t flips = 1 + test_draw_below(4); size > 0 && flips > 0; flips--)
            copy[test_draw_below((uint32_t)size)] = (uint8_t)test_draw();
        if (size >= 8 && test_draw_below(3) == 0)
            put_fixed32(copy, test_draw_below(40));
        BlockCursor cursor = {0};
        BlockView view;
        Slice key = probe_key(&model, room);
        Entry entry;
        if (block_view_init(&view, slice_make(copy, size)))
            (void)block_find(&view, key, LSN_MAX, &entry);
        if (block_cursor_init(&cursor, slice_make(copy, size))) {
            uint32_t steps = 0;
            for (bool good = block_cursor_first(&cursor); good && cursor.valid;
                 good = block_cursor_next(&cursor))
                ck_assert_uint_lt(steps++, size);
            steps = 0;
            for (bool good = block_cursor_last(&cursor); good && cursor.valid;
                 good = block_cursor_prev(&cursor))
                ck_assert_uint_lt(steps++, size * 2);
            (void)block_cursor_seek(&cursor, key, 5);
            (void)block_cursor_seek_before(&cursor, key, 5);
        }
        block_cursor_deinit(&cursor);
        free(copy);
    }
    buffer_deinit(&payload);
    model_free(&model);
    free(room);
}
END_TEST

/* ---- index blocks ---------------------------------------------------------------------------- */

START_TEST(separators)
{
    test_draw_seed("separators");
    Buffer separator = {0};
    for (int round = 0; round < 200000; round++) {
        uint8_t bytes[2][8];
        Slice keys[2];
        for (int i = 0; i < 2; i++) {
            size_t size = 1 + test_draw_below(7);
            for (size_t j = 0; j < size; j++)
                bytes[i][j] = test_draw_below(3) == 0 ? (uint8_t)(test_draw_below(2) * 255)
                                                      : (uint8_t)test_draw_below(3);
            keys[i] = slice_make(bytes[i], size);
        }
        int order = slice_compare(keys[0], keys[1]);
        if (order == 0)
            continue;
        Slice last = order < 0 ? keys[0] : keys[1];
        Slice next = order < 0 ? keys[1] : keys[0];
        separator.size = 0;
        OK(index_separator(last, next, &separator));
        ck_assert_int_ge(slice_compare(buffer_slice(&separator), last), 0);
        ck_assert_int_lt(slice_compare(buffer_slice(&separator), next), 0);
        ck_assert_uint_le(separator.size, last.size);
    }
    buffer_deinit(&separator);
}
END_TEST

START_TEST(index_model)
{
    test_draw_seed("index_model");
    static const Shape shapes[] = {
        {"none", 0, 0, 5, 0, 1, 0},      {"one", 1, 0, 5, 0, 1, 0},
        {"short", 200, 0, 12, 0, 3, 0},  {"prefixes", 300, 1, 30, 0, 2, 0},
        {"binary", 300, 2, 14, 0, 2, 0}, {"counters", 500, 3, 0, 0, 1, 0},
        {"few", 20, 4, 0, 0, 30, 0},     {"long", 40, 1, 5000, 0, 1, 0}};
    uint8_t *room = malloc(AIDB_KEY_MAX + 1);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        Model model;
        model_build(&model, &shapes[s]);
        IndexBuilder builder = {0};
        for (size_t i = 0; i < model.count; i++) {
            /* As tables do: no LSN when the next user key is another one. */
            if (i + 1 == model.count ||
                !slice_equal(model.entries[i].key, model.entries[i + 1].key))
                model.entries[i].lsn = 0;
            BlockHandle handle = {
                .offset = 64 + i * 4000, .size = 3000 + (uint32_t)i, .raw = i % 3 == 0};
            OK(index_builder_add(&builder, model.entries[i].key, model.entries[i].lsn, &handle));
        }
        Buffer payload = {0};
        OK(index_builder_block(&builder, 0, builder.count, &payload));
        IndexView view;
        ck_assert(index_view_init(&view, buffer_slice(&payload)));
        ck_assert_uint_eq(view.count, model.count);
        Buffer separator = {0};
        for (uint32_t i = 0; i < view.count; i++) {
            BlockHandle handle;
            uint64_t lsn;
            ck_assert(index_handle(&view, i, &handle));
            ck_assert_uint_eq(handle.offset, 64 + (uint64_t)i * 4000);
            ck_assert_uint_eq(handle.size, 3000 + i);
            ck_assert_int_eq(handle.raw, i % 3 == 0);
            ck_assert_int_eq(index_separator_at(&view, i, &separator, &lsn), INDEX_OK);
            ck_assert(slice_equal(buffer_slice(&separator), model.entries[i].key));
            ck_assert_uint_eq(lsn, model.entries[i].lsn);
        }
        for (int i = 0; i < 5000; i++) {
            Slice key = probe_key(&model, room);
            uint64_t lsn = model.count > 0 ? probe_lsn(&model) : 5;
            uint32_t position;
            ck_assert(index_find(&view, key, lsn, &position));
            ck_assert_uint_eq(position, model_seek(&model, key, lsn));
        }
        /* Any bytes. */
        for (int i = 0; i < 3000 && payload.size > 0; i++) {
            size_t size =
                test_draw_below(3) == 0 ? test_draw_below((uint32_t)payload.size) : payload.size;
            uint8_t *copy = malloc(size + 1);
            memcpy(copy, payload.data, size);
            for (uint32_t flips = 1 + test_draw_below(6); size > 0 && flips > 0; flips--)
                copy[test_draw_below(
                    (uint32_t)(test_draw_below(2) == 0 && size > 32 ? 32 : size))] =
                    (uint8_t)test_draw();
            IndexView damaged;
            if (index_view_init(&damaged, slice_make(copy, size))) {
                uint32_t position = 0;
                uint64_t lsn;
                BlockHandle handle;
                if (index_find(&damaged, probe_key(&model, room), 7, &position)) {
                    ck_assert_uint_le(position, damaged.count);
                    (void)index_handle(&damaged, position, &handle);
                }
                (void)index_separator_at(&damaged, test_draw_below(damaged.count + 1), &separator,
                                         &lsn);
            }
            free(copy);
        }
        buffer_deinit(&separator);
        buffer_deinit(&payload);
        index_builder_deinit(&builder);
        model_free(&model);
    }
    free(room);
}
END_TEST

/* ---- filter ---------------------------------------------------------------------------------- */

static void check_filter(uint32_t keys, uint32_t bits, double most)
{
    FilterShape shape = filter_shape(keys, bits);
    ck_assert_uint_gt(shape.sections, 0);
    ck_assert_uint_le(filter_payload_size(shape.lines) + TRAILER_SIZE, 32768);
    size_t size = filter_payload_size(shape.lines);
    uint8_t *sections = calloc(shape.sections, size);
    for (uint32_t i = 0; i < shape.sections; i++)
        sections[i * size + size - 1] = (uint8_t)shape.probes;
    char key[32];
    for (uint32_t i = 0; i < keys; i++) {
        uint64_t hash = table_key_hash(slice_make(key, (size_t)sprintf(key, "key:%012u", i)));
        filter_add(sections + filter_section_of(hash, shape.sections) * size, shape.lines,
                   shape.probes, hash);
    }
    uint32_t wrong = 0;
    uint32_t tries = 100000;
    for (uint32_t i = 0; i < keys + tries; i++) {
        uint64_t hash = table_key_hash(slice_make(key, (size_t)sprintf(key, "key:%012u", i)));
        uint32_t section = filter_section_of(hash, shape.sections);
        ck_assert_uint_lt(section, shape.sections);
        bool may = filter_may_contain(slice_make(sections + section * size, size), hash);
        if (i < keys)
            ck_assert(may);
        else
            wrong += may;
    }
    free(sections);
    double rate = (double)wrong / tries;
    printf("filter: %u keys, %u bits, %u sections: false positives %.3f%%\n", keys, bits,
           shape.sections, rate * 100);
    ck_assert_msg(rate <= most, "%u keys, %u bits: %f", keys, bits, rate);
}

START_TEST(filter_rates)
{
    check_filter(100000, 10, 0.015);
    check_filter(100000, 5, 0.12);
    check_filter(100000, 16, 0.0035);
    check_filter(1000, 10, 0.02);
    check_filter(3, 10, 0.05);
    check_filter(1, 1, 0.05);
    ck_assert_uint_eq(filter_shape(0, 10).sections, 0);
    ck_assert_uint_eq(filter_shape(10, 0).sections, 0);
    uint8_t odd[130] = {0};
    ck_assert(filter_may_contain(slice_make(odd, 0), 1)); /* no section: no answer */
    ck_assert(filter_may_contain(slice_make(odd, 64), 1));
    ck_assert(filter_may_contain(slice_make(odd, 130), 1));
    odd[64] = 200;
    ck_assert(filter_may_contain(slice_make(odd, 65), 1));
}
END_TEST

TCase *block_cases(void)
{
    TCase *blocks = tcase_create("blocks");
    tcase_set_timeout(blocks, 120);
    tcase_add_loop_test(blocks, block_model, 0, (int)(sizeof block_shapes / sizeof *block_shapes));
    tcase_add_test(blocks, block_total);
    tcase_add_test(blocks, separators);
    tcase_add_test(blocks, index_model);
    tcase_add_test(blocks, filter_rates);
    return blocks;
}
