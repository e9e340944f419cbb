#include "config.h"
#include "bin/aidbsql/codec.h"

#include <wchar.h>

#include "bin/aidbsql/lexer.h"
#include "bin/aidbsql/mem.h"

static const char hex_digits[] = "0123456789abcdef";

size_t codec_utf8_decode(Slice bytes, uint32_t *code)
{
    if (bytes.size == 0)
        return 0;
    uint8_t first = bytes.data[0];
    size_t size;
    uint32_t value;
    uint32_t least; /* smaller values have a shorter form */
    if (first < 0x80) {
        *code = first;
        return 1;
    } else if (first >= 0xc2 && first <= 0xdf) {
        size = 2;
        value = first & 0x1f;
        least = 0x80;
    } else if (first >= 0xe0 && first <= 0xef) {
        size = 3;
        value = first & 0x0f;
        least = 0x800;
    } else if (first >= 0xf0 && first <= 0xf4) {
        size = 4;
        value = first & 0x07;
        least = 0x10000;
    } else {
        return 0;
    }
    if (bytes.size < size)
        return 0;
    for (size_t i = 1; i < size; i++) {
        if ((bytes.data[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (bytes.data[i] & 0x3f);
    }
    if (value < least || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
        return 0;
    *code = value;
    return size;
}

bool codec_is_utf8(Slice bytes)
{
    size_t at = 0;
    while (at < bytes.size) {
        uint32_t code;
        size_t size = codec_utf8_decode(slice_make(bytes.data + at, bytes.size - at), &code);
        if (size == 0)
            return false;
        at += size;
    }
    return true;
}

void codec_utf8_append(Buffer *out, uint32_t code)
{
    if (code < 0x80) {
        mem_append_byte(out, (char)code);
    } else if (code < 0x800) {
        mem_append_byte(out, (char)(0xc0 | code >> 6));
        mem_append_byte(out, (char)(0x80 | (code & 0x3f)));
    } else if (code < 0x10000) {
        mem_append_byte(out, (char)(0xe0 | code >> 12));
        mem_append_byte(out, (char)(0x80 | (code >> 6 & 0x3f)));
        mem_append_byte(out, (char)(0x80 | (code & 0x3f)));
    } else {
        mem_append_byte(out, (char)(0xf0 | code >> 18));
        mem_append_byte(out, (char)(0x80 | (code >> 12 & 0x3f)));
        mem_append_byte(out, (char)(0x80 | (code >> 6 & 0x3f)));
        mem_append_byte(out, (char)(0x80 | (code & 0x3f)));
    }
}

/* How the next character is escaped: 0 when it stands for itself. *size is how many bytes of input
 * it takes. Two-letter escapes give the letter, 'x' means one \xHH for each of its bytes. */
static char escape_of(Slice bytes, size_t *size, uint32_t *code)
{
    *size = codec_utf8_decode(bytes, code);
    if (*size == 0) {
        *size = 1;
        return 'x';
    }
    switch (*code) {
    case '\n':
        return 'n';
    case '\t':
        return 't';
    case '\r':
        return 'r';
    case '\0':
        return '0';
    case '\\':
        return '\\';
    default:
        return *code < 0x20 || (*code >= 0x7f && *code < 0xa0) ? 'x' : '\0';
    }
}

static void append_escaped(Buffer *out, Slice bytes, bool double_quotes)
{
    size_t plain = 0; /* bytes before it are written */
    for (size_t at = 0; at < bytes.size;) {
        uint32_t code;
        size_t size;
        char escape = escape_of(slice_make(bytes.data + at, bytes.size - at), &size, &code);
        bool quote = double_quotes && bytes.data[at] == '\'';
        if (escape == '\0' && !quote) {
            at += size;
            continue;
        }
        mem_append(out, bytes.data + plain, at - plain);
        if (quote) {
            mem_append(out, "''", 2);
        } else if (escape != 'x') {
            mem_append_byte(out, '\\');
            mem_append_byte(out, escape);
        } else {
            for (size_t i = 0; i < size; i++) {
                uint8_t byte = bytes.data[at + i];
                char text[4] = {'\\', 'x', hex_digits[byte >> 4], hex_digits[byte & 15]};
                mem_append(out, text, sizeof text);
            }
        }
        at += size;
        plain = at;
    }
    mem_append(out, bytes.data + plain, bytes.size - plain);
}

void codec_text_append(Buffer *out, Slice bytes)
{
    append_escaped(out, bytes, false);
}

bool codec_text_decode(Buffer *out, Slice text, size_t *error_at)
{
    for (size_t at = 0; at < text.size;) {
        const uint8_t *backslash = memchr(text.data + at, '\\', text.size - at);
        size_t run = backslash != NULL ? (size_t)(backslash - text.data) : text.size;
        mem_append(out, text.data + at, run - at);
        if (run == text.size)
            return true;
        uint8_t byte;
        size_t taken =
            lexer_decode_escape(slice_make(text.data + run + 1, text.size - run - 1), true, &byte);
        if (taken == 0) {
            *error_at = run;
            return false;
        }
        mem_append_byte(out, (char)byte);
        at = run + 1 + taken;
    }
    return true;
}

void codec_word_append(Buffer *out, Slice bytes)
{
    size_t begin = out->size;
    codec_text_append(out, bytes);
    if (lexer_is_bare(bytes) && out->size - begin == bytes.size)
        return; /* nothing in it was escaped */
    out->size = begin;
    mem_append_byte(out, '\'');
    append_escaped(out, bytes, true);
    mem_append_byte(out, '\'');
}

void codec_csv_append(Buffer *out, Slice bytes)
{
    bool quote = false;
    for (size_t i = 0; i < bytes.size && !quote; i++) {
        uint8_t c = bytes.data[i];
        quote = c == ',' || c == '"' || c == '\n' || c == '\r';
    }
    if (!quote) {
        mem_append(out, bytes.data, bytes.size);
        return;
    }
    mem_append_byte(out, '"');
    for (size_t i = 0; i < bytes.size; i++) {
        if (bytes.data[i] == '"')
            mem_append_byte(out, '"');
        mem_append_byte(out, (char)bytes.data[i]);
    }
    mem_append_byte(out, '"');
}

void codec_json_append(Buffer *out, Slice bytes)
{
    mem_append_byte(out, '"');
    size_t plain = 0;
    for (size_t at = 0; at < bytes.size; at++) {
        uint8_t c = bytes.data[at];
        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
            continue;
        mem_append(out, bytes.data + plain, at - plain);
        plain = at + 1;
        switch (c) {
        case '"':
        case '\\':
            mem_append_byte(out, '\\');
            mem_append_byte(out, (char)c);
            break;
        case '\n':
            mem_append_string(out, "\\n");
            break;
        case '\r':
            mem_append_string(out, "\\r");
            break;
        case '\t':
            mem_append_string(out, "\\t");
            break;
        default:
            mem_append_format(out, "\\u%04x", c);
            break;
        }
    }
    mem_append(out, bytes.data + plain, bytes.size - plain);
    mem_append_byte(out, '"');
}

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void codec_base64_append(Buffer *out, Slice bytes)
{
    for (size_t at = 0; at < bytes.size; at += 3) {
        size_t size = bytes.size - at < 3 ? bytes.size - at : 3;
        uint32_t group = (uint32_t)bytes.data[at] << 16;
        if (size > 1)
            group |= (uint32_t)bytes.data[at + 1] << 8;
        if (size > 2)
            group |= bytes.data[at + 2];
        char text[4] = {base64_digits[group >> 18], base64_digits[group >> 12 & 63],
                        size > 1 ? base64_digits[group >> 6 & 63] : '=',
                        size > 2 ? base64_digits[group & 63] : '='};
        mem_append(out, text, sizeof text);
    }
}

static int base64_value(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool codec_base64_decode(Buffer *out, Slice text)
{
    if (text.size % 4 != 0)
        return false;
    for (size_t at = 0; at < text.size; at += 4) {
        bool last = at + 4 == text.size;
        size_t padding = 0;
        if (last && text.data[at + 3] == '=')
            padding = text.data[at + 2] == '=' ? 2 : 1;
        uint32_t group = 0;
        for (size_t i = 0; i < 4; i++) {
            int value = i >= 4 - padding ? 0 : base64_value(text.data[at + i]);
            if (value < 0)
                return false;
            group = group << 6 | (uint32_t)value;
        }
        /* Bits that no byte takes must be zero, or two texts would mean the same bytes. */
        if (padding > 0 && (group & (padding == 1 ? 0xffu : 0xffffu)) != 0)
            return false;
        uint8_t bytes[3] = {(uint8_t)(group >> 16), (uint8_t)(group >> 8), (uint8_t)group};
        mem_append(out, bytes, 3 - padding);
    }
    return true;
}

size_t codec_display_width(Slice bytes)
{
    size_t width = 0;
    for (size_t at = 0; at < bytes.size;) {
        uint32_t code;
        size_t size;
        char escape = escape_of(slice_make(bytes.data + at, bytes.size - at), &size, &code);
        if (escape == 'x') {
            width += 4 * size;
        } else if (escape != '\0') {
            width += 2;
        } else {
            int columns = code < 0x80 ? 1 : wcwidth((wchar_t)code);
            width += columns > 0 ? (size_t)columns : 0;
        }
        at += size;
    }
    return width;
}
