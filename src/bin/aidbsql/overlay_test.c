/*
 * overlay_test.c - the overlay and the cursor against a model.
 *
 * Keys are drawn from a small set, so that writes, deletes and ranges meet often. The store holds
 * some keys; a random batch is laid over it; then every get, count and scan in both directions must
 * agree with a plain array that was changed in the same way, before the batch is written and, read
 * from the store alone, after.
 */
#include "config.h"
#include "bin/aidbsql/aidbsql_test.h"

#include <stdio.h>

#include "bin/aidbsql/cursor.h"
#include "bin/aidbsql/overlay.h"
#include "testlib/testlib.h"

#define KEY_COUNT 40

static Slice text(const char *string)
{
    return slice_from_string(string);
}

START_TEST(points_and_ranges)
{
    Overlay *overlay = overlay_create();
    ck_assert(overlay_is_empty(overlay));
    overlay_put(overlay, text("b"), text("1"));
    overlay_put(overlay, text("a"), text("2"));
    overlay_put(overlay, text("b"), text("3"));
    ck_assert(!overlay_is_empty(overlay));
    ck_assert(slice_equal(overlay_find(overlay, text("b"))->value, text("3")));
    ck_assert_ptr_null(overlay_find(overlay, text("c")));
    overlay_delete(overlay, text("a"));
    ck_assert(overlay_find(overlay, text("a"))->deleted);

    overlay_delete_range(overlay, text("a"), text("b"), false);
    ck_assert_ptr_null(overlay_find(overlay, text("a")));
    ck_assert_ptr_nonnull(overlay_covering(overlay, text("a")));
    ck_assert_ptr_nonnull(overlay_covering(overlay, text("aa")));
    ck_assert_ptr_null(overlay_covering(overlay, text("b")));
    /* A delete inside of a deleted range says nothing new. */
    overlay_delete(overlay, text("aa"));
    ck_assert_ptr_null(overlay_find(overlay, text("aa")));
    overlay_put(overlay, text("aa"), text("4"));
    overlay_delete(overlay, text("aa"));
    ck_assert_ptr_null(overlay_find(overlay, text("aa")));
    overlay_destroy(overlay);
}
END_TEST

START_TEST(ranges_merge)
{
    Overlay *overlay = overlay_create();
    overlay_delete_range(overlay, text("c"), text("e"), false);
    overlay_delete_range(overlay, text("g"), text("i"), false);
    overlay_delete_range(overlay, text("e"), text("f"), false);
    const OverlayRange *range = overlay_covering(overlay, text("c"));
    ck_assert(slice_equal(range->to, text("f")));
    ck_assert_ptr_null(overlay_covering(overlay, text("f")));
    overlay_delete_range(overlay, text("d"), text("h"), false);
    range = overlay_covering(overlay, text("f"));
    ck_assert(slice_equal(range->from, text("c")) && slice_equal(range->to, text("i")));
    overlay_delete_range(overlay, text("z"), text("a"), false);
    ck_assert_ptr_null(overlay_covering(overlay, text("zz")));
    overlay_delete_range(overlay, text("h"), text(""), true);
    range = overlay_covering(overlay, text("zz"));
    ck_assert(slice_equal(range->from, text("c")) && range->to_end);
    overlay_delete_range(overlay, text(""), text("b"), false);
    ck_assert_ptr_null(overlay_covering(overlay, text("b")));
    overlay_delete_range(overlay, text(""), text(""), true);
    ck_assert_ptr_nonnull(overlay_covering(overlay, text("b")));
    overlay_destroy(overlay);
}
END_TEST

/* What every key should hold: 0 for nothing, otherwise a number. */
typedef struct Model {
    unsigned values[KEY_COUNT];
    unsigned next;
} Model;

static uint64_t random_state;

static unsigned random_below(unsigned limit)
{
    return (unsigned)test_random_below(&random_state, limit);
}

static Slice key_of(unsigned index, char *out)
{
    return slice_make((const uint8_t *)out, (size_t)sprintf(out, "k%02u", index));
}

static Slice value_of(unsigned number, char *out)
{
    return slice_make((const uint8_t *)out, (size_t)sprintf(out, "%u", number));
}

static void random_write(Overlay *overlay, Model *model)
{
    char key[16], key_to[16], value[16];
    unsigned index = random_below(KEY_COUNT);
    switch (random_below(6)) {
    case 0: {
        unsigned to = random_below(KEY_COUNT + 4);
        bool to_end = to >= KEY_COUNT;
        overlay_delete_range(overlay, key_of(index, key), key_of(to, key_to), to_end);
        for (unsigned i = index; i < (to_end ? KEY_COUNT : to); i++)
            model->values[i] = 0;
        break;
    }
    case 1:
    case 2:
        overlay_delete(overlay, key_of(index, key));
        model->values[index] = 0;
        break;
    default:
        model->values[index] = ++model->next;
        overlay_put(overlay, key_of(index, key), value_of(model->next, value));
        break;
    }
}

