# What many clients of few keys saw, with kills in between, has one order; money that moves between
# accounts neither appears nor disappears in any snapshot. AIDB_SEED and AIDB_ROUNDS replay and prolong.
# timeout: 600
. "$AIDB_REGRESS/lib.sh"
. "$AIDB_REGRESS/torture.sh"

torture linear --iterations "${AIDB_ROUNDS:-25}"
torture linear-embedded --iterations "${AIDB_ROUNDS:-8}"
torture bank --iterations "${AIDB_ROUNDS:-15}"
done_testing
