-- aidbsql: --continue
\echo == where data is due, every word is data
PUT PUT PUT; PUT if absent IF ABSENT; PUT from to; PUT range RANGE; PUT durability fsync; PUT prefix 'p';
GET PUT if from range durability prefix;
EXISTS PUT IF if;
\echo == SCAN and COUNT
SCAN PREFIX prefix;
SCAN FROM from TO if;
COUNT FROM prefix;
SCAN LIMIT 1 REVERSE KEYS PREFIX i;
SCAN 'LIMIT' 1;
\echo == DELETE: behind the first key IF and DURABILITY are clauses
DELETE if IF PRESENT;
DELETE durability DURABILITY os;
DELETE from IF;
DELETE from 'IF' 'DURABILITY';
DELETE PUT from IF PRESENT;
DELETE 'range';
DELETE prefix;
SCAN KEYS;
\echo == a quoted keyword is none
'GET' PUT;
SCAN 'PREFIX' a;
PUT a b 'IF' ABSENT;
SET 'DURABILITY' os;
SHOW 'STATUS';
\echo == case does not matter to keywords, and does to data
pUt CaSe 1 iF aBsEnT dUrAbIlItY aSyNc; get CaSe; get case;
