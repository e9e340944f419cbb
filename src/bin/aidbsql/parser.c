#include "config.h"
#include "bin/aidbsql/parser.h"

#include <stdlib.h>
#include <strings.h>

#include "bin/aidbsql/mem.h"

const StatementHelp statement_help[] = {
    {"PUT", "PUT key value [IF ABSENT | IF PRESENT | IF VERSION n] [DURABILITY fsync|os|async]",
     "writes a key"},
    {"GET", "GET key [key...] [VERSION]", "reads keys, with the version of each when asked"},
    {"EXISTS", "EXISTS key [key...]", "counts how many of the keys exist"},
    {"DELETE",
     "DELETE key [key...] [DURABILITY x]\n"
     "DELETE key [IF PRESENT | IF VERSION n] [DURABILITY x]\n"
     "DELETE RANGE [FROM a] [TO b] [DURABILITY x]\n"
     "DELETE RANGE PREFIX p [DURABILITY x]",
     "deletes keys; a RANGE without bounds is every key (at the prompt: RANGE FROM '')"},
    {"SCAN", "SCAN [PREFIX p | [FROM a] [TO b]] [REVERSE] [LIMIT n] [KEYS | VALUES | VERSIONS]",
     "lists keys in order; FROM is included, TO is not"},
    {"COUNT", "COUNT [PREFIX p | [FROM a] [TO b]]", "counts keys"},
    {"BEGIN", "BEGIN", "starts a batch: what follows is written at COMMIT, all of it or nothing"},
    {"COMMIT", "COMMIT [DURABILITY x]", "checks the batch's conditions and writes it"},
    {"ROLLBACK", "ROLLBACK", "forgets the batch"},
    {"SNAPSHOT", "SNAPSHOT", "lets reads see the present state until RELEASE"},
    {"RELEASE", "RELEASE", "gives the snapshot back"},
    {"SET", "SET DURABILITY fsync|os|async|default", "what writes of this session must survive"},
    {"FLUSH", "FLUSH", "writes memtables to tables; returns when they are durable"},
    {"COMPACT", "COMPACT [FROM a] [TO b]", "merges tables of a range; returns when it is done"},
    {"SHOW", "SHOW STATUS | CONFIG | LEVELS | BACKENDS | WAL", "shows the state of the store"},
    {"TERMINATE", "TERMINATE n", "ends backend n of the server"},
    {NULL, NULL, NULL},
};

const char *const show_names[] = {"STATUS", "CONFIG", "LEVELS", "BACKENDS", "WAL", NULL};

/* Properties by the same index as show_names. */
static const char *const show_properties[] = {"status", "config", "levels", "backends", "wal"};

/* The words of a statement, how far they are read, and where complaints go. */
typedef struct Parser {
    const TokenList *tokens;
    size_t at;
    Statement *statement;
    Diagnostic *diagnostic;
} Parser;

bool token_is(const Token *token, const char *keyword)
{
    size_t size = strlen(keyword);
    return token->kind == TOKEN_WORD && token->bare && token->bytes.size == size &&
           strncasecmp((const char *)token->bytes.data, keyword, size) == 0;
}

bool token_number(const Token *token, uint64_t *number)
{
    uint64_t value = 0;
    if (token->kind != TOKEN_WORD || token->bytes.size == 0)
        return false;
    for (size_t i = 0; i < token->bytes.size; i++) {
        uint8_t c = token->bytes.data[i];
        if (c < '0' || c > '9' || value > (UINT64_MAX - (uint64_t)(c - '0')) / 10)
            return false;
        value = value * 10 + (uint64_t)(c - '0');
    }
    *number = value;
    return true;
}

bool parser_durability(const Token *token, aidb_durability *durability)
{
    static const struct {
        const char *name;
        aidb_durability value;
    } names[] = {{"fsync", AIDB_FSYNC}, {"os", AIDB_OS}, {"async", AIDB_ASYNC}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (token_is(token, names[i].name)) {
            *durability = names[i].value;
            return true;
        }
    }
    return false;
}

static const Token *peek(const Parser *parser)
{
    return parser->at < parser->tokens->count ? &parser->tokens->items[parser->at] : NULL;
}

/* Takes the next word when it is this keyword. */
static bool accept(Parser *parser, const char *keyword)
{
    const Token *token = peek(parser);
    if (token == NULL || !token_is(token, keyword))
        return false;
    parser->at++;
    return true;
}

