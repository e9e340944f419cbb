/*
 * parser.h - from the words of one statement to what is to be done.
 *
 * The grammar is small enough for one table of statements and one function for each. Keywords are
 * recognised by position: where a key or a value is due, every word is data; where a clause may
 * begin, a bare word names it and a quoted one is an error or one more key.
 */
#ifndef AIDBSQL_PARSER_H
#define AIDBSQL_PARSER_H

#include "bin/aidbsql/lexer.h"

typedef enum StatementKind {
    STATEMENT_EMPTY,
    STATEMENT_PUT,
    STATEMENT_GET,
    STATEMENT_EXISTS,
    STATEMENT_DELETE,
    STATEMENT_DELETE_RANGE,
    STATEMENT_SCAN,
    STATEMENT_COUNT,
    STATEMENT_BEGIN,
    STATEMENT_COMMIT,
    STATEMENT_ROLLBACK,
    STATEMENT_SNAPSHOT,
    STATEMENT_RELEASE,
    STATEMENT_SET,
    STATEMENT_FLUSH,
    STATEMENT_COMPACT,
    STATEMENT_SHOW,
    STATEMENT_TERMINATE
} StatementKind;

/* Which columns a scan gives. */
typedef enum ScanColumns {
    SCAN_PAIRS, /* key and value */
    SCAN_KEYS,
    SCAN_VALUES,
    SCAN_VERSIONS /* key, value and version */
} ScanColumns;

/* Keys that begin with `prefix`, or keys in [from, to). */
typedef struct Bounds {
    bool has_prefix;
    bool has_from;
    bool has_to;
    Slice prefix;
    Slice from;
    Slice to;
} Bounds;

/* Every slice and string is borrowed from the token list. */
typedef struct Statement {
    StatementKind kind;
    const Token *verb;
    const Token **keys; /* PUT, GET, EXISTS, DELETE; owned */
    size_t key_count;
    Slice value;        /* PUT */
    bool with_version;  /* GET */
    bool has_condition; /* PUT, DELETE of one key */
    aidb_expect condition;
    uint64_t version; /* of the condition */
    bool has_durability;
    aidb_durability durability;
    Bounds bounds;
    bool reverse;
    bool has_limit;
    uint64_t limit;
    ScanColumns columns;
    const char *property; /* SHOW; a constant */
    uint64_t backend;     /* TERMINATE */
} Statement;

/* Zero-initialise *statement before first use; it is filled anew each time. False with *diagnostic
 * filled when the words are no statement. */
bool parser_parse(const TokenList *tokens, Statement *statement, Diagnostic *diagnostic);
void statement_deinit(Statement *statement);

/* Reads clauses PREFIX, FROM and TO at tokens[*at] on; stops at the first word that is none of
 * them. Shared with \copy. */
bool parser_parse_bounds(const TokenList *tokens, size_t *at, Bounds *bounds,
                         Diagnostic *diagnostic);

/* Whether a token is this keyword: bare, and equal but for the case of letters. */
bool token_is(const Token *token, const char *keyword);

/* A token as a decimal number. False when it is none. */
bool token_number(const Token *token, uint64_t *number);

/* fsync, os, async. */
bool parser_durability(const Token *token, aidb_durability *durability);

/* One line of help a form; ends with a null name. */
typedef struct StatementHelp {
    const char *name;
    const char *syntax;
    const char *text;
} StatementHelp;
extern const StatementHelp statement_help[];

/* What SHOW takes, in upper case; ends with null. */
extern const char *const show_names[];

#endif
