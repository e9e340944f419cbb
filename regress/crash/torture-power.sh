# Power loss at random I/O calls, and at every one, of a program or a server that flushes, compacts,
# recovers and closes: whatever syncs had not made durable is there, gone, or there in part, by sectors
# and by names. What was acknowledged under fsync must be there, and what is there must be a prefix of
# what was written. The same where a program recovers from kills, and what is not synced is that of processes
# that are gone.
# timeout: 600
. "$AIDB_REGRESS/lib.sh"
. "$AIDB_REGRESS/torture.sh"

torture power --iterations "${AIDB_ROUNDS:-300}"
torture power-killed --iterations "${AIDB_ROUNDS:-200}"
torture server-power --iterations "${AIDB_ROUNDS:-200}"
torture power-every --iterations "${AIDB_ROUNDS:-1}"
torture server-power-every --iterations "${AIDB_ROUNDS:-1}"
done_testing