static bool fail_at(Parser *parser, const Token *token, const char *message)
{
    if (token == NULL) {
        const Token *last = &parser->tokens->items[parser->tokens->count - 1];
        return diagnostic_set(parser->diagnostic, last->offset + last->length, 0, "%s", message);
    }
    return diagnostic_set(parser->diagnostic, token->offset, token->length, "%s", message);
}

static bool fail_hint(Parser *parser, const Token *token, const char *message, const char *hint)
{
    fail_at(parser, token, message);
    return diagnostic_hint(parser->diagnostic, "%s", hint);
}

/* Takes the next word as data; `what` is what was wanted, for the message. */
static bool take_data(Parser *parser, const char *what, const Token **out)
{
    const Token *token = peek(parser);
    if (token == NULL || token->kind != TOKEN_WORD) {
        char message[160];
        snprintf(message, sizeof message, "%s is missing here", what);
        return fail_at(parser, token, message);
    }
    parser->at++;
    *out = token;
    return true;
}

/* Whatever stands behind the end of the statement is a mistake. */
static bool expect_end(Parser *parser, const char *hint)
{
    const Token *token = peek(parser);
    if (token == NULL)
        return true;
    fail_at(parser, token, token->kind == TOKEN_COMMA ? "unexpected comma" : "unexpected word");
    return hint == NULL ? false : diagnostic_hint(parser->diagnostic, "%s", hint);
}

static bool check_key(Parser *parser, const Token *token)
{
    if (token->bytes.size == 0)
        return fail_at(parser, token, "a key has at least one byte");
    if (token->bytes.size > AIDB_KEY_MAX)
        return diagnostic_set(parser->diagnostic, token->offset, token->length,
                              "this key has %zu bytes, a key has at most %u", token->bytes.size,
                              AIDB_KEY_MAX);
    return true;
}

static bool add_key(Parser *parser, const Token *token)
{
    Statement *statement = parser->statement;
    if (!check_key(parser, token))
        return false;
    if ((statement->key_count & (statement->key_count - 1)) == 0) {
        size_t capacity = statement->key_count > 0 ? statement->key_count * 2 : 1;
        statement->keys = mem_resize(statement->keys, capacity * sizeof *statement->keys);
    }
    statement->keys[statement->key_count++] = token;
    return true;
}

/* Reads one or more keys up to tokens[end]. */
static bool parse_keys(Parser *parser, size_t end)
{
    do {
        const Token *token = peek(parser);
        if (token != NULL && token->kind == TOKEN_COMMA && parser->statement->key_count > 0)
            return fail_hint(parser, token, "unexpected comma",
                             "Keys have white space between them; one with a comma is quoted.");
        if (!take_data(parser, "a key", &token) || !add_key(parser, token))
            return false;
    } while (parser->at < end);
    return true;
}

static bool parse_durability_value(Parser *parser)
{
    const Token *token = peek(parser);
    if (token == NULL || !parser_durability(token, &parser->statement->durability))
        return fail_at(parser, token, "durability is fsync, os or async");
    parser->at++;
    parser->statement->has_durability = true;
    return true;
}

/* IF was read. */
static bool parse_condition(Parser *parser, bool may_be_absent)
{
    Statement *statement = parser->statement;
    const Token *token = peek(parser);
    const char *choices = may_be_absent ? "IF takes ABSENT, PRESENT or VERSION n"
                                        : "IF takes PRESENT or VERSION n here";
    statement->has_condition = true;
    if (may_be_absent && accept(parser, "ABSENT")) {
        statement->condition = AIDB_EXPECT_ABSENT;
        return true;
    }
    if (accept(parser, "PRESENT")) {
        statement->condition = AIDB_EXPECT_PRESENT;
        return true;
    }
    if (!accept(parser, "VERSION"))
        return fail_at(parser, token, choices);
    statement->condition = AIDB_EXPECT_VERSION;
    if (!take_data(parser, "a version", &token))
        return false;
    if (!token_number(token, &statement->version))
        return fail_at(parser, token, "a version is a whole number");
    if (statement->version == 0)
        return fail_hint(parser, token, "0 is never a version",
                         may_be_absent ? "For a key that must not exist write IF ABSENT."
                                       : "GET key VERSION shows the version of a key.");
    return true;
}

