noinst_LTLIBRARIES += %D%/libipc.la
%C%_libipc_la_SOURCES =
