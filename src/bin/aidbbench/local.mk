# Everything but main, which the unit tests use too.
aidbbench_parts = \
	%D%/bench.c \
	%D%/bench.h \
	%D%/data.c \
	%D%/data.h \
	%D%/histogram.c \
	%D%/histogram.h \
	%D%/options.c \
	%D%/options.h \
	%D%/random.c \
	%D%/random.h \
	%D%/report.c \
	%D%/report.h \
	%D%/worker.c \
	%D%/worker.h \
	%D%/workload.c \
	%D%/workload.h

bin_PROGRAMS += %D%/aidbbench
%C%_aidbbench_SOURCES = %D%/main.c $(aidbbench_parts)
%C%_aidbbench_LDADD = $(AIDB_LIBS) -lm

check_PROGRAMS += %D%/aidbbench_test
%C%_aidbbench_test_SOURCES = %D%/aidbbench_test.c $(aidbbench_parts)
%C%_aidbbench_test_LDADD = $(TEST_LIBS) $(AIDB_LIBS) $(ZSTD_LIBS) $(TEST_END_LIBS) -lm

dist_man_MANS += doc/man/aidbbench.1
