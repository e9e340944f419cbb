noinst_LTLIBRARIES += %D%/libbase.la
%C%_libbase_la_SOURCES =
