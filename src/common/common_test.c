/* common_test.c - error record, buffers, integer coding, hashes. */
#include "config.h"

#include "common/buffer.h"
#include "common/coding.h"
#include "common/hash.h"
#include "common/log.h"
#include "common/status.h"
#include "testlib/testlib.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

START_TEST(record_keeps_message_and_hint)
{
    ck_assert_int_eq(status_set(AIDB_LIMIT, "key of %d bytes", 7), AIDB_LIMIT);
    ck_assert_str_eq(status_message(), "key of 7 bytes");
    ck_assert_str_eq(status_text(), "key of 7 bytes");
    status_hint("Use %s.", "less");
    ck_assert_str_eq(status_text(), "key of 7 bytes\nhint: Use less.");
    ck_assert_int_eq(status_set_errno(ENOSPC, "could not write \"%s\"", "x"), AIDB_NO_SPACE);
    ck_assert_str_eq(status_text(), "could not write \"x\": No space left on device");
    ck_assert_int_eq(status_set_errno(EIO, "x"), AIDB_IO);
    ck_assert_int_eq(status_set_errno(ENOMEM, "x"), AIDB_NO_MEMORY);
    ck_assert_int_eq(status_set(AIDB_INTERNAL, "again: %s", status_message()), AIDB_INTERNAL);
    ck_assert_str_eq(status_message(), "again: x: Cannot allocate memory");
    char longer[4000];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    ck_assert_int_eq(status_set_errno(EIO, "%s", longer), AIDB_IO);
    ck_assert_uint_lt(strlen(status_message()), sizeof longer - 1);
    status_clear();
    ck_assert_str_eq(status_text(), "");
}
END_TEST

START_TEST(every_status_has_a_name)
{
    for (int code = AIDB_OK; code <= AIDB_INTERNAL; code++) {
        ck_assert_ptr_nonnull(status_name((Status)code));
        ck_assert_str_ne(status_name((Status)code), "unknown status");
    }
    ck_assert_str_eq(status_name((Status)999), "unknown status");
}
END_TEST

START_TEST(buffers_grow)
{
    Buffer buffer = {0};
    for (int i = 0; i < 10000; i++)
        ck_assert_int_eq(buffer_append_byte(&buffer, (uint8_t)i), AIDB_OK);
    ck_assert_uint_eq(buffer.size, 10000);
    for (int i = 0; i < 10000; i++)
        ck_assert_uint_eq(buffer.data[i], (uint8_t)i);
    buffer_clear(&buffer);
    ck_assert_int_eq(buffer_append_format(&buffer, "%s-%d", "abc", 42), AIDB_OK);
    ck_assert_uint_eq(buffer.size, 6);
    ck_assert_int_eq(memcmp(buffer.data, "abc-42", 7), 0); /* a zero follows */
    ck_assert_int_eq(buffer_reserve(&buffer, SIZE_MAX - 10), AIDB_NO_MEMORY);
    ck_assert_uint_eq(buffer.size, 6);
    buffer_deinit(&buffer);
    ck_assert_ptr_null(buffer.data);
}
END_TEST

START_TEST(integers_round_trip)
{
    uint64_t random = test_seed("integers_round_trip");
    for (int i = 0; i < 100000; i++) {
        uint64_t value = test_random(&random) >> test_random_below(&random, 64);
        uint8_t bytes[VARINT64_MAX];
        uint8_t *end = put_varint(bytes, value);
        ck_assert_uint_eq((size_t)(end - bytes), varint_size(value));
        uint64_t back = ~value;
        ck_assert_ptr_eq(decode_varint64(bytes, end, &back), end);
        ck_assert_uint_eq(back, value);
        for (const uint8_t *cut = bytes; cut < end; cut++)
            ck_assert_ptr_null(decode_varint64(bytes, cut, &back));
        uint32_t narrow;
        ck_assert_int_eq(decode_varint32(bytes, end, &narrow) != NULL, value <= UINT32_MAX);
    }
    uint8_t fixed[8];
    put_fixed64(fixed, 0x0102030405060708u);
    ck_assert_uint_eq(fixed[0], 8);
    ck_assert_uint_eq(get_fixed64(fixed), 0x0102030405060708u);
    put_fixed32(fixed, 0xdeadbeefu);
    ck_assert_uint_eq(get_fixed32(fixed), 0xdeadbeefu);
    put_fixed16(fixed, 0xbeefu);
    ck_assert_uint_eq(get_fixed16(fixed), 0xbeefu);
}
END_TEST

