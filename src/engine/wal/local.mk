noinst_LTLIBRARIES += %D%/libwal.la
%C%_libwal_la_SOURCES = \
	%D%/reader.c \
	%D%/record.c \
	%D%/recover.c \
	%D%/ring.c \
	%D%/salvage.c \
	%D%/segment.c \
	%D%/verify.c \
	%D%/wal.c \
	%D%/wal.h \
	%D%/wal_internal.h

check_PROGRAMS += %D%/wal_test
%C%_wal_test_SOURCES = \
	%D%/crash_test.c \
	%D%/damage_test.c \
	%D%/fault_test.c \
	%D%/test_fault.c \
	%D%/test_store.c \
	%D%/test_store.h \
	%D%/wal_test.c
# The tests' file layer stands between the log and src/io.
%C%_wal_test_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=file_open,--wrap=file_write_at,--wrap=file_zero_fill,--wrap=file_sync \
	-Wl,--wrap=file_write_through,--wrap=file_rename,--wrap=file_unlink,--wrap=directory_sync
%C%_wal_test_LDADD = $(TEST_LIBS) $(WAL_LIBS) $(TEST_END_LIBS)
