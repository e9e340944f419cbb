# Short transfers, interrupted calls and sockets that are not ready, 1 % of all calls of a server, for ten minutes with few
# operations a second, flushes, compactions, connections and restarts: nobody notices.
# timeout: 1800
. "$AIDB_REGRESS/lib.sh"
. "$AIDB_REGRESS/torture.sh"

torture harmless-paced --minutes "${AIDB_MINUTES:-10}" --clients 4
done_testing