/* The clauses behind a write, in any order, each once. */
static bool parse_write_clauses(Parser *parser, bool condition, bool may_be_absent,
                                const char *hint)
{
    for (;;) {
        const Token *token = peek(parser);
        if (token == NULL)
            return true;
        if (condition && token_is(token, "IF")) {
            if (parser->statement->has_condition)
                return fail_at(parser, token, "a second condition");
            parser->at++;
            if (!parse_condition(parser, may_be_absent))
                return false;
        } else if (token_is(token, "DURABILITY")) {
            if (parser->statement->has_durability)
                return fail_at(parser, token, "a second durability");
            parser->at++;
            if (!parse_durability_value(parser))
                return false;
        } else {
            return expect_end(parser, hint);
        }
    }
}

bool parser_parse_bounds(const TokenList *tokens, size_t *at, Bounds *bounds,
                         Diagnostic *diagnostic)
{
    Parser parser = {.tokens = tokens, .at = *at, .diagnostic = diagnostic};
    *bounds = (Bounds){0};
    for (;; *at = parser.at) {
        const Token *clause = peek(&parser);
        const Token *token;
        bool *had;
        Slice *bound;
        if (accept(&parser, "PREFIX")) {
            had = &bounds->has_prefix;
            bound = &bounds->prefix;
        } else if (accept(&parser, "FROM")) {
            had = &bounds->has_from;
            bound = &bounds->from;
        } else if (accept(&parser, "TO")) {
            had = &bounds->has_to;
            bound = &bounds->to;
        } else {
            return true;
        }
        if (*had)
            return fail_at(&parser, clause, "this bound is given twice");
        *had = true;
        if (bounds->has_prefix && (bounds->has_from || bounds->has_to))
            return fail_at(&parser, clause, "PREFIX does not go together with FROM or TO");
        if (!take_data(&parser, "a key", &token))
            return false;
        if (token->bytes.size > AIDB_KEY_MAX)
            return fail_at(&parser, token, "this bound is longer than a key can be");
        *bound = token->bytes;
    }
}

static bool parse_bounds(Parser *parser)
{
    return parser_parse_bounds(parser->tokens, &parser->at, &parser->statement->bounds,
                               parser->diagnostic);
}

static bool parse_put(Parser *parser)
{
    const Token *token;
    if (!take_data(parser, "a key", &token) || !add_key(parser, token))
        return false;
    if (!take_data(parser, "a value", &token)) {
        if (peek(parser) == NULL)
            diagnostic_hint(parser->diagnostic, "The empty value is written ''.");
        return false;
    }
    if (token->bytes.size > AIDB_VALUE_MAX)
        return diagnostic_set(parser->diagnostic, token->offset, token->length,
                              "this value has %zu bytes, a value has at most %u", token->bytes.size,
                              AIDB_VALUE_MAX);
    parser->statement->value = token->bytes;
    return parse_write_clauses(parser, true, true,
                               "A value with white space, commas or quotes is written '...'.");
}

static bool parse_get(Parser *parser)
{
    size_t end = parser->tokens->count;
    /* The last word is VERSION only when a key stands before it. */
    if (end - parser->at >= 2 && token_is(&parser->tokens->items[end - 1], "VERSION") &&
        parser->tokens->items[end - 2].kind == TOKEN_WORD) {
        parser->statement->with_version = true;
        end--;
    }
    if (!parse_keys(parser, end))
        return false;
    parser->at = parser->tokens->count;
    return true;
}

static bool parse_exists(Parser *parser)
{
    return parse_keys(parser, parser->tokens->count);
}

static bool parse_delete_range(Parser *parser)
{
    parser->statement->kind = STATEMENT_DELETE_RANGE;
    if (!parse_bounds(parser))
        return false;
    return parse_write_clauses(parser, false, false,
                               "A range has PREFIX p or FROM a, TO b or both. To delete a key "
                               "named range or prefix, quote it.");
}

