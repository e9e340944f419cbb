#include "config.h"
#include "bin/aidbsql/aidbsql_test.h"

#include <stdlib.h>

#include "bin/aidbsql/lexer.h"
#include "bin/aidbsql/mem.h"

static const char *find_variable(void *arg, const char *name)
{
    (void)arg;
    return strcmp(name, "who") == 0 ? "a b" : NULL;
}

static char *parameters[] = {(char *)"one", (char *)"two words", NULL};
static const LexerData data = {
    .parameters = parameters, .parameter_count = 2, .variable = find_variable};

/* Words as text: bare ones as they are, others in <...>, commas as `,`, bytes that do not print as
 * \HH. Errors as "offset+length message". */
static char *describe(const char *text, size_t size)
{
    TokenList tokens = {0};
    Diagnostic diagnostic;
    Buffer out = {0};
    /* An exact copy on the heap lets the address sanitizer see a read past the end. */
    uint8_t *copy = mem_alloc(size);
    memcpy(copy, text, size);
    if (!lexer_tokenize(slice_make(copy, size), &data, &tokens, &diagnostic)) {
        mem_append_format(&out, "%zu+%zu %s", diagnostic.offset, diagnostic.length,
                          diagnostic.message);
    } else {
        for (size_t i = 0; i < tokens.count; i++) {
            const Token *token = &tokens.items[i];
            ck_assert_uint_le(token->offset + token->length, size);
            mem_append_string(&out, i > 0 ? " " : "");
            mem_append_string(&out, token->kind == TOKEN_WORD && !token->bare ? "<" : "");
            for (size_t j = 0; j < token->bytes.size; j++) {
                uint8_t c = token->bytes.data[j];
                if (c >= 0x20 && c < 0x7f)
                    mem_append_byte(&out, (char)c);
                else
                    mem_append_format(&out, "\\%02x", c);
            }
            mem_append_string(&out, token->kind == TOKEN_WORD && !token->bare ? ">" : "");
        }
    }
    free(copy);
    token_list_deinit(&tokens);
    char *result = mem_copy_string(mem_string(&out));
    buffer_deinit(&out);
    return result;
}

static const struct {
    const char *text;
    const char *words;
} cases[] = {
    {"", ""},
    {"  \t\r\n ", ""},
    {"PUT a b", "PUT a b"},
    {"PUT\ta\r\n b\r\n", "PUT a b"},
    {"a,b , c", "a , b , c"},
    {"-- nothing", ""},
    {"a -- b\nc", "a c"},
    {"a--b", "a--b"},
    {"a,--b\n c", "a , c"},
    {"- -a -", "- -a -"},
    {"''", "<>"},
    {"'a b'", "<a b>"},
    {"'it''s'", "<it's>"},
    {"''''", "<'>"},
    {"'\\n\\t\\r\\0\\\\\\'\\x7F\\xff'", "<\\0a\\09\\0d\\00\\'\\7f\\ff>"},
    {"'a\nb;--c\td,\"'", "<a\\0ab;--c\\09d,\">"},
    {"x'' X'00fF'", "<> <\\00\\ff>"},
    {"x xy x1", "x xy x1"},
    {"$1 $2", "<one> <two words>"},
    {"$0 $10 $1x a$1 $ $$", "$0 $10 $1x a$1 $ $$"},
    {"'$1'", "<$1>"},
    {":'who' :x", "<a b> :x"},
    {"\xe5\xad\x97 \xff\x80", "\\e5\\ad\\97 \\ff\\80"},
    {"a\\b @!#%^&*()", "a\\b @!#%^&*()"},
    {"a ;", "a"},
    /* Mistakes. */
    {"'abc", "0+1 this quote is never closed"},
    {"PUT a 'abc\\'", "6+1 this quote is never closed"},
    {"'a\\", "2+1 not an escape"},
    {"'a\\q'", "2+2 not an escape"},
    {"'\\x4'", "1+2 not an escape"},
    {"'\\xg0'", "1+2 not an escape"},
    {"x'abc'", "4+1 hex has two digits a byte, and this one is alone"},
    {"x'zz'", "2+1 not a hex digit"},
    {"x'0g'", "3+1 not a hex digit"},
    {"x'00", "0+2 this quote is never closed"},
    {"x'0", "0+2 this quote is never closed"},
    {"it's", "2+1 a quote within a bare word"},
    {"\"a\"", "0+1 double quotes are not used here"},
    {"a\"b", "1+1 double quotes are not used here"},
    {"'a'b", "3+1 no space after the closing quote"},
    {"'a'\"b\"", "3+1 no space after the closing quote"},
    {"x'00'x", "5+1 no space after the closing quote"},
    {"a\x01", "1+1 control byte 0x01 outside of quotes"},
    {"\x7f", "0+1 control byte 0x7f outside of quotes"},
    {"GET $3", "4+2 $3 is not given: 2 words follow -- on the command line"},
    {":'nobody'", "0+9 no variable 'nobody'"},
    {"a ; b", "2+1 ';' ends a statement"},
};

