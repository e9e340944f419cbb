/*
 * batch.c - batches and expectations as rows of bytes.
 *
 * A batch is encoded once, by its writer, and is then the same bytes in memory, in the log and on
 * the wire; everybody else walks the row. The walk is total: rows come from clients and from disks
 * that may be damaged, so each step either yields an operation within the limits of aidb.h or says
 * why it cannot. Varints need not be of the shortest form, because nothing compares rows.
 *
 * Appending is all or nothing: room for a whole operation is reserved before its first byte is
 * written, so a failed call leaves the batch as it was.
 */
#include "config.h"
#include "engine/base/base.h"

#include "common/coding.h"

#include <inttypes.h>

/* ---- encoding -------------------------------------------------------------------------------- */

static Status check_key(Slice key)
{
    if (key.size == 0)
        return status_set(AIDB_INVALID, "key is empty");
    if (key.size > AIDB_KEY_MAX)
        return status_set(AIDB_INVALID, "key of %zu bytes is longer than %u", key.size,
                          AIDB_KEY_MAX);
    return AIDB_OK;
}

static Status check_bound(Slice bound)
{
    if (bound.size > AIDB_KEY_MAX)
        return status_set(AIDB_INVALID, "bound of %zu bytes of a range is longer than %u",
                          bound.size, AIDB_KEY_MAX);
    return AIDB_OK;
}

/* Room for one more element of at most `size` bytes; offsets in a row are 32 bits wide. */
static Status reserve_row(Buffer *row, size_t size)
{
    if (size > UINT32_MAX - row->size)
        return status_set(AIDB_LIMIT, "batch grows beyond %u bytes", UINT32_MAX);
    return buffer_reserve(row, size);
}

/* The room was reserved. */
static void add_byte(Buffer *row, uint8_t byte)
{
    row->data[row->size++] = byte;
}

static void add_slice(Buffer *row, Slice slice)
{
    uint8_t *end = put_varint(row->data + row->size, slice.size);
    if (slice.size > 0)
        memcpy(end, slice.data, slice.size);
    row->size = (size_t)(end - row->data) + slice.size;
}

Status batch_put(Batch *batch, Slice key, Slice value)
{
    RETURN_IF_FAILED(check_key(key));
    if (value.size > AIDB_VALUE_MAX)
        return status_set(AIDB_INVALID, "value of %zu bytes is longer than %u", value.size,
                          AIDB_VALUE_MAX);
    RETURN_IF_FAILED(reserve_row(&batch->ops, 1 + 2 * VARINT32_MAX + key.size + value.size));
    add_byte(&batch->ops, OP_PUT);
    add_slice(&batch->ops, key);
    add_slice(&batch->ops, value);
    batch->op_count++;
    return AIDB_OK;
}

Status batch_delete(Batch *batch, Slice key)
{
    RETURN_IF_FAILED(check_key(key));
    RETURN_IF_FAILED(reserve_row(&batch->ops, 1 + VARINT32_MAX + key.size));
    add_byte(&batch->ops, OP_DELETE);
    add_slice(&batch->ops, key);
    batch->op_count++;
    return AIDB_OK;
}

Status batch_delete_range(Batch *batch, Slice from, Slice to)
{
    RETURN_IF_FAILED(check_bound(from));
    RETURN_IF_FAILED(check_bound(to));
    if (to.size > 0 && slice_compare(from, to) >= 0)
        return AIDB_OK;
    RETURN_IF_FAILED(reserve_row(&batch->ops, 1 + 2 * VARINT32_MAX + from.size + to.size));
    add_byte(&batch->ops, OP_DELETE_RANGE);
    add_slice(&batch->ops, from);
    add_slice(&batch->ops, to);
    batch->op_count++;
    batch->range_count++;
    return AIDB_OK;
}

Status batch_expect(Batch *batch, Slice key, aidb_expect kind, uint64_t version)
{
    RETURN_IF_FAILED(check_key(key));
    if (kind != AIDB_EXPECT_ABSENT && kind != AIDB_EXPECT_PRESENT && kind != AIDB_EXPECT_VERSION)
        return status_set(AIDB_INVALID, "unknown kind of expectation %d", (int)kind);
    RETURN_IF_FAILED(reserve_row(&batch->expectations, 1 + VARINT32_MAX + key.size + 8));
    add_byte(&batch->expectations, (uint8_t)kind);
    add_slice(&batch->expectations, key);
    if (kind == AIDB_EXPECT_VERSION) {
        put_fixed64(batch->expectations.data + batch->expectations.size, version);
        batch->expectations.size += 8;
    }
    batch->expectation_count++;
    return AIDB_OK;
}

