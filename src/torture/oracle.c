/*
 * oracle.c - the clients' operations, their notes, and the comparison. See oracle.h.
 */
#include "config.h"

#include "torture/oracle.h"

#include "torture/disk.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ITEMS_MAX      12u
#define VALUE_HEAD     32u /* magic, client, key, sequence, size */
#define VALUE_MIN      (VALUE_HEAD + 8u)
#define VALUE_MAX      65536u
#define VALUE_MAGIC    0x31656c636172306fu
#define BIG_VALUE_SIZE 40000u

typedef struct OpItem {
    uint32_t key;
    uint32_t size; /* of the value; 0 deletes */
} OpItem;

typedef struct Op {
    aidb_durability durability;
    uint32_t count;
    OpItem items[ITEMS_MAX];
    uint32_t range_from, range_to; /* keys deleted before the items; empty when equal */
} Op;

/* ---- operations --------------------------------------------------------------------------------- */

static Op op_make(const Oracle *oracle, uint32_t client, uint64_t sequence)
{
    uint64_t random = oracle->seed ^ ((uint64_t)client << 56) ^ sequence * 0x2545f4914f6cdd1du;
    oracle_random(&random);
    Op op = {.durability = AIDB_OS};
    if (oracle_random(&random) % 100 < oracle->async_percent)
        op.durability = AIDB_ASYNC;
    else if (oracle_random(&random) % 100 < oracle->fsync_percent)
        op.durability = AIDB_FSYNC;
    uint32_t kind = oracle_random(&random) % 200;
    op.count = 1;
    if (kind < 40)
        op.count = 2 + (uint32_t)(oracle_random(&random) % 7);
    else if (kind == 40)
        op.count = ITEMS_MAX;
    else if (kind < 47) {
        op.range_from = (uint32_t)(oracle_random(&random) % ORACLE_KEYS);
        op.range_to = op.range_from + 1 + (uint32_t)(oracle_random(&random) % 12);
        if (op.range_to > ORACLE_KEYS)
            op.range_to = ORACLE_KEYS;
        op.count = (uint32_t)(oracle_random(&random) % 3);
    }
    for (uint32_t i = 0; i < op.count; i++) {
        uint64_t r = oracle_random(&random);
        op.items[i].key = (uint32_t)(r % ORACLE_KEYS);
        r >>= 16;
        uint32_t shape = (uint32_t)(r % 100);
        r >>= 16;
        if (kind == 40) /* larger than a quarter of a small ring */
            op.items[i].size = BIG_VALUE_SIZE;
        else if (shape < 12)
            op.items[i].size = 0;
        else if (shape < 70)
            op.items[i].size = VALUE_MIN + (uint32_t)(r % 400);
        else if (shape < 98)
            op.items[i].size = VALUE_MIN + (uint32_t)(r % 4000);
        else
            op.items[i].size = VALUE_MIN + (uint32_t)(r % 20000);
    }
    return op;
}

/* What the operation makes of a client's keys. */
static void op_apply(const Op *op, uint64_t sequence, uint64_t live[ORACLE_KEYS])
{
    for (uint32_t key = op->range_from; key < op->range_to; key++)
        live[key] = 0;
    for (uint32_t i = 0; i < op->count; i++)
        live[op->items[i].key] = op->items[i].size == 0 ? 0 : sequence;
}

static size_t key_make(uint32_t client, uint32_t key, char text[24])
{
    return (size_t)snprintf(text, 24, "c%02u/k%04u", client, key);
}

static uint64_t checksum(const uint8_t *data, size_t size)
{
    uint64_t sum = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        sum = (sum ^ data[i]) * 0x100000001b3u;
    return sum;
}

static void value_make(uint32_t client, uint32_t key, uint64_t sequence, uint32_t size,
                       uint8_t *value)
{
    uint64_t head[4] = {VALUE_MAGIC, (uint64_t)client << 32 | key, sequence, size};
    memcpy(value, head, sizeof head);
    uint64_t random = head[1] ^ sequence << 20;
    for (uint32_t at = VALUE_HEAD; at < size - 8; at += 8) {
        uint64_t word = oracle_random(&random);
        memcpy(value + at, &word, size - 8 - at < 8 ? size - 8 - at : 8);
    }
    uint64_t sum = checksum(value, size - 8);
    memcpy(value + size - 8, &sum, 8);
}

