\echo == keys and values of any bytes, ordered by bytes
PUT x'00' x'00'; PUT x'0000' nul2; PUT x'ff' last; PUT x'80' middle; PUT '\x7f' del; PUT '\n' newline;
PUT ' ' space; PUT 'é' accent; PUT x'c3' half;
SCAN;
SCAN KEYS REVERSE LIMIT 3;
\echo == the same key in every way of writing
PUT 'A\x42' v; GET AB; GET x'4142'; GET 'A\x42'; GET 'AB';
DELETE AB; EXISTS x'4142';
\echo == prefixes that end in ff
PUT x'01ff' a; PUT x'01ffff' b; PUT x'02' c;
SCAN PREFIX x'01ff' VALUES;
COUNT PREFIX x'ff';
COUNT PREFIX '';
\echo == bounds
SCAN FROM x'80' TO x'c3a9' KEYS;
SCAN TO '' KEYS;
COUNT FROM '' TO x'01';
\echo == a quote, a backslash, a tab
PUT q 'it''s \'so\' \\ "said"'; GET q; PUT t 'a	b'; GET t;
\pset format jsonl
SCAN;
