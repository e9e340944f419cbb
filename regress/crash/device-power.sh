# Power cuts of a real file system on a block device: ext4, on a loop device, on a disk image that nbdkit serves.
# Under load nbdkit is stopped, so that nothing more reaches the image; a copy of the image is the disk after the
# cut. What the kernel and ext4 had not written is lost, as in a machine. Needs root, nbdkit, nbdfuse and
# mkfs.ext4; skipped where they are missing. A release: AIDB_ROUNDS=500, and AIDB_FILESYSTEM=xfs.
# timeout: 300
. "$AIDB_REGRESS/lib.sh"
. "$AIDB_REGRESS/load.sh"

filesystem=${AIDB_FILESYSTEM:-ext4}
for tool in nbdkit nbdfuse losetup "mkfs.$filesystem"; do
    command -v "$tool" >/dev/null || skip_all "$tool is not installed"
done
if [ ! -e /dev/fuse ] || [ ! -e /dev/loop-control ]; then
    skip_all 'no fuse or no loop devices here'
fi
seed=${AIDB_SEED:-$(date +%s)}
rounds=${AIDB_ROUNDS:-20}
RANDOM=$((seed % 32768))
echo "# seed $seed (AIDB_SEED), $rounds rounds (AIDB_ROUNDS), $filesystem"
# The image is written around by every sync: in memory where there is some.
images=$PWD/images
mkdir images device disk
if mount -t tmpfs -o size=1g,mode=700 aidb-regress images 2>/dev/null; then
    images_mounted=yes
fi
mounted='' device_pid='' disk_pid=''

disk_mounted() { mount -t "$filesystem" -o loop device/nbd disk 2>mount.err; }
device_there() { [ -s device/nbd ]; }

# disk_on: the image becomes ./disk.
disk_on() {
    rm -f nbd.sock
    nbdkit -f -U nbd.sock file "$images/disk" 2>nbdkit.err &
    disk_pid=$!
    wait_until 60 test -S nbd.sock || return 1
    nbdfuse device/nbd --unix nbd.sock 2>nbdfuse.err &
    device_pid=$!
    wait_until 60 device_there || return 1
    [ "${1:-}" != new ] || "mkfs.$filesystem" -q device/nbd || return 1
    wait_until 60 disk_mounted || return 1
    mounted=yes
}

# A stop is noticed by one thread, which then tells the others, and on a busy machine that takes its time. What one of
# them still wrote and answered while the image is copied would be lost by the copy.
disk_stopped() {
    local task line
    for task in /proc/"$disk_pid"/task/*; do
        read -r line 2>/dev/null <"$task/stat" || continue
        [[ ${line##*) } == T* ]] || return 1
    done
}

disk_free() { umount disk 2>/dev/null; ! mountpoint -q disk; }
device_free() { fusermount3 -u device 2>/dev/null || umount device/nbd 2>/dev/null || umount device 2>/dev/null; gone "$device_pid"; }

disk_off() {
    if [ -n "$mounted" ]; then
        wait_until 120 disk_free || umount -l disk
        mounted=''
    fi
    [ -z "$device_pid" ] || wait_until 60 device_free || kill "$device_pid" 2>/dev/null
    [ -z "$disk_pid" ] || kill "$disk_pid" 2>/dev/null
    wait $device_pid $disk_pid 2>/dev/null
    device_pid='' disk_pid=''
}

clean_up() {
    [ -z "$disk_pid" ] || kill -CONT "$disk_pid" 2>/dev/null
    stop_servers
    disk_off
    [ -z "${images_mounted:-}" ] || umount images || umount -l images
}
trap clean_up EXIT

truncate -s 400M "$images/disk"
disk_on new || skip_all "the device cannot be had here: $(cat nbdkit.err nbdfuse.err mount.err 2>/dev/null | head -n 3)"
server_init disk/data --set durability=fsync --set memtable_size=4MiB --set memory=128MiB --set wal_segment_size=1MiB \
    --set wal_ring_size=1MiB
server_start

for ((round = 1; round <= rounds; round++)); do
    load_start 3
    sleep "$((RANDOM % 2)).$((RANDOM % 10))$((RANDOM % 10))"
    mapfile -t everyone < <(children "$server_pid")
    kill -STOP "$disk_pid"
    wait_until 60 disk_stopped || fail "round $round: the disk does not stop"
    cp --sparse=always "$images/disk" "$images/after"
    # What waits for the disk dies when the disk goes on, without having told anybody anything.
    kill -KILL "$server_pid" "${everyone[@]}" 2>/dev/null
    kill -CONT "$disk_pid"
    load_stop
    for pid in "$server_pid" "${everyone[@]}"; do
        wait_until 120 gone "$pid" || fail "round $round: process $pid lives on"
    done
    disk_off
    mv "$images/after" "$images/disk"
    disk_on || {
        fail "round $round: the disk does not come back" "$(cat nbdkit.err nbdfuse.err mount.err)"
        break
    }
    server_start
    load_check "round $round" || break
done

exits 0 'stop' aidbctl stop
exits 0 'verify finds no damage' aidbctl verify
done_testing
