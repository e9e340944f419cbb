/*
 * lexer.h - statements and words.
 *
 * Input reaches aidbsql in pieces (a line, a block of a file), so there are two steps. The splitter
 * finds where a statement ends and keeps its place between pieces; the lexer cuts one whole
 * statement into words.
 *
 *     word     bare: any run of bytes but white space ; , quotes and control bytes
 *              '...' with '' \n \t \r \0 \\ \' \xHH, and any other byte as it is
 *              x'...' hex, two digits a byte
 *              $1 ... $9 the words after -- on the command line
 *              :'name' a variable of \set
 *     comment  -- at the start of a word, up to the end of the line
 *
 * Only a bare word can be a keyword; the parser decides by its position whether it is one.
 */
#ifndef AIDBSQL_LEXER_H
#define AIDBSQL_LEXER_H

#include "bin/aidbsql/diagnostic.h"
#include "common/buffer.h"

typedef enum SplitState {
    SPLIT_GAP, /* between words */
    SPLIT_WORD,
    SPLIT_DASH, /* a word so far is one '-' */
    SPLIT_COMMENT,
    SPLIT_QUOTE,
    SPLIT_ESCAPE /* in a quote, behind a backslash */
} SplitState;

/* Zero-initialise for the start of a statement. */
typedef struct Splitter {
    SplitState state;
    bool has_words; /* something other than white space and comments was seen */
} Splitter;

/* Reads bytes up to and including the `;` that ends the statement, or all of them. Returns how many
 * it took; *complete says whether the last one was that `;`. */
size_t splitter_feed(Splitter *splitter, Slice text, bool *complete);

typedef enum TokenKind { TOKEN_WORD, TOKEN_COMMA } TokenKind;

typedef struct Token {
    TokenKind kind;
    bool bare;     /* written without quotes: may be a keyword */
    Slice bytes;   /* what the word means; borrowed from the text or from the list */
    size_t offset; /* where it is written, from the start of the text */
    size_t length;
} Token;

typedef struct TokenList {
    Token *items;
    size_t count;
    size_t capacity;
    Buffer decoded; /* bytes of quoted words; reserved before the first is written, never moved */
} TokenList;

/* What $1..$9 and :'name' stand for. Either function pointer or list may be null. */
typedef struct LexerData {
    char *const *parameters; /* null-terminated strings */
    size_t parameter_count;
    const char *(*variable)(void *arg, const char *name); /* null when there is none */
    void *arg;
} LexerData;

/* Cuts a statement, without its `;`, into words. The list is filled anew and borrows from `text`.
 * False with *diagnostic filled when the text breaks a rule. */
bool lexer_tokenize(Slice text, const LexerData *data, TokenList *tokens, Diagnostic *diagnostic);
void token_list_deinit(TokenList *tokens);

/* Decodes the backslash escape whose character after the backslash is text[0]. Writes one byte and
 * returns how many characters it took, or 0 when it is not an escape. `\'` is one when `quote`. */
size_t lexer_decode_escape(Slice text, bool quote, uint8_t *byte);

/* Whether a word made of these bytes can be written bare, and still be data. */
bool lexer_is_bare(Slice bytes);

#endif
