noinst_LTLIBRARIES += %D%/libcommon.la
%C%_libcommon_la_SOURCES = \
	%D%/buffer.h %D%/buffer.c \
	%D%/coding.h %D%/coding.c \
	%D%/hash.h %D%/hash.c \
	%D%/log.h %D%/log.c \
	%D%/slice.h \
	%D%/status.h %D%/status.c
%C%_libcommon_la_CFLAGS = $(AM_CFLAGS) $(XXHASH_CFLAGS)
