# aidbbench: ways in, workloads and what they find, output forms, mistakes.
. "$AIDB_REGRESS/lib.sh"

columns=$'workload\tthreads\tops\tseconds\tops_per_s\tp50_us\tp99_us\tp999_us\tbytes\tfound\tmax_us'

# field WORKLOAD COLUMN: of the last TSV output in $out.
field() { awk -F '\t' -v w="$1" -v c="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == c) k = i } $1 == w { print $k }' <<<"$out"; }

# between VALUE LOW HIGH WHAT
between() {
    if awk -v x="$1" -v a="$2" -v b="$3" 'BEGIN { exit !(x >= a && x <= b) }' </dev/null; then
        pass "$4"
    else
        fail "$4" "got: $1, expected $2 to $3"
    fi
}

# --- Wrong usage -----------------------------------------------------------------------------------

exits 3 'no store' aidbbench --workloads fillseq
like "$err" '--db' 'names the option'
exits 3 'no workload' aidbbench --db store
exits 3 'unknown workload' aidbbench --db store --workloads fillsec
like "$err" "'fillsec'" 'names it'
exits 3 'not a number' aidbbench --db store --workloads fillseq --num many
exits 3 'unknown setting' aidbbench --db store --workloads fillseq --set colour=blue
like "$err" 'colour' 'names it'
exits 3 'bad value of a setting' aidbbench --db store --workloads fillseq --set block_size=blue
exits 3 'an address of another kind' aidbbench --db http://127.0.0.1 --workloads readrandom
exits 2 'nobody listens there' aidbbench --db "aidb://127.0.0.1:$(free_port)" --workloads readrandom
exits 2 'no socket there' aidbbench --db "aidb+unix:$PWD/none.sock" --workloads readrandom
exits 1 'nothing to read' aidbbench --db nowhere --workloads readrandom
if [ -e nowhere ]; then fail 'makes no directory to read from'; else pass 'makes no directory to read from'; fi

# --- A directory -----------------------------------------------------------------------------------

exits 0 'fill and read' aidbbench --db store --num 5k --seed 1 --format tsv \
    --workloads fillrandom,readrandom,readmissing,seekrandom
is "$err" '' 'no progress when stderr is no terminal'
is "$(head -n 1 <<<"$out")" "$columns" 'TSV: names of columns'
is "$(awk -F '\t' 'NF != 11' <<<"$out")" '' 'TSV: eleven columns'
is "$(tail -n +2 <<<"$out" | cut -f 2- | tr -d '0-9.\t\n')" '' 'TSV: plain numbers'
is "$(field fillrandom ops)" 5000 'fillrandom: as many as keys'
is "$(field fillrandom bytes)" 580000 'fillrandom: bytes of keys and values'
between "$(field readrandom found)" 3000 3350 'readrandom finds 63%'
between "$(field seekrandom found)" 3000 3350 'seekrandom as well'
is "$(field readmissing found)" 0 'readmissing finds nothing'
is "$(field readmissing bytes)" 0 'and reads nothing'

exits 1 'a second fill' aidbbench --db store --workloads fillseq --num 5k
like "$err" 'not empty' 'is refused'
exits 0 'but not with --use-existing' aidbbench --db store --workloads fillseq,readrandom --num 5k \
    --use-existing --format tsv
is "$(field readrandom found)" 5000 'which writes to it'
exits 0 'other workloads need no flag' aidbbench --db store --num 5k --format tsv --seed 2 --threads 2 \
    --workloads deleterandom,readseq,readreverse,overwrite --reads 100k
between "$(field readseq ops)" 1200 1500 'two passes of deleterandom leave 13%, to each of two readers'
is "$(field readseq ops)" "$(field readreverse ops)" 'the same backward'
is "$(field overwrite ops)" 10000 'each thread does all operations'

exits 0 'several fills in one run' aidbbench --db fills --num 4k --format tsv \
    --workloads fillseq,readrandom,fillrandom,readseq,fillsync,readseq
is "$(field readrandom found)" 4000 'the first fills all'
between "$(field readseq ops | head -n 1)" 2400 2650 'the second begins with an empty store'
is "$(field fillsync ops)" 4 'fillsync writes a thousandth'
between "$(field readseq ops | tail -n 1)" 1 4 'into an empty store'

exits 0 'reads and writes in batches' aidbbench --db batches --num 5k --batch 16 --format tsv \
    --workloads fillseq,readrandom --reads 5003 --key-size 3 --value-size 1000 --set block_size=16KiB
is "$(field fillseq ops)" 5000 'all operations of a batch count'
is "$(field fillseq bytes)" 5015000 'sizes of keys and values'
is "$(field readrandom found)" 5003 'the last batch may be smaller'

for shape in number text prefix binary; do
    exits 0 "keys of shape $shape" aidbbench --db "shape-$shape" --num 3k --key-shape $shape --key-size 20 \
        --workloads fillseq,readrandom,readmissing,readseq --format tsv
    is "$(field readrandom found),$(field readmissing found),$(field readseq found)" 3000,0,3000 'all are found'
done

exits 0 'every ycsb workload' aidbbench --db ycsb --num 2k --reads 3k --format tsv --warmup 1 \
    --workloads fillseq,ycsba,ycsbb,ycsbc,ycsbd,ycsbe,ycsbf,compact,readseq --seek-nexts 3
is "$(wc -l <<<"$out")" 10 'a row each'
is "$(field ycsbc found)" 3000 'ycsbc finds all'
between "$(field ycsba found)" 1350 1650 'half of ycsba reads'
is "$(field ycsbf found)" 3000 'ycsbf always reads'
between "$(field readseq ops)" 2220 2390 'ycsbd and ycsbe insert 5%'

exits 0 '--duration' aidbbench --db ycsb --num 2k --duration 200ms --workloads readrandom,readwhilewriting --format tsv
between "$(field readrandom seconds)" 0.2 30 'lasts that long'
exits 0 '--format json' aidbbench --db ycsb --num 2k --workloads readrandom --format json --seed 7
like "$out" '"seed":7' 'has the settings'
like "$out" '"workload":"readrandom","threads":1,"ops":2000,' 'and the results'
exits 0 'text' aidbbench --db ycsb --num 2k --workloads readrandom
like "$out" 'readrandom +1 +2000 .* 2000 of 2000' 'says what was found'

# --- A server --------------------------------------------------------------------------------------

server_init data
server_start
uri="aidb+unix:$AIDB_DATA/aidb.sock"
exits 1 "a server's directory" aidbbench -D data --workloads readrandom
like "$err" 'aidb(://|\+unix:)' 'the message names the address'
exits 3 '--set on a server' aidbbench --db "$uri" --workloads readrandom --set block_size=8KiB

exits 0 'fill through a unix socket' aidbbench --db "$uri" --num 5k --workloads fillseq --format tsv --pipeline 16
is "$(field fillseq ops)" 5000 'writes all'
exits 0 'connections and pipelines' aidbbench --db "$uri" --num 5k --format tsv --threads 2 --connections 5 \
    --pipeline 7 --workloads readrandom,overwrite,ycsba,ycsbd,deleterandom
is "$(field readrandom found)" 10000 'all gets are answered'
is "$(field overwrite ops)" 10000 'all writes too'
between "$(field ycsbd found)" 9200 9800 'ycsbd finds what it inserted'
exits 1 'a second fill' aidbbench --db "$uri" --workloads fillrandom --num 5k
like "$err" 'not empty' 'is refused'
exits 0 'others' aidbbench --db "$uri" --num 5k --reads 500 --writes 500 --format tsv --seek-nexts 4 --batch 10 \
    --workloads readwhilewriting,seekrandom,readseq,readreverse,ycsbe,ycsbf,compact
is "$(wc -l <<<"$out")" 8 'a row each'

exits 0 'a connection for each get' aidbbench --db "$uri" --num 5k --reads 20 --workloads connect --threads 2 --format tsv
is "$(field connect ops)" 40 'makes as many as it should'

port=$(sed -n 's/^port:[[:space:]]*//p' data/aidb.yaml | head -n 1)
exits 0 'TCP' aidbbench --db "aidb://127.0.0.1:$port" --num 5k --workloads readrandom --durability async

# The server goes away in the middle of reads, of writes, and of pipelined ones.
bench_is_busy() { aidbsql -c 'SHOW BACKENDS' | grep -q aidbbench; }
for how in 'readrandom' 'overwrite' 'overwrite --pipeline 16 --connections 4' 'readrandom --pipeline 16'; do
    # shellcheck disable=SC2086 # a workload and options
    aidbbench --db "$uri" --num 5k --duration 60 --threads 2 --workloads $how >lost.out 2>lost.err &
    bench_pid=$!
    wait_until 30 bench_is_busy || fail "aidbbench is among the backends ($how)"
    server_stop immediate
    wait $bench_pid
    is $? 2 "the connection is lost ($how)"
    server_start
done
server_stop
exits 2 'the server is gone' aidbbench --db "$uri" --workloads readrandom

done_testing
