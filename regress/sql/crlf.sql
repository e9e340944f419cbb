PUT a 1;
GET a;
PUT b
  2;
-- comment
GET b;
PUT c 'one
two';
GET c;
\echo done
GET a b;
