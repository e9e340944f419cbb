# Clients that break the protocol, lie about sizes, dribble, never read, or come in numbers, beside clients
# that do not: nobody else is given a wrong answer or waits for long, nothing leaks, nothing hangs. With
# AIDB_REGRESS_BACKENDS the server's sessions share processes. One with the address sanitizer gets most of the frames
# (AIDB_ROUNDS says how many), and both have their turn; AIDB_SEED replays.
# timeout: 900
. "$AIDB_REGRESS/lib.sh"
. "$AIDB_REGRESS/torture.sh"

if grep -q __asan_init "$torture_bin/aidb"; then
    torture hostile --iterations "${AIDB_ROUNDS:-150000}" --clients 4
    torture hostile-hosted --iterations "${AIDB_ROUNDS:-100000}" --clients 4
elif [ -n "${AIDB_REGRESS_BACKENDS:-}" ]; then
    torture hostile-hosted --iterations "${AIDB_ROUNDS:-20000}" --clients 4
else
    torture hostile --iterations "${AIDB_ROUNDS:-20000}" --clients 4
fi
done_testing
