/*
 * linear.c - what many clients see of few keys, with kills in between: is there one order for it?
 *
 * Clients read, write, delete and write under conditions, all on the same handful of keys, and note when
 * they called, when they were answered, and what the answer was. Meanwhile a child, the postmaster, or
 * everything is killed; the clients connect again and go on. Afterwards each key's history goes to
 * history.h. Reads are single gets, multi-gets, iterators and gets in a fresh snapshot: all of them promise
 * the newest state at some moment between call and answer. Every round has keys of its own.
 *
 * `linear` does it to a server, with a process for each client; `linear-embedded` to threads of a program
 * with an open directory, which is killed and opened again.
 *
 * `bank` moves money between accounts, each transfer a batch that is conditional on both balances, while
 * scans in snapshots add everything up: the sum is always the same. Each transfer also counts in a
 * key of its client in the same batch, so a lost or doubled one is seen after the kill.
 *
 * Writes ask for `os` or `fsync`: killed processes must not lose either.
 */
#include "config.h"

#include "torture/history.h"
#include "torture/server.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS_MAX 16u
#define KEYS        5u
#define OPS_MAX     9000u /* of a client in a round */
#define GENERATIONS 3u    /* of a program in a round */
#define VALUE_MIN   16u
#define RETRY_MS    HANG_MS
#define DECIDED_MIN 95u /* per cent of the keys whose history was told to have an order or none */

typedef struct Note {
    HistoryOp op;
    uint64_t lsn;         /* of the value read or written, 0: not known or none */
    uint64_t present_lsn; /* refused: of what was there */
    uint32_t key;
    _Atomic uint32_t called; /* set once `op` says what is attempted */
} Note;

typedef struct Account {
    _Atomic uint64_t attempted; /* transfers of this client, ever */
    _Atomic uint64_t acked;
} Account;

typedef struct Notes {
    _Atomic uint32_t stop;
    _Atomic uint32_t wrong;
    _Atomic uint64_t scans; /* of the bank */
    char message[400];
    Account accounts[CLIENTS_MAX];
    struct {
        _Atomic uint32_t count;
        Note notes[OPS_MAX];
    } client[CLIENTS_MAX];
} Notes;

typedef struct Linear {
    Torture *torture;
    Server server;
    Notes *notes;
    uint32_t clients;
    bool embedded;
    bool bank;
    char directory[TORTURE_PATH];
    uint64_t operations, unknown, refused, steps, undecided;
    uint32_t killed[4]; /* nothing, child, postmaster, group or program */
} Linear;

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void wrong(Notes *notes, const char *what, const char *detail)
{
    if (atomic_exchange(&notes->wrong, 1) == 0)
        snprintf(notes->message, sizeof notes->message, "%s: %s", what, detail);
}

/* ---- a client of the keys ----------------------------------------------------------------------- */

typedef struct Worker {
    Linear *linear;
    uint32_t number;
    aidb *db;
    uint64_t random;
    uint32_t most;       /* notes, then it waits */
    uint64_t seen[KEYS]; /* a value and its version, for conditions */
    uint64_t seen_lsn[KEYS];
} Worker;

static size_t make_key(const Linear *linear, uint32_t key, char text[40])
{
    return (size_t)snprintf(text, 40, "linear/%06llu/%u",
                            (unsigned long long)linear->torture->rounds, key);
}

/* The value's number, and filler so that values have many sizes. */
static size_t make_value(uint64_t number, char bytes[600])
{
    size_t size = VALUE_MIN + number * 7 % 500;
    memcpy(bytes, &number, 8);
    memset(bytes + 8, (int)(number & 0xff), size - 8);
    return size;
}

static uint64_t number_of(const Worker *worker, const void *data, size_t size)
{
    char expected[600];
    uint64_t number = 0;
    if (size >= 8)
        memcpy(&number, data, 8);
    if (number == 0 || make_value(number, expected) != size || memcmp(expected, data, size) != 0)
        wrong(worker->linear->notes, "linear", "a value that nobody wrote");
    return number;
}

