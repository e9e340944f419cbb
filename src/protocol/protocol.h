/*
 * protocol.h - the wire protocol: frames, messages, rows. doc/protocol.md has the byte tables.
 *
 * A client sends the four bytes PROTOCOL_MAGIC and then frames; a server sends frames. A frame is a
 * header of 16 bytes and a body whose layout the message's type decides. One table (protocol.c) lists
 * the fields of every type; encoder and decoder walk it, so they cannot disagree, and the decoder is
 * total: any bytes are a message or an error, nothing is read beyond the frame, and no memory is
 * taken. A length is checked against the limit of the connection's state before the body is awaited.
 *
 * Slices of a decoded message borrow from the frame's bytes.
 */
#ifndef AIDB_PROTOCOL_PROTOCOL_H
#define AIDB_PROTOCOL_PROTOCOL_H

#include "common/buffer.h"
#include "common/coding.h"
#include "common/slice.h"
#include "common/status.h"

#define PROTOCOL_MAGIC       "AiDb"
#define PROTOCOL_MAGIC_SIZE  4u
#define PROTOCOL_VERSION_MIN 1u
#define PROTOCOL_VERSION_MAX 1u
#define PROTOCOL_TLS_HELLO \
    0x16 /* the first byte of a TLS client, which is refused in this version */

#define FRAME_HEADER_SIZE    16u
#define FRAME_BODY_MAX_HELLO (10u * 1024u) /* before the client is authenticated */
#define FRAME_BODY_SLACK     (2u << 20)    /* on top of the largest batch or value */

/* Types of messages; the values are never reused. Replies have the highest bit. */
typedef enum MessageType {
    MESSAGE_HELLO = 0x01,
    MESSAGE_AUTHENTICATE = 0x02,
    MESSAGE_CANCEL = 0x03, /* first and only frame of a connection */
    MESSAGE_PING = 0x04,
    MESSAGE_GET = 0x10,
    MESSAGE_MULTI_GET = 0x11,
    MESSAGE_WRITE = 0x12,
    MESSAGE_SCAN = 0x13,
    MESSAGE_SCAN_MORE = 0x14,  /* no reply of its own */
    MESSAGE_SCAN_CLOSE = 0x15, /* no reply */
    MESSAGE_MEASURE = 0x16,
    MESSAGE_SNAPSHOT = 0x17,
    MESSAGE_RELEASE = 0x18,
    MESSAGE_PROPERTY = 0x19,
    MESSAGE_CONTROL = 0x1a,

    MESSAGE_READY = 0x81,
    MESSAGE_CHALLENGE = 0x82,
    MESSAGE_DONE = 0x84,
    MESSAGE_VALUE = 0x90,
    MESSAGE_VALUES = 0x91,
    MESSAGE_COMMIT = 0x92,
    MESSAGE_CHUNK = 0x93,
    MESSAGE_MEASURED = 0x96,
    MESSAGE_TEXT = 0x99,
    MESSAGE_ERROR = 0xe0,
    MESSAGE_NOTICE = 0xe1 /* request id 0: not a reply */
} MessageType;

/* Flags of a frame, by type. */
#define SCAN_REVERSE   0x01
#define SCAN_KEYS_ONLY 0x02
#define SCAN_ONE_CHUNK 0x04 /* the scan is over after its first chunk, wherever that ends */
#define SCAN_FLAGS     0x07
#define CHUNK_ENDED    0x01 /* the range has no further rows */
#define CHUNK_LAST     0x02 /* the scan is over: no further chunks come */
#define MEASURE_COUNT  0x01
#define MEASURE_BYTES  0x02
#define ERROR_CLOSES   0x01 /* the server closes the connection */

/*
 * Any message. A type uses the fields that its row in the table names, the rest is zero. All numbers
 * are 64 bits wide here; the table says how wide they are on the wire.
 */
