# Filled when the folder has a source:
#   bin_PROGRAMS += %D%/aidbsql
#   %C%_aidbsql_SOURCES = %D%/main.c
#   %C%_aidbsql_CPPFLAGS = $(AM_CPPFLAGS) $(READLINE_CFLAGS)
#   %C%_aidbsql_LDADD = $(AIDB_LIBS) $(READLINE_LIBS)
