noinst_LTLIBRARIES += %D%/libipc.la
%C%_libipc_la_SOURCES = \
	%D%/ipc.h %D%/arena.h \
	%D%/arena.c %D%/lock.c %D%/region.c %D%/slot.c
