noinst_LTLIBRARIES += %D%/libbackend.la
%C%_libbackend_la_SOURCES = \
	%D%/backend.h \
	%D%/backend_internal.h \
	%D%/backend.c \
	%D%/host.c \
	%D%/process.c \
	%D%/report.c \
	%D%/request.c \
	%D%/session.c \
	%D%/spin.c

check_PROGRAMS += %D%/spin_test
%C%_spin_test_SOURCES = %D%/spin_test.c
%C%_spin_test_LDADD = $(TEST_LIBS) $(BACKEND_LIBS) $(TEST_END_LIBS)
