noinst_LTLIBRARIES += %D%/libbase.la
%C%_libbase_la_SOURCES = \
	%D%/base.h \
	%D%/batch.c \
	%D%/format.c \
	%D%/merge.c \
	%D%/range.c

check_PROGRAMS += %D%/base_test
%C%_base_test_SOURCES = %D%/base_test.c
%C%_base_test_LDADD = $(TEST_LIBS) $(ENGINE_BASE_LIBS) $(TEST_END_LIBS)
