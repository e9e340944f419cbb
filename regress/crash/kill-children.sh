# Children are killed at random moments under load, over and over. After each kill the server must
# serve again by itself, and every write that a client saw acknowledged must be there.
# timeout: 300
. "$AIDB_REGRESS/lib.sh"
. "$AIDB_REGRESS/load.sh"

seed=${AIDB_SEED:-$(date +%s)}
rounds=${AIDB_ROUNDS:-12}
RANDOM=$((seed % 32768))
echo "# seed $seed (AIDB_SEED), $rounds rounds (AIDB_ROUNDS)"

server_init data
server_start
load_start 4

for ((round = 1; round <= rounds; round++)); do
    sleep "0.$((RANDOM % 9))$((RANDOM % 10))"
    mapfile -t victims < <(children "$server_pid")
    if [ ${#victims[@]} -gt 0 ]; then
        victim=${victims[RANDOM % ${#victims[@]}]}
        title=$(process_title "$victim")
        kill -KILL "$victim" 2>/dev/null
    fi
    if ! wait_until 60 server_answers; then
        fail "round $round: the server does not answer after kill -9 of $title" "$(tail -n 30 data/*.log 2>/dev/null)"
        break
    fi
    if ! alive "$server_pid"; then
        fail "round $round: the postmaster ended after kill -9 of $title"
        break
    fi
    load_check "round $round, killed: $title" || break
done

load_stop
load_check 'at the end'
exits 0 'verify finds no damage' aidbctl verify
server_stop
done_testing
