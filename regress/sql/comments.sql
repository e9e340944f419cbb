-- A script may begin with a comment; with quotes ' and ; semicolons in it
PUT a 1; -- after a statement; PUT a 2;
GET a;
PUT -- between words
  b -- 'not a quote
  2
;
GET b;
PUT c--d e--f; GET c--d;
PUT '--' dashes; GET '--';
PUT - minus; GET -;
PUT 'in -- quotes' '; -- data'; GET 'in -- quotes';
--PUT a 3;
--
; -- an empty statement
GET a -- the end of the input, without a semicolon
