#include "config.h"
#include "bin/aidbsql/complete.h"

#include <ctype.h>
#include <stdlib.h>
#include <strings.h>

#include "bin/aidbsql/command.h"
#include "bin/aidbsql/cursor.h"
#include "bin/aidbsql/mem.h"
#include "bin/aidbsql/parser.h"

/* More keys than this are not offered one by one. */
#define KEYS_MAX 64

typedef struct Completion {
    Session *session;
    const TokenList *tokens; /* in front of the word */
    const char *word;
    void (*add)(void *list, const char *text);
    void *list;
} Completion;

/* Offers a keyword in the case of letters that the word is typed in. */
static void add_keyword(const Completion *completion, const char *keyword)
{
    size_t size = strlen(completion->word);
    if (strncasecmp(keyword, completion->word, size) != 0)
        return;
    char *text = mem_copy_string(keyword);
    bool lower = islower((unsigned char)completion->word[0]);
    for (char *c = text; lower && *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
    completion->add(completion->list, text);
    free(text);
}

static void add_keywords(const Completion *completion, const char *const *keywords)
{
    for (; *keywords != NULL; keywords++)
        add_keyword(completion, *keywords);
}

static void add_key(const Completion *completion, Slice key)
{
    if (!lexer_is_bare(key))
        return;
    char *text = mem_copy_bytes(key);
    completion->add(completion->list, text);
    free(text);
}

/* Offers keys that begin with the word. When there are many, the first ones and the very last are
 * offered: whatever they have in common, all between them have too. */
static void add_keys(const Completion *completion)
{
    Session *session = completion->session;
    if (session->db == NULL || session->batch_failed)
        return;
    Bounds bounds = {.has_prefix = true, .prefix = slice_from_string(completion->word)};
    CursorRange range;
    cursor_range_init(&range, &bounds);
    for (int reverse = 0; reverse <= 1; reverse++) {
        CursorOptions options = {.snapshot = session->snapshot,
                                 .overlay = session->batch,
                                 .reverse = reverse,
                                 .keys_only = true,
                                 .limit = reverse ? 1 : KEYS_MAX};
        Cursor cursor;
        uint64_t count = 0;
        bool found = cursor_open(&cursor, session->db, &range, &options) == AIDB_OK;
        while (found && count < options.limit) {
            CursorRow row;
            found = cursor_next(&cursor, &row, &found) == AIDB_OK && found;
            if (found)
                add_key(completion, row.key);
            count += found;
        }
        cursor_close(&cursor);
        if (count < KEYS_MAX)
            break;
    }
    cursor_range_deinit(&range);
}

static const char *const bound_words[] = {"PREFIX", "FROM", "TO", NULL};

static bool complete_clause(const Completion *completion)
{
    static const char *const durabilities[] = {"fsync", "os", "async", NULL};
    static const char *const conditions[] = {"ABSENT", "PRESENT", "VERSION", NULL};
    static const char *const write_clauses[] = {"IF", "DURABILITY", NULL};
    static const char *const scan_clauses[] = {"REVERSE", "LIMIT",    "KEYS",
                                               "VALUES",  "VERSIONS", NULL};
    const TokenList *tokens = completion->tokens;
    const Token *verb = &tokens->items[0];
    const Token *last = &tokens->items[tokens->count - 1];
    size_t words = tokens->count;
    bool first = words == 1;
    bool scans = token_is(verb, "SCAN") || token_is(verb, "COUNT") || token_is(verb, "COMPACT");
    bool range = token_is(verb, "DELETE") && words > 1 && token_is(&tokens->items[1], "RANGE");

    if (!first && token_is(last, "DURABILITY") && !scans) {
        add_keywords(completion, durabilities);
    } else if (!first && token_is(last, "IF")) {
        add_keywords(completion, conditions);
    } else if (scans || range) {
        if (!first && (token_is(last, "PREFIX") || token_is(last, "FROM") || token_is(last, "TO")))
            add_keys(completion);
        else if (first || !token_is(last, "LIMIT"))
            add_keywords(completion, bound_words);
        if (token_is(verb, "SCAN") && (first || !token_is(last, "LIMIT")))
            add_keywords(completion, scan_clauses);
        if (range)
            add_keyword(completion, "DURABILITY");
    } else if (token_is(verb, "PUT")) {
        if (first)
            add_keys(completion);
        else if (words > 2)
            add_keywords(completion, write_clauses);
    } else if (token_is(verb, "GET") || token_is(verb, "EXISTS")) {
        add_keys(completion);
        if (token_is(verb, "GET") && !first)
            add_keyword(completion, "VERSION");
    } else if (token_is(verb, "DELETE")) {
        add_keys(completion);
        if (first)
            add_keyword(completion, "RANGE");
        else
            add_keywords(completion, write_clauses);
    } else if (token_is(verb, "SET") || token_is(verb, "COMMIT")) {
        if (first)
            add_keyword(completion, "DURABILITY");
    } else if (token_is(verb, "SHOW") && first) {
        add_keywords(completion, show_names);
    }
    return true;
}

static bool complete_command(const Completion *completion)
{
    static const char *const switches[] = {"on", "off", NULL};
    static const char *const copy_words[] = {"from", "to", "prefix", NULL};
    static const char *const copy_formats[] = {"csv", "tsv", "jsonl", "header", NULL};
    static const char *const formats[] = {"text", "raw", "csv", "jsonl", "aligned", NULL};
    const TokenList *tokens = completion->tokens;
    const Token *name = &tokens->items[0];
    const Token *last = &tokens->items[tokens->count - 1];
    if (token_is(name, "\\copy")) {
        if (tokens->count == 1)
            add_keywords(completion, copy_words);
        else if (token_is(last, "FROM") || token_is(last, "TO"))
            return false;
        else if (token_is(last, "PREFIX"))
            add_keys(completion);
        else
            add_keywords(completion, copy_formats);
    } else if (token_is(name, "\\i") || token_is(name, "\\o") || token_is(name, "\\c")) {
        return false;
    } else if (token_is(name, "\\pset") && tokens->count == 1) {
        add_keywords(completion, pset_names);
    } else if (token_is(name, "\\pset")) {
        add_keywords(completion, token_is(last, "format") ? formats : switches);
    } else if (token_is(name, "\\timing") || token_is(name, "\\x")) {
        add_keywords(completion, switches);
    } else if (token_is(name, "\\h")) {
        for (const StatementHelp *help = statement_help; help->name != NULL; help++)
            add_keyword(completion, help->name);
    }
    return true;
}

static bool complete_first(const Completion *completion)
{
    if (completion->word[0] == '\\') {
        const char *before = "";
        for (const CommandHelp *help = command_help; help->name != NULL; help++) {
            if (strcmp(help->name, before) == 0)
                continue;
            char *text = mem_format("\\%s", help->name);
            if (strncmp(text, completion->word, strlen(completion->word)) == 0)
                completion->add(completion->list, text);
            free(text);
            before = help->name;
        }
        return true;
    }
    for (const StatementHelp *help = statement_help; help->name != NULL; help++)
        add_keyword(completion, help->name);
    return true;
}

bool complete_word(Session *session, const char *before, const char *word,
                   void (*add)(void *list, const char *text), void *list)
{
    /* Only what follows the last semicolon outside of quotes counts. */
    Splitter splitter = {0};
    Slice rest = slice_from_string(before);
    bool complete = true;
    while (complete) {
        Splitter next = {0};
        size_t taken = splitter_feed(&next, rest, &complete);
        if (complete)
            rest = slice_make(rest.data + taken, rest.size - taken);
        splitter = next;
    }
    if (splitter.state == SPLIT_QUOTE || splitter.state == SPLIT_ESCAPE ||
        splitter.state == SPLIT_COMMENT)
        return true;
    TokenList tokens = {0};
    Diagnostic diagnostic;
    Completion completion = {
        .session = session, .tokens = &tokens, .word = word, .add = add, .list = list};
    bool known = true;
    if (lexer_tokenize(rest, NULL, &tokens, &diagnostic)) {
        if (tokens.count == 0)
            known = complete_first(&completion);
        else if (tokens.items[0].bytes.size > 0 && tokens.items[0].bytes.data[0] == '\\')
            known = complete_command(&completion);
        else
            known = complete_clause(&completion);
    }
    token_list_deinit(&tokens);
    return known;
}
