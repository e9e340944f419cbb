/* values.c - what a store with one writer must hold. See values.h. */
#include "config.h"

#include "fuzz/values.h"

#include "engine/base/base.h"
#include "fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#define WORK_MAX 20000000u

bool values_known(Values *values)
{
    values->lost = values->lost || values->work > WORK_MAX;
    return !values->lost;
}

static bool in_range(Slice key, Slice from, Slice to)
{
    return slice_compare(key, from) >= 0 && (to.size == 0 || slice_compare(key, to) < 0);
}

void values_write(Values *values, const Message *request, uint64_t lsn)
{
    BatchOp op;
    bool damaged = false;
    uint32_t last = 0;
    for (size_t cursor = 0; batch_next(request->ops, &cursor, &op, &damaged);)
        last = op.offset;
    for (size_t cursor = 0; batch_next(request->ops, &cursor, &op, &damaged);) {
        if (values->count == values->capacity) {
            values->capacity = values->capacity == 0 ? 64 : values->capacity * 2;
            values->ops = realloc(values->ops, values->capacity * sizeof *values->ops);
            fuzz_require(values->ops != NULL);
        }
        uint8_t *bytes = malloc(op.key.size + op.value.size + 1);
        fuzz_require(bytes != NULL);
        if (op.key.size > 0)
            memcpy(bytes, op.key.data, op.key.size);
        if (op.value.size > 0)
            memcpy(bytes + op.key.size, op.value.data, op.value.size);
        KnownOp known = {.lsn = lsn - (last - op.offset),
                         .type = op.type,
                         .key = slice_make(bytes, op.key.size),
                         .value = slice_make(bytes + op.key.size, op.value.size)};
        fuzz_require(known.lsn > values->newest);
        values->newest = known.lsn;
        values->ops[values->count++] = known;
    }
    fuzz_require(!damaged);
}

/* The operation that put the key, NULL when it is not there. */
static const KnownOp *find(Values *values, Slice key, uint64_t at)
{
    for (size_t i = values->count; i > 0; i--) {
        const KnownOp *op = &values->ops[i - 1];
        values->work++;
        if (op->lsn > at)
            continue;
        if (op->type == OP_DELETE_RANGE) {
            if (in_range(key, op->key, op->value))
                return NULL;
        } else if (slice_equal(op->key, key)) {
            return op->type == OP_PUT ? op : NULL;
        }
    }
    return NULL;
}

static uint64_t count_keys(Values *values, Slice from, Slice to, uint64_t at)
{
    uint64_t count = 0;
    for (size_t i = 0; i < values->count && values_known(values); i++) {
        const KnownOp *op = &values->ops[i];
        if (op->type == OP_PUT && op->lsn <= at && in_range(op->key, from, to))
            count += find(values, op->key, at) == op;
    }
    return count;
}

static void check_value(Values *values, Slice key, uint64_t at, uint64_t version, Slice value)
{
    const KnownOp *op = find(values, key, at);
    fuzz_require(version == (op != NULL ? op->lsn : 0));
    fuzz_require(slice_equal(value, op != NULL ? op->value : slice_make(NULL, 0)));
}

void values_check_read(Values *values, const Message *request, const Message *reply)
{
    if (!values_known(values))
        return;
    uint64_t at = reply->lsn, version;
    /* Nobody else writes, and a session reads what it wrote. */
    fuzz_require(request->snapshot == 0 ? at >= values->newest : at == request->snapshot);
    size_t key_at = 0, value_at = 0;
    Slice key, value;
    bool damaged = false;
    switch (request->type) {
    case MESSAGE_GET:
        check_value(values, request->key, at, reply->version, reply->value);
        break;
    case MESSAGE_MULTI_GET:
        fuzz_require(reply->count == request->count);
        while (key_row_next(request->row, &key_at, &key, &damaged) && values_known(values)) {
            fuzz_require(value_row_next(reply->row, &value_at, &version, &value, &damaged));
            check_value(values, key, at, version, value);
        }
        break;
    case MESSAGE_MEASURE:
        if ((request->flags & MEASURE_COUNT) != 0) {
            uint64_t count = count_keys(values, request->from, request->to, at);
            fuzz_require(!values_known(values) || reply->count == count);
        }
        break;
    default:
        break;
    }
}

void values_check_chunk(Values *values, const Message *request, const Message *reply, Slice from,
                        Slice to)
{
    bool reverse = (request->flags & SCAN_REVERSE) != 0, damaged = false;
    bool keys_only = (request->flags & SCAN_KEYS_ONLY) != 0;
    Slice key, value, last = {0};
    uint64_t lsn, rows = 0;
    for (size_t cursor = 0;
         values_known(values) && entry_row_next(reply->row, &cursor, &key, &value, &lsn, &damaged);
         rows++) {
        const KnownOp *op = find(values, key, reply->lsn);
        fuzz_require(op != NULL && op->lsn == lsn);
        fuzz_require(slice_equal(value, keys_only ? slice_make(NULL, 0) : op->value));
        fuzz_require(in_range(key, from, to));
        int order = rows == 0 ? 1 : slice_compare(key, last);
        fuzz_require(reverse && rows > 0 ? order < 0 : order > 0);
        last = key;
    }
    bool ended = (reply->flags & CHUNK_ENDED) != 0;
    if (!values_known(values) || (rows == 0 && !ended))
        return;
    /* Nothing between was left out. */
    uint64_t there = count_keys(values, ended || !reverse ? from : last,
                                ended || reverse ? to : last, reply->lsn);
    fuzz_require(!values_known(values) || there + (ended || reverse ? 0 : 1) == rows);
}

static bool holds(Values *values, const Expectation *expectation, uint64_t *version)
{
    const KnownOp *op = find(values, expectation->key, UINT64_MAX);
    *version = op != NULL ? op->lsn : 0;
    switch (expectation->kind) {
    case AIDB_EXPECT_ABSENT:
        return op == NULL;
    case AIDB_EXPECT_PRESENT:
        return op != NULL;
    default:
        return *version == expectation->version;
    }
}

void values_check_commit(Values *values, const Message *request, const Message *reply)
{
    Expectation expectation;
    bool damaged = false;
    uint64_t index = 0, version;
    for (size_t cursor = 0; values_known(values) && expectation_next(request->expectations, &cursor,
                                                                     &expectation, &damaged);
         index++) {
        bool met = holds(values, &expectation, &version);
        if (met)
            continue;
        /* The first that is not met is the one that is told. */
        fuzz_require(reply->status == AIDB_EXPECTATION && reply->count == index &&
                     reply->version == version);
        return;
    }
    fuzz_require(!values_known(values) || reply->status == AIDB_OK);
    if (reply->status == AIDB_OK)
        values_write(values, request, reply->lsn);
}

void values_deinit(Values *values)
{
    for (size_t i = 0; i < values->count; i++)
        free((void *)(uintptr_t)values->ops[i].key.data);
    free(values->ops);
}
