-- aidbsql: --continue
\echo == a batch sees its own writes, and all of it is there after COMMIT
PUT keep old;
BEGIN;
PUT a 1;
PUT b 2;
DELETE keep;
GET a b keep;
SCAN;
COUNT;
COMMIT;
SCAN;
\echo == ROLLBACK leaves nothing behind
BEGIN; PUT a changed; DELETE b; PUT c 3; GET a; ROLLBACK;
SCAN;
\echo == a range deleted inside a batch, then written again
BEGIN;
DELETE RANGE FROM a TO c;
SCAN;
PUT b again;
SCAN;
SCAN REVERSE;
COMMIT;
SCAN;
\echo == conditions are checked at COMMIT, all or nothing
BEGIN;
PUT x 1;
PUT b other IF ABSENT;
PUT y 1;
COMMIT;
SCAN;
BEGIN;
PUT x 1 IF ABSENT;
PUT b other IF PRESENT;
COMMIT;
SCAN;
\echo == an error makes it abort-only
BEGIN;
PUT lost 1;
PUT;
PUT lost 2;
COMMIT;
GET lost;
BEGIN; BEGIN; ROLLBACK;
\echo == an empty batch
BEGIN; COMMIT;
\echo == input that ends inside BEGIN discards the batch
BEGIN;
PUT lost 3;
