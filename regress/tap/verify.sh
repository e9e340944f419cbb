# Damage in any file is found, named with file and offset, and never repaired or made worse.
. "$AIDB_REGRESS/lib.sh"

server_init data
server_start
for ((i = 0; i < 2000; i++)); do printf 'PUT key%05d %s;\n' $i "$(printf 'value-%d-%0100d' $i $i)"; done >load.sql
aidbsql -q -f load.sql
aidbsql -q -c FLUSH
aidbsql -q -c 'PUT tail 1'
exits 0 'verify a running server' aidbctl verify
server_stop
exits 0 'verify a stopped one' aidbctl verify
before=$(find data -type f -exec cksum {} + | sort)
exits 0 'once more' aidbctl verify
is "$(find data -type f -exec cksum {} + | sort)" "$before" 'verify writes nothing'

# flip FILE OFFSET: inverts one byte.
flip() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
    # shellcheck disable=SC2059
    printf "\\$(printf %03o $((byte ^ 255)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

table=$(find data/sst -name '*.sst' | sort | head -n 1)
table=${table#data/}
size=$(stat -c %s "data/$table")
for offset in 0 100 $((size / 2)) $((size - 60)) $((size - 1)); do
    rm -rf copy && cp -a data copy
    flip "copy/$table" "$offset"
    exits 1 "a byte of a table changed at $offset of $size" aidbctl verify -D copy
    like "$out" "${table##*/}: ?[0-9]+: " 'file: offset: what'
done
rm -rf copy && cp -a data copy
truncate -s $((size / 2)) "copy/$table"
exits 1 'a table cut short' aidbctl verify -D copy
like "$out$err" "${table##*/}" 'is named'
rm "copy/$table"
exits 1 'a table missing' aidbctl verify -D copy
like "$out$err" "${table##*/}" 'is named'

manifest=$(cd data && ls MANIFEST-* | head -n 1)
rm -rf copy && cp -a data copy
flip "copy/$manifest" $(($(stat -c %s "copy/$manifest") / 3))
run aidbctl verify -D copy
like "$code" '^1$' 'a byte of the manifest changed'
like "$out$err" "$manifest" 'is named'
run aidbctl start -D copy -t 20
unlike "$code" '^0$' 'and the server refuses to start on it'

rm -rf copy && cp -a data copy
echo garbage >copy/CURRENT
exits 1 'CURRENT is garbage' aidbctl verify -D copy
run aidbctl start -D copy -t 20
unlike "$code" '^0$' 'and the server refuses to start on it'

server_start
is "$(aidbsql -c COUNT)" 2001 'the original is as it was'
server_stop
done_testing
