noinst_LTLIBRARIES += %D%/libio.la
%C%_libio_la_SOURCES = %D%/io.h %D%/io.c
