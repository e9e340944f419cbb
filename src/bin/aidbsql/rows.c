#include "config.h"
#include "bin/aidbsql/rows.h"

#include <errno.h>
#include <stdarg.h>
#include <strings.h>

#include "bin/aidbsql/codec.h"
#include "bin/aidbsql/mem.h"

/* A line may be the largest key and value with every byte escaped: more than this cannot be a row,
 * and reading on would only fill memory. */
#define ROW_TEXT_MAX (6 * ((uint64_t)AIDB_VALUE_MAX + AIDB_KEY_MAX) + 4096)

void row_reader_init(RowReader *reader, FILE *file, RowFormat format)
{
    *reader = (RowReader){.file = file, .format = format, .line = 1, .column = 1};
}

void row_reader_deinit(RowReader *reader)
{
    buffer_deinit(&reader->key);
    buffer_deinit(&reader->value);
    buffer_deinit(&reader->text);
}

static RowResult __attribute__((format(printf, 4, 5)))
fail(RowReader *reader, uint64_t line, uint64_t column, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(reader->error, sizeof reader->error, format, args);
    va_end(args);
    reader->error_line = line;
    reader->error_column = column;
    return ROW_ERROR;
}

/* The next byte, or EOF. */
static int next_byte(RowReader *reader)
{
    int c = getc_unlocked(reader->file);
    if (c == EOF)
        return EOF;
    reader->bytes_read++;
    if (c == '\n') {
        reader->line++;
        reader->column = 1;
    } else {
        reader->column++;
    }
    return c;
}

static RowResult end_of_file(RowReader *reader)
{
    if (ferror(reader->file))
        return fail(reader, reader->line, reader->column, "could not read: %s", strerror(errno));
    return ROW_END;
}

static RowResult check_sizes(RowReader *reader, uint64_t line)
{
    if (reader->key.size == 0)
        return fail(reader, line, 1, "the key is empty");
    if (reader->key.size > AIDB_KEY_MAX)
        return fail(reader, line, 1, "the key has %zu bytes, a key has at most %u",
                    reader->key.size, AIDB_KEY_MAX);
    if (reader->value.size > AIDB_VALUE_MAX)
        return fail(reader, line, 1, "the value has %zu bytes, a value has at most %u",
                    reader->value.size, AIDB_VALUE_MAX);
    return ROW_READ;
}

/* --- CSV ---------------------------------------------------------------------------------- */

typedef enum FieldEnd { FIELD_COMMA, FIELD_LINE, FIELD_FILE, FIELD_ERROR } FieldEnd;

static FieldEnd end_of_field(RowReader *reader, int c)
{
    if (c == EOF && ferror(reader->file)) {
        end_of_file(reader);
        return FIELD_ERROR;
    }
    return c == ',' ? FIELD_COMMA : c == '\n' ? FIELD_LINE : FIELD_FILE;
}

/* Reads a field into `out`, which must be empty. *quoted tells "" from nothing. */
static FieldEnd read_csv_field(RowReader *reader, Buffer *out, bool *quoted)
{
    uint64_t line = reader->line;
    uint64_t column = reader->column;
    int c = next_byte(reader);
    *quoted = c == '"';
    if (!*quoted) {
        for (; c != ',' && c != '\n' && c != EOF; c = next_byte(reader)) {
            if (c == '"') {
                fail(reader, reader->line, reader->column - 1,
                     "a quote within a field that is not quoted");
                return FIELD_ERROR;
            }
            if (out->size > AIDB_VALUE_MAX) {
                fail(reader, line, column, "this field is longer than a value can be");
                return FIELD_ERROR;
            }
            mem_append_byte(out, (char)c);
        }
        if (c != ',' && out->size > 0 && out->data[out->size - 1] == '\r')
            out->size--;
        return end_of_field(reader, c);
    }
    for (;;) {
        c = next_byte(reader);
        if (c == '"') {
            c = next_byte(reader);
            if (c != '"')
                break;
        }
        if (c == EOF) {
            if (end_of_field(reader, c) != FIELD_ERROR)
                fail(reader, line, column, "this quote is never closed");
            return FIELD_ERROR;
        }
        if (out->size > AIDB_VALUE_MAX) {
            fail(reader, line, column, "this field is longer than a value can be");
            return FIELD_ERROR;
        }
        mem_append_byte(out, (char)c);
    }
    if (c == '\r') {
        c = next_byte(reader);
        if (c == ',')
            c = '\r'; /* a lone CR is no line end */
    }
    if (c != ',' && c != '\n' && c != EOF) {
        fail(reader, reader->line, reader->column - 1,
             "only a comma or a line end may follow a "
             "closing quote");
        return FIELD_ERROR;
    }
    return end_of_field(reader, c);
}

