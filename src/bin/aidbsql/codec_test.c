#include "config.h"
#include "bin/aidbsql/aidbsql_test.h"

#include <locale.h>
#include <stdlib.h>

#include "bin/aidbsql/codec.h"
#include "bin/aidbsql/lexer.h"
#include "bin/aidbsql/mem.h"

#define BYTES(text) ((Slice){(const uint8_t *)(text), sizeof(text) - 1})
/* The same as an initialiser of a constant. */
#define RAW(text)                                 \
    {                                             \
        (const uint8_t *)(text), sizeof(text) - 1 \
    }

static const struct {
    Slice bytes;
    const char *text;
    const char *word;
    const char *csv;
    const char *base64;
} cases[] = {
    {RAW(""), "", "''", "", ""},
    {RAW("a"), "a", "a", "a", "YQ=="},
    {RAW("ab"), "ab", "ab", "ab", "YWI="},
    {RAW("abc"), "abc", "abc", "abc", "YWJj"},
    {RAW("a b"), "a b", "'a b'", "a b", "YSBi"},
    {RAW("it's"), "it's", "'it''s'", "it's", "aXQncw=="},
    {RAW("a,\"b\""), "a,\"b\"", "'a,\"b\"'", "\"a,\"\"b\"\"\"", "YSwiYiI="},
    {RAW("a\nb\r\t"), "a\\nb\\r\\t", "'a\\nb\\r\\t'", "\"a\nb\r\t\"", "YQpiDQk="},
    {RAW("\\"), "\\\\", "'\\\\'", "\\", "XA=="},
    {RAW("\x01\x7f\x1b"), "\\x01\\x7f\\x1b", "'\\x01\\x7f\\x1b'", "\x01\x7f\x1b", "AX8b"},
    {RAW("\xff\xfe"), "\\xff\\xfe", "'\\xff\\xfe'", "\xff\xfe", "//4="},
    {RAW("\xe5\xad\x97"), "\xe5\xad\x97", "\xe5\xad\x97", "\xe5\xad\x97", "5a2X"},
    {RAW("\xe5\xad"), "\\xe5\\xad", "'\\xe5\\xad'", "\xe5\xad", "5a0="},
    {RAW("\xc2\x9b"), "\\xc2\\x9b", "'\\xc2\\x9b'", "\xc2\x9b", "wps="},
    {RAW("\xf0\x9f\x98\x80"), "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80",
     "8J+YgA=="},
    {RAW("\xed\xa0\x80"), "\\xed\\xa0\\x80", "'\\xed\\xa0\\x80'", "\xed\xa0\x80", "7aCA"},
    {RAW("\xc0\x80"), "\\xc0\\x80", "'\\xc0\\x80'", "\xc0\x80", "wIA="},
    {RAW("$1"), "$1", "'$1'", "$1", "JDE="},
    {RAW("--x"), "--x", "'--x'", "--x", "LS14"},
};

START_TEST(encodings)
{
    Slice bytes = cases[_i].bytes;
    Buffer out = {0};
    codec_text_append(&out, bytes);
    ck_assert_str_eq(mem_string(&out), cases[_i].text);
    buffer_clear(&out);
    codec_word_append(&out, bytes);
    ck_assert_str_eq(mem_string(&out), cases[_i].word);
    buffer_clear(&out);
    codec_csv_append(&out, bytes);
    ck_assert_str_eq(mem_string(&out), cases[_i].csv);
    buffer_clear(&out);
    codec_base64_append(&out, bytes);
    ck_assert_str_eq(mem_string(&out), cases[_i].base64);
    buffer_deinit(&out);
}
END_TEST

/* What was encoded comes back: as text, as a word of a statement, as base64. */
static void check_round_trip(Slice bytes)
{
    Buffer out = {0};
    Buffer back = {0};
    size_t error_at;
    codec_text_append(&out, bytes);
    ck_assert(codec_is_utf8(buffer_slice(&out)));
    ck_assert(codec_text_decode(&back, buffer_slice(&out), &error_at));
    ck_assert(slice_equal(buffer_slice(&back), bytes));

    TokenList tokens = {0};
    Diagnostic diagnostic;
    buffer_clear(&out);
    codec_word_append(&out, bytes);
    ck_assert(lexer_tokenize(buffer_slice(&out), NULL, &tokens, &diagnostic));
    ck_assert_uint_eq(tokens.count, 1);
    ck_assert(slice_equal(tokens.items[0].bytes, bytes));
    token_list_deinit(&tokens);

    buffer_clear(&out);
    buffer_clear(&back);
    codec_base64_append(&out, bytes);
    ck_assert(codec_base64_decode(&back, buffer_slice(&out)));
    ck_assert(slice_equal(buffer_slice(&back), bytes));
    buffer_deinit(&out);
    buffer_deinit(&back);
}

