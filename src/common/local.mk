noinst_LTLIBRARIES += %D%/libcommon.la
%C%_libcommon_la_SOURCES = \
	%D%/buffer.h %D%/buffer.c \
	%D%/coding.h %D%/coding.c \
	%D%/failpoint.h %D%/failpoint.c \
	%D%/hash.h %D%/hash.c \
	%D%/log.h %D%/log.c \
	%D%/slice.h \
	%D%/status.h %D%/status.c
%C%_libcommon_la_CFLAGS = $(AM_CFLAGS) $(XXHASH_CFLAGS)

check_PROGRAMS += %D%/common_test
%C%_common_test_SOURCES = %D%/common_test.c
%C%_common_test_LDADD = $(TEST_LIBS) $(COMMON_LIBS) $(TEST_END_LIBS)
