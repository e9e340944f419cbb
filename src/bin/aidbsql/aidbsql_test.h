/* aidbsql_test.h - what the unit tests of this folder share. */
#ifndef AIDBSQL_TEST_H
#define AIDBSQL_TEST_H

#include <check.h>

Suite *lexer_suite(void);
Suite *parser_suite(void);
Suite *codec_suite(void);
Suite *rows_suite(void);
Suite *output_suite(void);
Suite *overlay_suite(void);
Suite *complete_suite(void);

#endif
