noinst_LTLIBRARIES += %D%/libsstable.la
%C%_libsstable_la_SOURCES =
