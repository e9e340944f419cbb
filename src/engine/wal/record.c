/*
 * record.c - how a record is framed.
 *
 * A record is a header of 40 bytes, the payload, and zero bytes up to a multiple of 8. The header's
 * checksum is seeded with the incarnation that wrote it, nonce included, and covers the LSN: bytes
 * left by an earlier incarnation, by an earlier lap of the ring, in a recycled segment, or put by a
 * client into a value are not a header here and now. The payload has a hash of its own, so that it
 * can be computed before the place in the log is known; the header's checksum ties it to the place.
 */
#include "config.h"

#include "engine/wal/wal_internal.h"

#include "common/coding.h"
#include "common/hash.h"

#include <assert.h>

#define PAYLOAD_HASH_SEED 0x6c6f67207061796cu

/* Offsets in the header. */
enum {
    AT_CHECKSUM = 0,
    AT_PAYLOAD_SIZE = 4,
    AT_LSN = 8,
    AT_DURABLE = 16,
    AT_TIME = 24,
    AT_PAYLOAD_HASH = 32
};

uint64_t wal_payload_hash(Slice payload)
{
    return hash64(payload.data, payload.size, PAYLOAD_HASH_SEED);
}

uint64_t record_seed(const uint8_t system_id[16], uint32_t incarnation, uint64_t nonce)
{
    uint64_t system = hash_mix(get_fixed64(system_id), get_fixed64(system_id + 8));
    return hash_mix(hash_mix(system, incarnation), nonce);
}

static uint32_t checksum(const uint8_t *header, uint64_t seed)
{
    return (uint32_t)hash64(header + AT_PAYLOAD_SIZE, WAL_RECORD_HEADER_SIZE - AT_PAYLOAD_SIZE,
                            seed);
}

void record_encode(uint8_t to[WAL_RECORD_HEADER_SIZE], const RecordHeader *header, uint64_t seed)
{
    put_fixed32(to + AT_PAYLOAD_SIZE, header->payload_size);
    put_fixed64(to + AT_LSN, header->lsn);
    put_fixed64(to + AT_DURABLE, header->durable);
    put_fixed64(to + AT_TIME, header->time_us);
    put_fixed64(to + AT_PAYLOAD_HASH, header->payload_hash);
    put_fixed32(to + AT_CHECKSUM, checksum(to, seed));
}

bool record_decode(const uint8_t *from, uint64_t lsn, uint64_t seed, RecordHeader *header)
{
    /* The LSN comes first: in stale bytes it nearly always differs, and costs least. */
    return get_fixed64(from + AT_LSN) == lsn &&
           get_fixed32(from + AT_CHECKSUM) == checksum(from, seed) &&
           record_decode_unproven(from, lsn, header);
}

bool record_decode_unproven(const uint8_t *from, uint64_t lsn, RecordHeader *header)
{
    if (get_fixed64(from + AT_LSN) != lsn)
        return false;
    *header = (RecordHeader){
        .payload_size = get_fixed32(from + AT_PAYLOAD_SIZE),
        .lsn = lsn,
        .durable = get_fixed64(from + AT_DURABLE),
        .time_us = get_fixed64(from + AT_TIME),
        .payload_hash = get_fixed64(from + AT_PAYLOAD_HASH),
    };
    return header->payload_size <= WAL_PAYLOAD_MAX && header->durable <= lsn;
}

bool record_check(const RecordHeader *header, const uint8_t *rest, const char **what)
{
    if (wal_payload_hash(slice_make(rest, header->payload_size)) != header->payload_hash) {
        *what = "the payload of a log record does not match its hash";
        return false;
    }
    uint64_t padded = record_size(header->payload_size) - WAL_RECORD_HEADER_SIZE;
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
