# The wall clock jumps, forwards and backwards, by hours and by years, past 2038: nothing that waits notices, and
# times in the log never go back.
# timeout: 600
. "$AIDB_REGRESS/lib.sh"

shim=$AIDB_BUILDDIR/src/torture/clock.so
[ -f "$shim" ] || skip_all "there is no $shim"
if ldd "$(command -v aidb)" | grep -q 'lib[at]san'; then
    skip_all 'a sanitizer wants to be loaded first'
fi
server_init data --set statement_timeout=300s
export AIDB_CLOCK_FILE=$PWD/clock
clock() { echo "$1" >clock.new && mv clock.new clock; }
now=$(date +%s)
hour=3600 year=31557600
# Seconds to just before the 32 bits of old clocks run out, and to just before 1970.
before_2038=$((2147483647 - now - 1)) before_1970=$((-now - 10))

clock 0
export LD_PRELOAD=$shim
server_start
unset LD_PRELOAD
is "$(LD_PRELOAD=$shim date +%s | cut -c1-6)" "$(date +%s | cut -c1-6)" 'the clock can be set'
status_of() { aidbsql -c 'SHOW STATUS' | sed -n "s/^$1[^0-9]*\([0-9]*\).*/\1/p"; }
durable() { [ "$(status_of durable_lsn)" = "$(status_of visible_lsn)" ]; }
stopped() { ! aidbctl status; }
count=0
for step in $hour -$hour $((10 * year)) $((-10 * year)) $before_2038 $((before_2038 + hour)) $before_1970 0 86400 -1; do
    count=$((count + 1))
    # A silent connection has 15 s to say something, by the monotonic clock.
    port=$(aidbctl status --json | sed 's/.*"tcp_uri": "aidb:\/\/[^"]*:\([0-9]*\)".*/\1/')
    exec 9<>"/dev/tcp/127.0.0.1/$port"
    clock "$step"
    run aidbsql -c "PUT step$count '$step'; PUT last $count DURABILITY os; PUT later $count DURABILITY async"
    is "$code" 0 "writes after a jump to $step s"
    run aidbsql -c "GET step$count"
    like "$out" "$step" 'and reads'
    read -r -t 0.1 -u 9 -N 1 _
    is $(($? > 128)) 1 'a silent connection is not cut by the jump'
    exec 9>&-
    wait_until 120 durable || fail 'what was written without sync is synced as soon as ever'
    uptime=$(status_of uptime_seconds)
    like "$uptime" '^[0-9]{1,10}$' 'the uptime is one'
    run aidbctl status
    unlike "$out" 'up [0-9]{11}' 'for aidbctl, too'
done
# A leap second, which the clock shows twice: 2016-12-31 23:59:59.
leap=$((1483228799 - now))
for step in $leap $((leap - 1)); do
    clock "$step"
    exits 0 "writes at a leap second, clock $step" aidbsql -q -c "PUT leap '$step'"
done
# A process dies, and the clock jumps while the server recovers from it.
for step in $((10 * year)) $((-10 * year)); do
    kill -KILL "$(server_child flusher)"
    clock "$step"
    wait_until 120 server_answers
    is "$(aidbsql -c 'GET last')" $count "a recovery during a jump to $step s"
done
# The clock jumps back and forth all the time.
clock_jumps() { while kill -0 $$ 2>/dev/null; do clock $hour && sleep 0.01 && clock -$hour && sleep 0.01; done; }
clock_jumps &
jumper=$!
run aidbsql -c "$(for n in {1..40}; do echo "PUT jump $n DURABILITY fsync;"; done) GET jump"
is "$code ${out##*$'\n'}" '0 40' 'forty synced writes while the clock jumps to and fro'
LD_PRELOAD=$shim aidbctl restart -t 120 >restart.out 2>&1
is $? 0 'a restart meanwhile'
server_pid=$(server_pid_now)
[ -z "${AIDB_REGRESS_PIDS:-}" ] || echo "$server_pid" >>"$AIDB_REGRESS_PIDS"
server_pids="$server_pids $server_pid"
is "$(aidbsql -c 'GET jump')" 40 'loses nothing'
kill $jumper
wait $jumper 2>/dev/null
# Who says nothing is cut when his time is over, although the clock says that it is ten years before.
clock 0
port=$(aidbctl status --json | sed 's/.*"tcp_uri": "aidb:\/\/[^"]*:\([0-9]*\)".*/\1/')
echo 'authentication_timeout: 1s' >>data/aidb.yaml
aidbctl reload >/dev/null
exec 9<>"/dev/tcp/127.0.0.1/$port"
clock $((-10 * year))
timeout 120 cat <&9 >silent.out
is $? 0 'a silent connection is cut in time after a jump back'
exec 9>&-
server_stop
sed -i '/^authentication_timeout/d' data/aidb.yaml
# A start at each of these times, and a crash.
for step in $((-10 * year)) $before_2038 $hour; do
    clock "$step"
    LD_PRELOAD=$shim server_start
    aidbsql -q -c "PUT start '$step'"
    is "$(aidbsql -c 'GET last')" $count "a start at $step s"
    kill -9 "$(server_pid_now)"
    wait_until 120 stopped
done
exits 0 'all is sound' aidbctl verify
times=$(aidbctl dump-wal --from 0 2>/dev/null | sed -n 's/^# record .*time \([0-9]*\) us.*/\1/p')
[ -n "$times" ] || times=$(aidbctl dump-wal | sed -n 's/^# record .*time \([0-9]*\) us.*/\1/p')
like "$(echo "$times" | grep -c .)" '^[1-9][0-9]*$' 'the log has records'
is "$(echo "$times" | sort -n)" "$times" 'times in the log never go back'
server_start
is "$(aidbsql -c 'GET last')" $count 'and with the real clock'
server_stop
done_testing