/* Reads a random range and compares. */
static void check_range(aidb *db, const Overlay *overlay, const Model *model)
{
    char key[16], from_key[16], to_key[16], value[16];
    unsigned from = random_below(KEY_COUNT);
    unsigned to = random_below(KEY_COUNT + 1);
    Bounds bounds = {.has_from = random_below(3) > 0, .has_to = random_below(3) > 0};
    bounds.from = key_of(from, from_key);
    bounds.to = key_of(to, to_key);
    if (!bounds.has_from)
        from = 0;
    if (!bounds.has_to)
        to = KEY_COUNT;
    CursorRange range;
    Cursor cursor;
    CursorOptions options = {.overlay = overlay, .reverse = random_below(2) == 1};
    cursor_range_init(&range, &bounds);
    ck_assert_int_eq(cursor_open(&cursor, db, &range, &options), AIDB_OK);
    for (unsigned i = from; i < to; i++) {
        unsigned index = options.reverse ? to - 1 - (i - from) : i;
        if (model->values[index] == 0)
            continue;
        CursorRow row;
        bool found;
        ck_assert_int_eq(cursor_next(&cursor, &row, &found), AIDB_OK);
        ck_assert(found);
        ck_assert(slice_equal(row.key, key_of(index, key)));
        ck_assert(slice_equal(row.value, value_of(model->values[index], value)));
    }
    CursorRow row;
    bool found;
    ck_assert_int_eq(cursor_next(&cursor, &row, &found), AIDB_OK);
    ck_assert(!found);
    cursor_close(&cursor);
    cursor_range_deinit(&range);
}

static void check_gets(const Overlay *overlay, const Model *base, const Model *model)
{
    char key[16], value[16];
    for (unsigned i = 0; i < KEY_COUNT; i++) {
        Slice name = key_of(i, key);
        const OverlayPoint *point = overlay_find(overlay, name);
        unsigned expected = model->values[i];
        if (point != NULL) {
            ck_assert_int_eq(point->deleted, expected == 0);
            if (expected != 0)
                ck_assert(slice_equal(point->value, value_of(expected, value)));
        } else if (overlay_covering(overlay, name) != NULL) {
            ck_assert_uint_eq(expected, 0);
        } else {
            ck_assert_uint_eq(expected, base->values[i]);
        }
    }
}

START_TEST(random_batches)
{
    char *directory = test_directory_create();
    const aidb_option options[] = {{"create", "true"}, {NULL, NULL}};
    aidb *db = NULL;
    ck_assert_msg(aidb_open(directory, options, &db) == AIDB_OK, "%s", aidb_error_message());
    aidb_batch *batch = aidb_batch_create();
    random_state = test_seed("random_batches");
    Model model = {0};
    for (int round = 0; round < 300; round++) {
        Model base = model;
        Overlay *overlay = overlay_create();
        unsigned writes = random_below(30);
        for (unsigned i = 0; i < writes; i++) {
            random_write(overlay, &model);
            check_range(db, overlay, &model);
        }
        check_gets(overlay, &base, &model);
        aidb_batch_clear(batch);
        ck_assert_int_eq(overlay_write(overlay, batch), AIDB_OK);
        if (!overlay_is_empty(overlay))
            ck_assert_int_eq(aidb_write(db, batch, AIDB_ASYNC, NULL), AIDB_OK);
        overlay_destroy(overlay);
        check_range(db, NULL, &model);
    }
    aidb_batch_destroy(batch);
    ck_assert_int_eq(aidb_close(db), AIDB_OK);
    test_directory_destroy(directory);
}
END_TEST

START_TEST(prefixes)
{
    static const struct {
        Slice prefix;
        const char *to; /* null: no bound */
    } cases[] = {{{(const uint8_t *)"a", 1}, "b"},
                 {{(const uint8_t *)"a\xff", 2}, "b"},
                 {{(const uint8_t *)"az\xff\xff", 4}, "a{"},
                 {{(const uint8_t *)"\xff\xff", 2}, NULL},
                 {{(const uint8_t *)"", 0}, NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Bounds bounds = {.has_prefix = true, .prefix = cases[i].prefix};
        CursorRange range;
        cursor_range_init(&range, &bounds);
        ck_assert(!range.empty);
        ck_assert_uint_eq(range.range.from.size, cases[i].prefix.size);
        if (cases[i].to == NULL)
            ck_assert_ptr_null(range.range.to.data);
        else
            ck_assert(slice_equal(slice_make(range.range.to.data, range.range.to.size),
                                  text(cases[i].to)));
        cursor_range_deinit(&range);
    }
}
END_TEST

START_TEST(empty_ranges)
{
    static const struct {
        const char *from; /* null: no bound */
        const char *to;
        bool empty;
    } cases[] = {{"a", "b", false}, {"b", "a", true},   {"a", "a", true}, {NULL, "", true},
                 {"", NULL, false}, {"a", NULL, false}, {"", "a", false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Bounds bounds = {.has_from = cases[i].from != NULL, .has_to = cases[i].to != NULL};
        if (bounds.has_from)
            bounds.from = text(cases[i].from);
        if (bounds.has_to)
            bounds.to = text(cases[i].to);
        CursorRange range;
        cursor_range_init(&range, &bounds);
        ck_assert_int_eq(range.empty, cases[i].empty);
        cursor_range_deinit(&range);
    }
}
END_TEST

Suite *overlay_suite(void)
{
    Suite *suite = suite_create("overlay");
    TCase *tests = tcase_create("overlay");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, points_and_ranges);
    tcase_add_test(tests, ranges_merge);
    tcase_add_test(tests, random_batches);
    tcase_add_test(tests, prefixes);
    tcase_add_test(tests, empty_ranges);
    suite_add_tcase(suite, tests);
    return suite;
}
