noinst_LTLIBRARIES += %D%/libcompaction.la
%C%_libcompaction_la_SOURCES = \
	%D%/compaction.h \
	%D%/compaction_internal.h \
	%D%/job.c \
	%D%/picker.c

check_PROGRAMS += %D%/compaction_test
%C%_compaction_test_SOURCES = \
	%D%/compaction_test.c \
	%D%/model_test.c \
	%D%/picker_test.c \
	%D%/test_compaction.c \
	%D%/test_compaction.h
%C%_compaction_test_LDADD = $(TEST_LIBS) $(COMPACTION_LIBS) $(TEST_END_LIBS)
