noinst_LTLIBRARIES += %D%/libversion.la
%C%_libversion_la_SOURCES = \
	%D%/edit.c \
	%D%/manifest.c \
	%D%/salvage.c \
	%D%/version.c \
	%D%/version.h \
	%D%/version_internal.h

check_PROGRAMS += %D%/version_test
%C%_version_test_SOURCES = \
	%D%/damage_test.c \
	%D%/edit_test.c \
	%D%/fault_test.c \
	%D%/test_version.c \
	%D%/test_version.h \
	%D%/version_test.c
%C%_version_test_LDADD = $(TEST_LIBS) $(VERSION_LIBS) $(TEST_END_LIBS)
