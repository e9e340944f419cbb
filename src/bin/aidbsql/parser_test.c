#include "config.h"
#include "bin/aidbsql/aidbsql_test.h"

#include <inttypes.h>
#include <stdlib.h>

#include "bin/aidbsql/codec.h"
#include "bin/aidbsql/mem.h"
#include "bin/aidbsql/parser.h"

static const char *const kinds[] = {"empty",    "put",      "get",      "exists", "delete",
                                    "range",    "scan",     "count",    "begin",  "commit",
                                    "rollback", "snapshot", "release",  "set",    "flush",
                                    "compact",  "show",     "terminate"};

static void append_word(Buffer *out, const char *label, Slice bytes)
{
    mem_append_string(out, label);
    codec_word_append(out, bytes);
}

/* A statement, or an error, in one line. */
static char *describe(const char *text)
{
    TokenList tokens = {0};
    Statement statement = {0};
    Diagnostic diagnostic = {0};
    Buffer out = {0};
    static char parameter[] = "LIMIT";
    char *parameters[] = {parameter};
    LexerData data = {.parameters = parameters, .parameter_count = 1};
    if (!lexer_tokenize(slice_from_string(text), &data, &tokens, &diagnostic) ||
        !parser_parse(&tokens, &statement, &diagnostic)) {
        ck_assert_uint_le(diagnostic.offset + diagnostic.length, strlen(text));
        mem_append_format(&out, "%zu+%zu %s", diagnostic.offset, diagnostic.length,
                          diagnostic.message);
    } else {
        mem_append_string(&out, kinds[statement.kind]);
        for (size_t i = 0; i < statement.key_count; i++)
            append_word(&out, " ", statement.keys[i]->bytes);
        if (statement.kind == STATEMENT_PUT)
            append_word(&out, " = ", statement.value);
        if (statement.with_version)
            mem_append_string(&out, " +version");
        if (statement.has_condition)
            mem_append_format(&out, " if %d/%" PRIu64, (int)statement.condition, statement.version);
        if (statement.bounds.has_prefix)
            append_word(&out, " prefix ", statement.bounds.prefix);
        if (statement.bounds.has_from)
            append_word(&out, " from ", statement.bounds.from);
        if (statement.bounds.has_to)
            append_word(&out, " to ", statement.bounds.to);
        if (statement.reverse)
            mem_append_string(&out, " reverse");
        if (statement.has_limit)
            mem_append_format(&out, " limit %" PRIu64, statement.limit);
        if (statement.columns != SCAN_PAIRS)
            mem_append_format(&out, " columns %d", (int)statement.columns);
        if (statement.has_durability)
            mem_append_format(&out, " durability %d", (int)statement.durability);
        if (statement.property != NULL)
            mem_append_format(&out, " %s", statement.property);
        if (statement.backend != 0)
            mem_append_format(&out, " %" PRIu64, statement.backend);
    }
    statement_deinit(&statement);
    token_list_deinit(&tokens);
    char *result = mem_copy_string(mem_string(&out));
    buffer_deinit(&out);
    return result;
}

