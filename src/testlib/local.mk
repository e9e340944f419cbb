check_LTLIBRARIES += %D%/libtestlib.la
%C%_libtestlib_la_SOURCES = %D%/testlib.h %D%/testlib.c
