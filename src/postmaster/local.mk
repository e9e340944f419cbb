noinst_LTLIBRARIES += %D%/libpostmaster.la
%C%_libpostmaster_la_SOURCES =
