bin_PROGRAMS += %D%/aidb
%C%_aidb_SOURCES = %D%/main.c
%C%_aidb_LDADD = $(SERVER_LIBS)

dist_man_MANS += doc/man/aidb.1
