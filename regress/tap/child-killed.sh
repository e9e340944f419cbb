# Any child killed with kill -9: the rest is stopped, the log replayed, service resumes by itself,
# and nothing acknowledged is lost. One kill of every kind of process; the campaigns in crash/ do it
# over and over under load.
. "$AIDB_REGRESS/lib.sh"

server_init data
server_start
aidbsql -q -c 'PUT start 1; FLUSH'

restarts() { aidbctl status --json | sed -n 's/.*"crash_restarts":[[:space:]]*\([0-9]*\).*/\1/p'; }
restarted() { [ "$(restarts)" -gt "$before" ]; }

number=0
for kind in 'wal writer' flusher compactor backend; do
    number=$((number + 1))
    aidbsql -q -c "PUT before-$number '$kind'"
    holder='' process=$kind
    if [ "$kind" = backend ]; then
        # A client that stays connected, so that there is a backend to kill.
        [ -z "${AIDB_REGRESS_BACKENDS:-}" ] || process='host 1'
        mkfifo pipe.$number
        aidbsql <pipe.$number >client.out 2>&1 &
        holder=$!
        exec {fd}>pipe.$number
        echo 'GET start;' >&"$fd"
        wait_until 10 grep -q 1 client.out
    fi
    before=$(restarts)
    if ! victim=$(server_child "$process"); then
        fail "no child is called $process" "$(for p in $(children "$server_pid"); do process_title "$p"; echo; done)"
        continue
    fi
    kill -KILL "$victim"
    if wait_until 30 restarted && wait_until 30 server_answers; then
        pass "$kind killed: service resumed"
    else
        fail "$kind killed: service did not resume" "$(tail -n 20 data/*.log start.out 2>/dev/null)"
    fi
    is "$(server_pid_now)" "$server_pid" "$kind killed: the postmaster stayed"
    is "$(aidbsql -c "GET before-$number")" "$kind" "$kind killed: what was acknowledged is there"
    exits 0 "$kind killed: writes go on" aidbsql -c "PUT after-$number x"
    if [ -n "$holder" ]; then
        echo 'GET start;' >&"$fd"
        exec {fd}>&-
        wait "$holder"
        is "$?" 2 'the client whose backend died says so'
    fi
done
is "$(aidbsql -c 'COUNT PREFIX before-')" 4 'all of it'
exits 0 'verify online finds no damage' aidbctl verify
exits 0 'stop' aidbctl stop
exits 0 'verify offline finds no damage' aidbctl verify
done_testing
