# The parts that need no store, which the unit tests use too.
aidbbench_parts = \
	%D%/data.c \
	%D%/data.h \
	%D%/histogram.c \
	%D%/histogram.h \
	%D%/options.c \
	%D%/options.h \
	%D%/random.c \
	%D%/random.h \
	%D%/worker.h \
	%D%/workload.c \
	%D%/workload.h

check_PROGRAMS += %D%/aidbbench_test
%C%_aidbbench_test_SOURCES = %D%/aidbbench_test.c $(aidbbench_parts)
%C%_aidbbench_test_LDADD = $(ZSTD_LIBS) $(CHECK_LIBS) -lm

dist_man_MANS += doc/man/aidbbench.1