static aidb_status read_iterator(Worker *worker, const aidb_snapshot *snapshot, const char *key,
                                 size_t size, Note *note)
{
    aidb_iter *iter;
    const aidb_entry *entry;
    aidb_status status = aidb_iter_create(worker->db, snapshot, NULL, &iter);
    if (status != AIDB_OK)
        return status;
    status = aidb_iter_seek(iter, AIDB_SEEK_GE, key, size, &entry);
    if (status == AIDB_OK && entry != NULL && entry->key_size == size &&
        memcmp(entry->key, key, size) == 0) {
        note->op.value = number_of(worker, entry->value, entry->value_size);
        note->lsn = entry->lsn;
    }
    aidb_iter_destroy(iter);
    return status;
}

/* One read, in one of its ways. */
static aidb_status read_key(Worker *worker, const char *key, size_t size, Note *note)
{
    aidb_value value = {0};
    aidb_snapshot *snapshot = NULL;
    aidb_key one = {key, size};
    aidb_status status;
    note->op.value = HISTORY_ABSENT;
    switch (oracle_random(&worker->random) % 8) {
    case 0:
        return read_iterator(worker, NULL, key, size, note);
    case 1:
        status = aidb_snapshot_create(worker->db, &snapshot);
        if (status == AIDB_OK && oracle_random(&worker->random) % 2 == 0) {
            status = read_iterator(worker, snapshot, key, size, note);
            aidb_snapshot_destroy(snapshot);
            return status;
        }
        if (status == AIDB_OK)
            status = aidb_get(worker->db, snapshot, key, size, &value);
        break;
    case 2:
        status = aidb_multi_get(worker->db, NULL, 1, &one, &value);
        if (status == AIDB_OK && value.lsn == 0)
            status = AIDB_NOT_FOUND;
        break;
    default:
        status = aidb_get(worker->db, NULL, key, size, &value);
        break;
    }
    if (status == AIDB_OK) {
        note->op.value = number_of(worker, value.data, value.size);
        note->lsn = value.lsn;
    }
    aidb_snapshot_destroy(snapshot);
    aidb_free(value.data);
    return status == AIDB_NOT_FOUND ? AIDB_OK : status;
}

static aidb_status write_key(Worker *worker, const char *key, size_t size, Note *note,
                             aidb_batch *batch)
{
    char bytes[600];
    aidb_commit commit = {0};
    aidb_status status = AIDB_OK;
    aidb_durability durability = oracle_random(&worker->random) % 4 == 0 ? AIDB_FSYNC : AIDB_OS;
    aidb_batch_clear(batch);
    if (note->op.kind == HISTORY_IF_VALUE)
        status =
            aidb_batch_expect(batch, key, size, AIDB_EXPECT_VERSION, worker->seen_lsn[note->key]);
    else if (note->op.kind != HISTORY_WRITE)
        status = aidb_batch_expect(
            batch, key, size,
            note->op.kind == HISTORY_IF_ABSENT ? AIDB_EXPECT_ABSENT : AIDB_EXPECT_PRESENT, 0);
    if (status == AIDB_OK)
        status = note->op.value == HISTORY_ABSENT
                     ? aidb_batch_delete(batch, key, size)
                     : aidb_batch_put(batch, key, size, bytes, make_value(note->op.value, bytes));
    if (status == AIDB_OK)
        status = aidb_write(worker->db, batch, durability, &commit);
    if (status == AIDB_OK) {
        note->lsn = note->op.value == HISTORY_ABSENT ? 0 : commit.lsn;
    } else if (status == AIDB_EXPECTATION) {
        note->op.outcome = HISTORY_REFUSED;
        note->present_lsn = commit.present_version;
        note->op.present = commit.present_version == 0 ? HISTORY_ABSENT : HISTORY_ANY;
        status = AIDB_OK;
    }
    return status;
}