typedef struct Message {
    uint8_t type;
    uint8_t flags;
    uint64_t id; /* of the request; replies repeat it */

    uint64_t snapshot; /* GET MULTI_GET SCAN MEASURE: read at, 0 is now */
    uint64_t lsn;      /* replies: read at, or of the last operation; RELEASE: which */
    uint64_t version; /* VALUE: of the key, 0 not found; COMMIT: present version; READY: protocol */
    uint64_t version_max; /* HELLO, with version as the least */
    uint64_t status;      /* COMMIT ERROR: aidb_status; NOTICE: LogLevel */
    uint64_t durability;  /* WRITE READY: aidb_durability */
    uint64_t count;       /* MULTI_GET VALUES: keys; MEASURED: keys; COMMIT: failed expectation */
    uint64_t bytes; /* MEASURED: bytes in files; SCAN: most bytes in a chunk; READY: largest body */
    uint64_t rows;  /* SCAN: most rows in a chunk */
    uint64_t credits;  /* SCAN SCAN_MORE: chunks the server may send */
    uint64_t session;  /* READY CANCEL */
    uint64_t secret;   /* READY CANCEL */
    uint64_t features; /* HELLO READY: bits, none defined */

    Slice key;  /* GET */
    Slice from; /* SCAN MEASURE CONTROL; empty: no bound */
    Slice to;
    Slice ops;          /* WRITE: a row of operations */
    Slice expectations; /* WRITE: a row of expectations */
    Slice row;          /* MULTI_GET: keys; VALUES: values; CHUNK: rows */
    Slice value;        /* VALUE; AUTHENTICATE CHALLENGE: data */
    Slice name;         /* HELLO: application; AUTHENTICATE: method; CHALLENGE: methods; PROPERTY;
                         * CONTROL: command; READY: server version */
    Slice user;         /* HELLO */
    Slice text;         /* TEXT ERROR NOTICE */
    Slice hint;         /* ERROR */
} Message;

typedef enum FrameResult {
    FRAME_COMPLETE,
    FRAME_PARTIAL, /* `size` says how many bytes the frame has, 0 while the header is not whole */
    FRAME_BAD      /* the error record says why; the stream cannot be followed any more */
} FrameResult;

typedef struct Frame {
    uint8_t type;
    uint8_t flags;
    uint64_t id;
    Slice body;
    size_t size; /* header and body */
} Frame;

/* Looks at the beginning of `data`. Bodies over `body_max` are FRAME_BAD. */
FrameResult frame_decode(const uint8_t *data, size_t size, size_t body_max, Frame *frame);

/* Decodes a frame's body. AIDB_PROTOCOL for unknown types and bodies that do not fit the table. */
Status message_decode(const Frame *frame, Message *message) MUST_CHECK;
/* Appends the message as a frame. */
Status message_encode(Buffer *buffer, const Message *message) MUST_CHECK;
const char *message_type_name(uint8_t type);

/* For replies that are put together piece by piece: appends a header, then the caller appends the
 * body, then the length is filled in. frame_end fails (AIDB_LIMIT) past 4 GiB. */
Status frame_begin(Buffer *buffer, uint8_t type, uint8_t flags, uint64_t id,
                   size_t *start) MUST_CHECK;
Status frame_end(Buffer *buffer, size_t start) MUST_CHECK;

/* ---- rows ------------------------------------------------------------------------------------ */

/* Each appends one element and decodes the next; *cursor starts at 0. The decoders return false at the
 * end or, with *damaged set, when the bytes do not fit. */

/* MULTI_GET: key slice. */
bool key_row_next(Slice row, size_t *cursor, Slice *key, bool *damaged);

/* VALUES: version fixed64 | value slice. */
Status value_row_append(Buffer *buffer, uint64_t version, Slice value) MUST_CHECK;
bool value_row_next(Slice row, size_t *cursor, uint64_t *version, Slice *value, bool *damaged);

/* CHUNK: lsn fixed64 | key slice | value slice. */
Status entry_row_append(Buffer *buffer, Slice key, Slice value, uint64_t lsn) MUST_CHECK;
bool entry_row_next(Slice row, size_t *cursor, Slice *key, Slice *value, uint64_t *lsn,
                    bool *damaged);

/* Appends an ERROR frame with the calling thread's error record. */
Status error_encode(Buffer *buffer, uint64_t id, Status status, bool closes) MUST_CHECK;
/* Fills the error record from an ERROR message; returns its status (AIDB_PROTOCOL when unknown). */
Status error_take(const Message *message) MUST_CHECK;

#endif