START_TEST(round_trips)
{
    uint8_t bytes[64];
    unsigned seed = 77;
    for (int round = 0; round < 5000; round++) {
        seed = seed * 1103515245u + 12345u;
        size_t size = (seed >> 16) % sizeof bytes;
        for (size_t i = 0; i < size; i++) {
            seed = seed * 1103515245u + 12345u;
            bytes[i] = (uint8_t)(seed >> 16);
        }
        check_round_trip(slice_make(bytes, size));
    }
    for (unsigned c = 0; c < 256; c++) {
        bytes[0] = (uint8_t)c;
        check_round_trip(slice_make(bytes, 1));
    }
}
END_TEST

START_TEST(bad_text)
{
    static const struct {
        const char *text;
        size_t error_at;
    } texts[] = {{"a\\", 1}, {"\\q", 0}, {"ab\\x1", 2}, {"\\xzz", 0}, {"\\\\\\", 2}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        Buffer out = {0};
        size_t error_at = 99;
        ck_assert(!codec_text_decode(&out, slice_from_string(texts[i].text), &error_at));
        ck_assert_uint_eq(error_at, texts[i].error_at);
        buffer_deinit(&out);
    }
}
END_TEST

START_TEST(bad_base64)
{
    static const char *const texts[] = {
        "a", "ab", "abc", "a===", "ab=c", "====", "YR==", "YWJ=", "Y Q=", "YQ==YQ==", "_-aa"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        Buffer out = {0};
        ck_assert_msg(!codec_base64_decode(&out, slice_from_string(texts[i])), "%s", texts[i]);
        buffer_deinit(&out);
    }
}
END_TEST

START_TEST(json_strings)
{
    Buffer out = {0};
    codec_json_append(&out, BYTES("a\"\\/\b\f\n\r\t\x01\x7f\xe5\xad\x97\0z"));
    ck_assert_str_eq(mem_string(&out),
                     "\"a\\\"\\\\/\\u0008\\u000c\\n\\r\\t\\u0001\\u007f\xe5\xad\x97\\u0000z\"");
    buffer_deinit(&out);
}
END_TEST

START_TEST(utf8)
{
    Buffer out = {0};
    for (uint32_t code = 0; code <= 0x10ffff; code += code < 0x3000 ? 1 : 251) {
        if (code >= 0xd800 && code <= 0xdfff)
            continue;
        uint32_t back;
        buffer_clear(&out);
        codec_utf8_append(&out, code);
        ck_assert_uint_eq(codec_utf8_decode(buffer_slice(&out), &back), out.size);
        ck_assert_uint_eq(back, code);
        for (size_t size = 0; size < out.size; size++)
            ck_assert_uint_eq(codec_utf8_decode(slice_make(out.data, size), &back), 0);
    }
    buffer_deinit(&out);
    uint32_t code;
    ck_assert_uint_eq(codec_utf8_decode(BYTES("\xf4\x90\x80\x80"), &code), 0);
    ck_assert_uint_eq(codec_utf8_decode(BYTES("\xf8\x88\x80\x80\x80"), &code), 0);
    ck_assert_uint_eq(codec_utf8_decode(BYTES("\xe0\x80\x80"), &code), 0);
    ck_assert_uint_eq(codec_utf8_decode(BYTES("\x80"), &code), 0);
}
END_TEST

START_TEST(widths)
{
    ck_assert_uint_eq(codec_display_width(BYTES("abc")), 3);
    ck_assert_uint_eq(codec_display_width(BYTES("a\n")), 3);
    ck_assert_uint_eq(codec_display_width(BYTES("\xff")), 4);
    ck_assert_uint_eq(codec_display_width(BYTES("\\")), 2);
    if (setlocale(LC_CTYPE, "C.UTF-8") != NULL)
        ck_assert_uint_eq(codec_display_width(BYTES("\xe5\xad\x97")), 2);
}
END_TEST

Suite *codec_suite(void)
{
    Suite *suite = suite_create("codec");
    TCase *tests = tcase_create("codec");
    tcase_add_loop_test(tests, encodings, 0, sizeof cases / sizeof cases[0]);
    tcase_add_test(tests, round_trips);
    tcase_add_test(tests, bad_text);
    tcase_add_test(tests, bad_base64);
    tcase_add_test(tests, json_strings);
    tcase_add_test(tests, utf8);
    tcase_add_test(tests, widths);
    suite_add_tcase(suite, tests);
    return suite;
}
