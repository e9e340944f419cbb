# shellcheck shell=bash
# Helpers of the end-to-end tests: throwaway servers, waiting, and checks that print one line each.
#
# regress/run gives a script a temporary folder as its working directory, AIDB_REGRESS (this
# folder), AIDB_REGRESS_PIDS (a file of the servers to stop should the script die) and the programs
# under test in front of PATH. A script sources this file, makes its checks and ends with
# done_testing. Servers are stopped by pid when the script ends, however it ends.

set -u
export LC_ALL=C
unset AIDB_DATA AIDB_URI
export HOME=$PWD # no ~/.aidbsqlrc and no history of the user

checks=0
failures=0
out=''
err=''
code=0

# --- Checks -----------------------------------------------------------------------------------

pass() {
    checks=$((checks + 1))
    echo "ok $checks - $1"
}

fail() {
    checks=$((checks + 1))
    failures=$((failures + 1))
    echo "not ok $checks - $1"
    shift
    for line in "$@"; do printf '%s\n' "$line" | sed 's/^/#   /'; done
}

# run COMMAND…: leaves its exit code in $code, its output in $out and $err.
run() {
    code=0
    "$@" >.out 2>.err </dev/null || code=$?
    out=$(tr -d '\0' <.out)
    err=$(tr -d '\0' <.err)
}

# exits CODE WHAT COMMAND…: runs the command and expects the exit code.
exits() {
    local want=$1 what=$2
    shift 2
    run "$@"
    if [ "$code" = "$want" ]; then
        pass "$what"
    else
        fail "$what" "command: $*" "exit code: $code, expected $want" "stdout: ${out:0:2000}" "stderr: ${err:0:2000}"
    fi
}

is() {
    if [ "$1" = "$2" ]; then pass "$3"; else fail "$3" "got:      ${1:0:2000}" "expected: ${2:0:2000}"; fi
}

# like TEXT REGEX WHAT (extended regular expression)
like() {
    if [[ $1 =~ $2 ]]; then pass "$3"; else fail "$3" "got:            ${1:0:2000}" "should match:   $2"; fi
}

unlike() {
    if [[ $1 =~ $2 ]]; then fail "$3" "got:              ${1:0:2000}" "should not match: $2"; else pass "$3"; fi
}

# skip_all REASON: the machine cannot run this script.
skip_all() {
    echo "# skip: $1"
    exit 77
}

done_testing() {
    if [ "$checks" = 0 ]; then
        echo "# no check was made"
        exit 1
    fi
    echo "1..$checks"
    [ "$failures" = 0 ]
    exit
}

# --- Waiting ----------------------------------------------------------------------------------

# wait_until SECONDS COMMAND…: true as soon as the command is; false when the time is over.
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.05
    done
}

# --- Processes, without ps: a fresh machine may not have it ------------------------------------

# children PID: the pids whose parent is PID.
children() {
    local status pid ppid
    for status in /proc/[0-9]*/status; do
        pid=${status#/proc/}
        pid=${pid%/status}
        ppid=$(sed -n 's/^PPid:[[:space:]]*//p' "$status" 2>/dev/null)
        [ "$ppid" = "$1" ] && echo "$pid"
    done
    return 0
}

process_title() { { tr "\0" " " <"/proc/$1/cmdline"; } 2>/dev/null; }

alive() { kill -0 "$1" 2>/dev/null && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null; }

gone() { ! alive "$1"; }

# --- Servers ----------------------------------------------------------------------------------

port_busy() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A free port below the range from which the system takes its own.
free_port() {
    local port tries
    for ((tries = 0; tries < 100; tries++)); do
        port=$((20000 + RANDOM % 12000))
        if ! port_busy $port; then
            echo $port
            return
        fi
    done
    echo "no free port" >&2
    return 1
}

# server_init DIR [aidbctl init flags…]: makes a data directory and the one that AIDB_DATA names. With
# AIDB_REGRESS_BACKENDS=N in the environment its server has so many processes for all clients.
server_init() {
    local dir=$1
    shift
    [ -z "${AIDB_REGRESS_BACKENDS:-}" ] || set -- --set "backends=$AIDB_REGRESS_BACKENDS" "$@"
    aidbctl init -D "$dir" --port "$(free_port)" "$@" >init.out 2>&1 || {
        cat init.out
        echo "# aidbctl init failed"
        exit 1
    }
    export AIDB_DATA
    AIDB_DATA=$(cd "$dir" && pwd)
}

# server_start: starts the server of AIDB_DATA and sets server_pid.
server_start() {
    aidbctl start -t 60 >start.out 2>&1 || {
        cat start.out
        echo "# aidbctl start failed"
        exit 1
    }
    server_pid=$(server_pid_now)
    [ -z "${AIDB_REGRESS_PIDS:-}" ] || echo "$server_pid" >>"$AIDB_REGRESS_PIDS"
    server_pids="${server_pids:-} $server_pid"
}

server_pid_now() { head -n 1 "$AIDB_DATA/postmaster.pid" 2>/dev/null | tr -cd 0-9; }

server_stop() { aidbctl stop -m "${1:-fast}" >stop.out 2>&1; }

server_answers() { aidbsql -c 'COUNT TO a' >/dev/null 2>&1; }

# server_child WORDS: the pid of the server's first child whose title holds WORDS.
server_child() {
    local pid
    for pid in $(children "$(server_pid_now)"); do
        case $(process_title "$pid") in
        *"$1"*)
            echo "$pid"
            return
            ;;
        esac
    done
    return 1
}

stop_servers() {
    local pid
    for pid in ${server_pids:-}; do
        case $(process_title "$pid") in
        *aidb*) kill -KILL "$pid" 2>/dev/null ;;
        esac
    done
}
trap stop_servers EXIT
trap 'exit 1' TERM INT HUP
