# shellcheck shell=bash
# Runs campaigns of aidbtorture as checks.

torture_program=$AIDB_BUILDDIR/src/torture/aidbtorture
[ -x "$torture_program" ] || skip_all "no $torture_program: an installation has no campaigns"
# A copy, beside those of the programs: the tree may be built again meanwhile.
torture_bin=$(dirname "$AIDB_REGRESS_PIDS")/bin
cp "$torture_program" "$torture_bin/"
for torture_shim in disk.so memory.so; do
    [ ! -e "$AIDB_BUILDDIR/src/torture/$torture_shim" ] ||
        cp "$AIDB_BUILDDIR/src/torture/$torture_shim" "$torture_bin/"
done
torture_seed=${AIDB_SEED:-$(date +%s)}

# torture CAMPAIGN [flags…]
torture() {
    local campaign=$1 directory
    shift
    directory=$PWD
    [ -n "${TMPDIR:-}" ] || [ ! -w /dev/shm ] || directory=/dev/shm
    run "$torture_bin/aidbtorture" "$campaign" --seed "$torture_seed" --dir "$directory" "$@"
    if [ "$code" = 0 ]; then
        pass "${out##*$'\n'}"
    else
        local reason=${err##*FAILED }
        fail "$campaign $*: ${reason%%$'\n'*}" "$out" "$err"
    fi
}
