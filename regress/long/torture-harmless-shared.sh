# The same as torture-harmless where clients share processes.
# timeout: 1800
. "$AIDB_REGRESS/lib.sh"
. "$AIDB_REGRESS/torture.sh"

torture harmless-paced --minutes "${AIDB_MINUTES:-10}" --clients 4 --backends 2
done_testing
