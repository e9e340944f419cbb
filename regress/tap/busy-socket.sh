# A socket says several times in a row that it is busy, and has room again before anybody looks: the client gets its
# answers all the same. Whoever waits to be told of room would wait for ever.
. "$AIDB_REGRESS/lib.sh"

command -v strace >/dev/null || skip_all 'strace is not installed'
strace -qq -o /dev/null -e trace=sendto -e inject=sendto:error=EAGAIN:when=1 true 2>/dev/null ||
    skip_all 'processes cannot be traced here'

tracing=''
stop_tracing() {
    [ -z "$tracing" ] || kill "$tracing" 2>/dev/null
    [ -z "$tracing" ] || wait "$tracing" 2>/dev/null
    tracing=''
}
trap 'stop_tracing; stop_servers' EXIT
traced() { grep -q '^TracerPid:[[:space:]]*[1-9]' "/proc/$1/status"; }

server_init data --set backends=1
server_start
exits 0 'a row' aidbsql -q -c 'PUT key value'
host=$(server_child host)
strace -q -p "$host" -o trace -e trace=sendto -e inject=sendto:error=EAGAIN:when=2..5 2>strace.err &
tracing=$!
wait_until 60 traced "$host" || skip_all "the process cannot be traced: $(cat strace.err)"
run timeout 120 "$(command -v aidbsql)" -c 'GET key'
is "$code" 0 'the client is answered'
is "$out" value 'with what it asked for'
stop_tracing
is "$(grep -c EAGAIN trace)" 4 'its socket was busy four times'
exits 0 'stop' aidbctl stop
done_testing
