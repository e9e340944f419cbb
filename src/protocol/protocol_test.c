/* protocol_test.c - frames and messages: round trips, every truncation, and any bytes at all. */
#include "config.h"
#include "protocol/protocol.h"
#include "testlib/testlib.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

/* One of each type, with every field of its layout set to something that shows a mix-up. */
#define S(text)                                   \
    {                                             \
        (const uint8_t *)(text), sizeof(text) - 1 \
    }
static const Message EXAMPLES[] = {
    {.type = MESSAGE_HELLO,
     .id = 1,
     .version = 1,
     .version_max = 0xfffe,
     .features = 0x80000001u,
     .name = S("app"),
     .user = S("joe")},
    {.type = MESSAGE_AUTHENTICATE, .id = 2, .name = S("SCRAM-SHA-256"), .value = S("n,,n=,r=x")},
    {.type = MESSAGE_CANCEL, .session = 0x1122334455667788, .secret = UINT64_MAX},
    {.type = MESSAGE_PING, .id = UINT64_MAX},
    {.type = MESSAGE_GET, .id = 3, .snapshot = 7, .key = S("a key")},
    {.type = MESSAGE_MULTI_GET, .id = 4, .snapshot = UINT64_MAX, .count = 2, .row = S("\1a\2bc")},
    {.type = MESSAGE_WRITE,
     .id = 5,
     .durability = 3,
     .ops = S("\1\1k\1v"),
     .expectations = S("\1\1k")},
    {.type = MESSAGE_SCAN,
     .flags = SCAN_REVERSE,
     .id = 6,
     .snapshot = 8,
     .rows = 10,
     .bytes = 1000,
     .credits = 3,
     .from = S("a"),
     .to = S("b\0c")},
    {.type = MESSAGE_SCAN_MORE, .id = 6, .credits = 4},
    {.type = MESSAGE_SCAN_CLOSE, .id = 6},
    {.type = MESSAGE_MEASURE, .flags = 3, .id = 7, .snapshot = 9, .from = S(""), .to = S("z")},
    {.type = MESSAGE_SNAPSHOT, .id = 8},
    {.type = MESSAGE_RELEASE, .id = 9, .lsn = 77},
    {.type = MESSAGE_PROPERTY, .id = 10, .name = S("status")},
    {.type = MESSAGE_CONTROL, .id = 11, .name = S("compact"), .from = S("a"), .to = S("")},
    {.type = MESSAGE_READY,
     .id = 1,
     .version = 1,
     .features = 2,
     .session = 3,
     .secret = 4,
     .bytes = 5,
     .durability = 3,
     .lsn = 6,
     .name = S("0.1.0")},
    {.type = MESSAGE_CHALLENGE, .id = 1, .name = S("SCRAM-SHA-256"), .value = S("r=,s=,i=")},
    {.type = MESSAGE_DONE, .id = 12, .lsn = 1},
    {.type = MESSAGE_VALUE, .id = 13, .lsn = 2, .version = 3, .value = S("v\0v")},
    {.type = MESSAGE_VALUES, .id = 14, .lsn = 4, .count = 1, .row = S("\1\0\0\0\0\0\0\0\1v")},
    {.type = MESSAGE_COMMIT,
     .id = 15,
     .status = AIDB_EXPECTATION,
     .lsn = 5,
     .count = 6,
     .version = 7},
    {.type = MESSAGE_CHUNK,
     .flags = CHUNK_ENDED | CHUNK_LAST,
     .id = 16,
     .lsn = 8,
     .row = S("rows")},
    {.type = MESSAGE_MEASURED, .id = 17, .lsn = 9, .count = 10, .bytes = 11},
    {.type = MESSAGE_TEXT, .id = 18, .lsn = 12, .text = S("a\tb\n")},
    {.type = MESSAGE_ERROR,
     .flags = ERROR_CLOSES,
     .id = 19,
     .status = AIDB_LIMIT,
     .text = S("too much"),
     .hint = S("Less.")},
    {.type = MESSAGE_NOTICE, .status = 2, .text = S("stopping")},
};
#define EXAMPLE_COUNT ((int)(sizeof EXAMPLES / sizeof EXAMPLES[0]))

