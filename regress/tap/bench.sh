# What the scripts of bench make of measurements: medians, ratios, the better RocksDB, documents.
. "$AIDB_REGRESS/lib.sh"

bench=$AIDB_REGRESS/../bench
[ -x "$bench/table" ] || skip_all 'bench is not here'

row() { # ROW ENGINE ROUND RATE [P50 P99 P999 MAX [FOUND]]
    local IFS=$'\t'
    echo "$1	$2	$3	$4	${5:--}	${6:--}	${7:--}	${8:--}	${9:--}"
}
header=$'row\tengine\tround\tops_per_s\tp50_us\tp99_us\tp999_us\tmax_us\tfound'
mkdir results
{
    echo "$header"
    row fillrandom aidb 1 900 1 2 3 4
    row fillrandom rocksdb-1.0 1 100 5 6 7 8
    row fillrandom rocksdb-2.0 1 300 5 6 2 8
    row fillrandom aidb 2 500 1 2 3 6
    row fillrandom aidb 3 600 1 2 3 5
    row readrandom aidb 1 100 1 1 1 1 0.60
    row readrandom rocksdb-1.0 1 200 1 1 1 1 0.70
    row 'disk bytes a record' aidb 1 80
    row 'disk bytes a record' rocksdb-1.0 1 40
    row 'disk bytes a record' rocksdb-2.0 1 50
} >results/embedded-100.tsv

exits 0 'plain figures' "$bench/table" --plain results/embedded-100.tsv
is "$(sed -n 1p <<<"$out")" $'fillrandom\trocksdb\t600\t300\t2\t0' 'a median, beside the faster of two'
is "$(sed -n 3p <<<"$out")" $'disk bytes a record\trocksdb\t80\t40\t2\t1' 'of bytes the smaller is the better'
exits 0 'latencies' "$bench/table" --plain --latency results/embedded-100.tsv '^fill'
is "$(sed -n 1p <<<"$out")" $'fillrandom\taidb\t1\t2\t3\t5' 'are medians too'
is "$(wc -l <<<"$out")" 3 'of the rows that match'
exits 0 'a table' "$bench/table" results/embedded-100.tsv
like "$out" 'fillrandom +600 \(500-900\) +100 +300 +2\.00' 'has medians, min-max and the ratio'
like "$out" 'found differs in readrandom: 0\.60 .* 0\.70' 'says when not the same was found'
exits 0 'Markdown' "$bench/table" --markdown --short results/embedded-100.tsv fillrandom
is "$(tail -n 1 <<<"$out")" '| fillrandom | 600 | 300 | 2.00 |' 'for documents'
exits 1 'no such row' "$bench/table" results/embedded-100.tsv nothing
exits 3 'no file' "$bench/table"
echo nonsense >other.tsv
exits 1 'another file' "$bench/table" other.tsv

# A tree of its own, because the READMEs lie beside the folder of the scripts.
mkdir tree tree/doc && cp -R "$bench" tree/bench && rm -rf tree/bench/results && mv results tree/bench/results
printf 'date: 2026-01-02\ncommit: abc\ncommand: bench/compare-embedded --num 5\nmachine: a machine%080d\npeer: RocksDB 1.0 (here)\nrounds: 1; medians\n' 0 \
    >tree/bench/results/embedded-100.txt
for name in README.md README.zh-CN.md; do
    printf 'before\n<!-- measured: embedded -->\n\nold\n\n<!-- end -->\nbetween\n<!-- measured: server -->\n\nkept\n\n<!-- end -->\nafter\n<!-- measured: machine -->\n<!-- end -->\n' >tree/$name
done
exits 0 'report' tree/bench/report
is "$(grep -c 'old' tree/README.md)" 0 'replaces what was measured'
like "$(cat tree/README.md)" '\| fillrandom \| 600 \| 300 \| 2\.00 \|' 'by the new table'
is "$(grep -E '^(before|between|kept|after)$' tree/README.zh-CN.md | tr '\n' ' ')" 'before between kept after ' 'and nothing else'
like "$(cat tree/README.md)" 'not good yet' 'a README names what is worse'
is "$(awk 'length > 110' tree/README.md)" '' 'in lines of a width to read'
document=$(cat tree/doc/benchmarks.md)
like "$document" 'Measured 2026-01-02 with abc: a machine' 'the document says when and on what'
like "$document" '3 rounds; medians' 'counts the rounds'
like "$document" 'RocksDB: readrandom 0\.50, disk bytes a record 2\.00' 'lists what is worse'
like "$document" 'RocksDB, p99\.9: fillrandom 1\.50' 'also in percentiles'
like "$document" '\(not measured\)' 'and what was not measured'

for script in all compare-embedded compare-server limits plot report scale stall table; do
    exits 0 "$script --help" "$bench/$script" --help
done
done_testing
