# Who sends bytes that are no protocol loses the connection; the others notice nothing.
. "$AIDB_REGRESS/lib.sh"

server_init data
server_start
port=$(sed -n 's/^[[:space:]]*port:[[:space:]]*\([0-9]*\).*/\1/p' data/aidb.yaml | head -n 1)
aidbsql -q -c 'PUT witness here'

# send BYTES (printf escapes): connects, sends, hangs up after the server did or after two seconds.
send() {
    exec {fd}<>"/dev/tcp/127.0.0.1/$port" || return 1
    # shellcheck disable=SC2059
    printf "$1" >&"$fd" 2>/dev/null
    timeout 2 cat <&"$fd" >/dev/null 2>&1
    exec {fd}>&-
}

send '' && pass 'nothing at all'
send 'GET / HTTP/1.1\r\nHost: x\r\n\r\n' && pass 'a web browser'
send '\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377' && pass 'ones'
send '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0' && pass 'zeros'
send '\026\003\001\002\000\001\000\001\374\003\003' && pass 'a TLS hello'
send '\377\377\377\177AAAAAAAAAAAAAAAA' && pass 'a frame said to be 2 GiB long'
send 'A' && pass 'one byte'
for ((seed = 1; seed <= 20; seed++)); do
    RANDOM=$seed
    bytes=''
    for ((i = 0; i < 64; i++)); do printf -v bytes '%s\\%03o' "$bytes" $((RANDOM % 256)); done
    send "$bytes" || fail "random bytes, seed $seed: could not connect"
done
pass 'random bytes, 20 seeds'

# Fifty connections that say nothing, or stop in the middle.
declare -a held=()
for ((i = 0; i < 20; i++)); do
    exec {fd}<>"/dev/tcp/127.0.0.1/$port" && held+=("$fd")
    printf '\001\002' >&"$fd" 2>/dev/null
done
exits 0 'others are served meanwhile' aidbsql -c 'GET witness'
is "$out" 'here' 'with their data'
for fd in "${held[@]}"; do exec {fd}>&-; done

is "$(server_pid_now)" "$server_pid" 'the server is the same process'
exits 0 'status' aidbctl status --json
like "$out" '"crash_restarts":[[:space:]]*0' 'and no child crashed'
exits 0 'it stops as usual' aidbctl stop
done_testing
