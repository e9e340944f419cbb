-- aidbsql: --continue
PUT a 1; PUT b 'two words'; PUT c 'comma, "quote"'; PUT d 'line\nend\r\n'; PUT e ''; PUT x'00ff' x'ff00'; PUT 键 值;
\echo == to standard output
\copy to stdout csv
\copy to stdout tsv
\copy to stdout jsonl
\copy to - tsv header
\copy prefix a to stdout csv header
\copy from b to c to stdout csv
\copy to c to stdout csv
\copy FROM e TO stdout csv
\echo == there and back
\o |cat >/dev/null
\o
\copy to /dev/null csv
\echo == rows with mistakes: what came before them is written
DELETE RANGE;
\copy from copy-bad.csv
SCAN;
\copy from copy-bad.tsv
SCAN;
\copy from copy-bad.jsonl
SCAN;
\echo == a header line, CRLF, blank lines
DELETE RANGE;
\copy from copy-crlf.csv header
SCAN;
\echo == within a batch
DELETE RANGE;
BEGIN;
\copy from copy-crlf.csv header
COUNT;
ROLLBACK;
COUNT;
BEGIN;
\copy from copy-crlf.csv header
COMMIT;
COUNT;
BEGIN;
\copy from copy-bad.csv
COMMIT;
COUNT;
