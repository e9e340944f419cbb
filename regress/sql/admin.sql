-- aidbsql: --continue
PUT a 1; PUT b 2; PUT c 3;
FLUSH;
COMPACT;
COMPACT FROM a TO b;
COMPACT TO b;
COMPACT FROM b TO a;
SCAN;
\echo == the names of what SHOW shows
\o |cut -f 1 | grep -E '^(visible_lsn|tables|cache_hit_ratio|throttle)$' | LC_ALL=C sort
SHOW STATUS;
\o |cut -f 1 | grep -E '^wal_durable_lsn$'
SHOW WAL;
\o |cut -f 1 | grep -E '^(memory|port|durability)$' | LC_ALL=C sort
SHOW CONFIG;
\o |cut -f 1
SHOW LEVELS;
\pset header on
\o |sed -n 1p
SHOW LEVELS; 
SHOW CONFIG;
\o |cut -f 1,4 | sed 's/^[0-9]*/N/'
SHOW BACKENDS;
\o
\pset header auto
\echo == backends
TERMINATE 4000000000;
TERMINATE 99999999999999999999;
