#include "config.h"
#include "bin/aidbsql/aidbsql_test.h"

#include <inttypes.h>
#include <stdlib.h>

#include "bin/aidbsql/codec.h"
#include "bin/aidbsql/mem.h"
#include "bin/aidbsql/rows.h"

#define TEXT(text) (text), sizeof(text) - 1

/* All rows as words, `key=value` each, and at the end an error as "line:column message". */
static char *read_all(RowFormat format, const char *text, size_t size)
{
    /* fmemopen refuses an empty buffer. */
    FILE *file = size > 0 ? fmemopen((void *)(uintptr_t)text, size, "r") : fopen("/dev/null", "r");
    ck_assert_ptr_nonnull(file);
    RowReader reader;
    RowResult result;
    Buffer out = {0};
    row_reader_init(&reader, file, format);
    while ((result = row_reader_next(&reader)) == ROW_READ) {
        mem_append_string(&out, out.size > 0 ? " " : "");
        codec_word_append(&out, buffer_slice(&reader.key));
        mem_append_byte(&out, '=');
        codec_word_append(&out, buffer_slice(&reader.value));
    }
    if (result == ROW_ERROR)
        mem_append_format(&out, "%s%" PRIu64 ":%" PRIu64 " %s", out.size > 0 ? " " : "",
                          reader.error_line, reader.error_column, reader.error);
    else
        ck_assert_uint_eq(reader.bytes_read, size);
    row_reader_deinit(&reader);
    fclose(file);
    char *rows = mem_copy_string(mem_string(&out));
    buffer_deinit(&out);
    return rows;
}

