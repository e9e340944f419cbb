noinst_LTLIBRARIES += %D%/libcompaction.la
%C%_libcompaction_la_SOURCES = \
	%D%/compaction.h \
	%D%/compaction_internal.h \
	%D%/job.c \
	%D%/picker.c
