/*
 * basics.c - open, put, get, delete, close.
 *
 *     cc basics.c $(pkg-config --cflags --libs aidb) -o basics
 *     ./basics ./data                       a directory, made when it is not there
 *     ./basics aidb://127.0.0.1:7654        or a server: the calls are the same
 */
#include <aidb.h>
#include <stdio.h>
#include <string.h>

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, aidb_error_message());
    return 1;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "./data";
    const aidb_option create[] = {{"create", "true"}, {NULL, NULL}};
    aidb *db;
    if (aidb_open(name, strncmp(name, "aidb", 4) == 0 ? NULL : create, &db) != AIDB_OK)
        return fail("open");

    if (aidb_put(db, "greeting", 8, "hello", 5) != AIDB_OK)
        return fail("put");

    aidb_value value = {0}; /* reused by every get, freed once */
    if (aidb_get(db, NULL, "greeting", 8, &value) != AIDB_OK)
        return fail("get");
    printf("greeting = %.*s, version %llu\n", (int)value.size, (char *)value.data,
           (unsigned long long)value.lsn);

    if (aidb_delete(db, "greeting", 8) != AIDB_OK)
        return fail("delete");
    if (aidb_get(db, NULL, "greeting", 8, &value) != AIDB_NOT_FOUND)
        return fail("get after delete");
    printf("greeting is gone\n");

    aidb_free(value.data);
    return aidb_close(db) == AIDB_OK ? 0 : fail("close");
}
