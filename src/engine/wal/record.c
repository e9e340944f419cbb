/*
 * record.c - how a record is framed.
 *
 * A record is a header, the payload, and zero bytes up to a multiple of 8. The header's checksum is seeded with
 * the incarnation that wrote it, nonce included, and with the LSN: bytes left by an earlier incarnation, by an
 * earlier lap of the ring, in a recycled segment, or put by a client into a value are not a header here and
 * now. The payload has a hash of its own, so that it can be computed before the place in the log is known; the
 * header holds it mixed with the place.
 *
 * A short header of 16 bytes says what cannot be known otherwise. A full one of 40 states its LSN, too, the
 * durable frontier and the time. wal.c writes one whenever the frontier has moved, and as the first of each
 * block, so that what searches the log for the horizon looks for full headers only, which it tells from other bytes
 * by their LSN, without hashing.
 */
#include "config.h"

#include "engine/wal/wal_internal.h"

#include "common/coding.h"
#include "common/hash.h"

#include <assert.h>

#define PAYLOAD_HASH_SEED 0x6c6f67207061796cu

/* Offsets in the header. */
enum {
    AT_CHECKSUM = 0,     /* 48 bits */
    AT_PAYLOAD_HASH = 6, /* 48 bits */
    AT_PAYLOAD_SIZE = 12,
    AT_LSN = RECORD_AT_LSN,
    AT_DURABLE = 24,
    AT_TIME = 32
};

#define FULL_FLAG (UINT32_C(1) << 31) /* beside the payload's size */
#define BITS_48   ((UINT64_C(1) << 48) - 1)

uint64_t wal_payload_hash(Slice payload)
{
    return hash64(payload.data, payload.size, PAYLOAD_HASH_SEED);
}

uint64_t record_seed(const uint8_t system_id[16], uint32_t incarnation, uint64_t nonce)
{
    uint64_t system = hash_mix(get_fixed64(system_id), get_fixed64(system_id + 8));
    return hash_mix(hash_mix(system, incarnation), nonce);
}

uint64_t record_payload_hash(uint64_t payload_hash, uint64_t lsn)
{
    return hash_mix(payload_hash, lsn) & BITS_48;
}

static uint64_t checksum(const uint8_t *header, bool full, uint64_t lsn, uint64_t seed)
{
    return hash64(header + AT_PAYLOAD_HASH, record_header_size(full) - AT_PAYLOAD_HASH,
                  hash_mix(seed, lsn)) &
           BITS_48;
}

void record_encode(uint8_t to[RECORD_HEADER_FULL], const RecordHeader *header, uint64_t seed)
{
    uint32_t size = header->payload_size | (header->full ? FULL_FLAG : 0);
    uint64_t hash_low = header->payload_hash << 48;
    put_fixed64(to + 8, (uint64_t)size << 32 | header->payload_hash >> 16);
    put_fixed64(to, hash_low);
    if (header->full) {
        put_fixed64(to + AT_LSN, header->lsn);
        put_fixed64(to + AT_DURABLE, header->durable);
        put_fixed64(to + AT_TIME, header->time_us);
    }
    put_fixed64(to, hash_low | checksum(to, header->full, header->lsn, seed));
}

bool record_decode(const uint8_t *from, size_t size, uint64_t lsn, uint64_t seed,
                   RecordHeader *header)
{
    /* What the header says comes first: in stale bytes it seldom makes sense, and costs least. */
    return record_decode_unproven(from, size, lsn, header) &&
           (get_fixed64(from + AT_CHECKSUM) & BITS_48) == checksum(from, header->full, lsn, seed);
}

bool record_decode_unproven(const uint8_t *from, size_t size, uint64_t lsn, RecordHeader *header)
{
    if (size < RECORD_HEADER_SHORT)
        return false;
    uint32_t payload_size = get_fixed32(from + AT_PAYLOAD_SIZE);
    *header = (RecordHeader){
        .lsn = lsn,
        .payload_size = payload_size & ~FULL_FLAG,
        .full = (payload_size & FULL_FLAG) != 0,
        .payload_hash = get_fixed64(from + AT_PAYLOAD_HASH) & BITS_48,
    };
    if (header->payload_size > WAL_PAYLOAD_MAX)
        return false;
    if (!header->full)
        return true;
    if (size < RECORD_HEADER_FULL || get_fixed64(from + AT_LSN) != lsn)
        return false;
    header->durable = get_fixed64(from + AT_DURABLE);
    header->time_us = get_fixed64(from + AT_TIME);
    return header->durable <= lsn;
}

bool record_check(const RecordHeader *header, const uint8_t *rest, const char **what)
{
    uint64_t hash = wal_payload_hash(slice_make(rest, header->payload_size));
    if (record_payload_hash(hash, header->lsn) != header->payload_hash) {
        *what = "the payload of a log record does not match its hash";
        return false;
    }
    uint64_t padded =
        record_size(header->full, header->payload_size) - record_header_size(header->full);
    for (uint64_t i = header->payload_size; i < padded; i++)
        if (rest[i] != 0) {
            *what = "the padding of a log record is not zero";
            return false;
        }
    return true;
}

/* ---- header blocks ---------------------------------------------------------------------------- */

#define BLOCK_SEED 0x776c206865616472u

static uint64_t block_checksum(const uint8_t *block, size_t size, size_t at)
{
    static const uint8_t zeros[8];
    uint8_t copy[WAL_SEGMENT_HEADER_SIZE];
    assert(size <= sizeof copy && at + sizeof zeros <= size);
    memcpy(copy, block, size);
    memcpy(copy + at, zeros, sizeof zeros);
    return hash64(copy, size, BLOCK_SEED);
}

void block_seal(uint8_t *block, size_t size, size_t at)
{
    put_fixed64(block + at, block_checksum(block, size, at));
}

bool block_is_sealed(const uint8_t *block, size_t size, size_t at)
{
    return get_fixed64(block + at) == block_checksum(block, size, at);
}
