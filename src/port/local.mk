noinst_LTLIBRARIES += %D%/libport.la
%C%_libport_la_SOURCES = %D%/port.h %D%/port.c

check_PROGRAMS += %D%/port_test
%C%_port_test_SOURCES = %D%/port_test.c
%C%_port_test_LDADD = $(TEST_LIBS) $(COMMON_LIBS) $(TEST_END_LIBS)
