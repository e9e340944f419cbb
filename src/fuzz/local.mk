# Targets for every decoder, one program for all of them (libFuzzer's with --enable-fuzzers), and the
# test that runs the corpora with any compiler. README.md tells more; scripts/fuzz drives it.

noinst_LTLIBRARIES += %D%/libfuzz.la
%C%_libfuzz_la_SOURCES = \
	%D%/block.c \
	%D%/frames.c \
	%D%/fuzz.h %D%/fuzz.c \
	%D%/log.c \
	%D%/manifest.c \
	%D%/replies.c \
	%D%/rows.c \
	%D%/session.c \
	%D%/settings.c \
	%D%/statement.c \
	%D%/table.c \
	%D%/values.h %D%/values.c

FUZZ_LIBS = %D%/libfuzz.la src/bin/aidbsql/libaidbsql.la $(AIDB_LIBS) $(BACKEND_LIBS) $(READLINE_LIBS) -lm

EXTRA_PROGRAMS += %D%/aidbfuzz
%C%_aidbfuzz_SOURCES = %D%/main.c
%C%_aidbfuzz_LDFLAGS = $(AM_LDFLAGS) $(AIDB_FUZZER_LDFLAGS)
%C%_aidbfuzz_LDADD = $(FUZZ_LIBS)

check_PROGRAMS += %D%/fuzz_test
%C%_fuzz_test_SOURCES = %D%/corpus_test.c %D%/seeds.h %D%/seeds.c
%C%_fuzz_test_CPPFLAGS = $(AM_CPPFLAGS) -DAIDB_SOURCE='"$(abs_top_srcdir)"'
%C%_fuzz_test_LDADD = $(TEST_LIBS) $(FUZZ_LIBS) $(TEST_END_LIBS)
