/*
 * protocol.c - one table of message layouts, and the encoder and decoder that walk it.
 *
 * Nothing here allocates while decoding, keeps state or does I/O. Bodies must fit their layout
 * exactly; only HELLO and READY may be longer than known, so that later versions can add fields
 * behind those that this version reads.
 */
#include "config.h"
#include "protocol/protocol.h"

#include <stddef.h>
#include <string.h>

typedef enum FieldKind {
    FIELD_END = 0,
    FIELD_U8,
    FIELD_U16,
    FIELD_U32,
    FIELD_U64,
    FIELD_SLICE, /* varint size, bytes */
    FIELD_REST,  /* all that follows */
    FIELD_MORE   /* what follows is of a later version: ignored */
} FieldKind;

typedef struct Field {
    uint8_t kind;
    uint16_t offset; /* in Message */
} Field;

#define FIELDS_MAX 10
#define F(kind, member)                         \
    {                                           \
        FIELD_##kind, offsetof(Message, member) \
    }

typedef struct Layout {
    uint8_t type;
    const char *name;
    Field fields[FIELDS_MAX];
} Layout;

/* clang-format off */
static const Layout LAYOUTS[] = {
    {MESSAGE_HELLO, "HELLO",
     {F(U16, version), F(U16, version_max), F(U32, features), F(SLICE, name), F(SLICE, user), {FIELD_MORE, 0}}},
    {MESSAGE_AUTHENTICATE, "AUTHENTICATE", {F(SLICE, name), F(SLICE, value)}},
    {MESSAGE_CANCEL, "CANCEL", {F(U64, session), F(U64, secret)}},
    {MESSAGE_PING, "PING", {{0}}},
    {MESSAGE_GET, "GET", {F(U64, snapshot), F(REST, key)}},
    {MESSAGE_MULTI_GET, "MULTI_GET", {F(U64, snapshot), F(U32, count), F(REST, row)}},
    {MESSAGE_WRITE, "WRITE", {F(U8, durability), F(SLICE, ops), F(REST, expectations)}},
    {MESSAGE_SCAN, "SCAN",
     {F(U64, snapshot), F(U32, rows), F(U32, bytes), F(U32, credits), F(SLICE, from), F(SLICE, to)}},
    {MESSAGE_SCAN_MORE, "SCAN_MORE", {F(U32, credits)}},
    {MESSAGE_SCAN_CLOSE, "SCAN_CLOSE", {{0}}},
    {MESSAGE_MEASURE, "MEASURE", {F(U64, snapshot), F(SLICE, from), F(SLICE, to)}},
    {MESSAGE_SNAPSHOT, "SNAPSHOT", {{0}}},
    {MESSAGE_RELEASE, "RELEASE", {F(U64, lsn)}},
    {MESSAGE_PROPERTY, "PROPERTY", {F(SLICE, name)}},
    {MESSAGE_CONTROL, "CONTROL", {F(SLICE, name), F(SLICE, from), F(SLICE, to)}},

    {MESSAGE_READY, "READY",
     {F(U16, version), F(U32, features), F(U64, session), F(U64, secret), F(U32, bytes), F(U8, durability),
      F(U64, lsn), F(SLICE, name), {FIELD_MORE, 0}}},
    {MESSAGE_CHALLENGE, "CHALLENGE", {F(SLICE, name), F(SLICE, value)}},
    {MESSAGE_DONE, "DONE", {F(U64, lsn)}},
    {MESSAGE_VALUE, "VALUE", {F(U64, lsn), F(U64, version), F(REST, value)}},
    {MESSAGE_VALUES, "VALUES", {F(U64, lsn), F(U32, count), F(REST, row)}},
    {MESSAGE_COMMIT, "COMMIT", {F(U8, status), F(U64, lsn), F(U32, count), F(U64, version)}},
    {MESSAGE_CHUNK, "CHUNK", {F(U64, lsn), F(REST, row)}},
    {MESSAGE_MEASURED, "MEASURED", {F(U64, lsn), F(U64, count), F(U64, bytes)}},
    {MESSAGE_TEXT, "TEXT", {F(U64, lsn), F(REST, text)}},
    {MESSAGE_ERROR, "ERROR", {F(U8, status), F(SLICE, text), F(SLICE, hint)}},
    {MESSAGE_NOTICE, "NOTICE", {F(U8, status), F(REST, text)}},
};
/* clang-format on */

#define LAYOUT_COUNT (sizeof LAYOUTS / sizeof LAYOUTS[0])

static const Layout *find_layout(uint8_t type)
{
    for (size_t i = 0; i < LAYOUT_COUNT; i++)
        if (LAYOUTS[i].type == type)
            return &LAYOUTS[i];
    return NULL;
}

const char *message_type_name(uint8_t type)
{
    const Layout *layout = find_layout(type);
    return layout != NULL ? layout->name : "unknown";
}

