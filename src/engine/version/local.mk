noinst_LTLIBRARIES += %D%/libversion.la
%C%_libversion_la_SOURCES = \
	%D%/edit.c \
	%D%/manifest.c \
	%D%/version.c \
	%D%/version.h \
	%D%/version_internal.h
