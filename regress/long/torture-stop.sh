# Background processes are stopped for 30 s (WAL writer) or 60 s (compactors, flusher) under load: writers wait, nothing
# fails, memory stays.
# timeout: 900
. "$AIDB_REGRESS/lib.sh"
. "$AIDB_REGRESS/torture.sh"

torture stop --iterations "${AIDB_ROUNDS:-5}" --clients 4
done_testing
