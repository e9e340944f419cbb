# aidbtorture breaks things around AiDb and checks what is left; disk.so is the faulty disk that it
# preloads, memory.so the memory that runs out. None is installed. README.md tells what there is.

noinst_PROGRAMS += %D%/aidbtorture
%C%_aidbtorture_SOURCES = \
	%D%/disk.h \
	%D%/embedded.c \
	%D%/failpoint.c \
	%D%/fault.c \
	%D%/history.h %D%/history.c \
	%D%/hostile.c \
	%D%/hostile.h \
	%D%/hostile_crowd.c \
	%D%/hostile_frames.c \
	%D%/hostile_watch.c \
	%D%/linear.c \
	%D%/kill.c \
	%D%/main.c \
	%D%/oom.c \
	%D%/oracle.c \
	%D%/oracle.h \
	%D%/power.c \
	%D%/server.c \
	%D%/server.h \
	%D%/server_fault.c \
	%D%/soak.c \
	%D%/torture.h
%C%_aidbtorture_LDADD = $(AIDB_LIBS)

check_PROGRAMS += %D%/history_test
%C%_history_test_SOURCES = %D%/history_test.c %D%/history.c
%C%_history_test_LDADD = $(TEST_LIBS) $(TEST_END_LIBS)

# Not by libtool: nothing is installed, and the files must be plain shared objects without a sanitizer.
noinst_DATA += %D%/clock.so %D%/disk.so %D%/memory.so
EXTRA_DIST += %D%/clock.c %D%/disk.c %D%/memory.c
CLEANFILES += %D%/clock.so %D%/disk.so %D%/memory.so
%D%/clock.so: $(srcdir)/%D%/clock.c
	$(AM_V_CC)$(CC) $(DEFS) $(AM_CPPFLAGS) $(CPPFLAGS) -std=gnu11 -g -O2 -Wall -Wextra -fPIC -shared \
	    -o $@ $(srcdir)/%D%/clock.c
%D%/disk.so: $(srcdir)/%D%/disk.c $(srcdir)/%D%/disk.h
	$(AM_V_CC)$(CC) $(DEFS) $(AM_CPPFLAGS) $(CPPFLAGS) -std=gnu11 -g -O2 -Wall -Wextra -fPIC -shared \
	    -o $@ $(srcdir)/%D%/disk.c -ldl
%D%/memory.so: $(srcdir)/%D%/memory.c $(srcdir)/%D%/disk.h
	$(AM_V_CC)$(CC) $(DEFS) $(AM_CPPFLAGS) $(CPPFLAGS) -std=gnu11 -g -O2 -Wall -Wextra -fPIC -shared \
	    -fno-builtin -o $@ $(srcdir)/%D%/memory.c