static void choose(Worker *worker, Note *note, uint64_t number)
{
    uint64_t pick = oracle_random(&worker->random);
    *note = (Note){.key = (uint32_t)(pick % KEYS)};
    note->op = (HistoryOp){.client = (uint16_t)worker->number,
                           .value = number,
                           .present = HISTORY_ANY,
                           .kind = HISTORY_READ};
    switch ((pick >> 16) % 16) {
    case 0:
        note->op.value = HISTORY_ABSENT; /* a delete */
        note->op.kind = HISTORY_WRITE;
        break;
    case 1:
    case 2:
        note->op.kind = HISTORY_WRITE;
        break;
    case 3:
        note->op.kind = HISTORY_IF_ABSENT;
        break;
    case 4:
        note->op.kind = HISTORY_IF_PRESENT;
        break;
    case 5:
    case 6:
    case 7:
    case 8:
        if (worker->seen_lsn[note->key] == 0)
            break;
        note->op.kind = HISTORY_IF_VALUE;
        note->op.expected = worker->seen[note->key];
        if ((pick >> 32) % 8 == 0)
            note->op.value = HISTORY_ABSENT;
        break;
    default:
        break;
    }
}

/* One operation, noted. The status of a call that was not answered as hoped. */
static aidb_status operate(Worker *worker, aidb_batch *batch)
{
    Notes *notes = worker->linear->notes;
    uint32_t count = atomic_load(&notes->client[worker->number].count);
    Note *note = &notes->client[worker->number].notes[count];
    char key[40];
    uint64_t number = ((uint64_t)worker->number + 1) << 32 | (count + 1);
    choose(worker, note, number);
    size_t size = make_key(worker->linear, note->key, key);
    note->op.call_ns = now_ns();
    atomic_store(&note->called, 1);
    atomic_store(&notes->client[worker->number].count, count + 1);
    aidb_status status = note->op.kind == HISTORY_READ ? read_key(worker, key, size, note)
                                                       : write_key(worker, key, size, note, batch);
    uint64_t answer = now_ns();
    if (status == AIDB_OK) {
        note->op.answer_ns = answer;
        if (note->op.outcome == HISTORY_UNKNOWN)
            note->op.outcome = HISTORY_DONE;
        if (note->op.outcome == HISTORY_DONE && note->lsn != 0) {
            worker->seen[note->key] = note->op.value;
            worker->seen_lsn[note->key] = note->lsn;
        }
    }
    return status;
}

/* ---- a client of the bank ----------------------------------------------------------------------- */

#define ACCOUNTS 12u
#define BALANCE  1000
#define TOTAL    ((int64_t)ACCOUNTS * BALANCE)

static aidb_status read_number(aidb *db, const char *key, int64_t *number, uint64_t *lsn)
{
    aidb_value value = {0};
    aidb_status status = aidb_get(db, NULL, key, strlen(key), &value);
    if (status == AIDB_OK && value.size == sizeof *number) {
        memcpy(number, value.data, sizeof *number);
        *lsn = value.lsn;
    }
    aidb_free(value.data);
    return status;
}

static aidb_status transfer(Worker *worker, aidb_batch *batch)
{
    Account *own = &worker->linear->notes->accounts[worker->number];
    char from[32], to[32], counter[32];
    int64_t from_balance = 0, to_balance = 0;
    uint64_t from_lsn = 0, to_lsn = 0;
    uint64_t pick = oracle_random(&worker->random);
    uint32_t a = (uint32_t)(pick % ACCOUNTS), b = (uint32_t)((pick >> 16) % (ACCOUNTS - 1));
    b += b >= a;
    snprintf(from, sizeof from, "bank/a%02u", a);
    snprintf(to, sizeof to, "bank/a%02u", b);
    snprintf(counter, sizeof counter, "bank/c%02u", worker->number);
    aidb_status status = read_number(worker->db, from, &from_balance, &from_lsn);
    if (status == AIDB_OK)
        status = read_number(worker->db, to, &to_balance, &to_lsn);
    if (status != AIDB_OK)
        return status;
    int64_t amount = (int64_t)((pick >> 32) % 100);
    int64_t sequence = (int64_t)atomic_load(&own->attempted) + 1;
    from_balance -= amount;
    to_balance += amount;
    aidb_batch_clear(batch);
    status = aidb_batch_expect(batch, from, strlen(from), AIDB_EXPECT_VERSION, from_lsn);
    if (status == AIDB_OK)
        status = aidb_batch_expect(batch, to, strlen(to), AIDB_EXPECT_VERSION, to_lsn);
    if (status == AIDB_OK)
        status = aidb_batch_put(batch, from, strlen(from), &from_balance, sizeof from_balance);
    if (status == AIDB_OK)
        status = aidb_batch_put(batch, to, strlen(to), &to_balance, sizeof to_balance);
    if (status == AIDB_OK)
        status = aidb_batch_put(batch, counter, strlen(counter), &sequence, sizeof sequence);
    if (status != AIDB_OK)
        return status;
    atomic_store(&own->attempted, (uint64_t)sequence);
    status = aidb_write(worker->db, batch, pick >> 62 == 0 ? AIDB_FSYNC : AIDB_OS, NULL);
    if (status == AIDB_OK)
        atomic_store(&own->acked, (uint64_t)sequence);
    return status == AIDB_EXPECTATION ? AIDB_OK : status;
}

