# The statement client. Everything but main.c is a library, for the unit tests.

noinst_LTLIBRARIES += %D%/libaidbsql.la
%C%_libaidbsql_la_SOURCES = \
	%D%/codec.h %D%/codec.c \
	%D%/command.h %D%/command.c \
	%D%/complete.h %D%/complete.c \
	%D%/copy.h %D%/copy.c \
	%D%/cursor.h %D%/cursor.c \
	%D%/diagnostic.h \
	%D%/exec.h %D%/exec.c \
	%D%/interactive.h %D%/interactive.c \
	%D%/interrupt.h %D%/interrupt.c \
	%D%/lexer.h %D%/lexer.c \
	%D%/line.h %D%/line.c \
	%D%/mem.h %D%/mem.c \
	%D%/output.h %D%/output.c \
	%D%/overlay.h %D%/overlay.c \
	%D%/parser.h %D%/parser.c \
	%D%/rows.h %D%/rows.c \
	%D%/script.h %D%/script.c \
	%D%/session.h %D%/session.c
%C%_libaidbsql_la_CPPFLAGS = $(AM_CPPFLAGS) $(READLINE_CFLAGS)

bin_PROGRAMS += %D%/aidbsql
%C%_aidbsql_SOURCES = %D%/main.c
%C%_aidbsql_LDADD = %D%/libaidbsql.la $(AIDB_LIBS) $(READLINE_LIBS) -lm

check_PROGRAMS += %D%/aidbsql_test
%C%_aidbsql_test_SOURCES = \
	%D%/aidbsql_test.h \
	%D%/aidbsql_test.c \
	%D%/codec_test.c \
	%D%/complete_test.c \
	%D%/lexer_test.c \
	%D%/output_test.c \
	%D%/overlay_test.c \
	%D%/parser_test.c \
	%D%/rows_test.c
%C%_aidbsql_test_LDADD = $(TEST_LIBS) %D%/libaidbsql.la $(AIDB_LIBS) $(READLINE_LIBS) -lm $(TEST_END_LIBS)

dist_man_MANS += doc/man/aidbsql.1
