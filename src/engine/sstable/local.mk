noinst_LTLIBRARIES += %D%/libsstable.la
%C%_libsstable_la_SOURCES = \
	%D%/sstable.h \
	%D%/sstable_internal.h \
	%D%/block.c \
	%D%/compress.c \
	%D%/file_cache.c \
	%D%/filter.c \
	%D%/index.c \
	%D%/range_block.c \
	%D%/table_builder.c \
	%D%/table_format.c \
	%D%/table_iter.c \
	%D%/table_reader.c \
	%D%/table_salvage.c \
	%D%/table_verify.c

check_PROGRAMS += %D%/sstable_test
%C%_sstable_test_SOURCES = \
	%D%/block_test.c \
	%D%/damage_test.c \
	%D%/file_test.c \
	%D%/sstable_test.c \
	%D%/test_table.c \
	%D%/test_table.h
%C%_sstable_test_LDADD = $(TEST_LIBS) $(SSTABLE_LIBS) $(TEST_END_LIBS)
