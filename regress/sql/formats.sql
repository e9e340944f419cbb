PUT plain text; PUT 'tab\tkey' 'line\nvalue'; PUT quote 'say "hi", it''s'; PUT bin x'00ff'; PUT empty '';
\echo == text
\pset format text
SCAN;
\echo == csv
\pset format csv
SCAN;
\echo == jsonl
\pset format jsonl
SCAN;
SCAN KEYS LIMIT 1;
SCAN VALUES LIMIT 1;
GET plain;
GET plain quote;
COUNT;
\echo == aligned
\pset format aligned
SCAN;
GET plain;
GET nokey;
COUNT;