START_TEST(overlong_varints_are_refused)
{
    uint8_t bytes[12];
    uint64_t value;
    memset(bytes, 0xff, sizeof bytes);
    ck_assert_ptr_null(decode_varint64(bytes, bytes + sizeof bytes, &value));
    memset(bytes, 0x80, 9);
    bytes[9] = 2; /* bit 64 */
    ck_assert_ptr_null(decode_varint64(bytes, bytes + 10, &value));
    bytes[9] = 1;
    ck_assert_ptr_eq(decode_varint64(bytes, bytes + 10, &value), bytes + 10);
    ck_assert_uint_eq(value, 1ull << 63);
    ck_assert_ptr_null(decode_varint64(NULL, bytes, &value));
}
END_TEST

START_TEST(slices_are_bounded)
{
    Buffer buffer = {0};
    Slice slice = {0};
    ck_assert_int_eq(buffer_append_slice(&buffer, slice_from_string("hello")), AIDB_OK);
    const uint8_t *end = buffer.data + buffer.size;
    ck_assert_ptr_eq(decode_slice(buffer.data, end, &slice), end);
    ck_assert(slice_equal(slice, slice_from_string("hello")));
    ck_assert_ptr_null(decode_slice(buffer.data, end - 1, &slice));
    buffer_deinit(&buffer);
    ck_assert_int_lt(slice_compare(slice_from_string("a"), slice_from_string("ab")), 0);
    ck_assert_int_gt(slice_compare(slice_from_string("b"), slice_from_string("ab")), 0);
    ck_assert_int_eq(slice_compare(slice_make(NULL, 0), slice_make(NULL, 0)), 0);
    ck_assert(slice_has_prefix(slice_from_string("abc"), slice_from_string("ab")));
    ck_assert(!slice_has_prefix(slice_from_string("a"), slice_from_string("ab")));
}
END_TEST

START_TEST(hashes_depend_on_seed_and_place)
{
    /* XXH3-64 of nothing with seed 0, from the reference implementation's test vectors. */
    ck_assert_uint_eq(hash64("", 0, 0), 0x2d06800538d394c2u);
    ck_assert_uint_ne(hash64("abc", 3, 1), hash64("abc", 3, 2));
    ck_assert_uint_ne(hash_mix(1, 2), hash_mix(2, 1));
    ck_assert_uint_ne(hash_mix(0, 0), hash_mix(0, 1));
}
END_TEST

static char logged[4096];
static void sink(LogLevel level, const char *message)
{
    snprintf(logged, sizeof logged, "%d %s", (int)level, message);
}

START_TEST(log_has_levels_and_limits)
{
    server_log(LOG_LEVEL_ERROR, "nobody listens");
    server_log_set_sink(sink, LOG_LEVEL_WARNING);
    server_log(LOG_LEVEL_INFO, "too quiet");
    ck_assert_str_eq(logged, "");
    errno = 17;
    server_log(LOG_LEVEL_WARNING, "n=%d", 5);
    ck_assert_int_eq(errno, 17);
    ck_assert_str_eq(logged, "2 n=5");
    char longer[4000];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    server_log(LOG_LEVEL_ERROR, "%s", longer);
    ck_assert_uint_eq(strlen(logged), 2 + 2047);
    server_log_set_sink(NULL, LOG_LEVEL_INFO);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("common");
    TCase *all = tcase_create("all");
    suite_add_tcase(suite, all);
    tcase_add_test(all, record_keeps_message_and_hint);
    tcase_add_test(all, every_status_has_a_name);
    tcase_add_test(all, buffers_grow);
    tcase_add_test(all, integers_round_trip);
    tcase_add_test(all, overlong_varints_are_refused);
    tcase_add_test(all, slices_are_bounded);
    tcase_add_test(all, hashes_depend_on_seed_and_place);
    tcase_add_test(all, log_has_levels_and_limits);
    return test_run(suite);
}