static const struct {
    const char *text;
    const char *meaning;
} cases[] = {
    {"", "empty"},
    {"-- nothing", "empty"},
    {"put a b", "put a = b"},
    {"PUT put put", "put put = put"},
    {"Put a ''", "put a = ''"},
    {"PUT if absent", "put if = absent"},
    {"PUT a IF IF ABSENT", "put a = IF if 1/0"},
    {"PUT a b IF PRESENT", "put a = b if 2/0"},
    {"PUT a b if version 17 durability os", "put a = b if 3/17 durability 2"},
    {"PUT a b DURABILITY fsync IF ABSENT", "put a = b if 1/0 durability 3"},
    {"GET a", "get a"},
    {"GET version", "get version"},
    {"GET version version", "get version +version"},
    {"GET a VERSION b", "get a VERSION b"},
    {"GET a 'version'", "get a version"},
    {"GET a b\tc version", "get a b c +version"},
    {"GET $1", "get LIMIT"},
    {"EXISTS a b", "exists a b"},
    {"EXISTS version", "exists version"},
    {"DELETE a", "delete a"},
    {"DELETE a b c", "delete a b c"},
    {"DELETE if", "delete if"},
    {"DELETE durability", "delete durability"},
    {"DELETE prefix", "delete prefix"},
    {"DELETE 'range'", "delete range"},
    {"DELETE a 'if' 'durability'", "delete a if durability"},
    {"DELETE a IF PRESENT", "delete a if 2/0"},
    {"DELETE a IF VERSION 3 DURABILITY async", "delete a if 3/3 durability 1"},
    {"DELETE a b DURABILITY os", "delete a b durability 2"},
    {"DELETE RANGE", "range"},
    {"DELETE RANGE FROM a", "range from a"},
    {"DELETE RANGE TO b", "range to b"},
    {"DELETE RANGE TO b FROM a DURABILITY os", "range from a to b durability 2"},
    {"DELETE RANGE FROM from TO to", "range from from to to"},
    {"DELETE RANGE PREFIX p", "range prefix p"},
    {"DELETE PREFIX p", "range prefix p"},
    {"SCAN", "scan"},
    {"SCAN PREFIX prefix", "scan prefix prefix"},
    {"SCAN PREFIX ''", "scan prefix ''"},
    {"SCAN FROM a TO b REVERSE LIMIT 5 KEYS", "scan from a to b reverse limit 5 columns 1"},
    {"SCAN values limit 0 reverse", "scan reverse limit 0 columns 2"},
    {"SCAN LIMIT 18446744073709551615 VERSIONS", "scan limit 18446744073709551615 columns 3"},
    {"COUNT", "count"},
    {"COUNT FROM a", "count from a"},
    {"COUNT PREFIX x'ff00'", "count prefix '\\xff\\0'"},
    {"begin", "begin"},
    {"COMMIT", "commit"},
    {"COMMIT DURABILITY fsync", "commit durability 3"},
    {"ROLLBACK", "rollback"},
    {"SNAPSHOT", "snapshot"},
    {"RELEASE", "release"},
    {"SET DURABILITY async", "set durability 1"},
    {"SET DURABILITY default", "set"},
    {"FLUSH", "flush"},
    {"COMPACT", "compact"},
    {"COMPACT FROM a TO b", "compact from a to b"},
    {"SHOW status", "show status"},
    {"SHOW CONFIG", "show config"},
    {"SHOW LEVELS", "show levels"},
    {"SHOW BACKENDS", "show backends"},
    {"SHOW WAL", "show wal"},
    {"TERMINATE 12", "terminate 12"},
    /* Mistakes. */
    {"GTE a", "0+3 unknown statement"},
    {"'GET' a", "0+5 a statement begins with its name"},
    {", a", "0+1 a statement begins with its name"},
    {"PUT", "3+0 a key is missing here"},
    {"PUT a", "5+0 a value is missing here"},
    {"PUT a, b", "5+1 a value is missing here"},
    {"PUT a b c", "8+1 unexpected word"},
    {"PUT a b 'IF' ABSENT", "8+4 unexpected word"},
    {"PUT '' b", "4+2 a key has at least one byte"},
    {"PUT a b IF", "10+0 IF takes ABSENT, PRESENT or VERSION n"},
    {"PUT a b IF 'ABSENT'", "11+8 IF takes ABSENT, PRESENT or VERSION n"},
    {"PUT a b IF VERSION", "18+0 a version is missing here"},
    {"PUT a b IF VERSION x", "19+1 a version is a whole number"},
    {"PUT a b IF VERSION 0", "19+1 0 is never a version"},
    {"PUT a b IF VERSION 18446744073709551616", "19+20 a version is a whole number"},
    {"PUT a b IF ABSENT IF PRESENT", "18+2 a second condition"},
    {"PUT a b DURABILITY", "18+0 durability is fsync, os or async"},
    {"PUT a b DURABILITY no", "19+2 durability is fsync, os or async"},
    {"PUT a b DURABILITY os DURABILITY os", "22+10 a second durability"},
    {"GET", "3+0 a key is missing here"},
    {"GET ,", "4+1 a key is missing here"},
    {"GET a, b", "5+1 unexpected comma"},
    {"GET a,", "5+1 unexpected comma"},
    {"EXISTS a b,c", "10+1 unexpected comma"},
    {"DELETE a,b", "8+1 unexpected comma"},
    {"GET a ''", "6+2 a key has at least one byte"},
    {"DELETE", "6+0 a key is missing here"},
    {"DELETE a IF", "11+0 IF takes PRESENT or VERSION n here"},
    {"DELETE a IF ABSENT", "12+6 IF takes PRESENT or VERSION n here"},
    {"DELETE a b IF PRESENT", "11+2 a condition goes with one key"},
    {"DELETE a DURABILITY b", "20+1 durability is fsync, os or async"},
    {"DELETE a DURABILITY os b", "23+1 unexpected word"},
    {"DELETE RANGE a", "13+1 unexpected word"},
    {"DELETE RANGE FROM", "17+0 a key is missing here"},
    {"DELETE RANGE FROM a PREFIX p", "20+6 PREFIX does not go together with FROM or TO"},
    {"DELETE RANGE FROM a FROM b", "20+4 this bound is given twice"},
    {"SCAN a", "5+1 unexpected word"},
    {"SCAN 'REVERSE'", "5+9 unexpected word"},
    {"SCAN REVERSE REVERSE", "13+7 REVERSE is given twice"},
    {"SCAN LIMIT", "10+0 a number is missing here"},
    {"SCAN LIMIT -1", "11+2 LIMIT takes a whole number"},
    {"SCAN LIMIT 1 LIMIT 2", "13+5 LIMIT is given twice"},
    {"SCAN KEYS VALUES", "10+6 one of KEYS, VALUES and VERSIONS is enough"},
    {"SCAN FROM a LIMIT 1 TO b", "20+2 the bounds belong together"},
    {"COUNT LIMIT 1", "6+5 unexpected word"},
    {"BEGIN x", "6+1 unexpected word"},
    {"SET", "3+0 SET takes DURABILITY"},
    {"SET x y", "4+1 SET takes DURABILITY"},
    {"SHOW", "4+0 SHOW takes STATUS, CONFIG, LEVELS, BACKENDS or WAL"},
    {"SHOW it", "5+2 SHOW takes STATUS, CONFIG, LEVELS, BACKENDS or WAL"},
    {"SHOW STATUS now", "12+3 unexpected word"},
    {"TERMINATE", "9+0 the number of a backend is missing here"},
    {"TERMINATE me", "10+2 a backend is a whole number"},
};

