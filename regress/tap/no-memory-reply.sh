# A get whose reply gets no memory is answered all the same: by an error, and those before and behind it as
# they should be.
. "$AIDB_REGRESS/lib.sh"

grep -q '^#define AIDB_FAILPOINTS 1' "$AIDB_BUILDDIR/config.h" 2>/dev/null ||
    skip_all 'not built with --enable-failpoints'

for backends in 0 1; do
    server_init "data-$backends" --set backends=$backends
    export AIDB_FAILPOINTS=
    server_start
    aidbsql -q -c 'PUT a 1; PUT b 2'
    aidbctl failpoint 'get.reply=error(no_memory)@1'
    run timeout 60 aidbsql -c 'GET a'
    is "$code" 1 'an error, and no wait without end'
    like "$err" 'get.reply' 'which says why'
    is "$(timeout 60 aidbsql -c 'GET a; GET b')" $'1\n2' 'the next ones are answered'
    exits 0 'stop' aidbctl stop
done
done_testing
