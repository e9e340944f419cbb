\echo == every read inside a batch sees the store with the batch over it
PUT a 1; PUT b 2; PUT c 3; PUT d 4; PUT e 5;
BEGIN;
PUT b two; DELETE c; PUT bb new; DELETE RANGE FROM d TO e; PUT zz last;
GET a b c bb d e zz;
EXISTS a b c bb d e zz;
COUNT; COUNT PREFIX b; COUNT FROM c; COUNT TO bb;
SCAN;
SCAN REVERSE;
SCAN FROM b TO e;
SCAN FROM b TO e REVERSE;
SCAN PREFIX b REVERSE LIMIT 1;
SCAN LIMIT 2 KEYS;
\echo == a range deleted over what the batch wrote, and written once more
DELETE RANGE PREFIX b;
GET b bb;
PUT bc again;
SCAN;
DELETE RANGE;
COUNT; SCAN;
PUT only me;
SCAN;
COMMIT;
SCAN;
\echo == a batch over a snapshot
PUT a 1; PUT b 2;
SNAPSHOT;
PUT a later; DELETE b; PUT c 3;
BEGIN;
PUT b mine;
SCAN;
COMMIT;
SCAN;
RELEASE;
SCAN;
\echo == conditions are about the store, not about the batch
DELETE RANGE;
BEGIN; PUT k 1 IF ABSENT; PUT k 2 IF ABSENT; COMMIT;
GET k;
