\echo == a value comes back, and is replaced
PUT fruit apple;
GET fruit;
PUT fruit pear; GET fruit;
\echo == a missing key prints nothing
GET nothing;
EXISTS fruit; EXISTS nothing;
EXISTS fruit nothing;
\echo == several keys: only those that exist
PUT a 1; PUT b 2; PUT c 3;
GET a b zz c;
\echo == deleting, once and once more
DELETE a;
DELETE a;
GET a b c;
DELETE b c;
COUNT;
\echo == keywords in any case, statements over lines, the last without a semicolon
put Key Value;
gEt
  Key
;
\echo == a keyword as data, by position and by quotes
PUT PUT GET;
GET PUT;
PUT 'COUNT' 'SCAN';
GET 'COUNT';
\echo == an empty value is not a missing one
PUT empty '';
EXISTS empty;
GET empty;
SCAN PREFIX e;
\echo == nothing between semicolons is nothing
;;;
COUNT
