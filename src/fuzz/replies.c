/*
 * replies.c - any bytes as what a server answers: a hostile server for a program that uses libaidb.
 *
 * Input: a byte of choices, a byte that says in which pieces the bytes are sent, the number of calls, a
 * byte for each call, then records: replies (the frame's length is made to fit; ids are those that the
 * client counts up from 1) or bytes as they are. A thread is the server: it takes one connection, sends
 * everything without listening, and ends its side.
 *
 * What must hold: every call returns; a failed one says why; what it hands out can be read, and stood whole
 * in some reply; every submitted request is answered exactly once, in order, unless submitting failed;
 * nothing is kept.
 */
#include "config.h"

#include "fuzz/fuzz.h"

#include "protocol/protocol.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CALLS_MAX     48u
#define SUBMITTED_MAX (CALLS_MAX * 8u)
#define KEYS          3u

enum { NO_READY = 1 }; /* the answer to the greeting is part of the input */

typedef struct Server {
    int listener;
    uint8_t pace; /* bytes in a piece; 0: all at once */
    Buffer script;
} Server;

/* What there is in the script at all. */
typedef struct Content {
    bool values; /* for all keys of a multi-get, or perhaps for parts of them */
    bool rows;   /* a chunk of a scan */
} Content;

typedef enum Submitted { SUBMITTED_WRITE, SUBMITTED_GET, SUBMITTED_MULTI_GET } Submitted;

typedef struct Program {
    Content content;
    aidb *db;
    aidb_snapshot *snapshot;
    aidb_iter *iter;
    uint32_t submitted, answered;
    bool accepted[SUBMITTED_MAX]; /* aidb_submit said so */
    bool told[SUBMITTED_MAX];     /* of the outcome */
    Submitted kinds[SUBMITTED_MAX];
} Program;

/* ---- the server ------------------------------------------------------------------------------- */

static void *serve(void *arg)
{
    Server *server = arg;
    char heard[4096];
    int fd = accept(server->listener, NULL, NULL);
    fuzz_require(fd >= 0);
    size_t sent = 0;
    while (sent < server->script.size) {
        size_t piece = server->script.size - sent;
        if (server->pace > 0 && piece > server->pace)
            piece = sent < 512 ? server->pace : piece;
        ssize_t put = send(fd, server->script.data + sent, piece, MSG_NOSIGNAL);
        if (put < 0)
            break; /* the client has left */
        sent += (size_t)put;
    }
    shutdown(fd, SHUT_WR);
    while (recv(fd, heard, sizeof heard, 0) > 0)
        ;
    close(fd);
    return NULL;
}

static void append_record(Buffer *script, const uint8_t *data, size_t size, uint8_t type)
{
    uint8_t header[FRAME_HEADER_SIZE] = {0};
    put_fixed32(header, (uint32_t)(size - 5));
    header[4] = type;
    header[5] = data[1];
    put_fixed64(header + 8, data[2]);
    if (type != 0)
        fuzz_require(buffer_append(script, header, sizeof header) == AIDB_OK);
    fuzz_require(buffer_append(script, data + 5, size - 5) == AIDB_OK);
}

/* The script out of records; a type of 0 is bytes without a frame. */
static void write_script(Buffer *script, uint8_t choices, const uint8_t *data, size_t size)
{
    Message ready = {.type = MESSAGE_READY,
                     .id = 1,
                     .version = PROTOCOL_VERSION_MAX,
                     .session = 7,
                     .bytes = AIDB_VALUE_MAX + FRAME_BODY_SLACK,
                     .durability = AIDB_FSYNC,
                     .name = slice_from_string("fuzz")};
    if ((choices & NO_READY) == 0)
        fuzz_require(message_encode(script, &ready) == AIDB_OK);
    while (size >= 5) {
        size_t body = (size_t)data[3] | (size_t)data[4] << 8;
        if (body > size - 5)
            body = size - 5;
        append_record(script, data, 5 + body, data[0]);
        data += 5 + body;
        size -= 5 + body;
    }
}

/* Looks for replies that the program may believe. */
static Content look_through(Slice script)
{
    Content content = {0};
    Frame frame;
    Message message;
    for (size_t at = 0; at < script.size; at += frame.size) {
        if (frame_decode(script.data + at, script.size - at, UINT32_MAX, &frame) !=
                FRAME_COMPLETE ||
            message_decode(&frame, &message) != AIDB_OK)
            break;
        uint64_t count = message.count;
        message.count = KEYS;
        content.values |= message.type == MESSAGE_VALUES && fuzz_rows_fit(&message);
        message.count = count;
        content.values |= message.type == MESSAGE_ERROR && message.status == AIDB_LIMIT;
        content.rows |= message.type == MESSAGE_CHUNK && fuzz_rows_fit(&message);
    }
    return content;
}

