# Keys written over and over at full speed, without a pause: compactors always have something to do, and the files of
# the tables that they replace must go nevertheless. Live are 16 MB.
. "$AIDB_REGRESS/lib.sh"

aidbbench --db store --workloads fillrandom,overwrite,overwrite --duration 4 --num 100k --value-size 150 --durability os \
    --set memtable_size=1MiB --set batch_max=1MiB --set cache_size=4MiB --set memory=32MiB >bench.out 2>&1 &
writer=$!
largest=(0 0 0)
while kill -0 "$writer" 2>/dev/null; do
    sleep 0.1
    # Files come and go meanwhile.
    size=$(du -sm store 2>/dev/null | cut -f 1)
    part=$(grep -c '^fillrandom\|^overwrite' bench.out)
    [ "$part" -gt 2 ] || [ "${size:-0}" -le "${largest[part]}" ] || largest[part]=$size
done
wait "$writer"
is $? 0 'twelve seconds of writing'
like "${largest[*]}" '^[1-9][0-9]* [1-9][0-9]* [1-9][0-9]*$' 'were watched'
# A slow machine may only get there later, so what is usual is always allowed.
most=$((largest[0] * 3 / 2 + 50))
[ "$most" -gt 200 ] || most=200
[ "${largest[2]}" -le "$most" ]
is $? 0 "the store stays as large as it was: at most ${largest[*]} MiB in each third"
done_testing
