-- aidbsql: --continue
PUT a 1; PUT b 2;
\echo == \echo 'takes  words', $notaparameter and :'nothing'
\echo 'two  blanks' kept
\echo
\echo == \pset
\pset
\pset header on
SCAN;
\pset format csv
SCAN; GET a; GET a b;
\pset footer on
SCAN LIMIT 1;
\pset header off
\pset footer off
\pset format nosuch
\pset header maybe
\pset nosuch 1
\pset format text
\pset terminator nosuch
\echo == \x
\x
SCAN;
\x off
SCAN;
\x nosuch
\pset format text
\pset header auto
\pset footer auto
\echo == \set and \unset
\set key 'a'
GET :'key';
\set value 'it''s; a -- value'
PUT :'key' :'value'; GET a;
\set
\unset key
GET :'key';
\set STRICT perhaps
\set QUIET on
PUT a 1;
\set QUIET off
PUT a 1;
\set a b c
\unset
\echo == \watch repeats the last statement
COUNT;
\watch 0 3
\watch nosuch
\watch 0 0
\echo == \o
\o |sed 's/[0-9]/<&>/; s/$/ |/'
SCAN;
\o
SCAN LIMIT 1;
\echo == \h
\h GET
\h nosuch
\echo == mistakes
\nosuch
\timing perhaps
\q now
\i
\i nosuchfile.sql
\o /nosuchfolder/x
\copy
\copy from
\copy from x
\copy from nosuchfile.csv
\copy from x csv nosuch
\copy sideways x
\copy FROM a TO
\copy PREFIX p to x.nosuch
\echo == the rest of a line belongs to the command
\echo one, PUT never 1
\echo two ;
\echo three; four
\pset format text; PUT never 1;
EXISTS never;
\q
\echo never
