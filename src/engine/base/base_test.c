/*
 * base_test.c - batches, the merge iterator and range fragments against simple models.
 *
 * Random tests print their seed; AIDB_TEST_SEED repeats one.
 */
#include "config.h"
#include "engine/base/base.h"

#include "testlib/testlib.h"

#include <check.h>
#include <stdlib.h>

/* ---- helpers --------------------------------------------------------------------------------- */

static Slice text(const char *string)
{
    return slice_from_string(string);
}

static bool slice_is(Slice slice, const char *string)
{
    return slice_equal(slice, text(string));
}

/* ---- batches --------------------------------------------------------------------------------- */

START_TEST(batch_round_trip)
{
    Batch batch = {0};
    ck_assert_int_eq(batch_put(&batch, text("a"), text("")), AIDB_OK);
    ck_assert_int_eq(batch_put(&batch, slice_make("\0\xff", 2), slice_make("\0v", 2)), AIDB_OK);
    ck_assert_int_eq(batch_delete(&batch, text("gone")), AIDB_OK);
    ck_assert_int_eq(batch_delete_range(&batch, text("m"), text("n")), AIDB_OK);
    ck_assert_int_eq(batch_delete_range(&batch, text(""), text("")), AIDB_OK);
    ck_assert_uint_eq(batch.op_count, 5);
    ck_assert_uint_eq(batch.range_count, 2);

    uint32_t op_count;
    uint32_t range_count;
    ck_assert_int_eq(batch_check(buffer_slice(&batch.ops), &op_count, &range_count), AIDB_OK);
    ck_assert_uint_eq(op_count, 5);
    ck_assert_uint_eq(range_count, 2);

    size_t cursor = 0;
    BatchOp op;
    bool damaged;
    Slice row = buffer_slice(&batch.ops);
    ck_assert(batch_next(row, &cursor, &op, &damaged));
    ck_assert(op.type == OP_PUT && slice_is(op.key, "a") && op.value.size == 0 && op.offset == 0);
    uint32_t second = (uint32_t)cursor;
    ck_assert(batch_next(row, &cursor, &op, &damaged));
    ck_assert(op.type == OP_PUT && slice_equal(op.key, slice_make("\0\xff", 2)));
    ck_assert(slice_equal(op.value, slice_make("\0v", 2)) && op.offset == second);
    ck_assert_uint_eq(row.data[op.offset], OP_PUT);
    ck_assert(batch_next(row, &cursor, &op, &damaged));
    ck_assert(op.type == OP_DELETE && slice_is(op.key, "gone") && op.value.size == 0);
    ck_assert(batch_next(row, &cursor, &op, &damaged));
    ck_assert(op.type == OP_DELETE_RANGE && slice_is(op.key, "m") && slice_is(op.value, "n"));
    ck_assert(batch_next(row, &cursor, &op, &damaged));
    ck_assert(op.type == OP_DELETE_RANGE && op.key.size == 0 && op.value.size == 0);
    ck_assert(!batch_next(row, &cursor, &op, &damaged));
    ck_assert(!damaged);

    batch_clear(&batch);
    ck_assert_uint_eq(batch.op_count + batch.range_count + batch.ops.size, 0);
    batch_deinit(&batch);
    ck_assert_ptr_null(batch.ops.data);
}
END_TEST