static void assert_slice(Slice got, Slice want)
{
    ck_assert_uint_eq(got.size, want.size);
    if (want.size > 0)
        ck_assert_mem_eq(got.data, want.data, want.size);
}

static void assert_same(const Message *got, const Message *want)
{
    ck_assert_uint_eq(got->type, want->type);
    ck_assert_uint_eq(got->flags, want->flags);
    ck_assert_mem_eq(&got->id, &want->id, offsetof(Message, key) - offsetof(Message, id));
    const Slice *slices = &got->key, *wanted = &want->key;
    for (size_t i = 0; i < (sizeof(Message) - offsetof(Message, key)) / sizeof(Slice); i++)
        assert_slice(slices[i], wanted[i]);
}

START_TEST(round_trip)
{
    Buffer buffer = {0};
    Frame frame;
    Message got;
    ck_assert_int_eq(message_encode(&buffer, &EXAMPLES[_i]), AIDB_OK);
    ck_assert_int_eq(frame_decode(buffer.data, buffer.size, SIZE_MAX, &frame), FRAME_COMPLETE);
    ck_assert_uint_eq(frame.size, buffer.size);
    ck_assert_int_eq(message_decode(&frame, &got), AIDB_OK);
    assert_same(&got, &EXAMPLES[_i]);
    ck_assert_str_ne(message_type_name(got.type), "unknown");
    buffer_deinit(&buffer);
}
END_TEST

/* A frame cut anywhere is partial; a body cut anywhere is refused unless its last field is the rest. */
START_TEST(cut_at_every_byte)
{
    Buffer buffer = {0};
    Frame frame;
    Message got;
    ck_assert_int_eq(message_encode(&buffer, &EXAMPLES[_i]), AIDB_OK);
    for (size_t size = 0; size < buffer.size; size++) {
        uint8_t *copy = malloc(size + 1); /* so that a read beyond is seen */
        ck_assert_ptr_nonnull(copy);
        memcpy(copy, buffer.data, size);
        ck_assert_int_eq(frame_decode(copy, size, SIZE_MAX, &frame), FRAME_PARTIAL);
        ck_assert_uint_eq(frame.size, size < FRAME_HEADER_SIZE ? 0 : buffer.size);
        if (size >= FRAME_HEADER_SIZE) {
            put_fixed32(copy, (uint32_t)(size - FRAME_HEADER_SIZE));
            ck_assert_int_eq(frame_decode(copy, size, SIZE_MAX, &frame), FRAME_COMPLETE);
            Status status = message_decode(&frame, &got);
            ck_assert(status == AIDB_OK || status == AIDB_PROTOCOL);
            if (status != AIDB_OK)
                ck_assert_ptr_nonnull(
                    strstr(status_message(), message_type_name(EXAMPLES[_i].type)));
        }
        free(copy);
    }
    buffer_deinit(&buffer);
}
END_TEST

/* One byte behind the layout is refused, or belongs to the last field, or to a later version. */
START_TEST(bytes_behind_the_layout)
{
    Buffer buffer = {0};
    Frame frame;
    Message got;
    ck_assert_int_eq(message_encode(&buffer, &EXAMPLES[_i]), AIDB_OK);
    ck_assert_int_eq(buffer_append_byte(&buffer, 0x7f), AIDB_OK);
    put_fixed32(buffer.data, get_fixed32(buffer.data) + 1);
    ck_assert_int_eq(frame_decode(buffer.data, buffer.size, SIZE_MAX, &frame), FRAME_COMPLETE);
    Status status = message_decode(&frame, &got);
    switch (EXAMPLES[_i].type) {
    case MESSAGE_HELLO:
    case MESSAGE_READY:
        ck_assert_int_eq(status, AIDB_OK);
        assert_same(&got, &EXAMPLES[_i]);
        break;
    case MESSAGE_GET:
    case MESSAGE_MULTI_GET:
    case MESSAGE_WRITE:
    case MESSAGE_VALUE:
    case MESSAGE_VALUES:
    case MESSAGE_CHUNK:
    case MESSAGE_TEXT:
    case MESSAGE_NOTICE:
        ck_assert_int_eq(status, AIDB_OK);
        break;
    default:
        ck_assert_int_eq(status, AIDB_PROTOCOL);
    }
    buffer_deinit(&buffer);
}
END_TEST