/* Adds up what a scan sees. The sum is wrong while the accounts are being made only. */
static aidb_status audit(Linear *linear, aidb *db, uint64_t counters[CLIENTS_MAX])
{
    const aidb_scan scan = {.prefix = {"bank/", 5}};
    aidb_snapshot *snapshot;
    aidb_iter *iter;
    const aidb_entry *entry = NULL;
    int64_t sum = 0, number;
    uint32_t accounts = 0;
    char text[120];
    aidb_status status = aidb_snapshot_create(db, &snapshot);
    if (status != AIDB_OK)
        return status;
    status = aidb_iter_create(db, snapshot, &scan, &iter);
    while (status == AIDB_OK && (status = aidb_iter_next(iter, &entry)) == AIDB_OK &&
           entry != NULL) {
        if (entry->value_size != sizeof number || entry->key_size != 8) {
            wrong(linear->notes, "bank", "a value that nobody wrote");
            break;
        }
        memcpy(&number, entry->value, sizeof number);
        const char *key = entry->key;
        if (key[5] == 'a') {
            sum += number;
            accounts++;
        } else {
            uint32_t client = (uint32_t)((key[6] - '0') * 10 + key[7] - '0');
            if (client < CLIENTS_MAX && counters != NULL)
                counters[client] = (uint64_t)number;
        }
    }
    if (status == AIDB_OK && (accounts != ACCOUNTS || sum != TOTAL)) {
        snprintf(text, sizeof text, "a snapshot has %u accounts with %lld in all, not %lld",
                 accounts, (long long)sum, (long long)TOTAL);
        wrong(linear->notes, "bank", text);
    }
    if (status == AIDB_OK)
        atomic_fetch_add(&linear->notes->scans, 1);
    aidb_iter_destroy(iter);
    aidb_snapshot_destroy(snapshot);
    return status;
}

static bool open_bank(Linear *linear, const char *name, const aidb_option *options)
{
    aidb *db;
    aidb_batch *batch = aidb_batch_create();
    int64_t balance = BALANCE;
    aidb_status status = aidb_open(name, options, &db);
    for (uint32_t i = 0; i < ACCOUNTS && status == AIDB_OK; i++) {
        char key[32];
        snprintf(key, sizeof key, "bank/a%02u", i);
        status = aidb_batch_put(batch, key, strlen(key), &balance, sizeof balance);
    }
    if (status == AIDB_OK)
        status = aidb_write(db, batch, AIDB_FSYNC, NULL);
    if (status != AIDB_OK)
        torture_failed(linear->torture, "could not open the bank: %s", aidb_error_message());
    (void)aidb_close(db);
    aidb_batch_destroy(batch);
    return status == AIDB_OK;
}

/* ---- clients ------------------------------------------------------------------------------------ */

/* Works until told to stop or the connection is lost. */
static aidb_status work(Worker *worker)
{
    Notes *notes = worker->linear->notes;
    aidb_batch *batch = aidb_batch_create();
    aidb_status status = batch == NULL ? AIDB_NO_MEMORY : AIDB_OK;
    bool auditor = worker->linear->bank && worker->number == 0;
    while (status == AIDB_OK && atomic_load(&notes->stop) == 0) {
        if (worker->linear->bank)
            status = auditor ? audit(worker->linear, worker->db, NULL) : transfer(worker, batch);
        else if (atomic_load(&notes->client[worker->number].count) >= worker->most)
            torture_sleep_ms(1);
        else
            status = operate(worker, batch);
    }
    aidb_batch_destroy(batch);
    return status;
}