/* ---- the program ------------------------------------------------------------------------------ */

static void touch(const void *data, size_t size)
{
    static volatile uint8_t sum;
    for (size_t i = 0; i < size; i++)
        sum = (uint8_t)(sum + ((const uint8_t *)data)[i]);
}

/* Any status that a server may name; one that says more than yes or no comes with a text. */
static void check(aidb_status status)
{
    if (status != AIDB_OK && status != AIDB_NOT_FOUND && status != AIDB_BUSY)
        fuzz_require(status_name(status) != NULL && aidb_error_message() != NULL);
}

static void check_value(aidb_status status, const aidb_value *value)
{
    check(status);
    fuzz_require(status == AIDB_OK || value->data == NULL || value->size == 0);
    touch(value->data, value->size);
}

static void get(Program *program)
{
    aidb_value value = {0};
    check_value(aidb_get(program->db, program->snapshot, "key", 3, &value), &value);
    aidb_free(value.data);
}

static const aidb_key keys[KEYS] = {{"a", 1}, {"b", 1}, {"c", 1}};

static void multi_get(Program *program)
{
    aidb_value values[KEYS] = {{0}};
    aidb_status status = aidb_multi_get(program->db, program->snapshot, KEYS, keys, values);
    fuzz_require(status != AIDB_OK || program->content.values);
    for (size_t i = 0; i < KEYS; i++) {
        check_value(status, &values[i]);
        aidb_free(values[i].data);
    }
}

static aidb_batch *make_batch(void)
{
    aidb_batch *batch = aidb_batch_create();
    fuzz_require(batch != NULL && aidb_batch_put(batch, "key", 3, "value", 5) == AIDB_OK);
    return batch;
}

static void write_batch(Program *program)
{
    aidb_commit commit = {0};
    aidb_batch *batch = make_batch();
    check(aidb_write(program->db, batch, AIDB_DEFAULT, &commit));
    aidb_batch_destroy(batch);
}

static void toggle_snapshot(Program *program)
{
    if (program->iter != NULL)
        return;
    if (program->snapshot == NULL) {
        check(aidb_snapshot_create(program->db, &program->snapshot));
    } else {
        aidb_snapshot_destroy(program->snapshot);
        program->snapshot = NULL;
    }
}

static void check_entry(aidb_status status, const aidb_entry *entry)
{
    check(status);
    fuzz_require(status == AIDB_OK || entry == NULL);
    if (entry == NULL)
        return;
    touch(entry->key, entry->key_size);
    touch(entry->value, entry->value_size);
}

static void iterate(Program *program, uint8_t how)
{
    const aidb_entry *entry = NULL;
    aidb_scan scan = {.keys_only = how % 2, .limit = how % 4};
    if (program->iter == NULL) {
        check(aidb_iter_create(program->db, program->snapshot, &scan, &program->iter));
        return;
    }
    aidb_status status = AIDB_OK;
    switch (how % 8) {
    case 0:
        aidb_iter_destroy(program->iter);
        program->iter = NULL;
        return;
    case 1:
        status = aidb_iter_seek(program->iter, AIDB_SEEK_LE, "k", 1, &entry);
        break;
    case 2:
        status = aidb_iter_seek(program->iter, AIDB_SEEK_GE, "k", 1, &entry);
        break;
    case 3:
    case 4:
        status = aidb_iter_prev(program->iter, &entry);
        break;
    default:
        status = aidb_iter_next(program->iter, &entry);
        break;
    }
    check_entry(status, entry);
    fuzz_require(entry == NULL || program->content.rows);
}

static void measure(Program *program)
{
    uint64_t count, bytes;
    check(aidb_measure(program->db, program->snapshot, NULL, &count, &bytes));
}

static void administer(Program *program, bool property)
{
    char *text = NULL;
    if (property) {
        aidb_status status = aidb_property(program->db, "status", &text);
        check(status);
        fuzz_require(status != AIDB_OK || text != NULL);
        if (text != NULL)
            touch(text, strlen(text));
        aidb_free(text);
    } else {
        check(aidb_control(program->db, "flush", NULL));
    }
}

/* ---- requests that do not wait ------------------------------------------------------------------ */

static Program *asking; /* the program whose requests are answered */

