noinst_LTLIBRARIES += %D%/libprotocol.la
%C%_libprotocol_la_SOURCES = \
	%D%/protocol.h \
	%D%/protocol.c

check_PROGRAMS += %D%/protocol_test
%C%_protocol_test_SOURCES = %D%/protocol_test.c
%C%_protocol_test_LDADD = $(TEST_LIBS) $(PROTOCOL_LIBS) $(TEST_END_LIBS)
