-- aidbsql: --continue
\echo == mistakes point at the word and leave the rest alone
PUT;
PUT onlykey;
PUT key value extra;
GET;
FETCH key;
PUT a 'bad \q escape';
PUT a x'123';
PUT a x'zz';
PUT a b,c;
PUT '' value;
SCAN LIMIT many;
SCAN LIMIT -1;
SCAN PREFIX a FROM b;
SCAN FROM;
COUNT LIMIT 3;
DELETE;
PUT a b IF;
PUT a b IF VERSION;
PUT a b IF VERSION x;
SET DURABILITY sometimes;
SHOW NOTHING;
TERMINATE;
TERMINATE x;
COMMIT;
ROLLBACK;
RELEASE;
\echo == nothing was written
COUNT;
PUT still works; GET still;
PUT open 'never closed;
