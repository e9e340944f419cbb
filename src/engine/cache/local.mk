noinst_LTLIBRARIES += %D%/libcache.la
%C%_libcache_la_SOURCES = \
	%D%/cache.h \
	%D%/cache_internal.h \
	%D%/cache.c \
	%D%/chain.c \
	%D%/chunk.c \
	%D%/frame.c

check_PROGRAMS += %D%/cache_test
%C%_cache_test_SOURCES = %D%/cache_test.c
%C%_cache_test_LDADD = $(TEST_LIBS) $(CACHE_LIBS) $(TEST_END_LIBS)
