/*
 * batch_snapshot.c - several writes in one step, and reading the past.
 *
 * Moves money between two accounts in a batch, so that nobody ever sees it twice or not at all, while
 * a snapshot goes on showing the state before.
 */
#include <aidb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(aidb_status status, const char *what)
{
    if (status == AIDB_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, aidb_error_message());
    exit(1);
}

static long balance(aidb *db, const aidb_snapshot *snapshot, const char *account)
{
    aidb_value value = {0};
    char text[32] = "0";
    check(aidb_get(db, snapshot, account, strlen(account), &value), account);
    snprintf(text, sizeof text, "%.*s", (int)value.size, (char *)value.data);
    aidb_free(value.data);
    return atol(text);
}

static void set(aidb_batch *batch, const char *account, long amount)
{
    char text[32];
    int size = snprintf(text, sizeof text, "%ld", amount);
    check(aidb_batch_put(batch, account, strlen(account), text, (size_t)size), account);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "./data";
    const aidb_option create[] = {{"create", "true"}, {NULL, NULL}};
    aidb *db;
    check(aidb_open(name, strncmp(name, "aidb", 4) == 0 ? NULL : create, &db), "open");

    aidb_batch *batch = aidb_batch_create();
    if (batch == NULL)
        return 1;
    set(batch, "alice", 100);
    set(batch, "bob", 20);
    check(aidb_write(db, batch, AIDB_FSYNC, NULL), "first balances");

    aidb_snapshot *before;
    check(aidb_snapshot_create(db, &before), "snapshot");

    aidb_batch_clear(batch);
    set(batch, "alice", balance(db, NULL, "alice") - 30);
    set(batch, "bob", balance(db, NULL, "bob") + 30);
    aidb_commit commit;
    check(aidb_write(db, batch, AIDB_DEFAULT, &commit), "transfer");

    printf("before: alice %ld, bob %ld\n", balance(db, before, "alice"),
           balance(db, before, "bob"));
    printf("after:  alice %ld, bob %ld (LSN %llu)\n", balance(db, NULL, "alice"),
           balance(db, NULL, "bob"), (unsigned long long)commit.lsn);

    aidb_snapshot_destroy(before);
    aidb_batch_destroy(batch);
    check(aidb_close(db), "close");
    return 0;
}