static const struct {
    RowFormat format;
    const char *text;
    size_t size;
    const char *rows;
} cases[] = {
    {ROW_CSV, TEXT(""), ""},
    {ROW_CSV, TEXT("\n\r\n"), ""},
    {ROW_CSV, TEXT("a,1\nb,2\n"), "a=1 b=2"},
    {ROW_CSV, TEXT("a,1\r\nb,2"), "a=1 b=2"},
    {ROW_CSV, TEXT("a,\n\nb,\r\n"), "a='' b=''"},
    {ROW_CSV, TEXT("a, 1 \n"), "a=' 1 '"},
    {ROW_CSV, TEXT("\"a\",\"1\"\r\n\"b\",\"2\""), "a=1 b=2"},
    {ROW_CSV, TEXT("\"a,\"\"b\"\"\",\"x\ny\r\n\"\n"), "'a,\"b\"'='x\\ny\\r\\n'"},
    {ROW_CSV, TEXT("a,\"\"\n"), "a=''"},
    {ROW_CSV, TEXT("a,x\ry\n"), "a='x\\ry'"},
    {ROW_CSV, TEXT("\0\xff,\x01\0\n"), "'\\0\\xff'='\\x01\\0'"},
    {ROW_CSV, TEXT("a\n"), "1:1 one field where a key and a value were expected"},
    {ROW_CSV, TEXT("a,1\n\"\"\n"), "a=1 2:1 one field where a key and a value were expected"},
    {ROW_CSV, TEXT("a,1,2\n"), "1:4 a third field where a key and a value were expected"},
    {ROW_CSV, TEXT(",1\n"), "1:1 the key is empty"},
    {ROW_CSV, TEXT("a,x\"y\n"), "1:4 a quote within a field that is not quoted"},
    {ROW_CSV, TEXT("a,\"x\"y\n"), "1:6 only a comma or a line end may follow a closing quote"},
    {ROW_CSV, TEXT("a,\"x\"\ry\n"), "1:7 only a comma or a line end may follow a closing quote"},
    {ROW_CSV, TEXT("a,1\nb,\"x\n\n"), "a=1 2:3 this quote is never closed"},
    {ROW_TSV, TEXT(""), ""},
    {ROW_TSV, TEXT("a\t1\nb\t2"), "a=1 b=2"},
    {ROW_TSV, TEXT("a\t1\r\n\r\n\nb\t\n"), "a=1 b=''"},
    {ROW_TSV, TEXT("a\\tb\t\\n\\r\\0\\\\\\x41\\'\n"), "'a\\tb'='\\n\\r\\0\\\\A'''"},
    {ROW_TSV, TEXT("\xff\t\0\n"), "'\\xff'='\\0'"},
    {ROW_TSV, TEXT("a 1\n"), "1:4 no TAB between a key and a value"},
    {ROW_TSV, TEXT("a\t1\t2\n"), "1:4 a second TAB; within a value it is written \\t"},
    {ROW_TSV, TEXT("x\t1\na\tb\\q\n"),
     "x=1 2:4 not an escape: \\n \\t \\r \\0 \\\\ \\' and \\xHH are"},
    {ROW_TSV, TEXT("\t1\n"), "1:1 the key is empty"},
    {ROW_JSONL, TEXT(""), ""},
    {ROW_JSONL, TEXT("{\"key\":\"a\",\"value\":\"1\"}\n\n{\"value\":\"2\",\"key\":\"b\"}"),
     "a=1 b=2"},
    {ROW_JSONL, TEXT(" { \"key\" : \"a\" , \"version\" : 12 , \"value\" : \"\" } \r\n"), "a=''"},
    {ROW_JSONL, TEXT("{\"key_b64\":\"/wA=\",\"value_b64\":\"\"}\n"), "'\\xff\\0'=''"},
    {ROW_JSONL,
     TEXT("{\"key\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\",\"value\":\"\\u0041\\u00e9\\u5B57\\ud83d\\uDE00"
          "\\u0000\"}\n"),
     "'\"\\\\/\\x08\\x0c\\n\\r\\t'='A\xc3\xa9\xe5\xad\x97\xf0\x9f\x98\x80\\0'"},
    {ROW_JSONL, TEXT("x\n"), "1:1 an object was expected"},
    {ROW_JSONL, TEXT("{}\n"), "1:2 no key in this object"},
    {ROW_JSONL, TEXT("{\"key\":\"a\"}\n"), "1:11 no value in this object"},
    {ROW_JSONL, TEXT("{\"key\":\"a\",\"value\":1}\n"), "1:20 a string was expected"},
    {ROW_JSONL, TEXT("{\"key\":\"a\",\"value\":\"1\"\n"), "1:23 a comma or } was expected"},
    {ROW_JSONL, TEXT("{\"key\":\"a\",\"value\":\"1\"}}\n"), "1:24 something behind the object"},
    {ROW_JSONL, TEXT("{\"key\":\"a\",\"key_b64\":\"YQ==\"}\n"), "1:12 a second key"},
    {ROW_JSONL, TEXT("{\"key\" \"a\"}\n"), "1:8 a colon was expected"},
    {ROW_JSONL, TEXT("{\"name\":\"a\"}\n"),
     "1:2 not one of key, key_b64, value, value_b64, version"},
    {ROW_JSONL, TEXT("{\"key\":\"a\n"), "1:8 this string is never closed"},
    {ROW_JSONL, TEXT("{\"key\":\"a\\\n"), "1:8 this string is never closed"},
    {ROW_JSONL, TEXT("{\"key\":\"\\q\"}\n"), "1:9 not an escape of JSON"},
    {ROW_JSONL, TEXT("{\"key\":\"\\u12\"}\n"), "1:13 \\u takes four hex digits"},
    {ROW_JSONL, TEXT("{\"key\":\"\\ud800x\"}\n"), "1:9 half of a surrogate pair"},
    {ROW_JSONL, TEXT("{\"key\":\"\\ud800\\u0041\"}\n"), "1:9 half of a surrogate pair"},
    {ROW_JSONL, TEXT("{\"key\":\"\\udc00\"}\n"), "1:9 half of a surrogate pair"},
    {ROW_JSONL, TEXT("{\"key\":\"\xff\"}\n"),
     "1:8 this string is not UTF-8; use key_b64 or value_b64"},
    {ROW_JSONL, TEXT("{\"key\":\"a\tb\"}\n"), "1:10 a control byte in a string"},
    {ROW_JSONL, TEXT("{\"key_b64\":\"YQ=\"}\n"), "1:12 this is not base64"},
    {ROW_JSONL, TEXT("{\"key\":\"\",\"value\":\"1\"}\n"), "1:1 the key is empty"},
    {ROW_JSONL, TEXT("{\"key\":\"a\",\"value\":\"1\",\"version\":}\n"),
     "1:34 a whole number was expected"},
};

