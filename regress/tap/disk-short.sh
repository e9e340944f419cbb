# A small disk that is nearly full. Data that fit twice can be overwritten for ever: log and compactions leave the
# flushes their room. When the disk is full reads go on, and a little room is enough for writes to go on by themselves.
# timeout: 600
. "$AIDB_REGRESS/lib.sh"

mkdir disk
mount -t tmpfs -o size=96m,mode=700 aidb-regress disk 2>/dev/null || skip_all 'a small file system cannot be mounted here'
unmount() {
    umount disk || umount -l disk
}
trap 'stop_servers; unmount' EXIT

server_init disk/data --set memory=128MiB --set memtable_size=4MiB --set batch_max=8MiB \
    --set wal_segment_size=1MiB --set wal_ring_size=1MiB
dd if=/dev/zero of=disk/ballast bs=1M count=29 2>/dev/null
server_start
# 16 MB that do not compress, overwritten in random order.
overwrite() {
    aidbbench --db "aidb+unix:$AIDB_DATA/aidb.sock" --workloads overwrite --num 1600 --value-size 10000 --compression-ratio 1 --threads 2
}
overwrites() { # overwrites N WHAT
    local done=0
    while [ $done -lt "$1" ]; do
        if ! wait_until 180 overwrite; then
            fail "$2" "pass $done: $(overwrite 2>&1 | tail -n 3)" "$(df -k disk)" "$(tail -n 20 "$AIDB_DATA/aidb.log")"
            return
        fi
        done=$((done + 1))
    done
    pass "$2"
}
overwrites 10 'data are overwritten many times in four times their room'
aidbsql -q -c "PUT there 1"
# By one who takes what is freed meanwhile, too.
( while sleep 0.02 && kill -0 $$; do cat /dev/zero >>disk/more; done ) 2>/dev/null &
filler=$!
refused() { ! overwrite; }
wait_until 180 refused
is $? 0 'writes are refused when the disk is full'
is "$(aidbsql -c 'GET there')" 1 'reads are not'
kill $filler
wait $filler 2>/dev/null
rm disk/ballast
overwrites 1 'they go on when 29 MiB are free again'
is "$(aidbsql -c 'GET there')" 1 'and nothing is lost'
# A stop and a start without any room: the one may not be clean, the other may not be; neither loses anything.
aidbsql -q -c "PUT last 1"
cat /dev/zero >disk/rest 2>/dev/null
run aidbctl stop -m fast -t 120
like "$code" '^[01]$' 'a stop on a full disk ends'
wait_until 120 gone "$server_pid"
is $? 0 'and so does the server'
start_full() { # start_full WHAT
    run aidbctl start -t 120
    server_pids="$server_pids $(server_pid_now)"
    like "$code $out$err" '^0|No space left|no space left' "$1"
}
start_full 'a start on a full disk says what it lacks'
rm disk/rest disk/more
aidbctl stop -m fast >/dev/null 2>&1
server_start
is "$(aidbsql -c 'GET there; GET last')" $'1\n1' 'with room again nothing is lost'
server_stop
# What a clean stop gave back has been taken by somebody else.
cat /dev/zero >disk/rest 2>/dev/null
start_full 'and so does one that needs what a clean stop gave back'
rm disk/rest
aidbctl stop -m fast >/dev/null 2>&1
server_start
is "$(aidbsql -c 'GET there; GET last')" $'1\n1' 'with room again nothing is lost'
server_stop
exits 0 'verify finds no damage' aidbctl verify
done_testing