START_TEST(lengths_are_checked_before_the_body)
{
    static const uint32_t LENGTHS[] = {FRAME_BODY_MAX_HELLO + 1, 0x7fffffff, 0x80000000,
                                       UINT32_MAX};
    uint8_t header[FRAME_HEADER_SIZE] = {0};
    Frame frame;
    for (size_t i = 0; i < 4; i++) {
        put_fixed32(header, LENGTHS[i]);
        for (size_t size = 4; size <= sizeof header; size++)
            ck_assert_int_eq(frame_decode(header, size, FRAME_BODY_MAX_HELLO, &frame), FRAME_BAD);
        ck_assert_int_eq(frame_decode(header, 3, FRAME_BODY_MAX_HELLO, &frame), FRAME_PARTIAL);
    }
    put_fixed32(header, UINT32_MAX); /* header and body together are more */
    ck_assert_int_eq(frame_decode(header, sizeof header, UINT32_MAX, &frame), FRAME_PARTIAL);
    ck_assert_uint_eq(frame.size, (uint64_t)FRAME_HEADER_SIZE + UINT32_MAX);
    put_fixed32(header, FRAME_BODY_MAX_HELLO);
    ck_assert_int_eq(frame_decode(header, sizeof header, FRAME_BODY_MAX_HELLO, &frame),
                     FRAME_PARTIAL);
    ck_assert_uint_eq(frame.size, FRAME_HEADER_SIZE + FRAME_BODY_MAX_HELLO);
    header[6] = 1;
    ck_assert_int_eq(frame_decode(header, sizeof header, FRAME_BODY_MAX_HELLO, &frame), FRAME_BAD);
}
END_TEST

START_TEST(any_bytes_are_a_message_or_an_error)
{
    test_draw_seed("any_bytes_are_a_message_or_an_error");
    for (int round = 0; round < 300000; round++) {
        size_t size = test_draw_below(80);
        uint8_t *bytes = malloc(size + 1);
        ck_assert_ptr_nonnull(bytes);
        for (size_t i = 0; i < size; i++)
            bytes[i] = (uint8_t)(test_draw_below(3) != 0 ? test_draw_below(6) : test_draw());
        Frame frame = {.type = round % 4 != 0 ? EXAMPLES[test_draw_below(EXAMPLE_COUNT)].type
                                              : (uint8_t)test_draw(),
                       .body = slice_make(bytes, size)};
        Message message;
        Status status = message_decode(&frame, &message);
        ck_assert(status == AIDB_OK || status == AIDB_PROTOCOL);
        Slice key, value;
        uint64_t number;
        size_t cursor = 0;
        bool damaged;
        while (key_row_next(frame.body, &cursor, &key, &damaged))
            ck_assert(key.data >= bytes && key.data + key.size <= bytes + size);
        cursor = 0;
        while (value_row_next(frame.body, &cursor, &number, &value, &damaged))
            ck_assert(value.data >= bytes && value.data + value.size <= bytes + size);
        cursor = 0;
        while (entry_row_next(frame.body, &cursor, &key, &value, &number, &damaged))
            ck_assert(value.data >= bytes && value.data + value.size <= bytes + size);
        (void)frame_decode(bytes, size, FRAME_BODY_MAX_HELLO, &frame);
        free(bytes);
    }
}
END_TEST