static RowResult read_csv(RowReader *reader)
{
    for (;;) {
        uint64_t line = reader->line;
        bool quoted;
        reader->row_line = line;
        buffer_clear(&reader->key);
        buffer_clear(&reader->value);
        FieldEnd end = read_csv_field(reader, &reader->key, &quoted);
        if (end == FIELD_ERROR)
            return ROW_ERROR;
        if (end != FIELD_COMMA) {
            if (reader->key.size == 0 && !quoted) {
                if (end == FIELD_FILE)
                    return ROW_END;
                continue;
            }
            return fail(reader, line, 1, "one field where a key and a value were expected");
        }
        end = read_csv_field(reader, &reader->value, &quoted);
        if (end == FIELD_ERROR)
            return ROW_ERROR;
        if (end == FIELD_COMMA)
            return fail(reader, reader->line, reader->column - 1,
                        "a third field where a key and a value were expected");
        return check_sizes(reader, line);
    }
}

/* --- Lines -------------------------------------------------------------------------------- */

/* Reads a line without its end into `text`. ROW_END only when there is nothing left. */
static RowResult read_line(RowReader *reader)
{
    buffer_clear(&reader->text);
    reader->row_line = reader->line;
    int c;
    while ((c = next_byte(reader)) != EOF && c != '\n') {
        if (reader->text.size > ROW_TEXT_MAX)
            return fail(reader, reader->row_line, 1, "this line is longer than any row can be");
        mem_append_byte(&reader->text, (char)c);
    }
    if (c == EOF && (ferror(reader->file) || reader->text.size == 0))
        return end_of_file(reader);
    if (reader->text.size > 0 && reader->text.data[reader->text.size - 1] == '\r')
        reader->text.size--;
    return ROW_READ;
}

/* The next line that is not blank. */
static RowResult read_full_line(RowReader *reader)
{
    RowResult result;
    do {
        result = read_line(reader);
    } while (result == ROW_READ && reader->text.size == 0);
    return result;
}

static RowResult decode_tsv_field(RowReader *reader, Buffer *out, size_t begin, size_t end)
{
    size_t error_at;
    if (!codec_text_decode(out, slice_make(reader->text.data + begin, end - begin), &error_at))
        return fail(reader, reader->row_line, begin + error_at + 1,
                    "not an escape: \\n \\t \\r \\0 \\\\ \\' and \\xHH are");
    return ROW_READ;
}

static RowResult read_tsv(RowReader *reader)
{
    RowResult result = read_full_line(reader);
    if (result != ROW_READ)
        return result;
    buffer_clear(&reader->key);
    buffer_clear(&reader->value);
    Slice text = buffer_slice(&reader->text);
    const uint8_t *tab = memchr(text.data, '\t', text.size);
    if (tab == NULL)
        return fail(reader, reader->row_line, text.size + 1, "no TAB between a key and a value");
    size_t key_size = (size_t)(tab - text.data);
    const uint8_t *second = memchr(tab + 1, '\t', text.size - key_size - 1);
    if (second != NULL)
        return fail(reader, reader->row_line, (size_t)(second - text.data) + 1,
                    "a second TAB; within a value it is written \\t");
    result = decode_tsv_field(reader, &reader->key, 0, key_size);
    if (result == ROW_READ)
        result = decode_tsv_field(reader, &reader->value, key_size + 1, text.size);
    return result == ROW_READ ? check_sizes(reader, reader->row_line) : result;
}

/* --- JSON --------------------------------------------------------------------------------- */

typedef struct Json {
    RowReader *reader;
    Slice text;
    size_t at;
} Json;

