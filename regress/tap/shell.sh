# aidbsql in scripts: ways in, exit codes, output, data from the command line.
. "$AIDB_REGRESS/lib.sh"

server_init data
server_start

exits 0 'several -c' aidbsql -c 'PUT a 1' -c 'GET a'
is "$out" $'OK\n1' 'in order'
exits 0 '-q' aidbsql -q -c 'PUT a 1; GET a'
is "$out" 1 'prints answers only'
echo 'PUT f 1; GET f' >file.sql
exits 0 '-f' aidbsql -f file.sql
is "$out" $'OK\n1' 'runs a file'
is "$(echo 'GET a' | aidbsql)" 1 'stdin'
exits 1 'no such file' aidbsql -f none.sql

exits 0 'words after --' aidbsql -q -c 'PUT $1 $2' -- "it's; a -- key" $'a "value"\n'
exits 0 'are data' aidbsql --format raw -c 'GET $1' -- "it's; a -- key"
is "$out" $'a "value"' 'byte by byte' # the shell drops the newlines at the end
aidbsql --format raw -n -c 'GET $1' -- "it's; a -- key" >raw.out
is "$(od -An -tx1 raw.out | tr -d ' \n')" "$(printf 'a "value"\n' | od -An -tx1 | tr -d ' \n')" '--format raw -n adds nothing'
aidbsql --format raw -0 -c 'GET a' >raw.out
is "$(od -An -tx1 raw.out | tr -d ' \n')" 3100 '--format raw -0 ends with NUL'
exits 1 'a word that was not given' aidbsql -c 'GET $3' -- one two

exits 0 'missing key' aidbsql -c 'GET nokey'
is "$out$err" '' 'prints nothing'
exits 4 '--strict' aidbsql --strict -c 'GET nokey'
exits 4 'unmet condition' aidbsql -c 'PUT a 2 IF ABSENT'
like "$err" 'expectation failed: ' 'says so'
exits 0 'delete of a missing key' aidbsql -c 'DELETE nokey'
is "$out" OK 'is OK'
exits 1 'error' aidbsql -c 'PUT x 1; FETCH x; PUT y 1'
is "$out" OK 'stops at the first'
exits 0 'so' aidbsql -c 'EXISTS y'
exits 1 '--continue' aidbsql --continue -c 'FETCH x; PUT y 1'
is "$out" OK 'goes on'
exits 4 'the worst code wins' aidbsql --continue -c 'PUT a 2 IF ABSENT; FETCH x'
printf 'PUT a 1;\nGET a;\n  nonsense b;\n' >bad.sql
exits 1 'error in a file' aidbsql -f bad.sql
like "$err" 'bad\.sql:3:3' 'names file, line and column'
exits 1 'input that ends inside BEGIN' aidbsql -c 'BEGIN; PUT lost 1'
is "$(aidbsql -c 'GET lost')" '' 'discards the batch'

version=$(aidbsql -c 'GET a VERSION' | tr -dc '0-9\t ' | awk '{ print $NF }')
exits 0 'IF VERSION with the version that GET showed' aidbsql -c 'PUT a 2 IF VERSION $1' -- "$version"
exits 4 'the second time it is another' aidbsql -c 'PUT a 3 IF VERSION $1' -- "$version"
is "$(aidbsql -c 'GET a')" 2 'only the first was written'

# Values as large as they may be, and one byte more.
head -c 67108864 /dev/zero | tr '\0' v >big
printf 'PUT big ' | cat - big >big.sql
exits 0 'a value of 64 MiB' aidbsql -f big.sql
aidbsql --format raw -n -c 'GET big' >big.out
cmp -s big big.out && pass 'comes back' || fail 'comes back different'
printf 'v' >>big.sql
exits 1 'one byte more' aidbsql -f big.sql
head -c 65536 /dev/zero | tr '\0' k >key
{ printf 'PUT '; cat key; printf ' v'; } >key.sql
exits 0 'a key of 64 KiB' aidbsql -f key.sql
{ printf 'PUT k'; cat key; printf ' v'; } >key.sql
exits 1 'one byte more' aidbsql -f key.sql
rm -f big big.out big.sql

for i in 1 2 3; do aidbsql -q -c "PUT copy/$i 'tab\\there\\nline $i'"; done
aidbsql -q -c "PUT copy/bin x'00ff0a'"
for format in tsv csv jsonl; do
    exits 0 "\\copy to $format" aidbsql -c "\\copy PREFIX copy/ to out.$format"
    aidbsql --format jsonl -c 'SCAN PREFIX copy/' >before.$format
    aidbsql -q -c 'DELETE RANGE PREFIX copy/'
    exits 0 "\\copy from $format" aidbsql -c "\\copy from out.$format"
    aidbsql --format jsonl -c 'SCAN PREFIX copy/' >after.$format
    is "$(cat after.$format)" "$(cat before.$format)" "$format keeps every byte"
done
server_stop
done_testing
