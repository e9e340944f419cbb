\echo == bare words take any bytes but white space, semicolon, comma, quotes and controls
PUT a/b:c=d@[1]{2}(3)*&^%$#!~|<>?+-_. value;
GET a/b:c=d@[1]{2}(3)*&^%$#!~|<>?+-_.;
PUT schlüssel größe; GET schlüssel;
PUT 键 值; GET 键;
\echo == quoted words and their escapes
PUT 'it''s' 'two words'; GET 'it''s';
PUT lines 'one\ntwo\tthree\rfour\\five\'six';
GET lines;
PUT zero 'a\0b'; GET zero;
PUT hex '\x00\xff\x41'; GET hex;
PUT x'6b6579' x'DEADbeef'; GET key;
PUT semi 'a;b,c'; GET semi;
\echo == text in a pipe escapes what is not text
SCAN;
\echo == comments
PUT c1 v1; -- to the end of the line; PUT c1 v2;
GET c1;
PUT a--b v--w; GET a--b;
GET -- a comment between words
  c1;
\echo == quotes over two lines
PUT two 'first
second';
GET two;