void batch_clear(Batch *batch)
{
    buffer_clear(&batch->ops);
    buffer_clear(&batch->expectations);
    batch->op_count = 0;
    batch->range_count = 0;
    batch->expectation_count = 0;
}

void batch_deinit(Batch *batch)
{
    buffer_deinit(&batch->ops);
    buffer_deinit(&batch->expectations);
    *batch = (Batch){0};
}

/* ---- decoding -------------------------------------------------------------------------------- */

/* Decodes the operation at `offset`, which is inside the row. Returns what is wrong with it, or
 * NULL and the place behind it. */
static const char *decode_op(Slice ops, size_t offset, BatchOp *op, size_t *next)
{
    const uint8_t *end = ops.data + ops.size;
    const uint8_t *at = ops.data + offset;
    *op = (BatchOp){.type = *at++, .offset = (uint32_t)offset};
    if (offset > UINT32_MAX)
        return "it lies beyond 4 GiB";
    if (op->type > OP_DELETE_RANGE)
        return "its type is unknown";
    at = decode_slice(at, end, &op->key);
    if (at == NULL)
        return "its key is cut off";
    if (op->key.size > AIDB_KEY_MAX)
        return "its key is too long";
    if (op->key.size == 0 && op->type != OP_DELETE_RANGE)
        return "its key is empty";
    if (op->type != OP_DELETE) {
        at = decode_slice(at, end, &op->value);
        if (at == NULL)
            return "its value is cut off";
        if (op->value.size > (op->type == OP_PUT ? AIDB_VALUE_MAX : AIDB_KEY_MAX))
            return "its value is too long";
    }
    *next = (size_t)(at - ops.data);
    return NULL;
}

bool batch_next(Slice ops, size_t *cursor, BatchOp *op, bool *damaged)
{
    *damaged = false;
    if (*cursor >= ops.size) {
        *damaged = *cursor > ops.size;
        return false;
    }
    *damaged = decode_op(ops, *cursor, op, cursor) != NULL;
    return !*damaged;
}

Status batch_check(Slice ops, uint32_t *op_count, uint32_t *range_count)
{
    *op_count = 0;
    *range_count = 0;
    for (size_t cursor = 0; cursor < ops.size;) {
        BatchOp op;
        size_t next = 0;
        const char *problem = decode_op(ops, cursor, &op, &next);
        if (problem != NULL)
            return status_set(AIDB_INVALID, "operation %" PRIu32 " of the batch, at byte %zu: %s",
                              *op_count, cursor, problem);
        ++*op_count;
        *range_count += op.type == OP_DELETE_RANGE;
        cursor = next;
    }
    return AIDB_OK;
}

static const char *decode_expectation(Slice row, size_t offset, Expectation *expectation,
                                      size_t *next)
{
    const uint8_t *end = row.data + row.size;
    const uint8_t *at = row.data + offset;
    *expectation = (Expectation){.kind = *at++};
    if (expectation->kind < AIDB_EXPECT_ABSENT || expectation->kind > AIDB_EXPECT_VERSION)
        return "its kind is unknown";
    at = decode_slice(at, end, &expectation->key);
    if (at == NULL)
        return "its key is cut off";
    if (expectation->key.size == 0)
        return "its key is empty";
    if (expectation->key.size > AIDB_KEY_MAX)
        return "its key is too long";
    if (expectation->kind == AIDB_EXPECT_VERSION) {
        at = decode_fixed64(at, end, &expectation->version);
        if (at == NULL)
            return "its version is cut off";
    }
    *next = (size_t)(at - row.data);
    return NULL;
}

bool expectation_next(Slice row, size_t *cursor, Expectation *expectation, bool *damaged)
{
    *damaged = false;
    if (*cursor >= row.size) {
        *damaged = *cursor > row.size;
        return false;
    }
    *damaged = decode_expectation(row, *cursor, expectation, cursor) != NULL;
    return !*damaged;
}

Status expectations_check(Slice row, uint32_t *count)
{
    *count = 0;
    for (size_t cursor = 0; cursor < row.size;) {
        Expectation expectation;
        size_t next = 0;
        const char *problem = decode_expectation(row, cursor, &expectation, &next);
        if (problem != NULL)
            return status_set(AIDB_INVALID, "expectation %" PRIu32 " of the batch, at byte %zu: %s",
                              *count, cursor, problem);
        ++*count;
        cursor = next;
    }
    return AIDB_OK;
}