static bool parse_delete(Parser *parser)
{
    const TokenList *tokens = parser->tokens;
    if (accept(parser, "RANGE"))
        return parse_delete_range(parser);
    /* DELETE PREFIX p says the same as DELETE RANGE PREFIX p; `DELETE prefix` alone is a key. */
    if (tokens->count - parser->at >= 2 && token_is(peek(parser), "PREFIX") &&
        !token_is(&tokens->items[parser->at + 1], "IF") &&
        !token_is(&tokens->items[parser->at + 1], "DURABILITY"))
        return parse_delete_range(parser);
    /* Behind the first key a bare IF or DURABILITY ends the keys. Guessing that it is a key would
     * delete something that nobody named. */
    size_t end = parser->at + 1;
    while (end < tokens->count && !token_is(&tokens->items[end], "IF") &&
           !token_is(&tokens->items[end], "DURABILITY"))
        end++;
    if (!parse_keys(parser, end < tokens->count ? end : tokens->count))
        return false;
    const Token *clause = peek(parser);
    if (clause != NULL && token_is(clause, "IF") && parser->statement->key_count > 1)
        return fail_hint(parser, clause, "a condition goes with one key",
                         "Use BEGIN and one DELETE a key, or quote 'if' when it is a key.");
    return parse_write_clauses(parser, true, false, NULL);
}

static bool parse_scan(Parser *parser)
{
    static const struct {
        const char *name;
        ScanColumns columns;
    } columns[] = {{"KEYS", SCAN_KEYS}, {"VALUES", SCAN_VALUES}, {"VERSIONS", SCAN_VERSIONS}};
    Statement *statement = parser->statement;
    const Token *token;
    bool has_bounds = false;
    bool has_columns = false;
    while ((token = peek(parser)) != NULL) {
        if (token_is(token, "PREFIX") || token_is(token, "FROM") || token_is(token, "TO")) {
            if (has_bounds)
                return fail_at(parser, token, "the bounds belong together");
            has_bounds = true;
            if (!parse_bounds(parser))
                return false;
            continue;
        }
        if (token_is(token, "REVERSE")) {
            if (statement->reverse)
                return fail_at(parser, token, "REVERSE is given twice");
            statement->reverse = true;
            parser->at++;
            continue;
        }
        if (token_is(token, "LIMIT")) {
            if (statement->has_limit)
                return fail_at(parser, token, "LIMIT is given twice");
            parser->at++;
            if (!take_data(parser, "a number", &token))
                return false;
            if (!token_number(token, &statement->limit))
                return fail_at(parser, token, "LIMIT takes a whole number");
            statement->has_limit = true;
            continue;
        }
        size_t i = 0;
        while (i < 3 && !token_is(token, columns[i].name))
            i++;
        if (i == 3)
            return expect_end(parser, "SCAN takes PREFIX p, FROM a, TO b, REVERSE, LIMIT n and one "
                                      "of KEYS, VALUES and VERSIONS.");
        if (has_columns)
            return fail_at(parser, token, "one of KEYS, VALUES and VERSIONS is enough");
        has_columns = true;
        statement->columns = columns[i].columns;
        parser->at++;
    }
    return true;
}

static bool parse_count(Parser *parser)
{
    return parse_bounds(parser) &&
           expect_end(parser, "COUNT takes PREFIX p, or FROM a, TO b or both.");
}

static bool parse_nothing(Parser *parser)
{
    return expect_end(parser, NULL);
}

static bool parse_commit(Parser *parser)
{
    return parse_write_clauses(parser, false, false, NULL);
}

static bool parse_set(Parser *parser)
{
    if (!accept(parser, "DURABILITY"))
        return fail_hint(parser, peek(parser), "SET takes DURABILITY",
                         "Variables of this program are set with \\set.");
    if (accept(parser, "DEFAULT")) {
        parser->statement->durability = AIDB_DEFAULT;
        return expect_end(parser, NULL);
    }
    return parse_durability_value(parser) && expect_end(parser, NULL);
}

static bool parse_compact(Parser *parser)
{
    return parse_bounds(parser) && expect_end(parser, "COMPACT takes FROM a, TO b or both.");
}

static bool parse_show(Parser *parser)
{
    const Token *token = peek(parser);
    for (size_t i = 0; token != NULL && show_names[i] != NULL; i++) {
        if (accept(parser, show_names[i])) {
            parser->statement->property = show_properties[i];
            return expect_end(parser, NULL);
        }
    }
    return fail_at(parser, token, "SHOW takes STATUS, CONFIG, LEVELS, BACKENDS or WAL");
}

