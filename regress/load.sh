# shellcheck shell=bash
# Load for the crash campaigns: writers that note what was acknowledged, and a check against it.
#
# Writer W puts the keys wW/0, wW/1, … in order, one statement each, waiting for each answer, and
# keeps the highest number acknowledged in the file acked.W. When its client fails it connects again
# and goes on with the number that it has no answer for. So at any moment every key up to acked.W
# must be there with its value, and at most one more may be.

load_pids=''

load_writer() {
    local writer=$1 next in out answer client
    next=$(($(cat "acked.$writer" 2>/dev/null || echo -1) + 1))
    trap 'exit 0' TERM
    while [ ! -e load.stop ]; do
        rm -f "in.$writer.$next" "out.$writer.$next" # of a writer that was stopped in here
        mkfifo "in.$writer.$next" "out.$writer.$next" || exit 1
        aidbsql <"in.$writer.$next" >"out.$writer.$next" 2>/dev/null &
        client=$!
        exec {in}>"in.$writer.$next" {out}<"out.$writer.$next"
        rm -f "in.$writer.$next" "out.$writer.$next"
        while [ ! -e load.stop ]; do
            # Values of very different sizes, so that records span blocks and segments.
            printf "PUT w%d/%d '%d:%0*d';\n" "$writer" "$next" "$next" $((next % 97 * next % 1009 + 1)) 0 >&"$in" 2>/dev/null || break
            IFS= read -r -t 60 -u "$out" answer || break
            [ "$answer" = OK ] || break
            echo "$next" >"acked.$writer.new" && mv "acked.$writer.new" "acked.$writer"
            next=$((next + 1))
        done
        exec {in}>&- {out}<&-
        wait "$client" 2>/dev/null
        sleep 0.05
    done
}

load_start() {
    local writer
    rm -f load.stop
    for ((writer = 1; writer <= $1; writer++)); do
        (trap '' PIPE; load_writer "$writer") &
        load_pids="$load_pids $!"
    done
    writers=$1
}

load_stop() {
    touch load.stop
    # shellcheck disable=SC2086
    wait $load_pids 2>/dev/null
    load_pids=''
}

# load_check WHAT: every acknowledged key is there with the right value.
load_check() {
    local writer acked missing
    for ((writer = 1; writer <= writers; writer++)); do
        acked=$(cat "acked.$writer" 2>/dev/null || echo -1)
        if ! aidbsql -c "SCAN PREFIX w$writer/" >"found.$writer" 2>scan.err; then
            fail "$1: could not read back" "$(cat scan.err)"
            return 1
        fi
        missing=$(awk -F '\t' -v acked="$acked" '
            {
                split($1, part, "/")
                n = part[2] + 0
                split($2, value, ":")
                if (value[1] != n || length(value[2]) != n % 97 * n % 1009 + 1) {
                    print "wrong value: " substr($0, 1, 80)
                    if (++wrong > 5) exit
                }
                seen[n] = 1
                if (n > last) last = n
            }
            END {
                for (n = 0; n <= acked; n++) if (!(n in seen)) { print "lost: " n " of " acked; if (++lost > 5) exit }
            }' "found.$writer")
        if [ -n "$missing" ]; then
            fail "$1: writer $writer" "$missing"
            return 1
        fi
    done
    pass "$1: $(cat acked.* | awk '{ n += $1 + 1 } END { print n }') acknowledged writes are there"
}
