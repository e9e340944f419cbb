# Processes of a server, and programs with an open directory, killed at every named step and holding
# every lock; recovery killed ten times in a row at every step of its own. The list of steps is the
# program's own (src/common/failpoint.h), and each must be reached.
# timeout: 900
. "$AIDB_REGRESS/lib.sh"
. "$AIDB_REGRESS/torture.sh"

grep -q '^#define AIDB_FAILPOINTS 1' "$AIDB_BUILDDIR/config.h" 2>/dev/null ||
    skip_all "not built with --enable-failpoints"
# Five times at each: a server with a process for each client, one with two for all, three times embedded.
torture failpoint --iterations "${AIDB_ROUNDS:-1}" --clients 4
torture failpoint --iterations "${AIDB_ROUNDS:-1}" --clients 4 --backends 2
torture failpoint-embedded --iterations "${AIDB_ROUNDS:-3}" --clients 4
torture lock-held --iterations "${AIDB_ROUNDS:-1}" --clients 4
torture lock-held --iterations "${AIDB_ROUNDS:-1}" --clients 4 --backends 2
torture bit-flip --iterations "${AIDB_ROUNDS:-6}"
torture stuck --iterations "${AIDB_ROUNDS:-3}"
done_testing