/* The sequence that a value says it was written with, 0 when no client can have written it so. */
static uint64_t value_sequence(uint32_t client, uint32_t key, const void *data, size_t size)
{
    static _Thread_local uint8_t expected[VALUE_MAX];
    uint64_t head[4];
    if (size < VALUE_MIN || size > VALUE_MAX)
        return 0;
    memcpy(head, data, sizeof head);
    if (head[0] != VALUE_MAGIC || head[1] != ((uint64_t)client << 32 | key) || head[3] != size)
        return 0;
    value_make(client, key, head[2], (uint32_t)size, expected);
    return memcmp(expected, data, size) == 0 ? head[2] : 0;
}

static aidb_status op_batch(const Op *op, uint32_t client, uint64_t sequence, aidb_batch *batch)
{
    static _Thread_local uint8_t value[VALUE_MAX];
    char key[24], end[24];
    aidb_status status = AIDB_OK;
    aidb_batch_clear(batch);
    if (op->range_from < op->range_to) {
        size_t from_size = key_make(client, op->range_from, key);
        size_t to_size = key_make(client, op->range_to, end);
        status = aidb_batch_delete_range(batch, &(aidb_range){{key, from_size}, {end, to_size}});
    }
    for (uint32_t i = 0; i < op->count && status == AIDB_OK; i++) {
        const OpItem *item = &op->items[i];
        size_t key_size = key_make(client, item->key, key);
        if (item->size == 0) {
            status = aidb_batch_delete(batch, key, key_size);
        } else {
            value_make(client, item->key, sequence, item->size, value);
            status = aidb_batch_put(batch, key, key_size, value, item->size);
        }
    }
    return status;
}

/* ---- the shared notes --------------------------------------------------------------------------- */

Oracle *oracle_create(const char *path, uint64_t seed, uint32_t clients)
{
    Oracle *oracle = disk_map(path, sizeof *oracle, true);
    if (oracle == NULL)
        return NULL;
    oracle->seed = seed;
    oracle->clients = clients < ORACLE_CLIENTS_MAX ? clients : ORACLE_CLIENTS_MAX;
    oracle->fsync_percent = 50;
    oracle->ops_limit = ORACLE_OPS_MAX;
    return oracle;
}

Oracle *oracle_open(const char *path)
{
    return disk_map(path, sizeof(Oracle), false);
}

void oracle_destroy(Oracle *oracle)
{
    if (oracle != NULL)
        munmap(oracle, sizeof *oracle);
}

uint64_t oracle_count(const Oracle *oracle, OpState state)
{
    uint64_t count = 0;
    for (uint32_t c = 0; c < oracle->clients; c++)
        for (uint32_t i = 0; i < atomic_load(&oracle->client[c].attempted); i++)
            count += oracle->client[c].ops[i].state == (uint32_t)state;
    return count;
}

const char *oracle_wrong(const Oracle *oracle)
{
    for (uint32_t c = 0; c < oracle->clients; c++)
        if (oracle->client[c].wrong != 0)
            return oracle->client[c].message;
    return NULL;
}

/* ---- a client ----------------------------------------------------------------------------------- */

/* An answer that says for certain that nothing was written and that the store goes on. */
static bool refused(aidb_status status)
{
    return status == AIDB_NO_SPACE || status == AIDB_BUSY || status == AIDB_LIMIT ||
           status == AIDB_NO_MEMORY || status == AIDB_TIMEOUT || status == AIDB_IO;
}

typedef struct Sent {
    OpLog *log;
    const _Atomic uint32_t *now;
    aidb_status status;
} Sent;

static void answered(void *arg, aidb_status status, const aidb_value *value,
                     const aidb_commit *commit)
{
    Sent *sent = arg;
    (void)value;
    sent->status = status;
    if (status == AIDB_OK) {
        atomic_store(&sent->log->lsn, commit->lsn);
        atomic_store(&sent->log->ack_at, sent->now != NULL ? atomic_load(sent->now) : 0);
        atomic_store(&sent->log->state, OP_ACKED);
    } else if (refused(status)) {
        atomic_store(&sent->log->state, OP_REFUSED);
    }
}

