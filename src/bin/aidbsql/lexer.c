#include "config.h"
#include "bin/aidbsql/lexer.h"

#include <stdlib.h>

#include "bin/aidbsql/mem.h"

static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_control(uint8_t c)
{
    return c < 0x20 || c == 0x7f;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

size_t splitter_feed(Splitter *splitter, Slice text, bool *complete)
{
    SplitState state = splitter->state;
    size_t at = 0;
    *complete = false;
    while (at < text.size && !*complete) {
        uint8_t c = text.data[at++];
        switch (state) {
        case SPLIT_COMMENT:
            if (c == '\n')
                state = SPLIT_GAP;
            continue;
        case SPLIT_QUOTE:
            if (c == '\\')
                state = SPLIT_ESCAPE;
            else if (c == '\'')
                state = SPLIT_WORD; /* a doubled quote opens it again at once */
            continue;
        case SPLIT_ESCAPE:
            state = SPLIT_QUOTE;
            continue;
        case SPLIT_DASH:
            if (c == '-') {
                state = SPLIT_COMMENT;
                continue;
            }
            splitter->has_words = true;
            break;
        case SPLIT_GAP:
        case SPLIT_WORD:
            break;
        }
        if (c == ';') {
            *complete = true;
            state = SPLIT_GAP;
        } else if (is_space(c) || c == ',') {
            splitter->has_words |= c == ',';
            state = SPLIT_GAP;
        } else if (c == '\'') {
            splitter->has_words = true;
            state = SPLIT_QUOTE;
        } else if (c == '-' && state == SPLIT_GAP) {
            state = SPLIT_DASH;
        } else {
            splitter->has_words = true;
            state = SPLIT_WORD;
        }
    }
    splitter->state = state;
    return at;
}

size_t lexer_decode_escape(Slice text, bool quote, uint8_t *byte)
{
    if (text.size == 0)
        return 0;
    switch (text.data[0]) {
    case 'n':
        *byte = '\n';
        return 1;
    case 't':
        *byte = '\t';
        return 1;
    case 'r':
        *byte = '\r';
        return 1;
    case '0':
        *byte = '\0';
        return 1;
    case '\\':
        *byte = '\\';
        return 1;
    case '\'':
        *byte = '\'';
        return quote ? 1 : 0;
    case 'x':
        if (text.size < 3 || hex_digit(text.data[1]) < 0 || hex_digit(text.data[2]) < 0)
            return 0;
        *byte = (uint8_t)(hex_digit(text.data[1]) * 16 + hex_digit(text.data[2]));
        return 3;
    default:
        return 0;
    }
}

bool lexer_is_bare(Slice bytes)
{
    if (bytes.size == 0)
        return false;
    for (size_t i = 0; i < bytes.size; i++) {
        uint8_t c = bytes.data[i];
        if (c == ' ' || is_control(c) || c == ';' || c == ',' || c == '\'' || c == '"')
            return false;
    }
    if (bytes.data[0] == '\\' || (bytes.size >= 2 && memcmp(bytes.data, "--", 2) == 0))
        return false;
    /* $1 would be taken as the first word after -- on the command line. */
    return !(bytes.size == 2 && bytes.data[0] == '$' && bytes.data[1] >= '1' &&
             bytes.data[1] <= '9');
}

/* Where the lexer is in a statement. */
typedef struct Cursor {
    Slice text;
    size_t at;
    const LexerData *data;
    TokenList *tokens;
    Diagnostic *diagnostic;
} Cursor;

static void add_token(Cursor *cursor, Token token)
{
    TokenList *tokens = cursor->tokens;
    if (tokens->count == tokens->capacity) {
        tokens->capacity = tokens->capacity > 0 ? tokens->capacity * 2 : 16;
        tokens->items = mem_resize(tokens->items, tokens->capacity * sizeof *tokens->items);
    }
    tokens->items[tokens->count++] = token;
}

/* Reads '...' whose opening quote is at cursor->at into the list's decoded bytes. */
static bool read_quoted(Cursor *cursor, Slice *bytes)
{
    Buffer *decoded = &cursor->tokens->decoded;
    size_t begin = cursor->at;
    size_t first = decoded->size;
    size_t at = begin + 1;
    Slice text = cursor->text;
    for (;;) {
        if (at >= text.size)
            return diagnostic_set(cursor->diagnostic, begin, 1, "this quote is never closed");
        /* Whole runs without quote or backslash are copied at once: values can be large. */
        size_t run = at;
        while (run < text.size && text.data[run] != '\'' && text.data[run] != '\\')
            run++;
        mem_append(decoded, text.data + at, run - at);
        at = run;
        if (at >= text.size)
            continue;
        if (text.data[at] == '\'') {
            if (at + 1 >= text.size || text.data[at + 1] != '\'')
                break;
            mem_append_byte(decoded, '\'');
            at += 2;
            continue;
        }
        uint8_t byte = 0;
        size_t taken =
            lexer_decode_escape(slice_make(text.data + at + 1, text.size - at - 1), true, &byte);
        if (taken == 0) {
            size_t length = at + 1 < text.size ? 2 : 1;
            diagnostic_set(cursor->diagnostic, at, length, "not an escape");
            return diagnostic_hint(cursor->diagnostic,
                                   "In '...' write \\n \\t \\r \\0 \\\\ \\' or \\xHH with two hex "
                                   "digits; a backslash itself is \\\\.");
        }
        mem_append_byte(decoded, (char)byte);
        at += 1 + taken;
    }
    cursor->at = at + 1;
    *bytes = slice_make(decoded->data + first, decoded->size - first);
    return true;
}

/* Reads x'...' whose x is at cursor->at. */
static bool read_hex(Cursor *cursor, Slice *bytes)
{
    Buffer *decoded = &cursor->tokens->decoded;
    size_t begin = cursor->at;
    size_t first = decoded->size;
    Slice text = cursor->text;
    size_t at = begin + 2;
    for (; at < text.size && text.data[at] != '\''; at += 2) {
        int high = hex_digit(text.data[at]);
        if (high < 0)
            return diagnostic_set(cursor->diagnostic, at, 1, "not a hex digit");
        if (at + 1 >= text.size)
            break;
        if (text.data[at + 1] == '\'')
            return diagnostic_set(cursor->diagnostic, at, 1,
                                  "hex has two digits a byte, and this one is alone");
        int low = hex_digit(text.data[at + 1]);
        if (low < 0)
            return diagnostic_set(cursor->diagnostic, at + 1, 1, "not a hex digit");
        mem_append_byte(decoded, (char)(high * 16 + low));
    }
    if (at >= text.size || text.data[at] != '\'')
        return diagnostic_set(cursor->diagnostic, begin, 2, "this quote is never closed");
    cursor->at = at + 1;
    *bytes = slice_make(decoded->data + first, decoded->size - first);
    return true;
}

/* Reads :'name' whose colon is at cursor->at. The value stays where the variable keeps it: nothing
 * sets a variable while a statement that uses it runs. */
static bool read_variable(Cursor *cursor, Slice *bytes)
{
    size_t begin = cursor->at;
    Slice name;
    cursor->at = begin + 1;
    if (!read_quoted(cursor, &name))
        return false;
    char *copy = mem_copy_bytes(name);
    const char *value =
        cursor->data->variable != NULL ? cursor->data->variable(cursor->data->arg, copy) : NULL;
    if (value == NULL) {
        diagnostic_set(cursor->diagnostic, begin, cursor->at - begin, "no variable '%.64s'", copy);
        diagnostic_hint(cursor->diagnostic, "Set it with \\set %.64s VALUE or -v %.64s=VALUE.",
                        copy, copy);
    } else {
        *bytes = slice_from_string(value);
    }
    free(copy);
    return value != NULL;
}

static bool read_bare(Cursor *cursor, Token *token)
{
    Slice text = cursor->text;
    size_t begin = cursor->at;
    size_t at = begin;
    while (at < text.size) {
        uint8_t c = text.data[at];
        if (is_space(c) || c == ';' || c == ',' || c == '\'' || c == '"' || is_control(c))
            break;
        at++;
    }
    if (at < text.size && text.data[at] == '"') {
        diagnostic_set(cursor->diagnostic, at, 1, "double quotes are not used here");
        return diagnostic_hint(cursor->diagnostic, "Quote with '...'; in it \" is a plain byte.");
    }
    if (at < text.size && text.data[at] == '\'') {
        diagnostic_set(cursor->diagnostic, at, 1, "a quote within a bare word");
        return diagnostic_hint(cursor->diagnostic,
                               "Put a space before it, or quote the whole word: 'it''s'.");
    }
    if (at < text.size && is_control(text.data[at]) && !is_space(text.data[at])) {
        diagnostic_set(cursor->diagnostic, at, 1, "control byte 0x%02x outside of quotes",
                       text.data[at]);
        return diagnostic_hint(cursor->diagnostic, "Write it as '\\x%02x'.", text.data[at]);
    }
    cursor->at = at;
    token->bare = true;
    token->bytes = slice_make(text.data + begin, at - begin);
    if (at - begin == 2 && text.data[begin] == '$' && text.data[begin + 1] >= '1' &&
        text.data[begin + 1] <= '9') {
        size_t index = (size_t)(text.data[begin + 1] - '1');
        if (index >= cursor->data->parameter_count) {
            diagnostic_set(cursor->diagnostic, begin, 2, "$%zu is not given: %zu %s -- %s",
                           index + 1, cursor->data->parameter_count,
                           cursor->data->parameter_count == 1 ? "word follows" : "words follow",
                           "on the command line");
            return diagnostic_hint(cursor->diagnostic, "For the word itself write '$%zu'.",
                                   index + 1);
        }
        token->bare = false;
        token->bytes = slice_from_string(cursor->data->parameters[index]);
    }
    return true;
}

static bool read_word(Cursor *cursor, Token *token)
{
    Slice text = cursor->text;
    uint8_t c = text.data[cursor->at];
    uint8_t next = cursor->at + 1 < text.size ? text.data[cursor->at + 1] : '\0';
    bool read;
    if (c == '\'')
        read = read_quoted(cursor, &token->bytes);
    else if ((c == 'x' || c == 'X') && next == '\'')
        read = read_hex(cursor, &token->bytes);
    else if (c == ':' && next == '\'')
        read = read_variable(cursor, &token->bytes);
    else
        return read_bare(cursor, token);
    if (!read)
        return false;
    if (cursor->at < text.size) {
        c = text.data[cursor->at];
        if (!is_space(c) && c != ',' && c != ';') {
            diagnostic_set(cursor->diagnostic, cursor->at, 1, "no space after the closing quote");
            return diagnostic_hint(cursor->diagnostic,
                                   "A quote within '...' is written twice or as \\'.");
        }
    }
    return true;
}

bool lexer_tokenize(Slice text, const LexerData *data, TokenList *tokens, Diagnostic *diagnostic)
{
    static const LexerData no_data;
    Cursor cursor = {.text = text,
                     .data = data != NULL ? data : &no_data,
                     .tokens = tokens,
                     .diagnostic = diagnostic};
    tokens->count = 0;
    buffer_clear(&tokens->decoded);
    /* No escape is longer decoded than written, so the decoded bytes never move from here on. */
    mem_reserve(&tokens->decoded, text.size + 1);
    while (cursor.at < text.size) {
        uint8_t c = text.data[cursor.at];
        if (is_space(c)) {
            cursor.at++;
            continue;
        }
        if (c == ';') {
            for (size_t i = cursor.at; i < text.size; i++) {
                if (text.data[i] != ';' && !is_space(text.data[i]))
                    return diagnostic_set(diagnostic, cursor.at, 1, "';' ends a statement");
            }
            break;
        }
        if (c == '-' && cursor.at + 1 < text.size && text.data[cursor.at + 1] == '-') {
            while (cursor.at < text.size && text.data[cursor.at] != '\n')
                cursor.at++;
            continue;
        }
        Token token = {.kind = TOKEN_WORD, .offset = cursor.at};
        if (c == ',') {
            token.kind = TOKEN_COMMA;
            token.bytes = slice_make(text.data + cursor.at, 1);
            cursor.at++;
        } else if (!read_word(&cursor, &token)) {
            return false;
        }
        token.length = cursor.at - token.offset;
        add_token(&cursor, token);
    }
    return true;
}

void token_list_deinit(TokenList *tokens)
{
    free(tokens->items);
    buffer_deinit(&tokens->decoded);
    *tokens = (TokenList){0};
}
