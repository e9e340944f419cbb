noinst_LTLIBRARIES += %D%/libdb.la
%C%_libdb_la_SOURCES =
