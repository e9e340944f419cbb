noinst_LTLIBRARIES += %D%/libwal.la
%C%_libwal_la_SOURCES =
