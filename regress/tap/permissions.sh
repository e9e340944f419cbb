# Whoever could write to a database's files is not let near it: modes, owners, links; and nothing of it leaks.
. "$AIDB_REGRESS/lib.sh"

server_init data
refused() { # refused WHAT PATTERN
    run aidb -D "$PWD/data"
    is "$code" 1 "$1: the server does not start"
    like "$out$err" "$2" 'and says why'
}

for mode in 0770 0777 0702 0720; do
    chmod $mode data
    refused "the directory has mode $mode" 'can be written by group or others'
done
chmod 0700 data
for folder in sst wal; do
    chmod 0777 data/$folder
    refused "$folder has mode 0777" "$folder can be written by group or others"
    chmod 0700 data/$folder
done
chmod 0666 data/aidb.yaml
refused 'aidb.yaml has mode 0666' 'aidb.yaml can be written by group or others'
mv data/aidb.yaml elsewhere.yaml
ln -s "$PWD/elsewhere.yaml" data/aidb.yaml
refused 'aidb.yaml is a link to a file of mode 0666' 'aidb.yaml can be written by group or others'
chmod 0600 elsewhere.yaml
server_start
server_answers
is $? 0 'aidb.yaml may be a link to a file that only the owner writes'
pid=$(server_pid_now)
is "$(find data -type f ! -perm 0600 -o -type d ! -perm 0700 | sort)" '' 'all files have mode 0600, all folders 0700'
like "$(grep 'Max core file size' "/proc/$pid/limits")" ' 0 ' 'no core files unless core_dumps is on'
region=$(awk '/^[0-9a-f]+-[0-9a-f]+ / { name = $6 } /^Size:/ { size = $2 } /^VmFlags:/ && size > 20000 && / sh / && name !~ /ring/ { print }' "/proc/$pid/smaps" | head -n 1)
like "$region" ' dd' 'and the shared region is in none'
server_stop
rm data/aidb.yaml && mv elsewhere.yaml data/aidb.yaml

echo precious >victim
ln -s "$PWD/victim" data/postmaster.pid
refused 'postmaster.pid is a link' 'postmaster.pid'
is "$(cat victim)" precious 'and what it leads to is left alone'
rm data/postmaster.pid
rm data/aidb.log
ln -s "$PWD/victim" data/aidb.log
AIDB_DATA=$PWD/data run aidbctl start -t 20
unlike "$code" '^0$' 'aidb.log is a link: the server does not start'
like "$err" 'aidb.log' 'and says why'
is "$(cat victim)" precious 'nor is the log written through a link'
rm -f data/aidb.log

if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
    chmod 0755 . data
    run setpriv --reuid=65534 --regid=65534 --clear-groups "$(command -v aidb)" -D "$PWD/data"
    unlike "$code" '^0$' 'another user does not get in'
    chown 65534 data
    chmod 0700 data
    chown 65533 data
    run setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+dac_override --ambient-caps=+dac_override "$(command -v aidb)" -D "$PWD/data"
    like "$out$err" 'belongs to another user|could not' 'a directory of another user is refused'
    chown 0 data
else
    pass 'skipped: owners (needs root and setpriv)'
fi
if [ "$(id -u)" -eq 0 ] && unshare -m true 2>/dev/null; then
    run unshare -m sh -c "mount --bind '$PWD/data' '$PWD/data' && mount -o remount,ro,bind '$PWD/data' && exec aidb -D '$PWD/data'"
    unlike "$code" '^0$' 'a file system that cannot be written is refused'
    like "$out$err" 'Read-only file system|read-only' 'and says why'
    run unshare -m sh -c "mount --bind '$PWD/data' '$PWD/data' && mount -o remount,ro,bind '$PWD/data' && aidbctl verify -D '$PWD/data' && aidbctl repair '$PWD/data' '$PWD/fresh'"
    is "$code" 0 'verify and repair read from it'
else
    pass 'skipped: a read-only file system (needs root and unshare)'
fi
server_start
server_answers
is $? 0 'the database is as it was'
server_stop
# Advice to change who may write a directory is for a data directory only.
mkdir -m 1777 public
exits 1 'a directory that is none of ours' aidb -D public
like "$err" 'there is no database in' 'is said to be no database'
unlike "$err" 'chmod' 'rather than to have the wrong mode'
done_testing
