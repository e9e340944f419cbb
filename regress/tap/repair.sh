# aidbctl repair: a new directory from a damaged one, what was lost is listed, the damaged one stays as it is.
. "$AIDB_REGRESS/lib.sh"

server_init data
server_start
for ((i = 0; i < 3000; i++)); do printf 'PUT key%05d value-%d-%0100d;\n' $i $i $((i * 7919)); done >load.sql
aidbsql -q -f load.sql
aidbsql -q -c FLUSH
exits 1 'a running database is refused' aidbctl repair data fresh
like "$err" 'in use by process' 'and by whom it is used is said'
aidbsql -q -c 'PUT tail 1'
server_stop immediate
before=$(find data -type f -exec cksum {} + | sort)
exits 0 'a sound one loses nothing' aidbctl repair data fresh
like "$out" 'wrote 3001 keys' 'all keys'
like "$out" 'nothing was lost' 'and that is said'
exits 0 'what was made is sound' aidbctl verify -D fresh
exits 1 'a directory that is not empty is refused' aidbctl repair data fresh
exits 1 'one inside of the damaged one, too' aidbctl repair data data/fresh

rm -rf copy fresh && cp -a data copy && rm -f copy/postmaster.pid
table=$(find copy/sst -name '*.sst' | sort | head -n 1)
printf 'XXXXXXXX' | dd of="$table" bs=1 seek=$(($(stat -c %s "$table") / 3)) conv=notrunc status=none
exits 5 'a damaged table' aidbctl repair copy fresh
like "$out" "lost: .*${table##*/}: [0-9]+: [0-9]+ bytes: a data block is damaged; keys from \"key[0-9]+\" to \"key[0-9]+\"" \
    'file, place and keys'
like "$out" '1 part was lost' 'only that'
rm -rf fresh
exits 5 'the same as JSON' aidbctl repair --json copy fresh
like "$out" '"first_key_hex": "6b6579' 'with the keys'

rm -rf fresh copy && cp -a data copy && rm -f copy/postmaster.pid copy/MANIFEST-*
exits 5 'the manifest gone' aidbctl repair copy fresh
like "$out" 'wrote 3001 keys' 'all is found'
like "$out" 'lost: copy/' 'and what is not certain is said'
exits 0 'what was made is sound' aidbctl verify -D fresh
rm -rf fresh
mkfifo pipe
exec 9<>pipe
dd if=/dev/zero of=pipe bs=512 oflag=nonblock 2>/dev/null # full: the repair waits before its last words
aidbctl repair copy fresh >pipe 2>/dev/null 9>&- &
repair=$!
wait_until 30 test -s fresh/CURRENT
exits 2 'a store that is being repaired cannot be opened' aidbsql -D copy -c 'PUT a 1'
like "$err" "copy is in use by process $repair" 'and by whom it is used is said'
rm -rf other
exits 1 'nor repaired twice' aidbctl repair copy other
cat <&9 >/dev/null &
reader=$!
wait $repair
is "$?" 5 'the repair ends as ever'
kill $reader
exec 9>&-
is "$(ls copy/postmaster.pid 2>/dev/null)" '' 'and gives its lock back'
is "$(find data -type f -exec cksum {} + | sort)" "$before" 'repair writes nothing to the damaged one'
exits 4 'no such directory' aidbctl repair nowhere other
exits 2 'usage' aidbctl repair
done_testing
