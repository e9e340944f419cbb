noinst_LTLIBRARIES += %D%/libio.la
%C%_libio_la_SOURCES = %D%/io.h %D%/io.c

check_PROGRAMS += %D%/io_test
%C%_io_test_SOURCES = %D%/io_test.c
%C%_io_test_LDADD = $(TEST_LIBS) $(IO_LIBS) $(TEST_END_LIBS)