static void answered(void *arg, aidb_status status, const aidb_value *value,
                     const aidb_commit *commit)
{
    uint32_t number = (uint32_t)(uintptr_t)arg;
    fuzz_require(number < asking->submitted && !asking->told[number]);
    for (uint32_t i = 0; i < number; i++) /* in order */
        fuzz_require(asking->told[i] || !asking->accepted[i]);
    asking->told[number] = true;
    asking->answered++;
    check(status);
    fuzz_require(commit == NULL || value == NULL);
    Submitted kind = asking->kinds[number];
    if (kind == SUBMITTED_MULTI_GET) {
        fuzz_require((value != NULL) == (status == AIDB_OK));
        fuzz_require(value == NULL || asking->content.values);
    }
    for (size_t i = 0; value != NULL && i < (kind == SUBMITTED_MULTI_GET ? KEYS : 1); i++)
        touch(value[i].data, value[i].size);
}

static void submit(Program *program, Submitted kind)
{
    if (program->submitted == SUBMITTED_MAX)
        return;
    uint32_t number = program->submitted++;
    aidb_batch *batch = kind == SUBMITTED_WRITE ? make_batch() : NULL;
    aidb_request request = {.batch = batch, .done = answered, .arg = (void *)(uintptr_t)number};
    if (kind == SUBMITTED_GET)
        request.key = (aidb_key){"key", 3};
    if (kind == SUBMITTED_MULTI_GET) {
        request.keys = keys;
        request.key_count = KEYS;
    }
    program->kinds[number] = kind;
    program->accepted[number] = true; /* it may be answered inside the call */
    aidb_status status = aidb_submit(program->db, &request);
    check(status);
    if (status != AIDB_OK) {
        fuzz_require(!program->told[number]);
        program->accepted[number] = false;
    }
    aidb_batch_destroy(batch);
}

static void call(Program *program, uint8_t what)
{
    switch (what % 16) {
    case 0:
        get(program);
        break;
    case 1:
        multi_get(program);
        break;
    case 2:
        write_batch(program);
        break;
    case 3:
        toggle_snapshot(program);
        break;
    case 4:
        measure(program);
        break;
    case 5:
        administer(program, true);
        break;
    case 6:
        administer(program, false);
        break;
    case 7:
        check(aidb_wait(program->db, what / 16 == 15 ? SIZE_MAX : what / 16));
        break;
    case 8:
        submit(program, SUBMITTED_WRITE);
        break;
    case 9:
        submit(program, what / 16 % 2 == 0 ? SUBMITTED_GET : SUBMITTED_MULTI_GET);
        break;
    case 10:
        for (int i = 0; i < 8; i++)
            submit(program, (Submitted)(i % 3));
        break;
    default:
        iterate(program, what / 8);
        break;
    }
}

static void run_program(const char *uri, Slice script, const uint8_t *calls, size_t count)
{
    Program program = {.content = look_through(script)};
    asking = &program;
    aidb_status status = aidb_open(uri, NULL, &program.db);
    check(status);
    fuzz_require((status == AIDB_OK) == (program.db != NULL));
    if (status != AIDB_OK)
        return;
    for (size_t i = 0; i < count; i++)
        call(&program, calls[i]);
    check(aidb_wait(program.db, 0));
    for (uint32_t i = 0; i < program.submitted; i++)
        fuzz_require(program.told[i] == program.accepted[i]);
    aidb_iter_destroy(program.iter);
    aidb_snapshot_destroy(program.snapshot);
    check(aidb_close(program.db));
}

void fuzz_replies(const uint8_t *data, size_t size)
{
    if (size < 3)
        return;
    size_t calls = data[2] < CALLS_MAX ? data[2] : CALLS_MAX;
    if (calls > size - 3)
        calls = size - 3;
    Server server = {.pace = data[1]};
    write_script(&server.script, data[0], data + 3 + calls, size - 3 - calls);

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char uri[sizeof address.sun_path + 16];
    snprintf(address.sun_path, sizeof address.sun_path, "%.90s/socket", fuzz_directory());
    snprintf(uri, sizeof uri, "aidb+unix:%s", address.sun_path);
    server.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fuzz_require(bind(server.listener, (const struct sockaddr *)&address, sizeof address) == 0 &&
                 listen(server.listener, 4) == 0);
    pthread_t thread;
    fuzz_require(pthread_create(&thread, NULL, serve, &server) == 0);
    run_program(uri, buffer_slice(&server.script), data + 3, calls);
    pthread_join(thread, NULL);
    close(server.listener);
    unlink(address.sun_path);
    buffer_deinit(&server.script);
}
