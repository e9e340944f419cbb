-- aidbsql: --continue
PUT a 1; PUT b 2;
SNAPSHOT;
PUT a changed; DELETE b; PUT c 3;
\echo == the snapshot
GET a b c;
SCAN;
COUNT;
\echo == flushed and compacted away underneath, it still reads the same
FLUSH; COMPACT;
SCAN;
RELEASE;
\echo == the present
SCAN;
\echo == one at a time
SNAPSHOT;
SNAPSHOT;
RELEASE;
RELEASE;
