# The postmaster and with it everything is killed at random moments under load, and started again.
# timeout: 300
. "$AIDB_REGRESS/lib.sh"
. "$AIDB_REGRESS/load.sh"

seed=${AIDB_SEED:-$(date +%s)}
rounds=${AIDB_ROUNDS:-10}
RANDOM=$((seed % 32768))
echo "# seed $seed (AIDB_SEED), $rounds rounds (AIDB_ROUNDS)"

server_init data
server_start

for ((round = 1; round <= rounds; round++)); do
    load_start 3
    sleep "0.$((RANDOM % 9))$((RANDOM % 10))"
    mapfile -t everyone < <(children "$server_pid")
    kill -KILL "$server_pid"
    load_stop
    for pid in "${everyone[@]}"; do
        wait_until 20 gone "$pid" || fail "round $round: child $pid outlived the postmaster"
    done
    server_start
    load_check "round $round" || break
done

exits 0 'stop' aidbctl stop
exits 0 'verify finds no damage' aidbctl verify
done_testing
