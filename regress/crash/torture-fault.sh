# File calls that fail: EIO, a full disk, short transfers and interrupted calls at the Nth call of a
# program, and under a running server. No wrong answer, no hang; what was refused is not there, what was
# acknowledged is, also when the kernel drops what a failed sync was for. And a disk that is only very slow: nobody gets an
# error.
# timeout: 600
. "$AIDB_REGRESS/lib.sh"
. "$AIDB_REGRESS/torture.sh"

torture fault --iterations "${AIDB_ROUNDS:-60}"
torture server-fault --iterations "${AIDB_ROUNDS:-26}" --clients 4
torture server-memory --iterations "${AIDB_ROUNDS:-40}" --clients 4
torture slow-disk --iterations "${AIDB_ROUNDS:-1}" --clients 4
done_testing
