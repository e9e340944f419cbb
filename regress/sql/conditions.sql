-- aidbsql: --continue
\echo == IF ABSENT
PUT k 1 IF ABSENT;
PUT k 2 IF ABSENT;
GET k;
\echo == IF PRESENT
PUT k 3 IF PRESENT;
GET k;
PUT nokey 1 IF PRESENT;
EXISTS nokey;
\echo == IF VERSION with a version that never was
PUT k 4 IF VERSION 1;
PUT nokey 4 IF VERSION 1;
GET k;
\echo == DELETE
DELETE nokey IF PRESENT;
DELETE k IF VERSION 1;
DELETE k IF PRESENT;
EXISTS k;
DELETE k;
