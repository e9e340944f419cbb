-- aidbsql: --continue
\echo == per session and per write
SET DURABILITY fsync; PUT a 1;
SET DURABILITY os; PUT a 2;
SET DURABILITY async; PUT a 3;
PUT a 4 DURABILITY fsync;
DELETE a DURABILITY os;
PUT a 5 IF ABSENT DURABILITY async;
DELETE RANGE PREFIX a DURABILITY fsync;
COUNT;
PUT a 1 DURABILITY never;
