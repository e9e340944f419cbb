noinst_LTLIBRARIES += %D%/libdb.la
%C%_libdb_la_SOURCES = \
	%D%/db.h %D%/db_internal.h \
	%D%/background.c \
	%D%/db.c \
	%D%/property.c \
	%D%/read.c \
	%D%/recover.c \
	%D%/scan.c \
	%D%/snapshot.c \
	%D%/throttle.c \
	%D%/verify.c \
	%D%/view.c \
	%D%/write.c
