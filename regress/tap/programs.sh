# Flags that every program answers to, and wrong ones.
. "$AIDB_REGRESS/lib.sh"

for program in aidb aidbctl aidbsql aidbbench; do
    exits 0 "$program --version" $program --version
    like "$out" '^[a-z]+ .*0\.1\.0' "$program --version names the version"
    exits 0 "$program --help" $program --help
    like "$out" "$program" "$program --help names the program"
    is "$err" '' "$program --help prints nothing on stderr"
    run $program --no-such-flag
    unlike "$code" '^0$' "$program --no-such-flag fails"
    like "$err" 'no-such-flag' "$program names the flag that it does not know"
done

exits 3 'aidbsql: unknown flag' aidbsql --no-such-flag
exits 3 'aidbsql: flag without its argument' aidbsql -c
exits 3 'aidbsql: unknown format' aidbsql --format fancy -c COUNT
exits 2 'aidbsql: nobody listens there' aidbsql "aidb://127.0.0.1:$(free_port)" -c COUNT
like "$err" '127\.0\.0\.1' 'the message names the address'
exits 2 'aidbsql: no socket there' aidbsql "aidb+unix:$PWD/none.sock" -c COUNT
like "$err" 'none\.sock' 'the message names the socket'
run aidbsql http://127.0.0.1 -c COUNT
unlike "$code" '^0$' 'aidbsql: a URI of another kind'

exits 4 'aidbctl status: no such directory' aidbctl status -D "$PWD/nowhere"
run aidbctl start -D "$PWD/nowhere"
unlike "$code" '^0$' 'aidbctl start: no such directory'
like "$err" 'nowhere' 'the message names the directory'
run aidbctl dance
unlike "$code" '^0$' 'aidbctl: unknown command'
run env -u AIDB_DATA aidbctl status
unlike "$code" '^0$' 'aidbctl: no directory named'
run aidb
unlike "$code" '^0$' 'aidb: no directory named'

exits 0 'aidb --describe-config' aidb --describe-config
is "$(grep -c . <<<"$out")" "$(awk -F '\t' 'NF == 9' <<<"$out" | grep -c .)" 'every setting is a line of nine columns'
engine=$(awk -F '\t' '$2 == "engine"' <<<"$out" | grep -c .)
if [ "$engine" -lt 20 ] && [ "$engine" -gt 0 ]; then pass 'fewer than 20 engine settings'; else fail "there are $engine engine settings"; fi
is "$(awk -F '\t' '$8 != "reload" && $8 != "restart"' <<<"$out")" '' 'each says reload or restart'

for command in compact 'dump-table x' dump-wal; do
    # shellcheck disable=SC2086
    exits 2 "aidbctl $command --from without a key" aidbctl $command -D "$PWD/nowhere" --from
done
for command in reload compact; do
    exits 0 "aidbctl $command --help" aidbctl $command --help
    unlike "$out" $'usage[^\n]* \n' 'ends its line without a space'
done
done_testing
