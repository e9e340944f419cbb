/*
 * frames.c - any bytes as what a client or a server sends.
 *
 * Every message that decodes is encoded again, and what comes out must decode to the same message:
 * encoder and decoder must mean one thing. The rows in messages are walked as requests walk them, and
 * what batch_check accepts must be read to its end without damage, because the engine does not check
 * again.
 */
#include "config.h"

#include "fuzz/fuzz.h"

#include "engine/base/base.h"
#include "protocol/protocol.h"

#define BODY_MAX 65536u

static void check_batch(Slice ops)
{
    uint32_t count = 0, ranges = 0, seen = 0;
    size_t cursor = 0;
    bool damaged = false;
    BatchOp op;
    bool good = batch_check(ops, &count, &ranges) == AIDB_OK;
    while (batch_next(ops, &cursor, &op, &damaged)) {
        seen++;
        fuzz_require(cursor <= ops.size && op.offset < ops.size);
        fuzz_require(op.key.size <= AIDB_KEY_MAX);
        fuzz_require(op.type == OP_DELETE_RANGE || op.key.size > 0);
    }
    fuzz_require(!good || (!damaged && seen == count && ranges <= count && cursor == ops.size));
}

static void check_expectations(Slice row)
{
    uint32_t count = 0, seen = 0;
    size_t cursor = 0;
    bool damaged = false;
    Expectation expectation;
    bool good = expectations_check(row, &count) == AIDB_OK;
    while (expectation_next(row, &cursor, &expectation, &damaged))
        seen++;
    fuzz_require(cursor <= row.size);
    fuzz_require(!good || (!damaged && seen == count && cursor == row.size));
}

bool fuzz_rows_fit(const Message *message)
{
    size_t cursor = 0, size = message->row.size;
    uint64_t count = 0, number;
    bool damaged = false;
    Slice key, value;
    switch (message->type) {
    case MESSAGE_MULTI_GET:
        for (; key_row_next(message->row, &cursor, &key, &damaged); count++)
            fuzz_require(cursor <= size);
        return !damaged && cursor == size && count == message->count;
    case MESSAGE_VALUES:
        for (; value_row_next(message->row, &cursor, &number, &value, &damaged); count++)
            fuzz_require(cursor <= size);
        return !damaged && cursor == size && count == message->count;
    case MESSAGE_CHUNK:
        while (entry_row_next(message->row, &cursor, &key, &value, &number, &damaged))
            fuzz_require(cursor <= size);
        return !damaged && cursor == size;
    default:
        return true;
    }
}

static void check_rows(const Message *message)
{
    (void)fuzz_rows_fit(message);
    if (message->type == MESSAGE_WRITE) {
        check_batch(message->ops);
        check_expectations(message->expectations);
    } else if (message->type == MESSAGE_ERROR) {
        fuzz_require(error_take(message) != AIDB_OK);
    }
}

static void check_message(const Frame *frame)
{
    Message message, again;
    Frame other;
    Buffer first = {0}, second = {0};
    if (message_decode(frame, &message) != AIDB_OK)
        return;
    check_rows(&message);
    fuzz_require(message_encode(&first, &message) == AIDB_OK);
    fuzz_require(frame_decode(first.data, first.size, UINT32_MAX, &other) == FRAME_COMPLETE);
    fuzz_require(other.size == first.size && message_decode(&other, &again) == AIDB_OK);
    fuzz_require(message_encode(&second, &again) == AIDB_OK);
    fuzz_require(slice_equal(buffer_slice(&first), buffer_slice(&second)));
    buffer_deinit(&first);
    buffer_deinit(&second);
}

void fuzz_frames(const uint8_t *data, size_t size)
{
    Frame frame;
    Slice text = slice_make(data, size);
    check_batch(text);
    check_expectations(text);
    /* A client believes what its server says about the largest body. */
    if (frame_decode(data, size, UINT32_MAX, &frame) == FRAME_COMPLETE)
        check_message(&frame);
    for (size_t at = 0; at < size; at += frame.size) {
        FrameResult result = frame_decode(data + at, size - at, BODY_MAX, &frame);
        if (result != FRAME_COMPLETE) {
            fuzz_require(result == FRAME_BAD || frame.size == 0 || frame.size > size - at);
            break;
        }
        fuzz_require(frame.size >= FRAME_HEADER_SIZE && frame.size <= size - at);
        fuzz_require(frame.size == FRAME_HEADER_SIZE + frame.body.size);
        check_message(&frame);
    }
}
