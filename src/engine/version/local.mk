noinst_LTLIBRARIES += %D%/libversion.la
%C%_libversion_la_SOURCES =
