bin_PROGRAMS += aidbctl
aidbctl_SOURCES = \
	%D%/ctl.h \
	%D%/control.c \
	%D%/init.c \
	%D%/inspect.c \
	%D%/live.c \
	%D%/main.c
aidbctl_LDADD = $(AIDB_LIBS)
