noinst_LTLIBRARIES += %D%/libpostmaster.la
%C%_libpostmaster_la_SOURCES = \
	%D%/postmaster.h \
	%D%/postmaster_internal.h \
	%D%/server_log.h \
	%D%/child.c \
	%D%/directory.c \
	%D%/listen.c \
	%D%/postmaster.c \
	%D%/server_log.c \
	%D%/stuck.c
