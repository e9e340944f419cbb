noinst_LTLIBRARIES += %D%/libcompaction.la
%C%_libcompaction_la_SOURCES =
