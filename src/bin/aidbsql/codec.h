/*
 * codec.h - bytes as text, and back.
 *
 * Keys and values are any bytes; a terminal, a CSV file and JSON each take only some. Encoders append
 * to a buffer and cannot fail. Decoders are total: any input gives bytes or is refused.
 */
#ifndef AIDBSQL_CODEC_H
#define AIDBSQL_CODEC_H

#include "common/buffer.h"

/* The length of the valid UTF-8 character that the bytes begin with (no surrogates, no overlong
 * forms), and its code point; 0 when there is none. */
size_t codec_utf8_decode(Slice bytes, uint32_t *code);
bool codec_is_utf8(Slice bytes);
void codec_utf8_append(Buffer *out, uint32_t code);

/* Like the inside of '...': \n \t \r \0 \\ and \xHH for other control and non-UTF-8 bytes. Control
 * characters of two bytes (U+0080 to U+009F) count, because terminals obey them. */
void codec_text_append(Buffer *out, Slice bytes);
/* Undoes it. False with *error_at at the backslash that begins no escape. */
bool codec_text_decode(Buffer *out, Slice text, size_t *error_at);

/* As a word of a statement: bare where that is possible, quoted otherwise. */
void codec_word_append(Buffer *out, Slice bytes);

/* RFC 4180: in quotes, doubled inside, only where a comma, quote or line end asks for it. */
void codec_csv_append(Buffer *out, Slice bytes);

/* A JSON string with its quotes. The bytes must be UTF-8. */
void codec_json_append(Buffer *out, Slice bytes);

/* RFC 4648 with padding. */
void codec_base64_append(Buffer *out, Slice bytes);
bool codec_base64_decode(Buffer *out, Slice text);

/* Columns that the bytes take on a terminal once escaped by codec_text_append. */
size_t codec_display_width(Slice bytes);

#endif
