/*
 * compress.c - block compression: zstd, and snappy where the build has it.
 *
 * Contexts are kept by their builder or reader: a new one for each block would halve the speed.
 * Failing to compress is never an error, the block is stored as it is.
 */
#include "config.h"

#include "engine/sstable/sstable_internal.h"

#include <stdlib.h>
#include <zstd.h>
#ifdef HAVE_SNAPPY
#include <snappy-c.h>
#endif

struct TableDecompressor {
    ZSTD_DCtx *zstd;
};

bool compression_supported(Compression compression)
{
#ifdef HAVE_SNAPPY
    if (compression == COMPRESSION_SNAPPY)
        return true;
#endif
    return compression == COMPRESSION_NONE || compression == COMPRESSION_ZSTD;
}

void compressor_deinit(Compressor *compressor)
{
    ZSTD_freeCCtx(compressor->zstd);
    compressor->zstd = NULL;
}

size_t compress_bound(Compression compression, size_t size)
{
#ifdef HAVE_SNAPPY
    if (compression == COMPRESSION_SNAPPY)
        return snappy_max_compressed_length(size);
#endif
    return compression == COMPRESSION_ZSTD ? ZSTD_compressBound(size) : 0;
}

size_t compress_block(Compressor *compressor, Compression compression, const uint8_t *from,
                      size_t size, uint8_t *to, size_t capacity)
{
    size_t packed = 0;
    if (compression == COMPRESSION_ZSTD) {
        if (compressor->zstd == NULL)
            compressor->zstd = ZSTD_createCCtx();
        if (compressor->zstd == NULL)
            return 0;
        packed = ZSTD_compressCCtx(compressor->zstd, to, capacity, from, size, compressor->level);
        if (ZSTD_isError(packed))
            return 0;
    }
#ifdef HAVE_SNAPPY
    if (compression == COMPRESSION_SNAPPY) {
        packed = capacity;
        if (snappy_compress((const char *)from, size, (char *)to, &packed) != SNAPPY_OK)
            return 0;
    }
#endif
    return packed <= size - size / 8 ? packed : 0;
}

void decompressor_destroy(TableDecompressor *decompressor)
{
    if (decompressor == NULL)
        return;
    ZSTD_freeDCtx(decompressor->zstd);
    free(decompressor);
}

TableDecompressor *decompressor_create(void)
{
    TableDecompressor *decompressor = malloc(sizeof *decompressor);
    if (decompressor == NULL)
        return NULL;
    decompressor->zstd = ZSTD_createDCtx();
    if (decompressor->zstd == NULL) {
        free(decompressor);
        return NULL;
    }
    return decompressor;
}

const char *decompress_block(TableDecompressor *decompressor, uint8_t compression,
                             const uint8_t *from, size_t size, uint8_t *to, size_t raw_size)
{
    switch (compression) {
    case COMPRESSION_ZSTD:
        if (ZSTD_decompressDCtx(decompressor->zstd, to, raw_size, from, size) != raw_size)
            return "zstd block cannot be decompressed";
        return NULL;
#ifdef HAVE_SNAPPY
    case COMPRESSION_SNAPPY: {
        size_t length = 0;
        if (snappy_uncompressed_length((const char *)from, size, &length) != SNAPPY_OK ||
            length != raw_size)
            return "snappy block cannot be decompressed";
        if (snappy_uncompress((const char *)from, size, (char *)to, &length) != SNAPPY_OK)
            return "snappy block cannot be decompressed";
        return NULL;
    }
#endif
    default:
        return "block is compressed in a way that this build does not know";
    }
}

size_t compressed_size_at(const uint8_t *from, size_t available)
{
    static const uint8_t magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
    if (available < sizeof magic || memcmp(from, magic, sizeof magic) != 0)
        return 0;
    size_t size = ZSTD_findFrameCompressedSize(from, available);
    return ZSTD_isError(size) ? 0 : size;
}
