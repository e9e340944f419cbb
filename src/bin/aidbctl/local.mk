bin_PROGRAMS += %D%/aidbctl
%C%_aidbctl_SOURCES = \
	%D%/ctl.h \
	%D%/control.c \
	%D%/failpoint.c \
	%D%/init.c \
	%D%/inspect.c \
	%D%/live.c \
	%D%/main.c \
	%D%/repair.c
%C%_aidbctl_LDADD = $(AIDB_LIBS)

dist_man_MANS += doc/man/aidbctl.1
