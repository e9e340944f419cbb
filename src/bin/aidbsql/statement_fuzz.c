/*
 * statement_fuzz.c - any bytes as statements, as commands and as rows of a file.
 *
 * Built on request only. With libFuzzer:
 *
 *     make src/bin/aidbsql/statement_fuzz CC=clang CFLAGS='-g -O1 -DAIDB_LIBFUZZER
 *         -fsanitize=fuzzer,address,undefined' LDFLAGS=-fsanitize=fuzzer,address,undefined
 *
 * Otherwise it runs each file named on its command line once, as AFL wants it. Beyond not crashing
 * it checks what must hold for every input: statements are cut in the same places whatever pieces
 * they arrive in, places in error messages lie within the text, and what is printed as a word is
 * read back as the same bytes.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>

#include "bin/aidbsql/codec.h"
#include "bin/aidbsql/mem.h"
#include "bin/aidbsql/parser.h"
#include "bin/aidbsql/rows.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

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
    require(lexer_tokenize(buffer_slice(&word), NULL, &tokens, &diagnostic));
    require(tokens.count == 1 && slice_equal(tokens.items[0].bytes, bytes));
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
        require(diagnostic.message[0] != '\0');
        require(diagnostic.offset <= text.size);
        require(diagnostic.length <= text.size - diagnostic.offset);
    }
    for (size_t i = 0; i < tokens.count; i++)
        check_word(tokens.items[i].bytes);
    statement_deinit(&statement);
    token_list_deinit(&tokens);
}

static void check_rows(Slice text, RowFormat format)
{
    FILE *file = fmemopen((void *)(uintptr_t)text.data, text.size, "r");
    if (file == NULL)
        return;
    RowReader reader;
    RowResult result;
    row_reader_init(&reader, file, format);
    while ((result = row_reader_next(&reader)) == ROW_READ)
        require(reader.key.size > 0);
    require(result == ROW_END || reader.error[0] != '\0');
    row_reader_deinit(&reader);
    fclose(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Slice text = slice_make(data, size);
    if (size == 0)
        return 0;
    size_t end = first_end(text, size);
    require(end == first_end(text, 1) && end == first_end(text, 3));
    check_statement(slice_make(data, end <= size ? end - 1 : size));
    check_statement(text);
    check_word(text);
    check_rows(text, ROW_CSV);
    check_rows(text, ROW_TSV);
    check_rows(text, ROW_JSONL);
    return 0;
}

#ifndef AIDB_LIBFUZZER
int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        Buffer text = {0};
        char block[4096];
        size_t size;
        FILE *file = fopen(argv[i], "re");
        if (file == NULL) {
            perror(argv[i]);
            return 1;
        }
        while ((size = fread(block, 1, sizeof block, file)) > 0)
            mem_append(&text, block, size);
        fclose(file);
        LLVMFuzzerTestOneInput(text.data, text.size);
        buffer_deinit(&text);
    }
    return 0;
}
#endif
