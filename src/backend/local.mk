noinst_LTLIBRARIES += %D%/libbackend.la
%C%_libbackend_la_SOURCES =
