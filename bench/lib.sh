# shellcheck shell=bash
# Helpers of the comparison scripts: finding programs, a working folder that is removed, reading the
# output of the load generators, and tables of medians.
#
# Every measurement becomes one line of $results:
#   row TAB engine TAB round TAB ops_per_s TAB p50_us TAB p99_us TAB p999_us TAB found
# where found is a share of the operations, or "-" where it means nothing, and a figure that a
# program does not give is "-". Medians and ratios are made from these lines at the end.

set -u
export LC_ALL=C

program=${0##*/}
keep=false
work=''
results=''
server_pids=()

die() {
    echo "$program: $*" >&2
    exit 1
}

wrong_usage() {
    echo "$program: $*" >&2
    echo "Try '$program --help'." >&2
    exit 3
}

say() { echo "$*" >&2; }

# find_program NAME: in $AIDB_BIN, the build tree of this checkout, or PATH.
find_program() {
    local name=$1 top candidate
    top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    for candidate in "${AIDB_BIN:+$AIDB_BIN/$name}" "$top/local/build/src/bin/$name/$name" \
        "$top/local/bin/$name"; do
        if [ -n "$candidate" ] && [ -x "$candidate" ]; then
            echo "$candidate"
            return
        fi
    done
    command -v "$name" || die "$name was not found: build it, or set AIDB_BIN to its folder"
}

# --- The working folder, and what must not outlive the script --------------------------------------

stop_pid() {
    local pid=$1 tries
    kill "$pid" 2>/dev/null || return 0
    for ((tries = 0; tries < 300; tries++)); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null
}

clean_up() {
    local pid
    for pid in ${server_pids[@]+"${server_pids[@]}"}; do stop_pid "$pid"; done
    if [ -n "$work" ]; then
        if $keep; then say "kept: $work"; else rm -rf "$work"; fi
    fi
}

# make_work PARENT: a new folder below PARENT, or below a good place for data.
make_work() {
    local parent=${1:-${TMPDIR:-/var/tmp}}
    work=$(mktemp -d "$parent/aidb-bench.XXXXXX") || die "could not make a folder in $parent"
    results=$work/results.tsv
    : >"$results"
    trap clean_up EXIT
    trap 'exit 130' INT TERM
}

# number TEXT: 5m as 5000000, as the programs of AiDb read it (not all peers do).
number() {
    local digits=${1%%[!0-9]*} suffix=${1##*[0-9]}
    [ -n "$digits" ] || wrong_usage "'$1' is not a number"
    case $suffix in
    '') echo "$digits" ;;
    k) echo $((digits * 1000)) ;;
    m) echo $((digits * 1000000)) ;;
    g) echo $((digits * 1000000000)) ;;
    Ki | KiB) echo $((digits << 10)) ;;
    Mi | MiB) echo $((digits << 20)) ;;
    Gi | GiB) echo $((digits << 30)) ;;
    *) wrong_usage "'$1' is not a number" ;;
    esac
}

# --- Results ---------------------------------------------------------------------------------------

# record ROW ENGINE ROUND OPS_PER_S P50 P99 P999 FOUND
record() {
    local IFS=$'\t'
    echo "$*" >>"$results"
}

# read_aidbbench FILE WORKLOAD: the figures of the last result of that workload.
read_aidbbench() {
    awk -F '\t' -v workload="$2" '
        $1 == workload {
            found = $3 > 0 && $1 ~ /^read(random|missing|while)|^seek/ ? sprintf("%.4f", $10 / $3) : "-"
            line = $5 "\t" $6 "\t" $7 "\t" $8 "\t" found
        }
        END { if (line == "") exit 1; print line }' "$1"
}

# table UNIT ENGINE PEER…: one line a row, medians with (min-max), and the ratio of the medians of
# ENGINE to those of each PEER. Rows keep the order in which they were first recorded.
summarise() {
    awk -F '\t' -v names="$*" '
        function human(x) {
            if (x == "-") return "-"
            if (x >= 1e6) return sprintf("%.2fM", x / 1e6)
            if (x >= 1e4) return sprintf("%.0fK", x / 1e3)
            if (x >= 1e3) return sprintf("%.1fK", x / 1e3)
            if (x >= 100) return sprintf("%.0f", x)
            return sprintf("%.2f", x)
        }
        # Sorts values[1..n] and sets low, middle, high.
        function order(text,    n, i, k, t, values) {
            n = split(text, values, " ")
            for (i = 2; i <= n; i++) {
                t = values[i] + 0
                for (k = i - 1; k > 0 && values[k] + 0 > t; k--) values[k + 1] = values[k]
                values[k + 1] = t
            }
            low = values[1]; high = values[n]
            middle = n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
        }
        function cell(row, engine,    key) {
            key = row SUBSEP engine
            if (!(key in rates)) return "-"
            order(rates[key])
            median[key] = middle
            if (low == high) return human(middle)
            return human(middle) " (" human(low) "-" human(high) ")"
        }
        function latency(row, engine, column,    key) {
            key = row SUBSEP engine SUBSEP column
            if (!(key in times)) return "-"
            order(times[key])
            return human(middle)
        }
        !($1 in seen) { seen[$1] = 1; rows[++row_count] = $1 }
        {
            rates[$1, $2] = rates[$1, $2] " " $4
            for (c = 5; c <= 7; c++)
                if ($c != "-") times[$1, $2, c] = times[$1, $2, c] " " $c
            found[$1, $2] = $8
        }
        END {
            count = split(names, engine, " ")
            line = sprintf("%-28s", "")
            for (e = 1; e <= count; e++) line = line sprintf("  %-22s", engine[e])
            for (e = 2; e <= count; e++) line = line sprintf("  %9s", "/ " engine[e])
            print line
            for (r = 1; r <= row_count; r++) {
                line = sprintf("%-28s", rows[r])
                for (e = 1; e <= count; e++) line = line sprintf("  %-22s", cell(rows[r], engine[e]))
                for (e = 2; e <= count; e++) {
                    mine = median[rows[r], engine[1]]; other = median[rows[r], engine[e]]
                    line = line sprintf("  %9s", mine == "" || other + 0 == 0 ? "-" : sprintf("%.2f", mine / other))
                }
                print line
                if (found[rows[r], engine[1]] ~ /[0-9]/) {
                    for (e = 2; e <= count; e++) {
                        d = found[rows[r], engine[1]] - found[rows[r], engine[e]]
                        if (found[rows[r], engine[e]] ~ /[0-9]/ && (d > 0.02 || d < -0.02))
                            print "    found differs: " found[rows[r], engine[1]] " and " found[rows[r], engine[e]]
                    }
                }
            }
            print ""
            line = sprintf("%-28s", "latency in us: p50 p99 p99.9")
            for (e = 1; e <= count; e++) line = line sprintf("  %-24s", engine[e])
            print line
            for (r = 1; r <= row_count; r++) {
                if (latency(rows[r], engine[1], 5) == "-") continue
                line = sprintf("%-28s", rows[r])
                for (e = 1; e <= count; e++)
                    line = line sprintf("  %-24s", latency(rows[r], engine[e], 5) " " \
                        latency(rows[r], engine[e], 6) " " latency(rows[r], engine[e], 7))
                print line
            }
        }' "$results"
}

# describe_machine: what a reader must know to believe the figures.
describe_machine() {
    echo "machine: $(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores," \
        "$(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r)," \
        "$(stat -f -c %T "$work")"
}
