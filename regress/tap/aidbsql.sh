# aidbsql: flags and their mistakes, output forms, the ways to name a store, streams.
. "$AIDB_REGRESS/lib.sh"

hex() { od -An -v -tx1 "$1" | tr -d ' \n'; }

server_init data
server_start
aidbsql -q -c "PUT a 1; PUT 'b b' 'two\nlines'; PUT x'ff00' x'00ff'; PUT e ''"

# --- rows and how they end
aidbsql -c 'GET a; PUT c 3; COUNT' >out
is "$(hex out)" "310a4f4b0a350a" 'text: every line ends with a newline'
aidbsql -q -c 'DELETE c'
aidbsql -0 -c 'SCAN KEYS' >out
is "$(hex out)" "6100622062006500ff0000" '-0: exact bytes, each row ends with NUL'
aidbsql -n -c 'GET $1' -- 'b b' >out
is "$(cat out)" $'two\nlines' '-n: exact bytes'
is "$(hex out)" "$(printf 'two\nlines' | od -An -tx1 | tr -d ' \n')" '-n: nothing behind them'
aidbsql --format text -n -c 'GET $1' -- 'b b' >out
is "$(cat out)" 'two\nlines' '-n with --format text keeps the escapes'
aidbsql -0 -c 'PUT c 3; GET c' >out
is "$(hex out)" "4f4b0a3300" 'OK is a line in every format'
aidbsql -q -c 'DELETE c'
aidbsql --format csv -c 'SCAN FROM b' >out
is "$(hex out)" "$(printf 'b b,"two\nlines"\ne,\n\377\000,\000\377\n' | od -An -v -tx1 | tr -d ' \n')" 'csv'
is "$(aidbsql --format jsonl -c "SCAN FROM b")" '{"key":"b b","value":"two\nlines"}
{"key":"e","value":""}
{"key_b64":"/wA=","value_b64":"AP8="}' 'jsonl'
is "$(aidbsql --format jsonl -c 'GET a; COUNT; EXISTS a')" $'{"key":"a","value":"1"}\n4\n1' 'jsonl: single answers'
is "$(aidbsql --format csv --header -c 'SCAN LIMIT 1; GET a')" $'key,value\na,1\nvalue\n1' '--header'
is "$(aidbsql --format aligned -c 'GET nokey; GET e; GET a; SCAN PREFIX a')" '(not found)
(empty)
1
 key | value
-----+-------
 a   | 1
(1 row)' 'aligned'
exits 0 '-o' aidbsql -o file.out -c 'GET a'
is "$(cat file.out)$out" 1 'results go to the file'
exits 1 '-o cannot be written' aidbsql -o /nosuchfolder/x -c 'GET a'
if [ -w /dev/full ]; then
    exits 1 'no space for the result' aidbsql -o /dev/full -c 'SCAN'
    like "$err" 'could not write the result' 'says so'
fi
aidbsql -c 'SCAN' | head -n 1 >out
is "$(cat out)" $'a\t1' 'a reader that goes away early is no problem'

# --- usage
for flags in '--format fancy' '-0 -n' '-0 --format csv' '-n --format aligned' '-v novalue' '-v =x' \
    '-v STRICT=perhaps' '-p 0' '-p 70000' '-p x' '-D data aidb://127.0.0.1:1' '-D data -p 1' \
    'aidb://127.0.0.1:70000' 'aidb://a:1 aidb://b:2' '--nosuch' 'http://127.0.0.1' 'aidb://127.0.0.1:port'; do
    # shellcheck disable=SC2086
    exits 3 "usage: $flags" aidbsql $flags -c COUNT
done
exits 3 'ten words behind --' aidbsql -c COUNT -- 1 2 3 4 5 6 7 8 9 10
exits 0 'nine words behind --' aidbsql -c 'EXISTS $1 $9' -- a 2 3 4 5 6 7 8 e
is "$out" 2 'the first and the last'
exits 0 'a word behind -- may look like a flag' aidbsql -c 'EXISTS $1 $2' -- -c --help
is "$out" 0 'is data'
exits 0 '-v' aidbsql -v "k=b b" -c "GET :'k'"
is "$out" 'two\nlines' 'is a variable'

# --- the ways to a store
unset AIDB_DATA
exits 0 'AIDB_DATA' env AIDB_DATA=data aidbsql -c COUNT
exits 0 'AIDB_URI' env "AIDB_URI=aidb+unix:$PWD/data/aidb.sock" aidbsql -c COUNT
exits 0 'AIDB_URI comes before AIDB_DATA' env "AIDB_URI=aidb+unix:$PWD/data/aidb.sock" AIDB_DATA=nowhere aidbsql -c COUNT
exits 0 'flags come before both' env AIDB_URI=aidb://127.0.0.1:1 AIDB_DATA=nowhere aidbsql -D data -c COUNT
exits 0 'a directory in place of a URI' aidbsql data -c COUNT
exits 2 'no such directory' aidbsql -D nowhere -c COUNT
like "$err" 'nowhere' 'is named'
exits 2 'nobody listens' aidbsql aidb://127.0.0.1:1 -c COUNT
aidbsql -D data -c '\conninfo' >out
like "$(cat out)" 'aidb.unix:.*aidb\.sock' '-D uses the server'
cp data/aidb.yaml good.yaml
echo 'nosuch: setting' >>data/aidb.yaml
exits 0 'a broken aidb.yaml does not block -D (server)' aidbsql -D data -c 'GET a'
is "$out$err" 1 'nor is it mentioned'

aidbctl init -D other >/dev/null
aidbsql -D other -q -c 'PUT where other'
cp data/postmaster.pid other/postmaster.pid
exits 0 'a stale postmaster.pid that names the server of another directory' aidbsql -D other -c 'GET where'
is "$out" other 'does not lead there'

