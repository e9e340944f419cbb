#include "config.h"
#include "bin/aidbsql/aidbsql_test.h"

#include <stdlib.h>

#include "bin/aidbsql/complete.h"
#include "bin/aidbsql/mem.h"

static void add_word(void *list, const char *text)
{
    Buffer *out = list;
    mem_append_string(out, out->size > 0 ? " " : "");
    mem_append_string(out, text);
}

/* Without a connection: keywords only. */
static const struct {
    const char *before;
    const char *word;
    const char *words; /* null: names of files */
} cases[] = {
    {"", "S", "SCAN SNAPSHOT SET SHOW"},
    {"", "pu", "put"},
    {"  ", "Ge", "GET"},
    {"PUT a b; ", "rol", "rollback"},
    {"-- x\n", "FL", "FLUSH"},
    {"", "\\co", "\\conninfo \\copy"},
    {"PUT a b ", "", "IF DURABILITY"},
    {"PUT a b IF ", "", "ABSENT PRESENT VERSION"},
    {"PUT a b durability ", "a", "async"},
    {"PUT ", "x", ""},
    {"SCAN ", "R", "REVERSE"},
    {"SCAN PREFIX p ", "li", "limit"},
    {"SCAN LIMIT ", "", ""},
    {"COUNT ", "", "PREFIX FROM TO"},
    {"DELETE ", "R", "RANGE"},
    {"DELETE RANGE ", "f", "from"},
    {"DELETE k ", "i", "if"},
    {"GET k ", "V", "VERSION"},
    {"SET ", "", "DURABILITY"},
    {"SET DURABILITY ", "f", "fsync"},
    {"SHOW ", "L", "LEVELS"},
    {"SHOW LEVELS ", "", ""},
    {"PUT a 'S", "S", ""},
    {"\\pset ", "f", "format footer"},
    {"\\pset format ", "j", "jsonl"},
    {"\\timing ", "o", "on off"},
    {"\\h ", "RO", "ROLLBACK"},
    {"\\copy ", "f", "from"},
    {"\\copy from ", "x", NULL},
    {"\\copy from x ", "h", "header"},
    {"\\i ", "", NULL},
};

START_TEST(completions)
{
    Session session;
    Buffer out = {0};
    sql_session_init(&session);
    bool known = complete_word(&session, cases[_i].before, cases[_i].word, add_word, &out);
    ck_assert_int_eq(known, cases[_i].words != NULL);
    if (known)
        ck_assert_str_eq(mem_string(&out), cases[_i].words);
    buffer_deinit(&out);
    sql_session_deinit(&session);
}
END_TEST

Suite *complete_suite(void)
{
    Suite *suite = suite_create("complete");
    TCase *tests = tcase_create("complete");
    tcase_add_loop_test(tests, completions, 0, sizeof cases / sizeof cases[0]);
    suite_add_tcase(suite, tests);
    return suite;
}