START_TEST(batch_limits)
{
    Batch batch = {0};
    uint8_t *large = calloc(1, AIDB_VALUE_MAX + 1);
    ck_assert_ptr_nonnull(large);
    Slice key_max = slice_make(large, AIDB_KEY_MAX);
    Slice key_over = slice_make(large, AIDB_KEY_MAX + 1);
    Slice value_max = slice_make(large, AIDB_VALUE_MAX);
    Slice value_over = slice_make(large, AIDB_VALUE_MAX + 1);
    Slice none = slice_make(NULL, 0);

    ck_assert_int_eq(batch_put(&batch, none, none), AIDB_INVALID);
    ck_assert_int_eq(batch_put(&batch, key_over, none), AIDB_INVALID);
    ck_assert_ptr_nonnull(strstr(status_message(), "65537"));
    ck_assert_int_eq(batch_put(&batch, text("k"), value_over), AIDB_INVALID);
    ck_assert_int_eq(batch_delete(&batch, none), AIDB_INVALID);
    ck_assert_int_eq(batch_delete(&batch, key_over), AIDB_INVALID);
    ck_assert_int_eq(batch_delete_range(&batch, key_over, none), AIDB_INVALID);
    ck_assert_int_eq(batch_delete_range(&batch, none, key_over), AIDB_INVALID);
    ck_assert_int_eq(batch_expect(&batch, none, AIDB_EXPECT_ABSENT, 0), AIDB_INVALID);
    ck_assert_int_eq(batch_expect(&batch, key_over, AIDB_EXPECT_ABSENT, 0), AIDB_INVALID);
    ck_assert_int_eq(batch_expect(&batch, text("k"), (aidb_expect)4, 0), AIDB_INVALID);
    ck_assert_uint_eq(batch.ops.size + batch.expectations.size, 0);
    ck_assert_uint_eq(batch.op_count + batch.expectation_count, 0);

    /* A range that holds nothing is no operation. */
    ck_assert_int_eq(batch_delete_range(&batch, text("b"), text("b")), AIDB_OK);
    ck_assert_int_eq(batch_delete_range(&batch, text("c"), text("b")), AIDB_OK);
    ck_assert_uint_eq(batch.op_count + batch.ops.size, 0);

    ck_assert_int_eq(batch_put(&batch, key_max, value_max), AIDB_OK);
    ck_assert_int_eq(batch_delete_range(&batch, none, key_max), AIDB_OK);
    uint32_t op_count;
    uint32_t range_count;
    ck_assert_int_eq(batch_check(buffer_slice(&batch.ops), &op_count, &range_count), AIDB_OK);
    ck_assert_uint_eq(op_count, 2);
    size_t cursor = 0;
    BatchOp op;
    bool damaged;
    ck_assert(batch_next(buffer_slice(&batch.ops), &cursor, &op, &damaged));
    ck_assert_uint_eq(op.key.size, AIDB_KEY_MAX);
    ck_assert_uint_eq(op.value.size, AIDB_VALUE_MAX);
    batch_deinit(&batch);
    free(large);
}
END_TEST

static void check_damaged(const char *bytes, size_t size, const char *reason)
{
    Slice row = slice_make(bytes, size);
    uint32_t op_count;
    uint32_t range_count;
    ck_assert_int_eq(batch_check(row, &op_count, &range_count), AIDB_INVALID);
    ck_assert_msg(strstr(status_message(), reason) != NULL, "\"%s\" lacks \"%s\"", status_message(),
                  reason);
    size_t cursor = 0;
    BatchOp op;
    bool damaged;
    while (batch_next(row, &cursor, &op, &damaged)) {
    }
    ck_assert(damaged);
}

