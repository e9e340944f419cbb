# Processes of a server, and programs with an open directory, killed under load: every
# promise that was acknowledged is looked up, every batch must be whole, in order, and nothing may be
# there that nobody wrote. AIDB_SEED and AIDB_ROUNDS replay and prolong (src/torture/README.md).
# timeout: 1800
. "$AIDB_REGRESS/lib.sh"
. "$AIDB_REGRESS/torture.sh"

torture kill-child --iterations "${AIDB_ROUNDS:-150}"
torture kill-child --iterations "${AIDB_ROUNDS:-50}" --backends 2
torture kill-postmaster --iterations "${AIDB_ROUNDS:-45}"
torture kill-group --iterations "${AIDB_ROUNDS:-45}"
torture kill-recovery --iterations "${AIDB_ROUNDS:-6}"
torture kill-embedded --iterations "${AIDB_ROUNDS:-10}"
torture oom --iterations "${AIDB_ROUNDS:-20}"
done_testing