START_TEST(rows)
{
    char *text = read_all(cases[_i].format, cases[_i].text, cases[_i].size);
    ck_assert_msg(strcmp(text, cases[_i].rows) == 0, "%s gave %s instead of %s", cases[_i].text,
                  text, cases[_i].rows);
    free(text);
}
END_TEST

START_TEST(header_lines)
{
    static const struct {
        RowFormat format;
        const char *text;
    } texts[] = {{ROW_CSV, "key,\"va\nlue\",more\na,1\n"}, {ROW_TSV, "key\tvalue\na\t1\n"}};
    for (size_t i = 0; i < 2; i++) {
        FILE *file = fmemopen((void *)(uintptr_t)texts[i].text, strlen(texts[i].text), "r");
        RowReader reader;
        row_reader_init(&reader, file, texts[i].format);
        ck_assert_int_eq(row_reader_skip(&reader), ROW_READ);
        ck_assert_int_eq(row_reader_next(&reader), ROW_READ);
        ck_assert(slice_equal(buffer_slice(&reader.key), slice_from_string("a")));
        ck_assert_int_eq(row_reader_next(&reader), ROW_END);
        row_reader_deinit(&reader);
        fclose(file);
    }
}
END_TEST

START_TEST(names_of_formats)
{
    RowFormat format;
    ck_assert(row_format_of_name("x.CSV", &format) && format == ROW_CSV);
    ck_assert(row_format_of_name("/a.b/x.tsv", &format) && format == ROW_TSV);
    ck_assert(row_format_of_name("x.y.jsonl", &format) && format == ROW_JSONL);
    ck_assert(row_format_of_name("x.ndjson", &format) && format == ROW_JSONL);
    ck_assert(!row_format_of_name("csv", &format));
    ck_assert(!row_format_of_name("x.gz", &format));
    ck_assert(!row_format_of_name("a.csv/x", &format));
}
END_TEST

/* A key that is too long ends the reading, whatever is around it. */
START_TEST(long_keys)
{
    Buffer text = {0};
    for (size_t i = 0; i <= AIDB_KEY_MAX; i++)
        mem_append_byte(&text, 'k');
    mem_append_string(&text, "\t1\n");
    char *all = read_all(ROW_TSV, (const char *)text.data, text.size);
    ck_assert_str_eq(all, "1:1 the key has 65537 bytes, a key has at most 65536");
    free(all);
    all = read_all(ROW_TSV, (const char *)text.data + 1, text.size - 1);
    ck_assert_int_eq(strncmp(all, "kkkk", 4), 0);
    free(all);
    buffer_deinit(&text);
}
END_TEST

/* Any bytes give rows or an error. */
START_TEST(any_bytes)
{
    static const char alphabet[] = "a,\"\n\r\t\\x0{}:u8dkeyvlb64_\xff";
    unsigned seed = 4242;
    for (int round = 0; round < 30000; round++) {
        char text[40] = "";
        size_t size = 0;
        seed = seed * 1103515245u + 12345u;
        size_t length = (seed >> 16) % sizeof text;
        while (size < length) {
            seed = seed * 1103515245u + 12345u;
            text[size++] = alphabet[(seed >> 16) % (sizeof alphabet - 1)];
        }
        free(read_all((RowFormat)(round % 3), text, size));
    }
}
END_TEST

Suite *rows_suite(void)
{
    Suite *suite = suite_create("rows");
    TCase *tests = tcase_create("rows");
    tcase_add_loop_test(tests, rows, 0, sizeof cases / sizeof cases[0]);
    tcase_add_test(tests, header_lines);
    tcase_add_test(tests, names_of_formats);
    tcase_add_test(tests, long_keys);
    tcase_add_test(tests, any_bytes);
    suite_add_tcase(suite, tests);
    return suite;
}