START_TEST(batch_damage)
{
    check_damaged("\x03\x01k", 3, "type is unknown");
    check_damaged("\x01", 1, "key is cut off");
    check_damaged("\x01\x05kkkk", 6, "key is cut off");
    check_damaged("\x01\x80", 2, "key is cut off");
    check_damaged("\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, "key is cut off");
    check_damaged("\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 13, "key is cut off");
    check_damaged("\x01\x00\x00", 3, "key is empty");
    check_damaged("\x00\x00", 2, "key is empty");
    check_damaged("\x01\x01k", 3, "value is cut off");
    check_damaged("\x01\x01k\x02v", 5, "value is cut off");
    check_damaged("\x02\x00", 2, "value is cut off");
    check_damaged("\x00\x01k\x07", 4, "operation 1 of the batch, at byte 3");

    /* Too long, although the bytes are there. */
    Buffer row = {0};
    uint8_t *large = calloc(1, AIDB_VALUE_MAX + 1);
    ck_assert_ptr_nonnull(large);
    ck_assert_int_eq(buffer_append_byte(&row, OP_DELETE), AIDB_OK);
    ck_assert_int_eq(buffer_append_slice(&row, slice_make(large, AIDB_KEY_MAX + 1)), AIDB_OK);
    check_damaged((const char *)row.data, row.size, "key is too long");
    buffer_clear(&row);
    ck_assert_int_eq(buffer_append(&row, "\x02\x01k", 3), AIDB_OK);
    ck_assert_int_eq(buffer_append_slice(&row, slice_make(large, AIDB_KEY_MAX + 1)), AIDB_OK);
    check_damaged((const char *)row.data, row.size, "value is too long");
    buffer_clear(&row);
    ck_assert_int_eq(buffer_append(&row, "\x01\x01k", 3), AIDB_OK);
    ck_assert_int_eq(buffer_append_slice(&row, slice_make(large, AIDB_VALUE_MAX + 1)), AIDB_OK);
    check_damaged((const char *)row.data, row.size, "value is too long");
    buffer_deinit(&row);
    free(large);
}
END_TEST

/* Any bytes at all: each walk ends, stays inside an exactly sized copy and moves forward. */
START_TEST(batch_garbage)
{
    test_draw_seed("batch_garbage");
    for (int round = 0; round < 20000; round++) {
        size_t size = test_draw_below(40);
        uint8_t *bytes = malloc(size + (size == 0));
        ck_assert_ptr_nonnull(bytes);
        for (size_t i = 0; i < size; i++)
            bytes[i] = test_draw_below(3) == 0 ? (uint8_t)test_draw() : (uint8_t)test_draw_below(4);
        Slice row = slice_make(bytes, size);
        uint32_t count = 0;
        uint32_t ranges = 0;
        size_t cursor = 0;
        bool damaged;
        BatchOp op;
        for (size_t before = 0; batch_next(row, &cursor, &op, &damaged); before = cursor) {
            ck_assert(cursor > before && cursor <= size && op.offset == before);
            count++;
            ranges += op.type == OP_DELETE_RANGE;
        }
        uint32_t op_count;
        uint32_t range_count;
        Status status = batch_check(row, &op_count, &range_count);
        ck_assert_int_eq(status, damaged ? AIDB_INVALID : AIDB_OK);
        ck_assert(op_count == count && range_count == ranges);
        cursor = 0;
        count = 0;
        Expectation expectation;
        for (size_t before = 0; expectation_next(row, &cursor, &expectation, &damaged);
             before = cursor) {
            ck_assert(cursor > before && cursor <= size);
            count++;
        }
        status = expectations_check(row, &op_count);
        ck_assert_int_eq(status, damaged ? AIDB_INVALID : AIDB_OK);
        ck_assert_uint_eq(op_count, count);
        free(bytes);
    }
}
END_TEST

START_TEST(expectations)
{
    Batch batch = {0};
    ck_assert_int_eq(batch_expect(&batch, text("a"), AIDB_EXPECT_ABSENT, 0), AIDB_OK);
    ck_assert_int_eq(batch_expect(&batch, text("b"), AIDB_EXPECT_PRESENT, 0), AIDB_OK);
    ck_assert_int_eq(batch_expect(&batch, text("c"), AIDB_EXPECT_VERSION, UINT64_MAX - 1), AIDB_OK);
    Slice row = buffer_slice(&batch.expectations);
    uint32_t count;
    ck_assert_int_eq(expectations_check(row, &count), AIDB_OK);
    ck_assert_uint_eq(count, 3);
    size_t cursor = 0;
    bool damaged;
    Expectation expectation;
    ck_assert(expectation_next(row, &cursor, &expectation, &damaged));
    ck_assert(expectation.kind == AIDB_EXPECT_ABSENT && slice_is(expectation.key, "a"));
    ck_assert(expectation_next(row, &cursor, &expectation, &damaged));
    ck_assert(expectation.kind == AIDB_EXPECT_PRESENT && slice_is(expectation.key, "b"));
    ck_assert(expectation_next(row, &cursor, &expectation, &damaged));
    ck_assert(expectation.kind == AIDB_EXPECT_VERSION && slice_is(expectation.key, "c"));
    ck_assert_uint_eq(expectation.version, UINT64_MAX - 1);
    ck_assert(!expectation_next(row, &cursor, &expectation, &damaged) && !damaged);

    for (size_t size = 1; size < row.size; size++) {
        Slice cut = slice_make(row.data, size);
        bool whole = size == 3 || size == 6;
        ck_assert_int_eq(expectations_check(cut, &count), whole ? AIDB_OK : AIDB_INVALID);
    }
    ck_assert_int_eq(expectations_check(text("\x04\x01k"), &count), AIDB_INVALID);
    ck_assert_int_eq(expectations_check(slice_make("\x01\x00", 2), &count), AIDB_INVALID);
    batch_deinit(&batch);
}
END_TEST

/* ---- merge iterator -------------------------------------------------------------------------- */

/* A source over a sorted array. It hands out keys from a buffer of its own that each move
 * overwrites, so that a merge that keeps a slice too long reads rubbish. */
typedef struct ArrayIter {
    Iter base;
    const Entry *entries;
    size_t count;
    size_t position;
    uint8_t key[16];
    int *alive;
    int *fail_after; /* calls until every further one fails; NULL: never */
} ArrayIter;

static Status array_show(ArrayIter *array, size_t position)
{
    memset(array->key, 0xee, sizeof array->key);
    array->base.valid = false;
    if (array->fail_after != NULL && --*array->fail_after < 0)
        return status_set(AIDB_IO, "source failed");
    array->position = position;
    array->base.valid = position < array->count;
    if (array->base.valid) {
        array->base.entry = array->entries[position];
        memcpy(array->key, array->base.entry.key.data, array->base.entry.key.size);
        array->base.entry.key.data = array->key;
    }
    return AIDB_OK;
}

static size_t array_lower(const ArrayIter *array, Slice key, uint64_t lsn)
{
    size_t position = 0;
    while (position < array->count &&
           entry_compare(array->entries[position].key, array->entries[position].lsn, key, lsn) < 0)
        position++;
    return position;
}

static Status array_seek_first(Iter *iter)
{
    return array_show((ArrayIter *)iter, 0);
}
static Status array_seek_last(Iter *iter)
{
    ArrayIter *array = (ArrayIter *)iter;
    return array_show(array, array->count - 1); /* wraps to invalid when empty */
}
static Status array_seek(Iter *iter, Slice key, uint64_t lsn)
{
    ArrayIter *array = (ArrayIter *)iter;
    return array_show(array, array_lower(array, key, lsn));
}
static Status array_seek_before(Iter *iter, Slice key, uint64_t lsn)
{
    ArrayIter *array = (ArrayIter *)iter;
    return array_show(array, array_lower(array, key, lsn) - 1);
}
static Status array_next(Iter *iter)
{
    ck_assert(iter->valid);
    return array_show((ArrayIter *)iter, ((ArrayIter *)iter)->position + 1);
}
static Status array_prev(Iter *iter)
{
    ck_assert(iter->valid);
    return array_show((ArrayIter *)iter, ((ArrayIter *)iter)->position - 1);
}
static void array_destroy(Iter *iter)
{
    --*((ArrayIter *)iter)->alive;
    free(iter);
}

static const IterOps array_ops = {.seek_first = array_seek_first,
                                  .seek_last = array_seek_last,
                                  .seek = array_seek,
                                  .seek_before = array_seek_before,
                                  .next = array_next,
                                  .prev = array_prev,
                                  .destroy = array_destroy};

static Iter *array_iter_create(const Entry *entries, size_t count, int *alive, int *fail_after)
{
    ArrayIter *array = calloc(1, sizeof *array);
    ck_assert_ptr_nonnull(array);
    array->base.ops = &array_ops;
    array->entries = entries;
    array->count = count;
    array->alive = alive;
    array->fail_after = fail_after;
    ++*alive;
    return &array->base;
}

static int compare_entries(const void *a, const void *b)
{
    const Entry *left = a;
    const Entry *right = b;
    return entry_compare(left->key, left->lsn, right->key, right->lsn);
}

#define MERGE_ENTRIES 200
#define MERGE_SOURCES 9

typedef struct MergeCase {
    uint8_t keys[MERGE_ENTRIES][12];
    Entry all[MERGE_ENTRIES]; /* sorted */
    Entry dealt[MERGE_SOURCES][MERGE_ENTRIES];
    size_t dealt_count[MERGE_SOURCES];
    size_t count;
    size_t source_count;
} MergeCase;

/* Few different keys with many versions, some sharing their first eight bytes, in several sources. */
static void merge_case_make(MergeCase *c)
{
    c->count = test_draw_below(MERGE_ENTRIES + 1);
    c->source_count = test_draw_below(MERGE_SOURCES + 1);
    if (c->source_count == 0)
        c->count = 0;
    memset(c->dealt_count, 0, sizeof c->dealt_count);
    for (size_t i = 0; i < c->count; i++) {
        size_t size = 1 + test_draw_below(12);
        memset(c->keys[i], 'k', sizeof c->keys[i]);
        c->keys[i][size - 1] = (uint8_t)("\x00\x01m\xff"[test_draw_below(4)]);
        c->all[i] = (Entry){.key = slice_make(c->keys[i], size), .lsn = i + 1, .type = OP_PUT};
    }
    qsort(c->all, c->count, sizeof c->all[0], compare_entries);
    size_t source = 0;
    for (size_t i = 0; i < c->count; i++) {
        if (test_draw_below(3) == 0)
            source = test_draw_below((uint32_t)c->source_count);
        c->dealt[source][c->dealt_count[source]++] = c->all[i];
    }
}

static Iter *merge_case_iter(const MergeCase *c, int *alive, int *fail_after)
{
    Iter *sources[MERGE_SOURCES + 1];
    for (size_t i = 0; i < c->source_count; i++)
        sources[i] = array_iter_create(c->dealt[i], c->dealt_count[i], alive, fail_after);
    Iter *iter;
    ck_assert_int_eq(merge_iter_create(sources, c->source_count, &iter), AIDB_OK);
    return iter;
}

static size_t model_lower(const MergeCase *c, Slice key, uint64_t lsn)
{
    size_t position = 0;
    while (position < c->count &&
           entry_compare(c->all[position].key, c->all[position].lsn, key, lsn) < 0)
        position++;
    return position;
}

/* One random call on iterator and model; *position is where the model stands, out of range: invalid. */
static Status merge_step(const MergeCase *c, Iter *iter, size_t *position)
{
    uint32_t what = test_draw_below(iter->valid ? 12 : 4);
    size_t size = 1 + test_draw_below(11);
    uint8_t key_bytes[12];
    memset(key_bytes, 'k', sizeof key_bytes);
    key_bytes[size - 1] = (uint8_t)test_draw();
    Slice key = slice_make(key_bytes, size);
    uint64_t lsn = test_draw_below(MERGE_ENTRIES + 2);
    if (c->count > 0 && test_draw_below(2) == 0) {
        size_t at = test_draw_below((uint32_t)c->count);
        key = c->all[at].key;
        lsn = test_draw_below(2) == 0 ? c->all[at].lsn : test_draw_below(2) == 0 ? LSN_MAX : 0;
    }
    switch (what) {
    case 0:
        *position = 0;
        return iter->ops->seek_first(iter);
    case 1:
        *position = c->count - 1;
        return iter->ops->seek_last(iter);
    case 2:
        *position = model_lower(c, key, lsn);
        return iter->ops->seek(iter, key, lsn);
    case 3:
        *position = model_lower(c, key, lsn) - 1;
        return iter->ops->seek_before(iter, key, lsn);
    case 4:
    case 5:
    case 6:
    case 7:
        ++*position;
        return iter->ops->next(iter);
    default:
        --*position;
        return iter->ops->prev(iter);
    }
}

START_TEST(merge_random)
{
    test_draw_seed("merge_random");
    static MergeCase c;
    for (int round = 0; round < 300; round++) {
        merge_case_make(&c);
        int alive = 0;
        Iter *iter = merge_case_iter(&c, &alive, NULL);
        size_t position = SIZE_MAX;
        ck_assert(!iter->valid);
        for (int step = 0; step < 400; step++) {
            ck_assert_int_eq(merge_step(&c, iter, &position), AIDB_OK);
            ck_assert_int_eq(iter->valid, position < c.count);
            if (iter->valid) {
                ck_assert(slice_equal(iter->entry.key, c.all[position].key));
                ck_assert_uint_eq(iter->entry.lsn, c.all[position].lsn);
            }
        }
        size_t seen = 0;
        ck_assert_int_eq(iter->ops->seek_first(iter), AIDB_OK);
        for (; iter->valid; seen++)
            ck_assert_int_eq(iter->ops->next(iter), AIDB_OK);
        ck_assert_uint_eq(seen, c.count);
        iter_destroy(iter);
        ck_assert_int_eq(alive, 0);
    }
}
END_TEST

/* A failing source makes the call fail and the merge invalid, at whatever call it happens; once the
 * sources work again a new positioning is right again. */
START_TEST(merge_failure)
{
    test_draw_seed("merge_failure");
    static MergeCase c;
    for (int round = 0; round < 200; round++) {
        do
            merge_case_make(&c);
        while (c.count < 10);
        int alive = 0;
        int fail_after = (int)test_draw_below(60);
        Iter *iter = merge_case_iter(&c, &alive, &fail_after);
        size_t position = SIZE_MAX;
        Status status;
        do
            status = merge_step(&c, iter, &position);
        while (status == AIDB_OK);
        ck_assert_int_eq(status, AIDB_IO);
        ck_assert(!iter->valid);
        fail_after = INT32_MAX;
        ck_assert_int_eq(iter->ops->seek_last(iter), AIDB_OK);
        for (size_t i = c.count; i-- > 0;) {
            ck_assert(iter->valid);
            ck_assert_uint_eq(iter->entry.lsn, c.all[i].lsn);
            ck_assert_int_eq(iter->ops->prev(iter), AIDB_OK);
        }
        ck_assert(!iter->valid);
        iter_destroy(iter);
        ck_assert_int_eq(alive, 0);
    }
    iter_destroy(NULL);
}
END_TEST

/* ---- range fragments ------------------------------------------------------------------------- */

/* Checks form: sorted, apart, LSNs newest first, equal neighbours joined. */
static void check_fragments(const RangeFragments *fragments)
{
    for (size_t i = 0; i < fragments->count; i++) {
        const RangeFragment *fragment = &fragments->items[i];
        ck_assert_uint_gt(fragment->lsn_count, 0);
        for (uint32_t j = 1; j < fragment->lsn_count; j++)
            ck_assert_uint_lt(fragment->lsns[j], fragment->lsns[j - 1]);
        if (fragment->to.size > 0)
            ck_assert_int_lt(slice_compare(fragment->from, fragment->to), 0);
        else
            ck_assert_uint_eq(i + 1, fragments->count);
        if (i == 0)
            continue;
        const RangeFragment *before = &fragments->items[i - 1];
        ck_assert_int_le(slice_compare(before->to, fragment->from), 0);
        ck_assert(
            before->lsn_count != fragment->lsn_count || !slice_equal(before->to, fragment->from) ||
            memcmp(before->lsns, fragment->lsns, before->lsn_count * sizeof before->lsns[0]) != 0);
    }
}

static uint64_t brute_cover(const RangeTombstone *tombstones, size_t count, Slice key,
                            uint64_t visible)
{
    uint64_t best = 0;
    for (size_t i = 0; i < count; i++) {
        const RangeTombstone *t = &tombstones[i];
        if (slice_compare(t->from, key) <= 0 &&
            (t->to.size == 0 || slice_compare(key, t->to) < 0) && t->lsn <= visible &&
            t->lsn > best)
            best = t->lsn;
    }
    return best;
}

START_TEST(fragments_random)
{
    test_draw_seed("fragments_random");
    enum { TOMBSTONES = 24 };
    for (int round = 0; round < 2000; round++) {
        static uint8_t letters[3] = {0x00, 'b', 0xff};
        uint8_t bytes[2 * TOMBSTONES][3];
        RangeTombstone tombstones[TOMBSTONES];
        size_t count = test_draw_below(TOMBSTONES + 1);
        for (size_t i = 0; i < 2 * count; i++) {
            for (size_t j = 0; j < 3; j++)
                bytes[i][j] = letters[test_draw_below(3)];
        }
        for (size_t i = 0; i < count; i++) {
            tombstones[i] = (RangeTombstone){.from = slice_make(bytes[2 * i], test_draw_below(4)),
                                             .to = slice_make(bytes[2 * i + 1], test_draw_below(4)),
                                             .lsn = 1 + test_draw_below(30)};
        }
        RangeFragments fragments;
        ck_assert_int_eq(range_fragments_build(tombstones, count, &fragments), AIDB_OK);
        uint8_t copies[2 * TOMBSTONES][3];
        memcpy(copies, bytes, sizeof copies);
        memset(bytes, 0xdd, sizeof bytes); /* the fragments must not borrow from the input */
        check_fragments(&fragments);
        memcpy(bytes, copies, sizeof bytes);
        for (int probe = 0; probe < 60; probe++) {
            uint8_t key_bytes[4];
            for (size_t j = 0; j < 4; j++)
                key_bytes[j] = letters[test_draw_below(3)];
            Slice key = slice_make(key_bytes, 1 + test_draw_below(4));
            uint64_t visible = test_draw_below(3) == 0 ? LSN_MAX : test_draw_below(32);
            ck_assert_uint_eq(range_fragments_cover(fragments.items, fragments.count, key, visible),
                              brute_cover(tombstones, count, key, visible));
        }
        range_fragments_deinit(&fragments);
        ck_assert_ptr_null(fragments.items);
    }
}
END_TEST

static void check_fragment(const RangeFragments *fragments, size_t index, const char *from,
                           const char *to, uint64_t newest, uint32_t lsn_count)
{
    ck_assert_uint_lt(index, fragments->count);
    const RangeFragment *fragment = &fragments->items[index];
    ck_assert(slice_is(fragment->from, from));
    ck_assert(slice_is(fragment->to, to));
    ck_assert_uint_eq(fragment->lsns[0], newest);
    ck_assert_uint_eq(fragment->lsn_count, lsn_count);
}

/* The load of a batch is what its fragments come to. */
START_TEST(load_of_ranges)
{
    test_draw_seed("load_of_ranges");
    enum { TOMBSTONES = 24 };
    for (int round = 0; round < 1000; round++) {
        uint8_t bytes[2 * TOMBSTONES][2];
        RangeTombstone tombstones[TOMBSTONES];
        Batch batch = {0};
        size_t count = test_draw_below(TOMBSTONES + 1);
        for (size_t i = 0; i < count; i++) {
            for (size_t j = 0; j < 4; j++)
                bytes[2 * i + j / 2][j % 2] = (uint8_t)('a' + test_draw_below(4));
            tombstones[i] = (RangeTombstone){.from = slice_make(bytes[2 * i], test_draw_below(3)),
                                             .to = slice_make(bytes[2 * i + 1], test_draw_below(3)),
                                             .lsn = 1 + i};
            ck_assert_int_eq(batch_put(&batch, text("k"), text("v")), AIDB_OK);
            ck_assert_int_eq(batch_delete_range(&batch, tombstones[i].from, tombstones[i].to),
                             AIDB_OK);
        }
        RangeFragments fragments;
        ck_assert_int_eq(range_fragments_build(tombstones, count, &fragments), AIDB_OK);
        uint64_t pieces = 0;
        uint32_t depth = 0;
        for (size_t i = 0; i < fragments.count; i++) {
            uint32_t here = fragments.items[i].lsn_count;
            pieces += here;
            depth = here > depth ? here : depth;
        }
        RangeLoad load;
        ck_assert_int_eq(batch_range_load(buffer_slice(&batch.ops), batch.range_count, &load),
                         AIDB_OK);
        ck_assert_uint_eq(load.count, batch.range_count);
        ck_assert_uint_eq(load.pieces, pieces);
        ck_assert_uint_eq(load.depth, depth);
        range_fragments_deinit(&fragments);
        batch_deinit(&batch);
    }
    RangeLoad load;
    ck_assert_int_eq(batch_range_load(text(""), BATCH_RANGES_MAX + 1, &load), AIDB_LIMIT);
}
END_TEST

START_TEST(fragments_shapes)
{
    RangeFragments fragments;
    ck_assert_int_eq(range_fragments_build(NULL, 0, &fragments), AIDB_OK);
    ck_assert_uint_eq(fragments.count, 0);
    ck_assert_uint_eq(range_fragments_cover(fragments.items, 0, text("k"), LSN_MAX), 0);
    range_fragments_deinit(&fragments);

    /* Nothing but empty ranges. */
    RangeTombstone empty[] = {{text("b"), text("a"), 1}, {text("b"), text("b"), 2}};
    ck_assert_int_eq(range_fragments_build(empty, 2, &fragments), AIDB_OK);
    ck_assert_uint_eq(fragments.count, 0);
    range_fragments_deinit(&fragments);

    /* Overlap without bounds on either side. */
    RangeTombstone overlap[] = {
        {text("c"), text(""), 5}, {text(""), text("f"), 3}, {text("d"), text("e"), 9}};
    ck_assert_int_eq(range_fragments_build(overlap, 3, &fragments), AIDB_OK);
    ck_assert_uint_eq(fragments.count, 5);
    check_fragment(&fragments, 0, "", "c", 3, 1);
    check_fragment(&fragments, 1, "c", "d", 5, 2);
    check_fragment(&fragments, 2, "d", "e", 9, 3);
    check_fragment(&fragments, 3, "e", "f", 5, 2);
    check_fragment(&fragments, 4, "f", "", 5, 1);
    range_fragments_deinit(&fragments);

    /* One tombstone in pieces, one of them twice, is one fragment again; a gap stays a gap. */
    RangeTombstone pieces[] = {{text("a"), text("b"), 4},
                               {text("b"), text("c"), 4},
                               {text("b"), text("c"), 4},
                               {text("d"), text("e"), 4}};
    ck_assert_int_eq(range_fragments_build(pieces, 4, &fragments), AIDB_OK);
    ck_assert_uint_eq(fragments.count, 2);
    check_fragment(&fragments, 0, "a", "c", 4, 1);
    check_fragment(&fragments, 1, "d", "e", 4, 1);
    ck_assert_uint_eq(range_fragments_cover(fragments.items, 2, text("c"), LSN_MAX), 0);
    ck_assert_uint_eq(range_fragments_cover(fragments.items, 2, text("bz"), LSN_MAX), 4);
    ck_assert_uint_eq(range_fragments_cover(fragments.items, 2, text("bz"), 3), 0);
    range_fragments_deinit(&fragments);
}
END_TEST

static Suite *base_suite(void)
{
    Suite *suite = suite_create("engine/base");
    TCase *batches = tcase_create("batches");
    tcase_add_test(batches, batch_round_trip);
    tcase_add_test(batches, batch_limits);
    tcase_add_test(batches, batch_damage);
    tcase_add_test(batches, batch_garbage);
    tcase_add_test(batches, expectations);
    suite_add_tcase(suite, batches);
    TCase *merging = tcase_create("merge iterator");
    tcase_add_test(merging, merge_random);
    tcase_add_test(merging, merge_failure);
    suite_add_tcase(suite, merging);
    TCase *ranges = tcase_create("range fragments");
    tcase_add_test(ranges, fragments_random);
    tcase_add_test(ranges, load_of_ranges);
    tcase_add_test(ranges, fragments_shapes);
    suite_add_tcase(suite, ranges);
    return suite;
}

int main(void)
{
    return test_run(base_suite());
}
