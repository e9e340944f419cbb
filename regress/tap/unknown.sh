# A sync of the log fails while somebody waits for it: who waited is told that nobody knows what became of the
# write, and nothing else; what was acknowledged before is there; the server comes back by itself, a program has
# to open the directory again.
. "$AIDB_REGRESS/lib.sh"

grep -q '^#define AIDB_FAILPOINTS 1' "$AIDB_BUILDDIR/config.h" 2>/dev/null ||
    skip_all 'not built with --enable-failpoints'

restarts() { aidbctl status --json | sed -n 's/.*"crash_restarts":[[:space:]]*\([0-9]*\).*/\1/p'; }
restarted() { [ "$(restarts)" = "$1" ] && server_answers; }

server_init data
export AIDB_FAILPOINTS=
server_start
for count in 1 2; do
    # Answered when it is durable: from here on the log has nothing to sync.
    exits 0 'what is acknowledged' aidbsql -q -c "PUT before-$count yes DURABILITY fsync"
    aidbctl failpoint 'wal.before_write=error(io)@1'
    run aidbsql -c "PUT waiting-$count yes DURABILITY fsync; PUT later-$count yes"
    is "$code" 2 'the write that waited: the connection is lost'
    like "$err" 'the outcome of the write is not known' 'and what became of it is not known'
    like "$err" 'PUT waiting' 'the message shows which one it was'
    unlike "$out" 'OK' 'nothing was acknowledged'
    wait_until 120 restarted $count
    is $? 0 'the server resets, once, and serves again by itself'
    is "$(aidbsql -c "GET before-$count")" yes 'what was acknowledged is there'
    like "$(aidbsql -c "GET waiting-$count")" '^(yes|\(not found\)|)$' 'the other one is there or not'
    is "$(aidbsql -c "COUNT PREFIX later-$count")" 0 'nothing behind it is'
    exits 0 'writes go on' aidbsql -q -c "PUT after-$count yes"
done
like "$(cat data/aidb.log)" 'the log has failed' 'the server log says why'
exits 0 'stop' aidbctl stop
exits 0 'verify finds no damage' aidbctl verify
is "$(aidbsql -c 'COUNT PREFIX after-')" 2 'all of it is there'

# The same in a program that has the directory open.
aidbctl failpoint 'wal.before_write=error(io)@1'
printf 'PUT own yes;\nPUT next yes;\nGET before-1;\n' >own.sql
run aidbsql -f own.sql -D data
is "$code" 1 'a program: an error'
like "$err" 'the outcome of the write is not known' 'and what became of the write is not known'
unlike "$out" 'OK' 'nothing was acknowledged'
is "$(aidbsql -c 'GET before-1; COUNT PREFIX after-')" $'yes\n2' 'opened again it has what it had'
is "$(aidbsql -c 'COUNT PREFIX next')" 0 'and nothing from behind'
exits 0 'and is written again' aidbsql -q -c 'PUT own again'
exits 0 'verify finds no damage' aidbctl verify

# Where clients share a process: a large write is carried out by a thread, and meanwhile the sync of another client's
# write fails in the process.
server_init shared --set backends=1
server_start
printf 'PUT large %s DURABILITY fsync;\n' "$(head -c 1500000 /dev/zero | tr '\0' x)" >large.sql
for count in 1 2 3; do
    exits 0 'what is acknowledged' aidbsql -q -c "PUT before-$count yes DURABILITY fsync"
    aidbctl failpoint 'write.visible=sleep(1000)@1'
    aidbsql -f large.sql >large.out 2>large.err &
    large=$!
    sleep 0.3
    aidbctl failpoint 'wal.before_write=error(io)@1'
    run aidbsql -c "PUT small yes DURABILITY fsync"
    is "$code" 2 'a sync fails: the connection is lost'
    wait "$large"
    is $? 2 'so is that of a large write'
    unlike "$(cat large.out)" 'OK' 'which is not acknowledged'
    like "$(cat large.err)" 'the outcome of the write is not known' 'its outcome is not known'
    wait_until 120 restarted $count
    is $? 0 'the server resets'
done
aidbctl stop
done_testing