static bool lost(aidb_status status)
{
    return status == AIDB_CONNECTION || status == AIDB_UNKNOWN || status == AIDB_BUSY ||
           status == AIDB_CANCELED || status == AIDB_FAILED;
}

static void client_main(Linear *linear, uint32_t number)
{
    Worker worker = {.linear = linear,
                     .number = number,
                     .most = OPS_MAX,
                     .random =
                         linear->torture->seed * 1000003 + linear->torture->rounds * 64 + number};
    uint64_t end = torture_now_ms() + RETRY_MS;
    while (atomic_load(&linear->notes->stop) == 0) {
        aidb_status status = aidb_open(linear->server.uri, NULL, &worker.db);
        if (status == AIDB_OK) {
            status = work(&worker);
            end = torture_now_ms() + RETRY_MS;
        }
        if (status != AIDB_OK && (!lost(status) || torture_now_ms() > end))
            wrong(linear->notes, "a client", aidb_error_message());
        (void)aidb_close(worker.db);
        worker.db = NULL;
        if (status != AIDB_OK && !lost(status))
            return;
        torture_sleep_ms(2);
    }
}

static void *thread_main(void *arg)
{
    Worker *worker = arg;
    aidb_status status = work(worker);
    if (status != AIDB_OK)
        wrong(worker->linear->notes, "a thread", aidb_error_message());
    return NULL;
}

/* The program with the open directory. */
static int program_main(Linear *linear, uint32_t generation)
{
    aidb *db;
    pthread_t threads[CLIENTS_MAX];
    Worker workers[CLIENTS_MAX];
    if (aidb_open(linear->directory, small_settings, &db) != AIDB_OK) {
        wrong(linear->notes, "open", aidb_error_message());
        return 1;
    }
    for (uint32_t c = 0; c < linear->clients; c++) {
        workers[c] = (Worker){.linear = linear,
                              .number = c,
                              .db = db,
                              .most = OPS_MAX / GENERATIONS * (generation + 1),
                              .random = linear->torture->seed * 1000003 +
                                        linear->torture->rounds * 64 + generation * 7919 + c};
        if (pthread_create(&threads[c], NULL, thread_main, &workers[c]) != 0)
            return 2;
    }
    for (uint32_t c = 0; c < linear->clients; c++)
        pthread_join(threads[c], NULL);
    return aidb_close(db) == AIDB_OK ? 0 : 3;
}

/* ---- judging ------------------------------------------------------------------------------------ */

typedef struct Version {
    uint64_t lsn;
    uint64_t value;
} Version;

static int by_lsn(const void *a, const void *b)
{
    const Version *x = a, *y = b;
    return x->lsn < y->lsn ? -1 : x->lsn > y->lsn;
}

/* A version is one value, for everybody and for ever; what a refused condition found is told by it. */
static bool resolve_versions(Linear *linear, HistoryOp *ops, const Note **sources, size_t count)
{
    Version *versions = calloc(count + 1, sizeof *versions);
    size_t used = 0;
    for (size_t i = 0; i < count; i++)
        if (sources[i]->lsn != 0 && ops[i].outcome == HISTORY_DONE)
            versions[used++] = (Version){sources[i]->lsn, ops[i].value};
    qsort(versions, used, sizeof *versions, by_lsn);
    bool ok = true;
    for (size_t i = 1; i < used && ok; i++)
        if (versions[i].lsn == versions[i - 1].lsn && versions[i].value != versions[i - 1].value)
            ok = torture_failed(linear->torture, "version %llu is two values",
                                (unsigned long long)versions[i].lsn);
    for (size_t i = 0; i < count; i++) {
        Version wanted = {.lsn = sources[i]->present_lsn};
        if (ops[i].outcome != HISTORY_REFUSED || wanted.lsn == 0)
            continue;
        const Version *found = bsearch(&wanted, versions, used, sizeof *versions, by_lsn);
        if (found != NULL)
            ops[i].present = found->value;
    }
    free(versions);
    return ok;
}

