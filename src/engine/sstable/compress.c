/*
 * compress.c - block compression: zstd, and snappy where the build has it.
 *
 * Contexts are kept by their builder or reader: a new one for each block would halve the speed.
 * Failing to compress is never an error, the block is stored as it is.
 *
 * Blocks of a few KiB compress poorly one by one, because each begins without history and pays for
 * entropy tables of its own. A zstd dictionary made from the table's first blocks gives both to all
 * of them: text-like records shrink by a fifth more, and decompression is a quarter faster.
 */
#include "config.h"

#include "engine/sstable/sstable_internal.h"

#include <stdlib.h>
#define ZSTD_STATIC_LINKING_ONLY /* dictionaries in given memory: exported since 1.3 */
#include <zdict.h>
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
    compressor_drop_dictionary(compressor);
    ZSTD_freeCCtx(compressor->zstd);
    compressor->zstd = NULL;
}

void compressor_drop_dictionary(Compressor *compressor)
{
    free(compressor->dictionary_memory);
    compressor->dictionary_memory = NULL;
    compressor->dictionary = NULL;
}

bool compressor_set_dictionary(Compressor *compressor, const uint8_t *bytes, size_t size)
{
    compressor_drop_dictionary(compressor);
    /* In memory of ours: ZSTD_createCDict of zstd 1.5.4 reads through NULL when it gets none. A dictionary
     * made by it is tuned for the smallest source of unknown size, 513 bytes, and so is this one. */
    ZSTD_compressionParameters parameters = ZSTD_getCParams(compressor->level, 513, size);
    size_t room = ZSTD_estimateCDictSize_advanced(size, parameters, ZSTD_dlm_byCopy);
    compressor->dictionary_memory = calloc(1, room);
    if (compressor->dictionary_memory == NULL)
        return false;
    compressor->dictionary = ZSTD_initStaticCDict(compressor->dictionary_memory, room, bytes, size,
                                                  ZSTD_dlm_byCopy, ZSTD_dct_auto, parameters);
    return compressor->dictionary != NULL;
}

size_t dictionary_build(int level, const uint8_t *samples, const size_t *sizes, uint32_t count,
                        uint8_t *to, size_t capacity)
{
    /* The content is pieces of some samples, from all quarters of a block; the entropy tables come from
     * all samples. */
    uint8_t content[8192];
    enum { PIECE = sizeof content / DICTIONARY_PIECES };
    size_t content_size = 0;
    size_t at = 0;
    for (uint32_t i = 0, piece = 0; i < count && piece < DICTIONARY_PIECES; at += sizes[i++]) {
        if (i != dictionary_piece_sample(count, piece))
            continue;
        size_t from = sizes[i] / 4 * (piece++ % 4);
        size_t size = sizes[i] - from < PIECE ? sizes[i] - from : PIECE;
        memcpy(content + content_size, samples + at + from, size);
        content_size += size;
    }
    if (content_size < sizeof content / 2 || capacity < 2 * sizeof content)
        return 0;
    /* Before 1.5.5 zstd reads through NULL when its trainer gets no memory: better to know before. */
    void *probe = malloc(2 * capacity + (1 << 20));
    if (probe == NULL)
        return 0;
    free(probe);
    ZDICT_params_t parameters = {.compressionLevel = level};
    size_t size = ZDICT_finalizeDictionary(to, capacity, content, content_size, samples, sizes,
                                           count, parameters);
    if (ZDICT_isError(size) || size < 8)
        return 0;
    /* The table says which dictionary it is, so that frames need not: without an identifier in the
     * dictionary's header (RFC 8878, 6) they have none. */
    memset(to + 4, 0, 4);
    return size;
}

size_t dictionary_room(size_t size)
{
    return ZSTD_estimateDDictSize(size, ZSTD_dlm_byCopy);
}

const Dictionary *dictionary_init(void *memory, size_t room, const uint8_t *bytes, size_t size)
{
    const ZSTD_DDict *made =
        ZSTD_initStaticDDict(memory, room, bytes, size, ZSTD_dlm_byCopy, ZSTD_dct_fullDict);
    /* Readers of the cache know only where the frame begins. */
    return (const void *)made == memory ? (const Dictionary *)made : NULL;
}

