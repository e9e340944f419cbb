#include "config.h"
#include "bin/aidbsql/aidbsql_test.h"

#include <stdlib.h>

#include "bin/aidbsql/mem.h"
#include "bin/aidbsql/output.h"

#define BYTES(text) slice_make((const uint8_t *)(text), sizeof(text) - 1)

static const Column columns[] = {
    {"key", CELL_BYTES}, {"value", CELL_BYTES}, {"version", CELL_NUMBER}};

/* Two rows in a format, as a string. */
static char *show(const Output *settings)
{
    char *text = NULL;
    size_t size;
    Output output = *settings;
    output.file = open_memstream(&text, &size);
    const Cell rows[2][3] = {
        {{.bytes = BYTES("a")}, {.bytes = BYTES("one,\n\"\\")}, {.number = 7}},
        {{.bytes = BYTES("bcd")}, {.bytes = BYTES("\xff\0")}, {.number = 123}},
    };
    output_begin(&output, columns, 3);
    ck_assert(output_row(&output, rows[0]));
    ck_assert(output_row(&output, rows[1]));
    output_end(&output);
    ck_assert_int_eq(output_flush(&output), 0);
    FILE *file = output.file;
    output.file = stdout;
    output_deinit(&output);
    fclose(file);
    for (size_t i = 0; i < size; i++)
        text[i] = text[i] == '\0' ? '@' : text[i];
    return text;
}

static const struct {
    const char *format;
    Toggle header;
    Toggle footer;
    bool expanded;
    bool nul_ended;
    bool not_ended;
    const char *text;
} cases[] = {
    {"text", TOGGLE_AUTO, TOGGLE_AUTO, false, false, false,
     "a\tone,\\n\"\\\\\t7\nbcd\t\\xff\\0\t123\n"},
    {"text", TOGGLE_ON, TOGGLE_ON, false, false, false,
     "key\tvalue\tversion\na\tone,\\n\"\\\\\t7\nbcd\t\\xff\\0\t123\n(2 rows)\n"},
    {"raw", TOGGLE_AUTO, TOGGLE_AUTO, false, false, false, "a\tone,\n\"\\\t7\nbcd\t\xff@\t123\n"},
    {"raw", TOGGLE_AUTO, TOGGLE_AUTO, false, true, false, "a\tone,\n\"\\\t7@bcd\t\xff@\t123@"},
    {"raw", TOGGLE_AUTO, TOGGLE_AUTO, false, false, true, "a\tone,\n\"\\\t7bcd\t\xff@\t123"},
    {"csv", TOGGLE_ON, TOGGLE_AUTO, false, false, false,
     "key,value,version\na,\"one,\n\"\"\\\",7\nbcd,\xff@,123\n"},
    {"jsonl", TOGGLE_ON, TOGGLE_ON, false, false, false,
     "{\"key\":\"a\",\"value\":\"one,\\n\\\"\\\\\",\"version\":7}\n"
     "{\"key\":\"bcd\",\"value_b64\":\"/wA=\",\"version\":123}\n"},
    {"aligned", TOGGLE_AUTO, TOGGLE_AUTO, false, false, false,
     " key |   value   | version\n"
     "-----+-----------+---------\n"
     " a   | one,\\n\"\\\\ |       7\n"
     " bcd | \\xff\\0    |     123\n"
     "(2 rows)\n"},
    {"aligned", TOGGLE_OFF, TOGGLE_OFF, true, false, false,
     "-[ RECORD 1 ]------------------------\n"
     "key     | a\nvalue   | one,\\n\"\\\\\nversion | 7\n"
     "-[ RECORD 2 ]------------------------\n"
     "key     | bcd\nvalue   | \\xff\\0\nversion | 123\n"},
};

START_TEST(formats)
{
    Output settings;
    output_init(&settings);
    ck_assert(output_parse_format(cases[_i].format, &settings.format));
    settings.header = cases[_i].header;
    settings.footer = cases[_i].footer;
    settings.expanded = cases[_i].expanded;
    settings.nul_ended = cases[_i].nul_ended;
    settings.not_ended = cases[_i].not_ended;
    char *text = show(&settings);
    ck_assert_str_eq(text, cases[_i].text);
    free(text);
}
END_TEST

/* A table is shown from its first rows on: later ones keep the widths. */
START_TEST(long_tables)
{
    char *text = NULL;
    size_t size;
    Output output;
    output_init(&output);
    output.format = OUTPUT_ALIGNED;
    output.file = open_memstream(&text, &size);
    output_begin(&output, columns, 2);
    for (int i = 0; i < 5000; i++) {
        Cell cells[2] = {{.bytes = i < 4000 ? BYTES("k") : BYTES("a long key")},
                         {.bytes = BYTES("v")}};
        ck_assert(output_row(&output, cells));
        ck_assert_uint_lt(output.held.size, 1 << 16);
    }
    output_end(&output);
    output_flush(&output);
    ck_assert_ptr_nonnull(strstr(text, " k   | v\n"));
    ck_assert_ptr_nonnull(strstr(text, " a long key | v\n"));
    ck_assert_ptr_nonnull(strstr(text, "(5000 rows)\n"));
    FILE *file = output.file;
    output.file = stdout;
    output_deinit(&output);
    fclose(file);
    free(text);
}
END_TEST

START_TEST(single_values)
{
    char *text = NULL;
    size_t size;
    Output output;
    output_init(&output);
    output.file = open_memstream(&text, &size);
    output_value(&output, BYTES("a\tb"));
    output_value(&output, BYTES(""));
    output_number(&output, UINT64_MAX);
    output.format = OUTPUT_ALIGNED;
    output_value(&output, BYTES(""));
    output.format = OUTPUT_RAW;
    output.not_ended = true;
    output_value(&output, BYTES("x"));
    output_message(&output, "OK");
    output_flush(&output);
    ck_assert_str_eq(text, "a\\tb\n\n18446744073709551615\n(empty)\nxOK\n");
    FILE *file = output.file;
    output.file = stdout;
    output_deinit(&output);
    fclose(file);
    free(text);
}
END_TEST

START_TEST(failed_writes)
{
    Output output;
    output_init(&output);
    output.file = fopen("/dev/full", "w");
    if (output.file == NULL)
        return;
    setvbuf(output.file, NULL, _IONBF, 0);
    output_begin(&output, columns, 1);
    Cell cell = {.bytes = BYTES("a")};
    ck_assert(!output_row(&output, &cell));
    output_end(&output);
    ck_assert_int_ne(output_flush(&output), 0);
    ck_assert_int_eq(output_flush(&output), 0);
    FILE *file = output.file;
    output.file = stdout;
    output_deinit(&output);
    fclose(file);
}
END_TEST

Suite *output_suite(void)
{
    Suite *suite = suite_create("output");
    TCase *tests = tcase_create("output");
    tcase_add_loop_test(tests, formats, 0, sizeof cases / sizeof cases[0]);
    tcase_add_test(tests, long_tables);
    tcase_add_test(tests, single_values);
    tcase_add_test(tests, failed_writes);
    suite_add_tcase(suite, tests);
    return suite;
}