static void tell(const HistoryOp *op, uint64_t since, FILE *out)
{
    static const char *const kinds[] = {"read", "write", "if value", "if absent", "if present"};
    static const char *const outcomes[] = {"unknown", "done", "refused"};
    fprintf(out, "  %8.3f-%8.3f ms client %2u %-10s %-7s value %llx expected %llx present %llx\n",
            (double)(op->call_ns - since) / 1e6,
            op->outcome == HISTORY_UNKNOWN ? 0.0 : (double)(op->answer_ns - since) / 1e6,
            op->client, kinds[op->kind], outcomes[op->outcome], (unsigned long long)op->value,
            (unsigned long long)op->expected, (unsigned long long)op->present);
}

static int by_call(const void *a, const void *b)
{
    const HistoryOp *x = a, *y = b;
    return x->call_ns < y->call_ns ? -1 : x->call_ns > y->call_ns;
}

/* The operations that were under way around the one that no order explains. */
static void tell_around(HistoryOp *ops, size_t count, size_t stuck)
{
    HistoryOp odd = ops[stuck];
    uint64_t since = odd.call_ns;
    qsort(ops, count, sizeof *ops, by_call);
    for (size_t i = 0; i < count; i++)
        if (ops[i].call_ns < odd.answer_ns + 2000000 &&
            (ops[i].outcome == HISTORY_UNKNOWN || ops[i].answer_ns + 2000000 > odd.call_ns))
            tell(&ops[i], since > 2000000 ? since - 2000000 : 0, stderr);
    fprintf(stderr, "  no order explains:\n");
    tell(&odd, since > 2000000 ? since - 2000000 : 0, stderr);
}

static bool judge(Linear *linear)
{
    size_t most = (size_t)linear->clients * OPS_MAX;
    HistoryOp *ops = calloc(most, sizeof *ops);
    const Note **sources = calloc(most, sizeof *sources);
    bool ok = ops != NULL && sources != NULL;
    for (uint32_t key = 0; ok && key < KEYS; key++) {
        size_t count = 0;
        for (uint32_t c = 0; c < linear->clients; c++) {
            uint32_t notes = atomic_load(&linear->notes->client[c].count);
            for (uint32_t i = 0; i < notes; i++) {
                const Note *note = &linear->notes->client[c].notes[i];
                if (note->key != key)
                    continue;
                linear->unknown += note->op.outcome == HISTORY_UNKNOWN;
                linear->refused += note->op.outcome == HISTORY_REFUSED;
                linear->operations++;
                /* A read without an answer says nothing. */
                if (note->op.kind == HISTORY_READ && note->op.outcome == HISTORY_UNKNOWN)
                    continue;
                sources[count] = note;
                ops[count++] = note->op;
            }
        }
        ok = resolve_versions(linear, ops, sources, count);
        HistoryResult result = history_check(ops, count);
        linear->steps += result.steps;
        linear->undecided += result.verdict == HISTORY_UNDECIDED;
        if (ok && result.verdict == HISTORY_VIOLATED) {
            ok = torture_failed(linear->torture,
                                "key %u: %zu operations have no order, the longest has %zu", key,
                                count, result.longest);
            tell_around(ops, count, result.stuck);
        }
    }
    free(ops);
    free(sources);
    return ok;
}