START_TEST(statements)
{
    char *meaning = describe(cases[_i].text);
    ck_assert_msg(strcmp(meaning, cases[_i].meaning) == 0, "%s gave %s instead of %s",
                  cases[_i].text, meaning, cases[_i].meaning);
    free(meaning);
}
END_TEST

static char *repeat(const char *before, char c, size_t count, const char *after)
{
    Buffer text = {0};
    mem_append_string(&text, before);
    for (size_t i = 0; i < count; i++)
        mem_append_byte(&text, c);
    mem_append_string(&text, after);
    char *result = mem_copy_string(mem_string(&text));
    buffer_deinit(&text);
    return result;
}

START_TEST(sizes)
{
    char *text = repeat("GET ", 'k', AIDB_KEY_MAX, "");
    char *meaning = describe(text);
    ck_assert_int_eq(strncmp(meaning, "get kkk", 7), 0);
    free(text);
    free(meaning);
    text = repeat("GET ", 'k', AIDB_KEY_MAX + 1, "");
    meaning = describe(text);
    ck_assert_str_eq(meaning, "4+65537 this key has 65537 bytes, a key has at most 65536");
    free(text);
    free(meaning);
    text = repeat("SCAN FROM ", 'k', AIDB_KEY_MAX + 1, "");
    meaning = describe(text);
    ck_assert_str_eq(meaning, "10+65537 this bound is longer than a key can be");
    free(text);
    free(meaning);
    text = repeat("PUT a '", 'v', AIDB_VALUE_MAX + 1, "'");
    meaning = describe(text);
    ck_assert_str_eq(meaning,
                     "6+67108867 this value has 67108865 bytes, a value has at most 67108864");
    free(text);
    free(meaning);
}
END_TEST

START_TEST(suggestions)
{
    static const struct {
        const char *word;
        const char *hint;
    } words[] = {{"GTE", "Perhaps you meant GET."},
                 {"delet", "Perhaps you meant DELETE."},
                 {"SCNA", "Perhaps you meant SCAN."},
                 {"comit", "Perhaps you meant COMMIT."},
                 {"zzzzzz", "\\h lists the statements."},
                 {"a_word_that_is_far_too_long", "\\h lists the statements."}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        TokenList tokens = {0};
        Statement statement = {0};
        Diagnostic diagnostic;
        ck_assert(lexer_tokenize(slice_from_string(words[i].word), NULL, &tokens, &diagnostic));
        ck_assert(!parser_parse(&tokens, &statement, &diagnostic));
        ck_assert_str_eq(diagnostic.hint, words[i].hint);
        statement_deinit(&statement);
        token_list_deinit(&tokens);
    }
}
END_TEST

Suite *parser_suite(void)
{
    Suite *suite = suite_create("parser");
    TCase *tests = tcase_create("parser");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, statements, 0, sizeof cases / sizeof cases[0]);
    tcase_add_test(tests, sizes);
    tcase_add_test(tests, suggestions);
    suite_add_tcase(suite, tests);
    return suite;
}
