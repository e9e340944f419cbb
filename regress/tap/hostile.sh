# Clients that break the protocol, lie about sizes, dribble, never read, or come in numbers, beside clients
# that do not: nobody else is given a wrong answer, nothing leaks, nothing hangs. A server with the address
# sanitizer gets most of the frames (AIDB_ROUNDS says how many); AIDB_SEED replays.
# timeout: 600
. "$AIDB_REGRESS/lib.sh"
. "$AIDB_REGRESS/torture.sh"

frames=5000
! grep -q __asan_init "$torture_program" || frames=30000
torture hostile --iterations "${AIDB_ROUNDS:-$frames}" --clients 4
torture hostile-hosted --iterations "${AIDB_ROUNDS:-$frames}" --clients 4
done_testing
