noinst_LTLIBRARIES += %D%/libport.la
%C%_libport_la_SOURCES = %D%/port.h %D%/port.c