static bool parse_terminate(Parser *parser)
{
    const Token *token;
    if (!take_data(parser, "the number of a backend", &token))
        return false;
    if (!token_number(token, &parser->statement->backend))
        return fail_hint(parser, token, "a backend is a whole number", "SHOW BACKENDS lists them.");
    return expect_end(parser, NULL);
}

static const struct {
    const char *name;
    StatementKind kind;
    bool (*parse)(Parser *parser);
} statements[] = {
    {"PUT", STATEMENT_PUT, parse_put},
    {"GET", STATEMENT_GET, parse_get},
    {"EXISTS", STATEMENT_EXISTS, parse_exists},
    {"DELETE", STATEMENT_DELETE, parse_delete},
    {"SCAN", STATEMENT_SCAN, parse_scan},
    {"COUNT", STATEMENT_COUNT, parse_count},
    {"BEGIN", STATEMENT_BEGIN, parse_nothing},
    {"COMMIT", STATEMENT_COMMIT, parse_commit},
    {"ROLLBACK", STATEMENT_ROLLBACK, parse_nothing},
    {"SNAPSHOT", STATEMENT_SNAPSHOT, parse_nothing},
    {"RELEASE", STATEMENT_RELEASE, parse_nothing},
    {"SET", STATEMENT_SET, parse_set},
    {"FLUSH", STATEMENT_FLUSH, parse_nothing},
    {"COMPACT", STATEMENT_COMPACT, parse_compact},
    {"SHOW", STATEMENT_SHOW, parse_show},
    {"TERMINATE", STATEMENT_TERMINATE, parse_terminate},
};

#define STATEMENT_COUNT_OF (sizeof statements / sizeof statements[0])

/* How many letters must be added, dropped, changed or swapped with their neighbour to make `word`
 * into `name`. Both are short. */
static unsigned edit_distance(const char *word, const char *name)
{
    unsigned rows[3][16];
    size_t columns = strlen(name);
    for (size_t j = 0; j <= columns; j++)
        rows[1][j] = (unsigned)j;
    unsigned *before = rows[0], *previous = rows[1], *current = rows[2];
    for (size_t i = 1; word[i - 1] != '\0'; i++) {
        current[0] = (unsigned)i;
        for (size_t j = 1; j <= columns; j++) {
            unsigned best = previous[j - 1] + (word[i - 1] != name[j - 1]);
            if (previous[j] + 1 < best)
                best = previous[j] + 1;
            if (current[j - 1] + 1 < best)
                best = current[j - 1] + 1;
            if (i > 1 && j > 1 && word[i - 1] == name[j - 2] && word[i - 2] == name[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            current[j] = best;
        }
        unsigned *spare = before;
        before = previous;
        previous = current;
        current = spare;
    }
    return previous[columns];
}

static bool fail_unknown(Parser *parser, const Token *token)
{
    char word[13];
    if (!token->bare || token->bytes.size >= sizeof word)
        return fail_hint(parser, token, "a statement begins with its name",
                         "\\h lists the statements.");
    for (size_t i = 0; i < token->bytes.size; i++) {
        uint8_t c = token->bytes.data[i];
        word[i] = (char)(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
    }
    word[token->bytes.size] = '\0';
    fail_hint(parser, token, "unknown statement", "\\h lists the statements.");
    unsigned best = token->bytes.size > 3 ? 3 : 2;
    for (size_t i = 0; i < STATEMENT_COUNT_OF; i++) {
        unsigned distance = edit_distance(word, statements[i].name);
        if (distance < best) {
            best = distance;
            diagnostic_hint(parser->diagnostic, "Perhaps you meant %s.", statements[i].name);
        }
    }
    return false;
}

bool parser_parse(const TokenList *tokens, Statement *statement, Diagnostic *diagnostic)
{
    const Token **keys = statement->keys;
    *statement = (Statement){.keys = keys};
    if (tokens->count == 0)
        return true;
    Parser parser = {.tokens = tokens, .at = 1, .statement = statement, .diagnostic = diagnostic};
    const Token *verb = &tokens->items[0];
    statement->verb = verb;
    for (size_t i = 0; i < STATEMENT_COUNT_OF; i++) {
        if (token_is(verb, statements[i].name)) {
            statement->kind = statements[i].kind;
            return statements[i].parse(&parser);
        }
    }
    return fail_unknown(&parser, verb);
}

void statement_deinit(Statement *statement)
{
    free(statement->keys);
    *statement = (Statement){0};
}
