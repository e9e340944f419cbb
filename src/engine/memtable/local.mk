noinst_LTLIBRARIES += %D%/libmemtable.la
%C%_libmemtable_la_SOURCES =