static bool json_fail(Json *json, size_t at, const char *message)
{
    fail(json->reader, json->reader->row_line, at + 1, "%s", message);
    return false;
}

static void json_skip_space(Json *json)
{
    while (json->at < json->text.size && strchr(" \t\r", json->text.data[json->at]) != NULL &&
           json->text.data[json->at] != '\0')
        json->at++;
}

/* Skips white space and takes the character when it comes next. */
static bool json_take(Json *json, char c)
{
    json_skip_space(json);
    if (json->at >= json->text.size || json->text.data[json->at] != (uint8_t)c)
        return false;
    json->at++;
    return true;
}

static bool json_hex4(Json *json, uint32_t *code)
{
    *code = 0;
    if (json->text.size - json->at < 4)
        return json_fail(json, json->at, "\\u takes four hex digits");
    for (int i = 0; i < 4; i++) {
        uint8_t c = json->text.data[json->at];
        uint32_t digit;
        if (c >= '0' && c <= '9')
            digit = c - '0';
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            digit = (uint32_t)((c | 0x20) - 'a') + 10;
        else
            return json_fail(json, json->at, "\\u takes four hex digits");
        *code = *code * 16 + digit;
        json->at++;
    }
    return true;
}

/* \u was read. Characters beyond U+FFFF come as two escapes. */
static bool json_unicode(Json *json, Buffer *out)
{
    size_t begin = json->at - 2;
    uint32_t code;
    if (!json_hex4(json, &code))
        return false;
    if (code >= 0xd800 && code <= 0xdbff) {
        uint32_t low;
        if (json->text.size - json->at < 2 || json->text.data[json->at] != '\\' ||
            json->text.data[json->at + 1] != 'u')
            return json_fail(json, begin, "half of a surrogate pair");
        json->at += 2;
        if (!json_hex4(json, &low))
            return false;
        if (low < 0xdc00 || low > 0xdfff)
            return json_fail(json, begin, "half of a surrogate pair");
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code <= 0xdfff) {
        return json_fail(json, begin, "half of a surrogate pair");
    }
    codec_utf8_append(out, code);
    return true;
}

static bool json_string(Json *json, Buffer *out)
{
    buffer_clear(out);
    json_skip_space(json);
    size_t begin = json->at;
    if (!json_take(json, '"'))
        return json_fail(json, begin, "a string was expected");
    for (;;) {
        size_t run = json->at;
        while (run < json->text.size && json->text.data[run] >= 0x20 &&
               json->text.data[run] != '"' && json->text.data[run] != '\\')
            run++;
        mem_append(out, json->text.data + json->at, run - json->at);
        json->at = run;
        if (run >= json->text.size)
            return json_fail(json, begin, "this string is never closed");
        uint8_t c = json->text.data[json->at++];
        if (c == '"')
            break;
        if (c != '\\')
            return json_fail(json, json->at - 1, "a control byte in a string");
        if (json->at >= json->text.size)
            return json_fail(json, begin, "this string is never closed");
        static const char letters[] = "\"\\/bfnrt";
        static const char meanings[] = "\"\\/\b\f\n\r\t";
        c = json->text.data[json->at++];
        const char *letter = c != '\0' ? strchr(letters, c) : NULL;
        if (letter != NULL)
            mem_append_byte(out, meanings[letter - letters]);
        else if (c != 'u')
            return json_fail(json, json->at - 2, "not an escape of JSON");
        else if (!json_unicode(json, out))
            return false;
    }
    if (!codec_is_utf8(buffer_slice(out)))
        return json_fail(json, begin, "this string is not UTF-8; use key_b64 or value_b64");
    return true;
}

static bool json_number(Json *json)
{
    json_skip_space(json);
    size_t begin = json->at;
    while (json->at < json->text.size && json->text.data[json->at] >= '0' &&
           json->text.data[json->at] <= '9')
        json->at++;
    return json->at > begin || json_fail(json, begin, "a whole number was expected");
}

/* A string member into `out`, undoing base64 when `encoded`. */
static bool json_bytes(Json *json, Buffer *out, bool encoded)
{
    if (!encoded)
        return json_string(json, out);
    Buffer text = {0};
    json_skip_space(json);
    size_t begin = json->at;
    bool read = json_string(json, &text);
    buffer_clear(out);
    if (read && !codec_base64_decode(out, buffer_slice(&text)))
        read = json_fail(json, begin, "this is not base64");
    buffer_deinit(&text);
    return read;
}

