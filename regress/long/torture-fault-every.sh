# Each of the first 500 calls of each kind (reads, writes, syncs, opens, renames, truncations, ...) and of the first 1,000
# requests for memory of a program fails, one a run. What is asked of it: torture-fault.
# timeout: 2400
. "$AIDB_REGRESS/lib.sh"
. "$AIDB_REGRESS/torture.sh"

torture fault-every --iterations "${AIDB_ROUNDS:-1}"
done_testing
