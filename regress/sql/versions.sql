-- aidbsql: --continue
\echo == VERSION and VERSIONS add a column, masked here because versions differ from run to run
PUT a 1; PUT b 2;
\pset format csv
\o |sed 's/[0-9]\{4,\}/N/'
GET a VERSION;
GET a b VERSION;
GET nokey VERSION;
SCAN VERSIONS;
\o
\pset format text
\echo == a word VERSION alone, or quoted, is a key
PUT VERSION v; GET VERSION; GET version;
GET a 'VERSION';
GET VERSION 'VERSION';
\echo == within a batch its own writes have no version yet
BEGIN;
PUT a 3;
GET a VERSION;
ROLLBACK;
