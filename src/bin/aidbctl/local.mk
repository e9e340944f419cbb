# Filled when the folder has a source:
#   bin_PROGRAMS += %D%/aidbctl
#   %C%_aidbctl_SOURCES = %D%/main.c
#   %C%_aidbctl_LDADD = $(CLIENT_LIBS) $(CONFIG_LIBS) $(ENGINE_LIBS)
