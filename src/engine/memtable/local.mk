noinst_LTLIBRARIES += %D%/libmemtable.la
%C%_libmemtable_la_SOURCES = \
	%D%/blocks.c \
	%D%/memtable.c \
	%D%/memtable.h \
	%D%/memtable_internal.h \
	%D%/mempool.c \
	%D%/ranges.c

check_PROGRAMS += %D%/memtable_test
%C%_memtable_test_SOURCES = \
	%D%/memtable_test.c \
	%D%/range_test.c \
	%D%/room_test.c \
	%D%/sharing_test.c \
	%D%/test_memtable.c \
	%D%/test_memtable.h
%C%_memtable_test_LDADD = $(TEST_LIBS) $(MEMTABLE_LIBS) $(TEST_END_LIBS)

# make src/engine/memtable/memtable_bench: inserts and gets a second, not built otherwise.
EXTRA_PROGRAMS += %D%/memtable_bench
%C%_memtable_bench_SOURCES = %D%/memtable_bench.c
%C%_memtable_bench_LDADD = $(MEMTABLE_LIBS)
