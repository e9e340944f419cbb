/*
 * format.c - what is said of a file in a format that this program does not read.
 */
#include "config.h"
#include "engine/base/base.h"

#include <inttypes.h>

Status format_unsupported(const char *kind, const char *path, uint32_t found, uint32_t known)
{
    (void)status_set(AIDB_UNSUPPORTED,
                     "%s \"%s\" has format %" PRIu32 ", this version of AiDb reads format %" PRIu32,
                     kind, path, found, known);
    status_hint(
        "It is not damaged: a%s version of AiDb wrote it. Open the store with that version; "
        "to change versions, COPY the data out with it and into a new store.",
        found > known ? " newer" : "n older");
    return AIDB_UNSUPPORTED;
}
