# aidbtorture breaks things around AiDb and checks what is left; disk.so is the faulty disk that it
# preloads. Neither is installed. README.md tells what there is.

noinst_PROGRAMS += %D%/aidbtorture
%C%_aidbtorture_SOURCES = \
	%D%/disk.h \
	%D%/embedded.c \
	%D%/kill.c \
	%D%/main.c \
	%D%/oracle.c \
	%D%/oracle.h \
	%D%/torture.h
%C%_aidbtorture_LDADD = $(AIDB_LIBS)
