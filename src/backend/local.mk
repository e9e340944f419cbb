noinst_LTLIBRARIES += %D%/libbackend.la
%C%_libbackend_la_SOURCES = \
	%D%/backend.h \
	%D%/backend_internal.h \
	%D%/backend.c \
	%D%/host.c \
	%D%/process.c \
	%D%/report.c \
	%D%/request.c \
	%D%/session.c