static bool json_member(Json *json, bool *has_key, bool *has_value)
{
    RowReader *reader = json->reader;
    Buffer name = {0};
    json_skip_space(json);
    size_t begin = json->at;
    bool read = json_string(json, &name);
    const char *text = mem_string(&name);
    if (read && !json_take(json, ':'))
        read = json_fail(json, json->at, "a colon was expected");
    if (read) {
        bool is_key = strcmp(text, "key") == 0 || strcmp(text, "key_b64") == 0;
        bool is_value = strcmp(text, "value") == 0 || strcmp(text, "value_b64") == 0;
        bool encoded = strstr(text, "_b64") != NULL;
        if (is_key && *has_key)
            read = json_fail(json, begin, "a second key");
        else if (is_value && *has_value)
            read = json_fail(json, begin, "a second value");
        else if (is_key)
            *has_key = read = json_bytes(json, &reader->key, encoded);
        else if (is_value)
            *has_value = read = json_bytes(json, &reader->value, encoded);
        else if (strcmp(text, "version") == 0)
            read = json_number(json);
        else
            read = json_fail(json, begin, "not one of key, key_b64, value, value_b64, version");
    }
    buffer_deinit(&name);
    return read;
}

static bool json_object(Json *json)
{
    bool has_key = false;
    bool has_value = false;
    if (!json_take(json, '{'))
        return json_fail(json, json->at, "an object was expected");
    if (!json_take(json, '}')) {
        do {
            if (!json_member(json, &has_key, &has_value))
                return false;
        } while (json_take(json, ','));
        if (!json_take(json, '}'))
            return json_fail(json, json->at, "a comma or } was expected");
    }
    size_t end = json->at;
    json_skip_space(json);
    if (json->at < json->text.size)
        return json_fail(json, json->at, "something behind the object");
    if (!has_key)
        return json_fail(json, end - 1, "no key in this object");
    if (!has_value)
        return json_fail(json, end - 1, "no value in this object");
    return true;
}

static RowResult read_jsonl(RowReader *reader)
{
    RowResult result = read_full_line(reader);
    if (result != ROW_READ)
        return result;
    Json json = {.reader = reader, .text = buffer_slice(&reader->text)};
    buffer_clear(&reader->key);
    buffer_clear(&reader->value);
    return json_object(&json) ? check_sizes(reader, reader->row_line) : ROW_ERROR;
}

/* --- All ---------------------------------------------------------------------------------- */

RowResult row_reader_next(RowReader *reader)
{
    switch (reader->format) {
    case ROW_CSV:
        return read_csv(reader);
    case ROW_TSV:
        return read_tsv(reader);
    case ROW_JSONL:
        break;
    }
    return read_jsonl(reader);
}

RowResult row_reader_skip(RowReader *reader)
{
    if (reader->format != ROW_CSV)
        return read_line(reader);
    FieldEnd end;
    do {
        bool quoted;
        buffer_clear(&reader->text);
        end = read_csv_field(reader, &reader->text, &quoted);
    } while (end == FIELD_COMMA);
    return end == FIELD_ERROR ? ROW_ERROR : end == FIELD_FILE ? ROW_END : ROW_READ;
}

static const struct {
    const char *name;
    RowFormat format;
} formats[] = {{"csv", ROW_CSV},     {"tsv", ROW_TSV},    {"tab", ROW_TSV},     {"text", ROW_TSV},
               {"jsonl", ROW_JSONL}, {"json", ROW_JSONL}, {"ndjson", ROW_JSONL}};

bool row_format_parse(const char *text, RowFormat *format)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        if (strcasecmp(text, formats[i].name) == 0) {
            *format = formats[i].format;
            return true;
        }
    }
    return false;
}

bool row_format_of_name(const char *name, RowFormat *format)
{
    const char *dot = strrchr(name, '.');
    if (dot == NULL || strchr(dot, '/') != NULL)
        return false;
    return row_format_parse(dot + 1, format);
}
