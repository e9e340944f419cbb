noinst_LTLIBRARIES += %D%/libdb.la
%C%_libdb_la_SOURCES = \
	%D%/db.h %D%/db_internal.h \
	%D%/background.c \
	%D%/db.c \
	%D%/property.c \
	%D%/read.c \
	%D%/recover.c \
	%D%/repair.c \
	%D%/scan.c \
	%D%/snapshot.c \
	%D%/throttle.c \
	%D%/verify.c \
	%D%/view.c \
	%D%/write.c

check_PROGRAMS += %D%/db_test
%C%_db_test_SOURCES = \
	%D%/db_test.c \
	%D%/model_test.c \
	%D%/test_store.c %D%/test_store.h \
	%D%/write_test.c
%C%_db_test_LDADD = $(TEST_LIBS) $(ENGINE_LIBS) $(TEST_END_LIBS)

check_PROGRAMS += %D%/repair_test
%C%_repair_test_SOURCES = \
	%D%/misplaced_test.c \
	%D%/repair_test.c \
	%D%/test_history.c %D%/test_history.h \
	%D%/test_store.c %D%/test_store.h
%C%_repair_test_LDADD = $(TEST_LIBS) $(ENGINE_LIBS) $(TEST_END_LIBS)
