check_LTLIBRARIES += %D%/libtestlib.la
%C%_libtestlib_la_SOURCES = %D%/testlib.h %D%/testlib.c

# Tests of the server as a whole: this folder is the one that may use all of it.
check_PROGRAMS += %D%/server_test
%C%_server_test_SOURCES = \
	%D%/api_test.c \
	%D%/bytes_test.c \
	%D%/request_test.c \
	%D%/server_test.c \
	%D%/test_server.c \
	%D%/test_server.h
%C%_server_test_LDADD = $(TEST_LIBS) src/postmaster/libpostmaster.la src/backend/libbackend.la \
	$(AIDB_LIBS) $(TEST_END_LIBS)
