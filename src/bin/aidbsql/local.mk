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

dist_man_MANS += doc/man/aidbsql.1
