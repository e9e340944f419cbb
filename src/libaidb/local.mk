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

# A shared library hides what is not aidb_*; an archive cannot, and a host program may well have a
# function of the same name. So the objects become one, in which only aidb_* is still global.
noinst_DATA += %D%/archive.stamp
CLEANFILES += %D%/archive.stamp
%D%/archive.stamp: %D%/libaidb.la
	$(AM_V_GEN)archive=%D%/.libs/libaidb.a; \
	if test -f $$archive; then \
	    $(LD) -r -o %D%/.libs/aidb-merged.o --whole-archive $$archive && \
	    $(OBJCOPY) --localize-hidden %D%/.libs/aidb-merged.o && \
	    rm -f $$archive && $(AR) cr $$archive %D%/.libs/aidb-merged.o && $(RANLIB) $$archive && \
	    rm -f %D%/.libs/aidb-merged.o || exit 1; \
	fi; \
	touch $@

check_PROGRAMS += %D%/embedded_test
%C%_embedded_test_SOURCES = %D%/embedded_test.c
%C%_embedded_test_LDADD = $(TEST_LIBS) $(AIDB_LIBS) $(TEST_END_LIBS)

check_PROGRAMS += %D%/iter_test
%C%_iter_test_SOURCES = %D%/iter_test.c
%C%_iter_test_LDADD = $(TEST_LIBS) $(AIDB_LIBS) $(TEST_END_LIBS)
