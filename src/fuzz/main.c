/*
 * main.c - one program for all targets.
 *
 *     aidbfuzz TARGET [libFuzzer's options] FOLDER...     built with --enable-fuzzers
 *     aidbfuzz TARGET FILE...                             otherwise: runs each file once
 *
 * libFuzzer starts itself again for some of its work, with the arguments that were left to it; the
 * environment tells that process the target.
 */
#include "config.h"

#include "fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>

#define TARGET_VARIABLE "AIDB_FUZZ_TARGET"

static const FuzzTarget *target;

static const FuzzTarget *choose(const char *name)
{
    const FuzzTarget *found = name != NULL ? fuzz_target_find(name) : NULL;
    if (found == NULL) {
        fprintf(stderr, "usage: aidbfuzz TARGET ...\ntargets:");
        for (size_t i = 0; i < fuzz_target_count; i++)
            fprintf(stderr, " %s", fuzz_targets[i].name);
        fprintf(stderr, "\n");
        exit(2);
    }
    return found;
}

#ifdef AIDB_LIBFUZZER

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *name = getenv(TARGET_VARIABLE);
    if (name == NULL && *argc > 1) {
        name = (*argv)[1];
        setenv(TARGET_VARIABLE, name, 1);
        for (int i = 1; i < *argc; i++) /* the NULL at the end too */
            (*argv)[i] = (*argv)[i + 1];
        (*argc)--;
    }
    target = choose(name);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    target->run(data, size);
    return 0;
}

#else

static bool run_file(const char *path)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        perror(path);
        return false;
    }
    uint8_t *data = NULL;
    size_t size = 0, got;
    do {
        uint8_t *larger = realloc(data, size + 65536);
        if (larger == NULL) {
            fclose(file);
            free(data);
            return false;
        }
        data = larger;
        got = fread(data + size, 1, 65536, file);
        size += got;
    } while (got > 0);
    fclose(file);
    /* In memory of its exact size, for the address sanitizer. */
    uint8_t *exact = realloc(data, size > 0 ? size : 1);
    target->run(exact != NULL ? exact : data, size);
    free(exact != NULL ? exact : data);
    return true;
}

int main(int argc, char **argv)
{
    target = choose(argc > 1 ? argv[1] : NULL);
    for (int i = 2; i < argc; i++)
        if (!run_file(argv[i]))
            return 1;
    return 0;
}

#endif
