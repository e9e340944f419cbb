/* aidbsql_test.c - runs the unit tests of this folder; each file of tests is one suite. */
#include "config.h"
#include "bin/aidbsql/aidbsql_test.h"

#include <stdlib.h>

int main(void)
{
    SRunner *runner = srunner_create(lexer_suite());
    srunner_add_suite(runner, parser_suite());
    srunner_add_suite(runner, codec_suite());
    srunner_add_suite(runner, rows_suite());
    srunner_add_suite(runner, output_suite());
    srunner_add_suite(runner, overlay_suite());
    srunner_add_suite(runner, complete_suite());
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