size_t compress_bound(Compression compression, size_t size)
{
#ifdef HAVE_SNAPPY
    if (compression == COMPRESSION_SNAPPY)
        return snappy_max_compressed_length(size);
#endif
    return compression == COMPRESSION_ZSTD ? ZSTD_compressBound(size) : 0;
}

/* Ready to compress a block with little effort; zstd leaves literals as they are at levels below 1, unless
 * told otherwise. */
static bool begin_hasty(const Compressor *compressor, const void *dictionary)
{
    ZSTD_CCtx *zstd = compressor->zstd;
    return !ZSTD_isError(
               ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, compressor->level)) &&
           !ZSTD_isError(
               ZSTD_CCtx_setParameter(zstd, ZSTD_c_literalCompressionMode, ZSTD_lcm_huffman)) &&
           !ZSTD_isError(ZSTD_CCtx_refCDict(zstd, dictionary));
}

static size_t compress_zstd(Compressor *compressor, bool dictionary, const uint8_t *from,
                            size_t size, uint8_t *to, size_t capacity)
{
    if (compressor->zstd == NULL) {
        compressor->zstd = ZSTD_createCCtx();
        if (compressor->zstd == NULL)
            return 0;
    }
    ZSTD_CCtx *zstd = compressor->zstd;
    size_t packed;
    if (compressor->hasty) {
        if (!begin_hasty(compressor, dictionary ? compressor->dictionary : NULL))
            return 0;
        packed = ZSTD_compress2(zstd, to, capacity, from, size);
    } else if (dictionary) {
        packed = ZSTD_compress_usingCDict(zstd, to, capacity, from, size, compressor->dictionary);
    } else {
        packed = ZSTD_compressCCtx(zstd, to, capacity, from, size, compressor->level);
    }
    return ZSTD_isError(packed) ? 0 : packed;
}

size_t compress_block(Compressor *compressor, Compression compression, bool dictionary,
                      const uint8_t *from, size_t size, uint8_t *to, size_t capacity)
{
    size_t packed = 0;
    if (compression == COMPRESSION_ZSTD)
        packed = compress_zstd(compressor, dictionary, from, size, to, capacity);
#ifdef HAVE_SNAPPY
    if (compression == COMPRESSION_SNAPPY) {
        packed = capacity;
        if (snappy_compress((const char *)from, size, (char *)to, &packed) != SNAPPY_OK)
            return 0;
    }
#endif
    return packed <= size - size / 8 ? packed : 0;
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

void decompressor_destroy(TableDecompressor *decompressor)
{
    if (decompressor == NULL)
        return;
    ZSTD_freeDCtx(decompressor->zstd);
    free(decompressor);
}

static const char *decompress(TableDecompressor *decompressor, uint8_t stored,
                              const Dictionary *dictionary, const uint8_t *from, size_t size,
                              uint8_t *to, size_t raw_size)
{
    switch (stored) {
    case COMPRESSION_ZSTD:
        if (ZSTD_decompressDCtx(decompressor->zstd, to, raw_size, from, size) != raw_size)
            return "zstd block cannot be decompressed";
        return NULL;
    case STORED_ZSTD_DICTIONARY:
        if (dictionary == NULL)
            return "block needs a dictionary that the table does not have";
        if (ZSTD_decompress_usingDDict(decompressor->zstd, to, raw_size, from, size,
                                       (const ZSTD_DDict *)dictionary) != raw_size)
            return "zstd block cannot be decompressed";
        return NULL;
#ifdef HAVE_SNAPPY
    case COMPRESSION_SNAPPY: {
        size_t length = 0;
        if (snappy_uncompressed_length((const char *)from, size, &length) != SNAPPY_OK ||
            length != raw_size ||
            snappy_uncompress((const char *)from, size, (char *)to, &length) != SNAPPY_OK)
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

const char *block_unpack(TableDecompressor *decompressor, const BlockTrailer *trailer,
                         const Dictionary *dictionary, const uint8_t *from, size_t size,
                         uint8_t *to)
{
    if (trailer->compression == COMPRESSION_NONE) {
        memcpy(to, from, size);
        return NULL;
    }
    size_t plain = trailer->plain;
    if (plain > 0)
        memcpy(to + trailer->raw_size - plain, from + size - plain, plain);
    return decompress(decompressor, trailer->compression, dictionary, from, size - plain, to,
                      trailer->raw_size - plain);
}