static void wrong(OracleClient *own, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void wrong(OracleClient *own, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(own->message, sizeof own->message, format, arguments);
    va_end(arguments);
    atomic_store(&own->wrong, 1);
}

/* Reads a key and compares with what this client wrote. False when the client must end. */
static bool read_back(OracleClient *own, uint32_t client, aidb *db, uint32_t key,
                      const uint64_t live[ORACLE_KEYS], aidb_value *value)
{
    char text[24];
    size_t size = key_make(client, key, text);
    aidb_status status = aidb_get(db, NULL, text, size, value);
    uint64_t found = 0;
    if (status == AIDB_OK)
        found = value_sequence(client, key, value->data, value->size);
    else if (status == AIDB_IO || status == AIDB_NO_MEMORY)
        return true; /* said so, and is not an answer */
    else if (status != AIDB_NOT_FOUND) {
        atomic_store(&own->ended, status);
        return false;
    }
    if ((status == AIDB_OK) == (live[key] != 0) && found == live[key])
        return true;
    wrong(own, "client %u read %s: found %llu, wrote %llu (%zu bytes)", client, text,
          (unsigned long long)found, (unsigned long long)live[key], value->size);
    return false;
}

void oracle_client(Oracle *oracle, uint32_t client, aidb *db, bool pipelined,
                   const _Atomic uint32_t *now)
{
    static const char large[1u << 20];
    OracleClient *own = &oracle->client[client];
    uint64_t live[ORACLE_KEYS];
    memcpy(live, own->live, sizeof live);
    uint64_t random = oracle->seed ^ own->base ^ client;
    aidb_value value = {0};
    aidb_batch *batch = aidb_batch_create();
    uint64_t last_lsn = 0;
    bool going = batch != NULL;
    while (going && atomic_load(&oracle->stop) == 0) {
        uint32_t first = atomic_load(&own->attempted);
        uint32_t window = pipelined && oracle_random(&random) % 4 == 0
                              ? 1 + (uint32_t)(oracle_random(&random) % ORACLE_WINDOW)
                              : 1;
        if (first + window > oracle->ops_limit || first + window > ORACLE_OPS_MAX)
            break;
        Sent sent[ORACLE_WINDOW];
        for (uint32_t i = 0; i < window; i++) {
            uint64_t sequence = own->base + first + i + 1;
            Op op = op_make(oracle, client, sequence);
            OpLog *log = &own->ops[first + i];
            sent[i] = (Sent){.log = log, .now = now, .status = AIDB_UNKNOWN};
            aidb_status status = op_batch(&op, client, sequence, batch);
            if (status == AIDB_NO_MEMORY) {
                atomic_store(&own->ended, status);
                going = false;
                window = i;
                break;
            }
            if (status != AIDB_OK) {
                wrong(own, "client %u: batch: %s", client, aidb_error_message());
                going = false;
                window = i;
                break;
            }
            atomic_store(&log->attempt_at, now != NULL ? atomic_load(now) : 0);
            atomic_store(&log->state, OP_ATTEMPTED);
            atomic_store(&own->attempted, first + i + 1);
            if (!pipelined) {
                aidb_commit commit = {0};
                status = aidb_write(db, batch, op.durability, &commit);
                answered(&sent[i], status, NULL, &commit);
            } else {
                status = aidb_submit(db, &(aidb_request){.batch = batch,
                                                         .durability = op.durability,
                                                         .done = answered,
                                                         .arg = &sent[i]});
                if (status != AIDB_OK) {
                    atomic_store(&own->ended, status);
                    going = false;
                    window = i + 1;
                    break;
                }
            }
        }
        if (pipelined && aidb_wait(db, 0) != AIDB_OK)
            going = false;
        for (uint32_t i = 0; i < window; i++) {
            uint64_t sequence = own->base + first + i + 1;
            if (sent[i].status == AIDB_OK) {
                Op op = op_make(oracle, client, sequence);
                op_apply(&op, sequence, live);
                uint64_t lsn = atomic_load(&sent[i].log->lsn);
                if (lsn <= last_lsn) {
                    wrong(own, "client %u: LSN %llu was acknowledged after %llu", client,
                          (unsigned long long)lsn, (unsigned long long)last_lsn);
                    going = false;
                }
                last_lsn = lsn;
            } else if (refused(sent[i].status)) {
                usleep(1000); /* a full disk does not become less full by being asked */
            } else {
                atomic_store(&own->ended, sent[i].status);
                going = false;
            }
        }
        if (oracle->pause_us != 0)
            usleep(oracle->pause_us);
        /* A flush that is asked for meets a log that nobody has synced yet. What becomes of it is told
         * by the store's next answers. */
        if (going && oracle_random(&random) % 1000 < oracle->flush_permille)
            (void)!aidb_control(db, oracle_random(&random) % 8 == 0 ? "compact" : "flush", NULL);
        if (going && oracle->log_every != 0 && first % oracle->log_every == oracle->log_every - 1) {
            (void)!aidb_put(db, "~", 1, large, sizeof large);
            (void)!aidb_control(db, "flush", NULL);
        }
        if (going && oracle_random(&random) % 4 == 0)
            going = read_back(own, client, db, (uint32_t)(oracle_random(&random) % ORACLE_KEYS),
                              live, &value);
    }
    aidb_free(value.data);
    aidb_batch_destroy(batch);
}

/* ---- the check ---------------------------------------------------------------------------------- */

static void explain(OracleResult *result, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void explain(OracleResult *result, const char *format, ...)
{
    size_t used = strlen(result->message);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(result->message + used, sizeof result->message - used, format, arguments);
    va_end(arguments);
}

typedef struct Found {
    uint64_t sequence[ORACLE_CLIENTS_MAX][ORACLE_KEYS];
    uint64_t lsn_max;
} Found;

/* Everything that the store holds, by one scan. */
static aidb_status find_all(const Oracle *oracle, aidb *db, Found *found, OracleResult *result)
{
    memset(found, 0, sizeof *found);
    aidb_iter *iter;
    aidb_status status = aidb_iter_create(db, NULL, NULL, &iter);
    if (status != AIDB_OK)
        return status;
    const aidb_entry *entry;
    while ((status = aidb_iter_next(iter, &entry)) == AIDB_OK && entry != NULL) {
        unsigned client = ORACLE_CLIENTS_MAX, key = ORACLE_KEYS;
        if (oracle->bulk && entry->key_size > strlen(ORACLE_BULK) &&
            memcmp(entry->key, ORACLE_BULK, strlen(ORACLE_BULK)) == 0)
            continue;
        char text[24] = "", again[24];
        if (entry->key_size < sizeof text)
            memcpy(text, entry->key, entry->key_size);
        if (text[0] == '~') /* a campaign's own */
            continue;
        if (sscanf(text, "c%2u/k%4u", &client, &key) != 2 || client >= oracle->clients ||
            key >= ORACLE_KEYS || key_make(client, key, again) != entry->key_size ||
            strcmp(text, again) != 0) {
            explain(result, "key \"%s\" was written by nobody\n", text);
            status = AIDB_CORRUPTION;
            break;
        }
        uint64_t sequence = value_sequence(client, key, entry->value, entry->value_size);
        if (sequence == 0 || found->sequence[client][key] != 0) {
            explain(result, "key \"%s\": %s\n", text,
                    sequence == 0 ? "its value was written by nobody" : "appears twice in a scan");
            status = AIDB_CORRUPTION;
            break;
        }
        found->sequence[client][key] = sequence;
        if (entry->lsn > found->lsn_max)
            found->lsn_max = entry->lsn;
    }
    aidb_iter_destroy(iter);
    return status;
}

/* Single reads must agree with the scan. */
static aidb_status check_gets(const Oracle *oracle, aidb *db, const Found *found,
                              OracleResult *result)
{
    aidb_value value = {0};
    aidb_status status = AIDB_OK;
    for (uint32_t client = 0; client < oracle->clients && status == AIDB_OK; client++) {
        for (uint32_t key = 0; key < ORACLE_KEYS && status == AIDB_OK; key++) {
            char text[24];
            size_t size = key_make(client, key, text);
            uint64_t sequence = 0;
            status = aidb_get(db, NULL, text, size, &value);
            if (status == AIDB_OK)
                sequence = value_sequence(client, key, value.data, value.size);
            else if (status == AIDB_NOT_FOUND)
                status = AIDB_OK;
            if (status == AIDB_OK && sequence != found->sequence[client][key]) {
                explain(result, "key \"%s\": get found %llu, scan %llu\n", text,
                        (unsigned long long)sequence,
                        (unsigned long long)found->sequence[client][key]);
                status = AIDB_CORRUPTION;
            }
        }
    }
    aidb_free(value.data);
    return status;
}

static uint32_t differences(const uint64_t live[ORACLE_KEYS], const uint64_t found[ORACLE_KEYS])
{
    uint32_t count = 0;
    for (uint32_t key = 0; key < ORACLE_KEYS; key++)
        count += live[key] != found[key];
    return count;
}

/* Finds the prefix of a client's operations that the store holds. */
static aidb_status check_client(Oracle *oracle, uint32_t client, aidb_durability level, uint32_t at,
                                const uint64_t found[ORACLE_KEYS], OracleResult *result)
{
    const OracleClient *own = &oracle->client[client];
    uint32_t attempted = 0, promised = 0;
    while (attempted < own->attempted && own->ops[attempted].attempt_at <= at) {
        const OpLog *log = &own->ops[attempted++];
        if (log->state != OP_ACKED || log->ack_at > at)
            continue;
        result->acked++;
        if (op_make(oracle, client, own->base + attempted).durability >= level) {
            promised = attempted;
            result->promised++;
        }
    }
    uint64_t live[ORACLE_KEYS];
    memcpy(live, own->live, sizeof live);
    bool matched = false;
    uint32_t best = UINT32_MAX, best_m = 0;
    for (uint32_t m = 0;; m++) {
        if (m >= promised) {
            uint32_t count = differences(live, found);
            if (count < best) {
                best = count;
                best_m = m;
            }
            if (count == 0) {
                if (!matched)
                    oracle->fewest[client] = m;
                oracle->most[client] = m;
                matched = true;
            }
        }
        if (m == attempted)
            break;
        if (own->ops[m].state != OP_REFUSED) {
            Op op = op_make(oracle, client, own->base + m + 1);
            op_apply(&op, own->base + m + 1, live);
        }
    }
    if (matched) {
        result->kept += oracle->most[client];
        return AIDB_OK;
    }
    explain(result,
            "client %u: no prefix of its operations fits: %llu + %u promised to %u attempted; "
            "closest %u, where %u keys differ:\n",
            client, (unsigned long long)own->base, promised, attempted, best_m, best);
    memcpy(live, own->live, sizeof live);
    for (uint32_t m = 0; m < best_m; m++) {
        if (own->ops[m].state != OP_REFUSED) {
            Op op = op_make(oracle, client, own->base + m + 1);
            op_apply(&op, own->base + m + 1, live);
        }
    }
    for (uint32_t key = 0; key < ORACLE_KEYS; key++)
        if (live[key] != found[key])
            explain(result, "  key %u: found %llu, expected %llu\n", key,
                    (unsigned long long)found[key], (unsigned long long)live[key]);
    return AIDB_CORRUPTION;
}

/* What is found must be a prefix of the log: nothing acknowledged below the greatest LSN is missing. */
static aidb_status check_order(const Oracle *oracle, uint32_t at, uint64_t lsn_max,
                               OracleResult *result)
{
    for (uint32_t client = 0; client < oracle->clients; client++) {
        const OracleClient *own = &oracle->client[client];
        for (uint32_t m = 0; m < oracle->fewest[client]; m++)
            if (own->ops[m].state == OP_ACKED && own->ops[m].ack_at <= at &&
                own->ops[m].lsn > lsn_max)
                lsn_max = own->ops[m].lsn;
    }
    for (uint32_t client = 0; client < oracle->clients; client++) {
        const OracleClient *own = &oracle->client[client];
        for (uint32_t m = oracle->most[client]; m < own->attempted; m++) {
            if (own->ops[m].state == OP_ACKED && own->ops[m].ack_at <= at &&
                own->ops[m].lsn <= lsn_max) {
                explain(result,
                        "client %u: operation %llu at LSN %llu is missing, LSN %llu is there\n",
                        client, (unsigned long long)(own->base + m + 1),
                        (unsigned long long)own->ops[m].lsn, (unsigned long long)lsn_max);
                return AIDB_CORRUPTION;
            }
        }
    }
    return AIDB_OK;
}

aidb_status oracle_check(Oracle *oracle, aidb *db, aidb_durability level, uint32_t at,
                         OracleResult *result)
{
    static Found found;
    memset(result, 0, sizeof *result);
    aidb_status status = find_all(oracle, db, &found, result);
    if (status == AIDB_OK)
        status = check_gets(oracle, db, &found, result);
    for (uint32_t client = 0; client < oracle->clients && status == AIDB_OK; client++)
        status = check_client(oracle, client, level, at, found.sequence[client], result);
    if (status == AIDB_OK)
        status = check_order(oracle, at, found.lsn_max, result);
    return status;
}

void oracle_advance(Oracle *oracle)
{
    for (uint32_t client = 0; client < oracle->clients; client++) {
        OracleClient *own = &oracle->client[client];
        for (uint32_t m = 0; m < oracle->most[client]; m++) {
            if (own->ops[m].state != OP_REFUSED) {
                Op op = op_make(oracle, client, own->base + m + 1);
                op_apply(&op, own->base + m + 1, own->live);
            }
        }
        uint32_t attempted = atomic_load(&own->attempted);
        own->base += attempted; /* a sequence is never used twice */
        memset(own->ops, 0, attempted * sizeof own->ops[0]);
        atomic_store(&own->attempted, 0);
        atomic_store(&own->wrong, 0);
        atomic_store(&own->ended, 0);
    }
    atomic_store(&oracle->stop, 0);
}

void oracle_forget(Oracle *oracle)
{
    for (uint32_t client = 0; client < oracle->clients; client++)
        memset(oracle->client[client].live, 0, sizeof oracle->client[client].live);
}