START_TEST(words_of_statements)
{
    char *words = describe(cases[_i].text, strlen(cases[_i].text));
    ck_assert_msg(strcmp(words, cases[_i].words) == 0, "%s gave %s instead of %s", cases[_i].text,
                  words, cases[_i].words);
    free(words);
}
END_TEST

START_TEST(null_bytes)
{
    char *words = describe("a \0", 3);
    ck_assert_str_eq(words, "2+1 control byte 0x00 outside of quotes");
    free(words);
    words = describe("'a\0b'", 5);
    ck_assert_str_eq(words, "<a\\00b>");
    free(words);
}
END_TEST

START_TEST(parameters_that_are_not_given)
{
    TokenList tokens = {0};
    Diagnostic diagnostic;
    ck_assert(!lexer_tokenize(slice_from_string("GET $1"), NULL, &tokens, &diagnostic));
    ck_assert_uint_eq(diagnostic.offset, 4);
    token_list_deinit(&tokens);
}
END_TEST

/* Where statements end, fed in pieces of every size. */
static const struct {
    const char *text;
    const char *statements; /* separated by | */
} split_cases[] = {
    {"a;b;", "a|b|"},
    {"a; b", "a| b"},
    {";;", "||"},
    {"'a;b';c", "'a;b'|c"},
    {"'it''s;';c", "'it''s;'|c"},
    {"'a\\';b';c", "'a\\';b'|c"},
    {"-- a;b\nc;d", "-- a;b\nc|d"},
    {"a--;b", "a--|b"},
    {"a --;b\n;c", "a --;b\n|c"},
    {"-;--;\n;", "-|--;\n|"},
    {"x'00;';b", "x'00;'|b"},
    {"a,--;\n;b", "a,--;\n|b"},
};

START_TEST(ends_of_statements)
{
    const char *text = split_cases[_i].text;
    size_t size = strlen(text);
    for (size_t piece = 1; piece <= size; piece++) {
        Splitter splitter = {0};
        Buffer out = {0};
        for (size_t at = 0; at < size;) {
            size_t left = size - at < piece ? size - at : piece;
            bool complete;
            size_t taken =
                splitter_feed(&splitter, slice_make((const uint8_t *)text + at, left), &complete);
            ck_assert(complete || taken == left);
            mem_append(&out, text + at, taken - complete);
            if (complete) {
                mem_append_byte(&out, '|');
                splitter = (Splitter){0};
            }
            at += taken;
        }
        ck_assert_str_eq(mem_string(&out), split_cases[_i].statements);
        buffer_deinit(&out);
    }
}
END_TEST

START_TEST(pending_input)
{
    Splitter splitter = {0};
    bool complete;
    splitter_feed(&splitter, slice_from_string("  -- only a comment\n \n"), &complete);
    ck_assert(!splitter.has_words);
    splitter_feed(&splitter, slice_from_string("PUT a 'b"), &complete);
    ck_assert(splitter.has_words);
    ck_assert_int_eq(splitter.state, SPLIT_QUOTE);
}
END_TEST

START_TEST(bare_words)
{
    static const char *const bare[] = {"a", "user:1", "$", "$0", "a--", "-", "\xff", "a\\n"};
    static const char *const quoted[] = {"",    "a b", "a;",  "a,b", "it's", "\"",
                                         "--a", "$1",  "\\q", "a\n", "\x01"};
    for (size_t i = 0; i < sizeof bare / sizeof bare[0]; i++)
        ck_assert_msg(lexer_is_bare(slice_from_string(bare[i])), "%s", bare[i]);
    for (size_t i = 0; i < sizeof quoted / sizeof quoted[0]; i++)
        ck_assert_msg(!lexer_is_bare(slice_from_string(quoted[i])), "%s", quoted[i]);
}
END_TEST

/* Any bytes give words or an error, and never a read outside of them. */
START_TEST(any_bytes)
{
    static const char alphabet[] = "ax$1:'\\;,-\n \t\"0f\x01\xff";
    unsigned seed = 20240607;
    for (int round = 0; round < 20000; round++) {
        char text[24] = "";
        size_t size = 0;
        seed = seed * 1103515245u + 12345u;
        size_t length = (seed >> 16) % sizeof text;
        while (size < length) {
            seed = seed * 1103515245u + 12345u;
            text[size++] = alphabet[(seed >> 16) % (sizeof alphabet - 1)];
        }
        free(describe(text, size));
    }
}
END_TEST

Suite *lexer_suite(void)
{
    Suite *suite = suite_create("lexer");
    TCase *tests = tcase_create("lexer");
    tcase_add_loop_test(tests, words_of_statements, 0, sizeof cases / sizeof cases[0]);
    tcase_add_test(tests, null_bytes);
    tcase_add_test(tests, parameters_that_are_not_given);
    tcase_add_loop_test(tests, ends_of_statements, 0, sizeof split_cases / sizeof split_cases[0]);
    tcase_add_test(tests, pending_input);
    tcase_add_test(tests, bare_words);
    tcase_add_test(tests, any_bytes);
    suite_add_tcase(suite, tests);
    return suite;
}
