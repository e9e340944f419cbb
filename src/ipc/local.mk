noinst_LTLIBRARIES += %D%/libipc.la
%C%_libipc_la_SOURCES = \
	%D%/ipc.h %D%/arena.h \
	%D%/arena.c %D%/lock.c %D%/region.c %D%/slot.c

check_PROGRAMS += %D%/ipc_test
%C%_ipc_test_SOURCES = %D%/ipc_test.c
%C%_ipc_test_LDADD = $(TEST_LIBS) $(IPC_LIBS) $(TEST_END_LIBS)