/* ---- frames ---------------------------------------------------------------------------------- */

FrameResult frame_decode(const uint8_t *data, size_t size, size_t body_max, Frame *frame)
{
    *frame = (Frame){0};
    /* The length stands first, so that an oversized frame is refused as early as possible. */
    if (size >= 4 && get_fixed32(data) > body_max) {
        (void)status_set(AIDB_PROTOCOL, "frame of %u bytes: at most %zu are allowed here",
                         get_fixed32(data), body_max);
        return FRAME_BAD;
    }
    if (size < FRAME_HEADER_SIZE)
        return FRAME_PARTIAL;
    if (get_fixed16(data + 6) != 0) {
        (void)status_set(AIDB_PROTOCOL, "frame header: reserved bytes are not zero");
        return FRAME_BAD;
    }
    frame->type = data[4];
    frame->flags = data[5];
    frame->id = get_fixed64(data + 8);
    frame->size = (size_t)FRAME_HEADER_SIZE + get_fixed32(data);
    if (size < frame->size)
        return FRAME_PARTIAL;
    frame->body = slice_make(data + FRAME_HEADER_SIZE, frame->size - FRAME_HEADER_SIZE);
    return FRAME_COMPLETE;
}

Status frame_begin(Buffer *buffer, uint8_t type, uint8_t flags, uint64_t id, size_t *start)
{
    *start = buffer->size;
    RETURN_IF_FAILED(buffer_reserve(buffer, FRAME_HEADER_SIZE));
    uint8_t *header = buffer->data + buffer->size;
    put_fixed32(header, 0);
    header[4] = type;
    header[5] = flags;
    put_fixed16(header + 6, 0);
    put_fixed64(header + 8, id);
    buffer->size += FRAME_HEADER_SIZE;
    return AIDB_OK;
}

Status frame_end(Buffer *buffer, size_t start)
{
    size_t body = buffer->size - start - FRAME_HEADER_SIZE;
    if (body > UINT32_MAX) {
        buffer->size = start;
        return status_set(AIDB_LIMIT, "message of %zu bytes is larger than a frame can be", body);
    }
    put_fixed32(buffer->data + start, (uint32_t)body);
    return AIDB_OK;
}

/* ---- messages -------------------------------------------------------------------------------- */

static uint64_t *number_of(Message *message, Field field)
{
    return (uint64_t *)((uint8_t *)message + field.offset);
}

static Slice *slice_of(Message *message, Field field)
{
    return (Slice *)((uint8_t *)message + field.offset);
}

/* Fixed-width fields: the number of bytes, 0 for the other kinds. */
static unsigned width_of(uint8_t kind)
{
    static const uint8_t WIDTHS[] = {
        [FIELD_U8] = 1, [FIELD_U16] = 2, [FIELD_U32] = 4, [FIELD_U64] = 8, [FIELD_MORE] = 0};
    return WIDTHS[kind];
}

static const uint8_t *decode_number(const uint8_t *at, const uint8_t *end, unsigned width,
                                    uint64_t *value)
{
    if ((size_t)(end - at) < width)
        return NULL;
    uint64_t number = 0;
    for (unsigned i = 0; i < width; i++)
        number |= (uint64_t)at[i] << (8 * i);
    *value = number;
    return at + width;
}

Status message_decode(const Frame *frame, Message *message)
{
    memset(message, 0, sizeof *message);
    message->type = frame->type;
    message->flags = frame->flags;
    message->id = frame->id;
    const Layout *layout = find_layout(frame->type);
    if (layout == NULL)
        return status_set(AIDB_PROTOCOL, "unknown message type 0x%02x", frame->type);

    const uint8_t *at = frame->body.data;
    const uint8_t *end = at + frame->body.size;
    for (const Field *field = layout->fields; field->kind != FIELD_END && at != NULL; field++) {
        if (field->kind == FIELD_SLICE) {
            at = decode_slice(at, end, slice_of(message, *field));
        } else if (field->kind == FIELD_REST) {
            *slice_of(message, *field) = slice_make(at, (size_t)(end - at));
            at = end;
        } else if (field->kind == FIELD_MORE) {
            at = end;
        } else {
            at = decode_number(at, end, width_of(field->kind), number_of(message, *field));
        }
    }
    if (at != end) {
        const char *what = at == NULL ? "is cut short" : "has bytes too many";
        uint8_t type = message->type;
        memset(message, 0, sizeof *message);
        return status_set(AIDB_PROTOCOL, "%s message %s", message_type_name(type), what);
    }
    return AIDB_OK;
}

