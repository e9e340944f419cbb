# libapi.la is the public API as an archive for the programs and tests of this tree. libaidb.la
# is what gets installed: the same objects, exporting aidb_* only.

noinst_LTLIBRARIES += %D%/libapi.la
%C%_libapi_la_SOURCES = \
	%D%/libaidb_internal.h \
	%D%/handle_internal.h \
	%D%/libaidb.c \
	%D%/iter.c \
	%D%/embedded.c \
	%D%/remote.c

lib_LTLIBRARIES += %D%/libaidb.la
%C%_libaidb_la_SOURCES =
%C%_libaidb_la_LIBADD = $(AIDB_LIBS)
%C%_libaidb_la_LIBTOOLFLAGS =
%C%_libaidb_la_LDFLAGS = $(AM_LDFLAGS) -version-info 0:0:0 -no-undefined -export-symbols-regex '^aidb_'
