/*
 * statement.c - any bytes as statements.
 *
 * Beyond not crashing: statements are cut in the same places whatever pieces they arrive in, places in
 * error messages lie within the text, and what is printed as a word is read back as the same bytes.
 */
#include "config.h"

#include "fuzz/fuzz.h"

#include "bin/aidbsql/codec.h"
#include "bin/aidbsql/parser.h"

/* Where the first statement ends when the text arrives in pieces of this size. */
static size_t first_end(Slice text, size_t piece)
{
    Splitter splitter = {0};
    bool complete = false;
    size_t at = 0;
    while (at < text.size && !complete) {
        size_t size = text.size - at < piece ? text.size - at : piece;
        at += splitter_feed(&splitter, slice_make(text.data + at, size), &complete);
    }
    return complete ? at : SIZE_MAX;
}

static void check_word(Slice bytes)
{
    TokenList tokens = {0};
    Diagnostic diagnostic;
    Buffer word = {0};
    codec_word_append(&word, bytes);
    fuzz_require(lexer_tokenize(buffer_slice(&word), NULL, &tokens, &diagnostic));
    fuzz_require(tokens.count == 1 && slice_equal(tokens.items[0].bytes, bytes));
    token_list_deinit(&tokens);
    buffer_deinit(&word);
}

static void check_statement(Slice text)
{
    TokenList tokens = {0};
    Statement statement = {0};
    Diagnostic diagnostic = {0};
    if (!lexer_tokenize(text, NULL, &tokens, &diagnostic) ||
        !parser_parse(&tokens, &statement, &diagnostic)) {
        fuzz_require(diagnostic.message[0] != '\0');
        fuzz_require(diagnostic.offset <= text.size);
        fuzz_require(diagnostic.length <= text.size - diagnostic.offset);
    }
    for (size_t i = 0; i < tokens.count; i++)
        check_word(tokens.items[i].bytes);
    statement_deinit(&statement);
    token_list_deinit(&tokens);
}

void fuzz_statement(const uint8_t *data, size_t size)
{
    Slice text = slice_make(data, size);
    if (size == 0)
        return;
    size_t end = first_end(text, size);
    fuzz_require(end == first_end(text, 1) && end == first_end(text, 3));
    check_statement(slice_make(data, end <= size ? end - 1 : size));
    check_statement(text);
    check_word(text);
}