START_TEST(rows)
{
    Buffer buffer = {0};
    Slice key, value;
    uint64_t lsn;
    bool damaged;
    size_t cursor = 0;
    ck_assert_int_eq(entry_row_append(&buffer, slice_from_string("k1"), slice_from_string("v1"), 5),
                     AIDB_OK);
    ck_assert_int_eq(entry_row_append(&buffer, slice_from_string("k2"), (Slice){0}, UINT64_MAX),
                     AIDB_OK);
    ck_assert(entry_row_next(buffer_slice(&buffer), &cursor, &key, &value, &lsn, &damaged));
    assert_slice(key, slice_from_string("k1"));
    assert_slice(value, slice_from_string("v1"));
    ck_assert_uint_eq(lsn, 5);
    ck_assert(entry_row_next(buffer_slice(&buffer), &cursor, &key, &value, &lsn, &damaged));
    ck_assert_uint_eq(value.size, 0);
    ck_assert_uint_eq(lsn, UINT64_MAX);
    ck_assert(!entry_row_next(buffer_slice(&buffer), &cursor, &key, &value, &lsn, &damaged));
    ck_assert(!damaged);
    cursor = 0;
    ck_assert(!entry_row_next(slice_make(buffer.data, 11), &cursor, &key, &value, &lsn, &damaged));
    ck_assert(damaged);

    buffer_clear(&buffer);
    ck_assert_int_eq(value_row_append(&buffer, 9, slice_from_string("x")), AIDB_OK);
    cursor = 0;
    ck_assert(value_row_next(buffer_slice(&buffer), &cursor, &lsn, &value, &damaged));
    ck_assert_uint_eq(lsn, 9);
    assert_slice(value, slice_from_string("x"));
    cursor = 0;
    ck_assert(!value_row_next(slice_make(buffer.data, 8), &cursor, &lsn, &value, &damaged));
    ck_assert(damaged);
    buffer_deinit(&buffer);
}
END_TEST

START_TEST(errors_travel_with_message_and_hint)
{
    Buffer buffer = {0};
    Frame frame;
    Message message;
    (void)status_set(AIDB_CORRUPTION, "sst/1.sst: block at 77 is damaged");
    status_hint("Restore it.");
    ck_assert_int_eq(error_encode(&buffer, 5, AIDB_CORRUPTION, true), AIDB_OK);
    status_clear();
    ck_assert_int_eq(frame_decode(buffer.data, buffer.size, 1000, &frame), FRAME_COMPLETE);
    ck_assert_int_eq(message_decode(&frame, &message), AIDB_OK);
    ck_assert_uint_eq(message.id, 5);
    ck_assert_uint_eq(message.flags, ERROR_CLOSES);
    ck_assert_int_eq(error_take(&message), AIDB_CORRUPTION);
    ck_assert_str_eq(status_text(), "sst/1.sst: block at 77 is damaged\nhint: Restore it.");
    message.status = 200;
    ck_assert_int_eq(error_take(&message), AIDB_PROTOCOL);
    message.status = 0;
    ck_assert_int_eq(error_take(&message), AIDB_PROTOCOL);
    status_clear();
    buffer_clear(&buffer);
    ck_assert_int_eq(error_encode(&buffer, 5, AIDB_BUSY, false), AIDB_OK);
    ck_assert_int_eq(frame_decode(buffer.data, buffer.size, 1000, &frame), FRAME_COMPLETE);
    ck_assert_int_eq(message_decode(&frame, &message), AIDB_OK);
    ck_assert_uint_gt(message.text.size, 0);
    buffer_deinit(&buffer);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("protocol");
    tcase_add_loop_test(tests, round_trip, 0, EXAMPLE_COUNT);
    tcase_add_loop_test(tests, cut_at_every_byte, 0, EXAMPLE_COUNT);
    tcase_add_loop_test(tests, bytes_behind_the_layout, 0, EXAMPLE_COUNT);
    tcase_add_test(tests, lengths_are_checked_before_the_body);
    tcase_add_test(tests, any_bytes_are_a_message_or_an_error);
    tcase_add_test(tests, rows);
    tcase_add_test(tests, errors_travel_with_message_and_hint);

    Suite *suite = suite_create("protocol");
    suite_add_tcase(suite, tests);
    return test_run(suite);
}
