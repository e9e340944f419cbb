noinst_LTLIBRARIES += %D%/libcache.la
%C%_libcache_la_SOURCES = \
	%D%/cache.h \
	%D%/cache.c
