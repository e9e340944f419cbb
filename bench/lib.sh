# shellcheck shell=bash
# Helpers of the scripts: finding programs, a working folder that is removed, reading the output of the
# load generators, rounds.
#
# Every measurement becomes one line of $results:
#   row TAB engine TAB round TAB ops_per_s TAB p50_us TAB p99_us TAB p999_us TAB max_us TAB found
# where found is a share of the operations, or "-" where it means nothing, and a figure that a
# program does not give is "-". `table` makes medians and ratios from these lines.

set -u
export LC_ALL=C

program=${0##*/}
keep=false
work=''
results=''
minutes=''
first_round=1
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
    trap '' INT TERM # a second one must not leave half of it behind
    if [ -n "$work" ] && [ -s "$work/running" ]; then stop_pid "$(cat "$work/running")"; fi
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

# watched OUTPUT COMMAND…: runs a program that may take long, so that the script can be interrupted
# meanwhile. It runs as a child of a subshell, to which the kernel adds the bytes that the child caused
# to be written (pages that it made dirty); that number is left in OUTPUT.written.
watched() {
    local out=$1
    shift
    (
        self=$BASHPID
        "$@" >"$out" 2>"$out.err" &
        echo $! >"$work/running"
        wait $!
        code=$?
        rm -f "$work/running"
        awk '/^write_bytes/ { print $2 }' "/proc/$self/io" >"$out.written"
        exit $code
    ) &
    wait $!
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

# seconds FROM TO, of $EPOCHREALTIME
seconds_between() { awk -v a="$1" -v b="$2" 'BEGIN { print b - a }'; }

divide() { awk -v a="$1" -v b="$2" 'BEGIN { if (b + 0 == 0) print 0; else print a / b }'; }

free_port() {
    local port
    for ((port = 20000 + RANDOM % 10000; port < 32000; port++)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || {
            echo "$port"
            return
        }
    done
    die "no free port"
}

# wait_for WHAT COMMAND…: up to 30 seconds.
wait_for() {
    local what=$1 tries
    shift
    for ((tries = 0; tries < 300; tries++)); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    die "$what did not start; its log is in $work"
}

# compile OUTPUT SOURCE… [-lLIBRARY]…: a program of this folder, with the files of aidbbench at hand.
compile() {
    local out=$1 top
    shift
    top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    mkdir -p "$work/include" && : >"$work/include/config.h"
    # shellcheck disable=SC2086 # "ccache gcc" is two words
    ${CC:-cc} -std=gnu11 -O2 -D_GNU_SOURCE -I"$work/include" -I"$top/src" -I"$top/bench/peers" \
        -o "$out" "$@" -lpthread -lm
}

# --- Results ---------------------------------------------------------------------------------------

# record ROW ENGINE ROUND OPS_PER_S P50 P99 P999 MAX FOUND
record() {
    local IFS=$'\t'
    echo "$*" >>"$results"
}

# shellcheck disable=SC2034 # used by the scripts
columns=$'row\tengine\tround\tops_per_s\tp50_us\tp99_us\tp999_us\tmax_us\tfound'

# read_aidbbench FILE WORKLOAD: the figures of the last result of that workload, from aidbbench or
# one of the programs in peers/.
read_aidbbench() {
    awk -F '\t' -v workload="$2" '
        $1 == workload {
            found = $3 > 0 && $1 ~ /^read(random|missing|while)|^seek/ ? sprintf("%.4f", $10 / $3) : "-"
            line = $5 "\t" $6 "\t" $7 "\t" $8 "\t" $11 "\t" found
        }
        END { if (line == "") exit 1; print line }' "$1"
}

# keep_results FILE HEADER: what --output asks for.
keep_results() {
    [ -n "$1" ] || return 0
    { printf '%s\n' "$2" && cat "$results"; } >"$1" || die "could not write $1"
}

# another_round: whether to begin round $round, of at most $rounds from $first_round on; with a limit of
# $minutes, only if it can be expected to end in time. The first one is always made.
another_round() {
    local took last
    # shellcheck disable=SC2154 # of the scripts
    [ "$round" -lt $((first_round + rounds)) ] || return 1
    if [ "$round" -gt "$first_round" ] && [ -n "$minutes" ]; then
        took=$((SECONDS - rounds_began))
        last=$((SECONDS - round_began))
        if awk -v t="$took" -v l="$last" -v m="$minutes" 'BEGIN { exit !(t + l > m * 60) }'; then
            say "no time for round $round"
            return 1
        fi
    fi
    [ "$round" = "$first_round" ] && rounds_began=$SECONDS
    round_began=$SECONDS
}

# describe_machine: what a reader must know to believe the figures.
describe_machine() {
    echo "machine: $(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores," \
        "$(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r)," \
        "$(df --output=fstype "$work" | tail -n 1)"
}
