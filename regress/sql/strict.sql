-- aidbsql: --strict --continue
PUT a 1;
\echo == a missing key is an answer that counts
GET a;
GET nokey;
GET a nokey;
EXISTS a nokey;
DELETE nokey;
SCAN PREFIX nokey;
COUNT PREFIX nokey;
\set STRICT off
GET nokey;
