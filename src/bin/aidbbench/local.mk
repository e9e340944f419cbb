# Filled when the folder has a source:
#   bin_PROGRAMS += %D%/aidbbench
#   %C%_aidbbench_SOURCES = %D%/main.c
#   %C%_aidbbench_LDADD = $(AIDB_LIBS) -lm