# --- streams: each answer before the next statement is read
mkfifo to from
aidbsql -D data <to >from &
exec 5>to 6<from
echo 'PUT s 1;' >&5 && read -r line <&6
is "$line" OK 'the answer to the first statement is there'
echo 'GET s; PUT s' >&5 && read -r line <&6
is "$line" 1 'then to the second'
echo ' 2; GET s;' >&5 && read -r line <&6 && read -r line <&6
is "$line" 2 'and to one that came in two pieces'
exec 5>&- 6<&-
wait $! 2>/dev/null

# --- inputs run in their order, in one session
echo 'PUT o 2; SNAPSHOT; PUT o 3' >one.sql
exits 0 '-c, -f, -c' aidbsql -D data -q -c 'PUT o 1' -f one.sql -c 'GET o; RELEASE; GET o'
is "$out" $'2\n3' 'share a session'
is "$(echo 'GET o' | aidbsql -D data -f -)" 3 '-f - is standard input'
exits 1 'an error' aidbsql -D data -c 'GET o' -c 'nonsense' -c 'GET o'
is "$out" 3 'ends the run'
like "$err" '^-c\[2\]:1:1: error: unknown statement' 'names the flag'
exits 1 'with --continue' aidbsql -D data --continue -c 'nonsense' -c 'GET o'
is "$out" 3 'it goes on'
exits 1 '\i stops the run, too' aidbsql -D data -c '\i nosuch.sql' -c 'GET o'
is "$out" '' 'at once'
echo '\i loop.sql' >loop.sql
exits 1 'files that include each other' aidbsql -D data -f loop.sql
like "$err" 'too deeply' 'end'
exits 1 'BEGIN left open' aidbsql -D data -c 'BEGIN; PUT o 9'
like "$err" 'BEGIN' 'is said'
is "$(aidbsql -D data -c 'GET o')" 3 'nothing of it is written'

# --- \copy to a file
aidbsql -D data -q -c '\copy to out.csv' -c '\copy to out.tsv'
is "$(ls out.*)" $'out.csv\nout.tsv' '\copy leaves no other file'
chmod 640 out.tsv
ln -s out.tsv link.tsv
aidbsql -D data -q -c '\copy PREFIX a to link.tsv'
is "$(stat -c %a out.tsv) $(cat out.tsv)" $'640 a\t1' 'an old file keeps its mode, a link its place'
exits 1 '\copy to a folder that is not there' aidbsql -D data -c '\copy to nosuch/out.csv'
echo keep >kept.csv
exits 1 '\copy to with a wrong bound' aidbsql -D data -c '\copy PREFIX to kept.csv'
is "$(cat kept.csv)" keep 'leaves the old file alone'
printf 'k1,v1\nk2,v2\n' | aidbsql -D data -q -c '\copy from stdin csv'
is "$(aidbsql -D data -c 'GET k1 k2')" $'k1\tv1\nk2\tv2' '\copy from stdin'
seq 1 50000 | sed 's/.*/row\/&\tvalue &/' >many.tsv
exits 0 '\copy of many rows' aidbsql -D data -c '\copy from many.tsv'
is "$out" 'COPY 50000' 'counts them'
is "$(aidbsql -D data -c 'COUNT PREFIX row/; GET row/77777 row/31415')" $'50000\nrow/31415\tvalue 31415' 'writes them'
aidbsql -D data -q -c 'DELETE RANGE PREFIX row/; BEGIN' -c '\copy from many.tsv' -c 'COUNT PREFIX row/; ROLLBACK; COUNT PREFIX row/' >out
is "$(cat out)" $'50000\n0' 'in a batch, and back'

# --- at a prompt, a DELETE RANGE that lacks its bounds
aidbsql -D data -q -c 'PUT last 1; DELETE RANGE'
is "$(aidbsql -D data -c COUNT)" 0 'DELETE RANGE in a script deletes everything'
aidbsql -D data -q -c 'PUT a 1; PUT k1 v1; PUT k2 v2'
if script -qec true /dev/null >/dev/null 2>&1 </dev/null; then
    echo 'DELETE RANGE;' >wipe.sql
    printf '%s\n' 'DELETE RANGE;' 'COUNT;' "DELETE RANGE FROM '';" 'PUT a 1; PUT k1 v1; PUT k2 v2;' \
        '\i wipe.sql' 'PUT a 1; PUT k1 v1; PUT k2 v2;' '\q' |
        HOME=$PWD TERM=dumb script -qec 'aidbsql -D data -X' /dev/null | tr -d '\r' >out
    is "$(grep -c '^error: ' out)" 1 'at the prompt it is refused, but not in a file'
    like "$(cat out)" "hint: Write DELETE RANGE FROM ''" 'the longer form is named'
    is "$(grep -c '^3$' out)" 1 'and nothing is lost'
fi
is "$(aidbsql -D data -c COUNT)" 3 'the longer form and files work'

# --- the same on a directory in this process
export AIDB_DATA=$PWD/data
cp good.yaml data/aidb.yaml
server_stop
exits 0 'the directory itself' aidbsql -D data -c 'GET a; COUNT PREFIX k'
is "$out" $'1\n2' 'holds what the server wrote'
aidbsql -D data -c '\conninfo' >out
like "$(cat out)" 'in this process' '\conninfo says how'
exits 1 'no backends there' aidbsql -D data -c 'SHOW BACKENDS'
echo 'nosuch: setting' >>data/aidb.yaml
exits 0 'a broken aidb.yaml does not block -D' aidbsql -D data -c 'GET a'
is "$out" 1 'reads'
like "$err" 'aidb\.yaml:[0-9]+:1: .*nosuch' 'but is mentioned'
done_testing
