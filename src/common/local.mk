noinst_LTLIBRARIES += %D%/libcommon.la
%C%_libcommon_la_SOURCES =
