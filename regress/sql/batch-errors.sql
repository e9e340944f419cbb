-- aidbsql: --continue
PUT k 1;
\echo == mistakes of every kind make a batch abort-only
BEGIN; PUT a 1; FETCH a; GET k; COMMIT;
BEGIN; PUT a 1; PUT 'never; ROLLBACK; '; ROLLBACK;
BEGIN; PUT a 1; GET; ROLLBACK;
BEGIN; PUT a 1; \nosuchcommand
COMMIT;
BEGIN; PUT a 1; BEGIN; COMMIT;
BEGIN; PUT a 1; RELEASE; COUNT; ROLLBACK;
\echo == an unmet condition at COMMIT ends the batch
BEGIN; PUT a 1; DELETE k IF VERSION 1; COMMIT;
COMMIT;
SCAN;
\echo == what belongs to the session is still possible after a failed batch
PUT a 1; GET a;