static Status encode_field(Buffer *buffer, const Message *message, Field field)
{
    if (field.kind == FIELD_MORE)
        return AIDB_OK;
    if (field.kind == FIELD_SLICE || field.kind == FIELD_REST) {
        const Slice *slice = (const Slice *)((const uint8_t *)message + field.offset);
        return field.kind == FIELD_SLICE ? buffer_append_slice(buffer, *slice)
                                         : buffer_append(buffer, slice->data, slice->size);
    }
    uint64_t number;
    memcpy(&number, (const uint8_t *)message + field.offset, sizeof number);
    uint8_t bytes[8];
    put_fixed64(bytes, number);
    return buffer_append(buffer, bytes, width_of(field.kind));
}

Status message_encode(Buffer *buffer, const Message *message)
{
    const Layout *layout = find_layout(message->type);
    if (layout == NULL)
        return status_set(AIDB_INTERNAL, "message type 0x%02x has no layout", message->type);
    size_t start = 0;
    Status status = frame_begin(buffer, message->type, message->flags, message->id, &start);
    for (const Field *field = layout->fields; field->kind != FIELD_END && status == AIDB_OK;
         field++)
        status = encode_field(buffer, message, *field);
    if (status == AIDB_OK)
        status = frame_end(buffer, start);
    if (status != AIDB_OK)
        buffer->size = start; /* no half frame stays behind */
    return status;
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* Common end of the row decoders: `at` is NULL when the bytes do not fit. */
static bool row_step(Slice row, size_t *cursor, const uint8_t *at, bool *damaged)
{
    if (at == NULL) {
        *damaged = true;
        return false;
    }
    *cursor = (size_t)(at - row.data);
    return true;
}

bool key_row_next(Slice row, size_t *cursor, Slice *key, bool *damaged)
{
    *damaged = false;
    if (*cursor >= row.size)
        return false;
    return row_step(row, cursor, decode_slice(row.data + *cursor, row.data + row.size, key),
                    damaged);
}

Status value_row_append(Buffer *buffer, uint64_t version, Slice value)
{
    RETURN_IF_FAILED(buffer_reserve(buffer, 8 + VARINT64_MAX + value.size));
    uint8_t *at = buffer->data + buffer->size;
    put_fixed64(at, version);
    at = put_varint(at + 8, value.size);
    if (value.size > 0)
        memcpy(at, value.data, value.size);
    buffer->size = (size_t)(at + value.size - buffer->data);
    return AIDB_OK;
}

bool value_row_next(Slice row, size_t *cursor, uint64_t *version, Slice *value, bool *damaged)
{
    *damaged = false;
    if (*cursor >= row.size)
        return false;
    const uint8_t *end = row.data + row.size;
    const uint8_t *at = decode_fixed64(row.data + *cursor, end, version);
    return row_step(row, cursor, at != NULL ? decode_slice(at, end, value) : NULL, damaged);
}

Status entry_row_append(Buffer *buffer, Slice key, Slice value, uint64_t lsn)
{
    RETURN_IF_FAILED(buffer_reserve(buffer, 8 + 2 * VARINT64_MAX + key.size + value.size));
    uint8_t *at = buffer->data + buffer->size;
    put_fixed64(at, lsn);
    at = put_varint(at + 8, key.size);
    if (key.size > 0)
        memcpy(at, key.data, key.size);
    at = put_varint(at + key.size, value.size);
    if (value.size > 0)
        memcpy(at, value.data, value.size);
    buffer->size = (size_t)(at + value.size - buffer->data);
    return AIDB_OK;
}

bool entry_row_next(Slice row, size_t *cursor, Slice *key, Slice *value, uint64_t *lsn,
                    bool *damaged)
{
    *damaged = false;
    if (*cursor >= row.size)
        return false;
    const uint8_t *end = row.data + row.size;
    const uint8_t *at = decode_fixed64(row.data + *cursor, end, lsn);
    at = at != NULL ? decode_slice(at, end, key) : NULL;
    return row_step(row, cursor, at != NULL ? decode_slice(at, end, value) : NULL, damaged);
}

/* ---- errors ---------------------------------------------------------------------------------- */

Status error_encode(Buffer *buffer, uint64_t id, Status status, bool closes)
{
    const char *text = status_text();
    const char *hint = strstr(text, "\nhint: ");
    Message message = {
        .type = MESSAGE_ERROR,
        .flags = closes ? ERROR_CLOSES : 0,
        .id = id,
        .status = (uint64_t)status,
        .text = slice_make(text, hint != NULL ? (size_t)(hint - text) : strlen(text)),
    };
    if (message.text.size == 0)
        message.text = slice_from_string(status_name(status));
    if (hint != NULL)
        message.hint = slice_from_string(hint + strlen("\nhint: "));
    return message_encode(buffer, &message);
}

Status error_take(const Message *message)
{
    Status status = message->status > 0 && message->status <= AIDB_INTERNAL
                        ? (Status)message->status
                        : AIDB_PROTOCOL;
    (void)status_set(status, "%.*s", (int)message->text.size, (const char *)message->text.data);
    if (message->hint.size > 0)
        status_hint("%.*s", (int)message->hint.size, (const char *)message->hint.data);
    return status;
}