/* After the kill, when everything works again: a client more, in the place of one that has room. */
static bool look_at_everything(Linear *linear, const char *name, const aidb_option *options)
{
    Torture *torture = linear->torture;
    Notes *notes = linear->notes;
    aidb *db = NULL;
    aidb_status status;
    for (uint64_t end = torture_now_ms() + RETRY_MS;; torture_sleep_ms(2)) {
        status = aidb_open(name, options, &db);
        if (status == AIDB_OK || !lost(status) || torture_now_ms() > end)
            break;
    }
    if (status != AIDB_OK)
        return torture_failed(torture, "open after the kill: %s", aidb_error_message());
    bool ok = true;
    if (linear->bank) {
        uint64_t counters[CLIENTS_MAX] = {0};
        status = audit(linear, db, counters);
        for (uint32_t c = 1; status == AIDB_OK && ok && c < linear->clients; c++) {
            uint64_t acked = atomic_load(&notes->accounts[c].acked);
            uint64_t attempted = atomic_load(&notes->accounts[c].attempted);
            linear->operations = 0;
            if (counters[c] < acked || counters[c] > attempted)
                ok = torture_failed(torture,
                                    "client %u: transfer %llu is the last, %llu was acknowledged",
                                    c, (unsigned long long)counters[c], (unsigned long long)acked);
        }
        for (uint32_t c = 0; c < linear->clients; c++)
            linear->operations += atomic_load(&notes->accounts[c].acked);
    } else {
        uint32_t last = linear->clients; /* this one's place in the notes */
        Worker worker = {.linear = linear, .number = last, .db = db};
        for (uint32_t key = 0; status == AIDB_OK && key < KEYS; key++) {
            Note *note = &notes->client[last].notes[key];
            char text[40];
            size_t size = make_key(linear, key, text);
            *note = (Note){.key = key, .op = {.kind = HISTORY_READ, .client = (uint16_t)last}};
            note->op.call_ns = now_ns();
            status = read_key(&worker, text, size, note);
            note->op.answer_ns = now_ns();
            note->op.outcome = HISTORY_DONE;
            atomic_store(&notes->client[last].count, key + 1);
        }
    }
    if (status != AIDB_OK)
        ok = torture_failed(torture, "reading after the kill: %s", aidb_error_message());
    (void)aidb_close(db);
    return ok;
}

/* ---- rounds ------------------------------------------------------------------------------------- */

/* Kills something of the server; the clients are to notice by themselves. */
static bool kill_something(Linear *linear)
{
    Torture *torture = linear->torture;
    Server *server = &linear->server;
    uint64_t pick = torture_below(torture, 8);
    if (pick == 0) {
        linear->killed[0]++;
        return true;
    }
    if (pick < 6) {
        pid_t children[CHILDREN_MAX];
        char title[80];
        size_t count = server_children(server, children);
        for (size_t tries = 0; count > 0 && tries < 100; tries++) {
            pid_t pid = children[torture_below(torture, count)];
            process_title(pid, title);
            /* A killed recovery stops the server by design. */
            if (title[0] == 0 || strstr(title, "startup") != NULL)
                continue;
            kill(pid, SIGKILL);
            linear->killed[1]++;
            return true;
        }
        return torture_failed(torture, "the server has no children");
    }
    linear->killed[pick == 6 ? 2 : 3]++;
    return server_kill(server, pick == 7) && server_start(server);
}

static bool server_round(Linear *linear)
{
    Torture *torture = linear->torture;
    pid_t clients[CLIENTS_MAX];
    for (uint32_t c = 0; c < linear->clients; c++) {
        clients[c] = fork();
        if (clients[c] == 0) {
            client_main(linear, c);
            _exit(0);
        }
    }
    torture_sleep_ms(30 + (uint32_t)torture_below(torture, 200));
    bool ok = kill_something(linear);
    torture_sleep_ms(150 + (uint32_t)torture_below(torture, 200));
    atomic_store(&linear->notes->stop, 1);
    for (uint32_t c = 0; c < linear->clients; c++) {
        int status;
        if (!torture_wait(clients[c], 2 * RETRY_MS, &status) || status != 0)
            ok = torture_failed(torture, "client %u hung or crashed, status %d", c, status);
    }
    return ok && look_at_everything(linear, linear->server.uri, NULL);
}

