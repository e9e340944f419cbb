noinst_LTLIBRARIES += %D%/libprotocol.la
%C%_libprotocol_la_SOURCES =
