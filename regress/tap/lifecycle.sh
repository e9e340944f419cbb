# init, start, status, reload, restart, stop, and doing them at the wrong time.
. "$AIDB_REGRESS/lib.sh"

port=$(free_port)
exits 0 'init' aidbctl init -D data --port "$port"
exits 1 'init again refuses' aidbctl init -D data --port "$port"
like "$err" 'data' 'and names the directory'
mkdir full && touch full/file
exits 1 'init in a directory with something in it' aidbctl init -D full
is "$(ls full)" 'file' 'which it leaves alone'
like "$(cat data/aidb.yaml)" "port:[[:space:]]*$port" 'the port is in aidb.yaml'
like "$(cat data/aidb.yaml)" '#' 'which has comments'
is "$(stat -c %a data)" '700' 'only the owner reads the data directory'
exits 1 'init with an unknown setting' aidbctl init -D other --set no_such_thing=1
like "$err" 'no_such_thing' 'and names it'

export AIDB_DATA=$PWD/data
exits 3 'status before start' aidbctl status
exits 1 'stop before start' aidbctl stop
exits 0 'check-config' aidbctl check-config
server_start
exits 0 'status' aidbctl status
exits 0 'status --json' aidbctl status --json
like "$out" '"state":[[:space:]]*"(ready|running)"' 'state'
like "$out" "\"pid\":[[:space:]]*$server_pid" 'pid'
like "$out" "\"uri\":[[:space:]]*\"aidb" 'uri'
like "$out" '"version":[[:space:]]*"0\.1\.0' 'version'
like "$out" '"uptime_seconds":[[:space:]]*[0-9]' 'uptime'
like "$out" '"crash_restarts":[[:space:]]*0' 'no crash yet'
exits 1 'start of a running server' aidbctl start
like "$out$err" "$server_pid" 'names its pid'
exits 0 'it still runs' aidbctl status
run aidb -D data
unlike "$code" '^0$' 'a second postmaster refuses'
exits 0 'by port' aidbsql "aidb://127.0.0.1:$port" -c 'PUT a 1'
exits 0 'by -h and -p' aidbsql -h 127.0.0.1 -p "$port" -c 'GET a'
is "$out" '1' 'the same data'
exits 0 'by directory' aidbsql -D data -c 'GET a'
is "$out" '1' 'the same data'

exits 0 'reload' aidbctl reload
exits 0 'restart' aidbctl restart
[ "$(server_pid_now)" != "$server_pid" ] && pass 'another process runs' || fail 'the pid did not change'
server_pids="$server_pids $(server_pid_now)"
echo "$(server_pid_now)" >>"$AIDB_REGRESS_PIDS"
exits 0 'read after restart' aidbsql -c 'GET a'
is "$out" '1' 'the value is there'

for mode in smart fast immediate; do
    pid=$(server_pid_now)
    exits 0 "stop -m $mode" aidbctl stop -m $mode
    wait_until 10 gone "$pid" && pass 'the process is gone' || fail 'the process is still there'
    exits 3 'status says stopped' aidbctl status
    exits 2 'clients are refused' aidbsql "aidb+unix:$PWD/data/aidb.sock" -c 'GET a'
    exits 0 'the directory can be opened without a server' aidbsql -c 'GET a'
    is "$out" '1' 'the same data'
    server_start
    exits 0 "read after $mode stop" aidbsql -c 'GET a'
    is "$out" '1' 'the value is there'
done

# A process that dies while the server waits for its clients: it ends, but not cleanly.
stopping() { aidbctl status --json | grep -q '"state":[[:space:]]*"stopping"'; }
mkfifo client
aidbsql <client >client.out 2>&1 &
client=$!
exec 9>client
echo 'GET a;' >&9
wait_until 10 grep -q 1 client.out
for victim in flusher postmaster; do
    aidbctl stop -m smart >stop.out 2>stop.err &
    stop=$!
    wait_until 10 stopping
    pid=$server_pid
    [ $victim = postmaster ] || pid=$(server_child $victim)
    kill -KILL "$pid"
    wait $stop
    is "$?" 1 "stop: its $victim dies meanwhile"
    like "$(cat stop.err)" 'without a clean stop' 'the message says it'
    unlike "$(cat stop.out)" 'stopped' 'rather than that all is well'
    exits 3 'status says stopped' aidbctl status
    exec 9>&-
    wait $client
    server_start
    exits 0 'the next start recovers' aidbsql -c 'GET a'
    is "$out" '1' 'the value is there'
    aidbsql <client >client.out 2>&1 &
    client=$!
    exec 9>client
    echo 'GET a;' >&9
    wait_until 10 grep -q 1 client.out
done
exec 9>&-
wait $client

kill -KILL "$server_pid"
wait_until 10 gone "$server_pid"
exits 3 'after kill -9 of the postmaster: stopped' aidbctl status
server_start
exits 0 'read after kill -9' aidbsql -c 'GET a'
is "$out" '1' 'the value is there'

exits 1 'a port that is taken' bash -c "aidbctl init -D clash --port $port && aidbctl start -D clash -t 20"
like "$out$err" "$port" 'the message names the port'

chmod 777 data
server_stop
exits 1 'a data directory that others can write' aidbctl start
like "$out$err" 'data' 'the message names it'
chmod 700 data
done_testing
