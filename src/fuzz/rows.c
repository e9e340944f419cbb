/* rows.c - any bytes as a file that \copy imports, in each of its formats. */
#include "config.h"

#include "fuzz/fuzz.h"

#include "bin/aidbsql/rows.h"

void fuzz_rows(const uint8_t *data, size_t size)
{
    if (size < 2)
        return;
    RowFormat format = (RowFormat)(data[0] % 3);
    FILE *file = fmemopen((void *)(uintptr_t)(data + 1), size - 1, "r");
    fuzz_require(file != NULL);
    RowReader reader;
    RowResult result = ROW_READ;
    row_reader_init(&reader, file, format);
    if (data[0] & 0x80)
        result = row_reader_skip(&reader);
    while (result == ROW_READ && (result = row_reader_next(&reader)) == ROW_READ)
        fuzz_require(reader.key.size > 0 && reader.bytes_read <= size - 1);
    fuzz_require(result == ROW_END || reader.error[0] != '\0');
    row_reader_deinit(&reader);
    fclose(file);
}