static bool embedded_round(Linear *linear)
{
    Torture *torture = linear->torture;
    bool ok = true;
    for (uint32_t generation = 0; ok && generation < GENERATIONS; generation++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(program_main(linear, generation));
        torture_sleep_ms(50 + (uint32_t)torture_below(torture, 150));
        int status;
        if (generation + 1 < GENERATIONS) {
            kill(pid, SIGKILL);
            linear->killed[3]++;
        } else {
            atomic_store(&linear->notes->stop, 1);
        }
        if (!torture_wait(pid, 2 * RETRY_MS, &status) ||
            (generation + 1 == GENERATIONS && status != 0))
            ok = torture_failed(torture, "the program hung or failed, status %d", status);
        else if (generation + 1 < GENERATIONS && !WIFSIGNALED(status))
            ok = torture_failed(torture, "the program ended by itself, status %d", status);
    }
    /* In a process of its own: this one must not have an engine in it, because it forks. */
    if (ok) {
        fflush(stdout);
        pid_t pid = fork();
        int status;
        if (pid == 0)
            _exit(look_at_everything(linear, linear->directory, small_settings) ? 0 : 1);
        ok = torture_wait(pid, 2 * RETRY_MS, &status) && status == 0;
        if (!ok && torture->lost == 0)
            ok = torture_failed(torture, "looking at everything failed");
    }
    return ok;
}

static bool begin_round(Linear *linear)
{
    Notes *notes = linear->notes;
    atomic_store(&notes->stop, 0);
    for (uint32_t c = 0; c < CLIENTS_MAX; c++)
        atomic_store(&notes->client[c].count, 0);
    return true;
}

bool linear_campaign(Torture *torture)
{
    Linear linear = {.torture = torture,
                     .server = {.control = NULL},
                     .embedded = strcmp(torture->campaign, "linear-embedded") == 0,
                     .bank = strcmp(torture->campaign, "bank") == 0};
    /* The last place in the notes is for who looks at the end. */
    linear.clients = torture->clients < CLIENTS_MAX ? torture->clients : CLIENTS_MAX - 1;
    linear.notes =
        mmap(NULL, sizeof *linear.notes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (linear.notes == MAP_FAILED)
        return torture_failed(torture, "could not map memory");
    torture_path(torture, "embedded", linear.directory);
    bool ok = linear.embedded || server_create(torture, &linear.server);
    if (ok && linear.bank)
        ok = open_bank(&linear, linear.server.uri, NULL);
    while (ok && torture_round(torture)) {
        ok = begin_round(&linear) &&
             (linear.embedded ? embedded_round(&linear) : server_round(&linear));
        if (atomic_load(&linear.notes->wrong) != 0)
            ok = torture_failed(torture, "%s", linear.notes->message);
        if (ok && !linear.bank) {
            linear.clients++; /* and the one who looked */
            ok = judge(&linear);
            linear.clients--;
        }
        if (torture->verbose)
            printf("round %llu: %llu operations\n", (unsigned long long)torture->rounds,
                   (unsigned long long)linear.operations);
    }
    uint64_t keys = torture->rounds * KEYS;
    if (ok && linear.undecided * 100 > keys * (100 - DECIDED_MIN))
        ok = torture_failed(torture, "the search for an order gave up on %llu keys of %llu",
                            (unsigned long long)linear.undecided, (unsigned long long)keys);
    if (linear.bank)
        snprintf(torture->note, sizeof torture->note,
                 "%llu transfers, %llu sums in snapshots; killed: nothing %u, child %u, "
                 "postmaster %u, group %u",
                 (unsigned long long)linear.operations,
                 (unsigned long long)atomic_load(&linear.notes->scans), linear.killed[0],
                 linear.killed[1], linear.killed[2], linear.killed[3]);
    else
        snprintf(torture->note, sizeof torture->note,
                 "%llu operations on %llu keys, %llu refused, %llu of unknown outcome, %llu steps, "
                 "%llu undecided; killed: nothing %u, child %u, postmaster %u, %s %u",
                 (unsigned long long)linear.operations, (unsigned long long)keys,
                 (unsigned long long)linear.refused, (unsigned long long)linear.unknown,
                 (unsigned long long)linear.steps, (unsigned long long)linear.undecided,
                 linear.killed[0], linear.killed[1], linear.killed[2],
                 linear.embedded ? "program" : "group", linear.killed[3]);
    if (!linear.embedded)
        ok = server_finish(&linear.server, ok);
    munmap(linear.notes, sizeof *linear.notes);
    return ok;
}
