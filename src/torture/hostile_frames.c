/*
 * hostile_frames.c - hostile clients that speak the protocol, more or less: mutated frames, sizes that lie, floods,
 * conversations cut at every byte, sizes at their limits.
 *
 * Mutated frames come from a few processes at once, over connections of their own, while well-behaved clients
 * (oracle.h) write and read back. Nearly all of them still decode: what does not decode ends its connection, so it
 * comes last.
 */
#include "config.h"

#include "torture/hostile.h"

#include "engine/base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ATTACKERS      3u
#define SESSION_FRAMES 1000u
#define LAST_OF        512u /* that do not decode and are sent all the same: one of so many */
#define FLOOD          100000u

/* Sends bytes over a connection of their own and hears the server out. */
static bool talk(Hostile *hostile, const void *bytes, size_t size, uint64_t *replies)
{
    int fd = hostile_connect(hostile, false);
    *replies = 0;
    if (fd < 0)
        return hostile_failed(hostile, "could not connect");
    (void)hostile_send(fd, bytes, size);
    shutdown(fd, SHUT_WR);
    const char *wrong = hostile_drain(fd, replies);
    close(fd);
    return wrong == NULL || hostile_failed(hostile, wrong);
}

/* ---- mutated frames ----------------------------------------------------------------------------- */

static bool own_key(Slice key)
{
    return key.size > 0 && key.data[0] == 'h';
}

/* Whether a frame that decodes would reach what is not the hostile clients' own. */
static bool reaches_others(const Message *message)
{
    if (message->type == MESSAGE_CONTROL)
        return message->name.size > 4 && memcmp(message->name.data, "term", 4) == 0;
    if (message->type != MESSAGE_WRITE)
        return false;
    size_t cursor = 0;
    bool damaged = false;
    BatchOp op;
    while (batch_next(message->ops, &cursor, &op, &damaged))
        if (!own_key(op.key) || (op.type == OP_DELETE_RANGE && !own_key(op.value)))
            return true;
    return false;
}

static Status make_request(uint64_t *random, uint64_t id, Buffer *bytes)
{
    static const uint8_t types[] = {
        MESSAGE_GET,        MESSAGE_GET,      MESSAGE_MULTI_GET, MESSAGE_WRITE,
        MESSAGE_WRITE,      MESSAGE_WRITE,    MESSAGE_SCAN,      MESSAGE_SCAN,
        MESSAGE_MEASURE,    MESSAGE_SNAPSHOT, MESSAGE_RELEASE,   MESSAGE_SCAN_MORE,
        MESSAGE_SCAN_CLOSE, MESSAGE_PING,     MESSAGE_PROPERTY,  MESSAGE_CONTROL};
    static const char *const properties[] = {"status", "config", "stats", "backends", "levels"};
    static const char *const commands[] = {"flush", "compact", "nothing"};
    char key[32], value[400];
    Batch batch = {0};
    Buffer keys = {0};
    uint64_t pick = oracle_random(random);
    snprintf(key, sizeof key, "h%03u", (unsigned)(pick % 500));
    memset(value, 'v', sizeof value);
    Slice wanted = slice_from_string(key);
    Message message = {.type = types[(pick >> 16) % sizeof types], .id = id, .key = wanted};
    Status status = AIDB_OK;
    switch (message.type) {
    case MESSAGE_MULTI_GET:
        message.count = 1 + (pick >> 24) % 3;
        for (uint64_t i = 0; i < message.count && status == AIDB_OK; i++)
            status = buffer_append_slice(&keys, wanted);
        message.row = buffer_slice(&keys);
        break;
    case MESSAGE_WRITE:
        message.durability = (pick >> 24) % 4;
        status = batch_put(&batch, wanted, slice_make(value, (pick >> 32) % sizeof value));
        if (status == AIDB_OK && (pick >> 48) % 4 == 0)
            status = batch_delete(&batch, slice_from_string("h1"));
        if (status == AIDB_OK && (pick >> 50) % 8 == 0)
            status = batch_delete_range(&batch, slice_from_string("h2"), slice_from_string("h20"));
        if (status == AIDB_OK && (pick >> 54) % 4 == 0)
            status = batch_expect(&batch, wanted, AIDB_EXPECT_PRESENT, 0);
        message.ops = buffer_slice(&batch.ops);
        message.expectations = buffer_slice(&batch.expectations);
        break;
    case MESSAGE_SCAN:
        message.flags = (uint8_t)((pick >> 24) & SCAN_FLAGS);
        message.rows = (pick >> 32) % 100;
        message.credits = (pick >> 40) % 4;
        message.from = slice_from_string("h");
        message.to = wanted;
        break;
    case MESSAGE_MEASURE:
        message.flags = 1 + (pick >> 24) % 3;
        message.from = wanted;
        break;
    case MESSAGE_RELEASE:
        message.lsn = pick >> 40;
        break;
    case MESSAGE_SCAN_MORE:
        message.credits = 1;
        break;
    case MESSAGE_PROPERTY:
        message.name = slice_from_string(properties[(pick >> 24) % 5]);
        break;
    case MESSAGE_CONTROL:
        /* Compactions of everything are for free only now and then. */
        message.name = slice_from_string(commands[(pick >> 24) % 64 == 0 ? (pick >> 32) % 2 : 2]);
        break;
    default:
        break;
    }
    if (status == AIDB_OK)
        status = message_encode(bytes, &message);
    batch_deinit(&batch);
    buffer_deinit(&keys);
    return status;
}

static void mutate(uint64_t *random, uint8_t *bytes, size_t size)
{
    static const uint8_t telling[] = {0, 1, 2, 3, 4, 0x7f, 0x80, 0x81, 0xfe, 0xff};
    for (uint64_t n = 1 + oracle_random(random) % 3; n > 0; n--) {
        uint64_t pick = oracle_random(random);
        size_t place = (size_t)((pick >> 16) % size);
        if (pick % 2 == 0)
            bytes[place] = telling[(pick >> 8) % sizeof telling];
        else if (pick % 8 == 1)
            bytes[place] ^= (uint8_t)(1u << (pick >> 8) % 8);
        else if (pick % 8 == 3 && size - place >= 8)
            memset(bytes + place, (pick >> 8) % 2 == 0 ? 0xff : 0, 8);
        else
            bytes[place] = (uint8_t)(pick >> 8);
    }
}

/* Appends one mutated frame. *last: it does not decode, the server will close. */
static bool append_mutated(uint64_t *random, uint64_t id, Buffer *bytes, bool *last)
{
    size_t start = bytes->size;
    *last = false;
    for (int tries = 0; tries < 40; tries++) {
        Frame frame;
        Message message;
        bytes->size = start;
        if (make_request(random, id, bytes) != AIDB_OK)
            return false;
        mutate(random, bytes->data + start, bytes->size - start);
        FrameResult result =
            frame_decode(bytes->data + start, bytes->size - start, BODY_MAX, &frame);
        if (result == FRAME_COMPLETE && frame.size == bytes->size - start &&
            message_decode(&frame, &message) == AIDB_OK && message.id != 0) {
            if (!reaches_others(&message))
                return true;
        } else if (oracle_random(random) % LAST_OF == 0) {
            *last = true; /* also one that is cut short, or two made of one: nothing follows */
            return true;
        }
    }
    bytes->size = start;
    return true;
}

static const char *attack(const Hostile *hostile, uint64_t *random)
{
    Buffer bytes = {0};
    const char *wrong = NULL;
    bool last = false;
    uint64_t frames = 0, replies = 0;
    if (!hostile_greeting(&bytes))
        wrong = "out of memory";
    if (oracle_random(random) % 32 == 0)
        mutate(random, bytes.data, bytes.size);
    while (wrong == NULL && !last && frames < SESSION_FRAMES) {
        if (!append_mutated(random, 2 + frames, &bytes, &last))
            wrong = "out of memory";
        frames++;
    }
    int fd = wrong == NULL ? hostile_connect(hostile, false) : -1;
    if (fd >= 0) {
        (void)hostile_send(fd, bytes.data, bytes.size);
        if (oracle_random(random) % 16 != 0) { /* else it goes without a word */
            shutdown(fd, SHUT_WR);
            wrong = hostile_drain(fd, &replies);
        }
        close(fd);
        atomic_fetch_add(&hostile->shared->frames, frames);
        atomic_fetch_add(&hostile->shared->replies, replies);
        atomic_fetch_add(&hostile->shared->sessions, 1);
    } else if (wrong == NULL) {
        wrong = "could not connect";
    }
    if (wrong != NULL) { /* the conversation, to be looked at */
        char path[TORTURE_PATH];
        torture_path(hostile->torture, "conversation", path);
        FILE *file = fopen(path, "wb");
        if (file != NULL) {
            fwrite(bytes.data, 1, bytes.size, file);
            fclose(file);
        }
    }
    buffer_deinit(&bytes);
    return wrong;
}

static void attacker_main(const Hostile *hostile, uint32_t number)
{
    HostileShared *shared = hostile->shared;
    uint64_t random = hostile->torture->seed * 31 + number;
    while (atomic_load(&shared->stop) == 0 && atomic_load(&shared->failed) == 0) {
        const char *wrong = attack(hostile, &random);
        if (wrong != NULL)
            hostile_report(hostile, "an attacker", wrong);
    }
    _exit(0);
}

static bool enough_frames(const Hostile *hostile)
{
    const Torture *torture = hostile->torture;
    return (torture->deadline_ms != 0
                ? torture_over(torture)
                : atomic_load(&hostile->shared->frames) >= torture->iterations) &&
           watch_enough(hostile);
}

bool attack_frames(Hostile *hostile)
{
    Torture *torture = hostile->torture;
    HostileShared *shared = hostile->shared;
    pid_t clients[ORACLE_CLIENTS_MAX], attackers[ATTACKERS];
    size_t count = server_start_clients(&hostile->server, clients);
    uint64_t since = torture_now_ms();
    for (uint32_t i = 0; i < ATTACKERS; i++) {
        attackers[i] = fork();
        if (attackers[i] == 0)
            attacker_main(hostile, i);
    }
    bool ok = true;
    uint64_t before = 0, progress = torture_now_ms();
    while (ok && !enough_frames(hostile) && atomic_load(&shared->failed) == 0) {
        if (atomic_load(&shared->frames) != before) {
            before = atomic_load(&shared->frames);
            progress = torture_now_ms();
        }
        if (torture_now_ms() - progress > 2 * PATIENCE_MS)
            ok = hostile_failed(hostile, "mutated frames are not answered any more");
        watch_memory(hostile);
        torture_sleep_ms(20);
    }
    uint64_t took = torture_now_ms() - since;
    atomic_store(&shared->stop, 1);
    int status;
    for (uint32_t i = 0; i < ATTACKERS; i++)
        if (!torture_wait(attackers[i], PATIENCE_MS, &status) || status != 0)
            ok = torture_failed(torture, "attacker %u: status %d", i, status);
    ok = server_end_clients(&hostile->server, clients, count) && ok;
    /* Nobody was in the way of the others: each went on until it was told to stop, or had written as much as
     * it may. */
    for (uint32_t c = 0; ok && c < torture->oracle->clients; c++)
        if (torture->oracle->client[c].ended != 0)
            ok = torture_failed(torture, "client %u got status %u beside hostile ones", c,
                                torture->oracle->client[c].ended);
    if (atomic_load(&shared->failed) != 0)
        ok = hostile_failed(hostile, shared->message);
    hostile_note(hostile, "; %llu frames in %llu sessions, %llu replies, %llu s",
                 (unsigned long long)atomic_load(&shared->frames),
                 (unsigned long long)atomic_load(&shared->sessions),
                 (unsigned long long)atomic_load(&shared->replies),
                 (unsigned long long)took / 1000);
    return ok;
}

/* ---- lies --------------------------------------------------------------------------------------- */

/* Frames whose bodies are shorter than they say, or larger than they may be: the latter are refused at once. */
static bool lying_sizes(Hostile *hostile)
{
    static const uint32_t sizes[] = {0,
                                     1,
                                     16,
                                     FRAME_BODY_MAX_HELLO,
                                     FRAME_BODY_MAX_HELLO + 1,
                                     BODY_MAX,
                                     BODY_MAX + 1,
                                     0x7fffffff,
                                     0x80000000u,
                                     0xfffffff0u,
                                     0xffffffffu};
    static const uint8_t types[] = {MESSAGE_HELLO, MESSAGE_CANCEL, MESSAGE_AUTHENTICATE,
                                    MESSAGE_GET,   MESSAGE_WRITE,  MESSAGE_SCAN};
    bool ok = true;
    for (size_t greeted = 0; greeted < 2; greeted++) {
        for (size_t s = 0; ok && s < sizeof sizes / sizeof sizes[0]; s++) {
            for (size_t t = 0; ok && t < sizeof types; t++) {
                Buffer bytes = {0};
                uint8_t header[FRAME_HEADER_SIZE + 5] = {0};
                uint64_t replies;
                put_fixed32(header, sizes[s]);
                header[4] = types[t];
                header[8] = 9;
                ok = (greeted != 0 ? hostile_greeting(&bytes)
                                   : buffer_append(&bytes, PROTOCOL_MAGIC, PROTOCOL_MAGIC_SIZE) ==
                                         AIDB_OK) &&
                     buffer_append(&bytes, header, sizeof header) == AIDB_OK &&
                     talk(hostile, bytes.data, bytes.size, &replies);
                buffer_deinit(&bytes);
                size_t limit = greeted != 0 ? BODY_MAX : FRAME_BODY_MAX_HELLO;
                if (ok && sizes[s] > limit && replies != greeted + 1)
                    ok = torture_failed(
                        hostile->torture, "a %s of %u bytes %s the greeting: %llu replies",
                        message_type_name(types[t]), sizes[s],
                        greeted != 0 ? "behind" : "instead of", (unsigned long long)replies);
            }
        }
    }
    return ok;
}

static bool cuts(Hostile *hostile)
{
    Buffer bytes = {0};
    uint64_t random = hostile->torture->seed, replies;
    bool ok = hostile_greeting(&bytes);
    for (uint64_t id = 2; ok && id < 12; id++)
        ok = make_request(&random, id, &bytes) == AIDB_OK;
    for (size_t size = 0; ok && size <= bytes.size; size++)
        ok = talk(hostile, bytes.data, size, &replies);
    buffer_deinit(&bytes);
    return ok;
}

/* ---- limits ------------------------------------------------------------------------------------- */

static bool send_one(Hostile *hostile, Client *client, Message *request, bool fits,
                     const char *what, size_t size)
{
    Message reply;
    Status status = client_send(client, request);
    if (status == AIDB_OK)
        status = client_receive(client, &reply);
    if (status != AIDB_OK)
        return torture_failed(hostile->torture, "%s of %zu bytes: %s", what, size,
                              status_message());
    if ((reply.type != MESSAGE_ERROR) != fits)
        return torture_failed(hostile->torture, "%s of %zu bytes was %s", what, size,
                              fits ? "refused" : "taken");
    return true;
}

static bool sizes_at_limits(Hostile *hostile)
{
    const ClientOptions options = {.connect_timeout_ms = PATIENCE_MS};
    Client *client;
    if (client_connect(hostile->server.uri, &options, &client) != AIDB_OK)
        return hostile_failed(hostile, status_message());
    uint8_t *bytes = malloc(BATCH_MAX + 64);
    bool ok = bytes != NULL;
    for (size_t size = AIDB_KEY_MAX - 1; ok && size <= AIDB_KEY_MAX + 1; size++) {
        bool fits = size <= AIDB_KEY_MAX;
        memset(bytes, 'h', size);
        /* Encoded by hand: batch_put knows the limit too. */
        Buffer ops = {0};
        ok = buffer_append_byte(&ops, OP_PUT) == AIDB_OK &&
             buffer_append_slice(&ops, slice_make(bytes, size)) == AIDB_OK &&
             buffer_append_slice(&ops, slice_make("v", 1)) == AIDB_OK;
        Message write = {.type = MESSAGE_WRITE, .ops = buffer_slice(&ops)};
        Message get = {.type = MESSAGE_GET, .key = slice_make(bytes, size)};
        Message scan = {.type = MESSAGE_SCAN,
                        .flags = SCAN_ONE_CHUNK,
                        .rows = 1,
                        .from = slice_make(bytes, size),
                        .to = slice_make(bytes, size)};
        ok = ok && send_one(hostile, client, &write, fits, "a write of a key", size) &&
             send_one(hostile, client, &get, fits, "a get of a key", size) &&
             /* Bounds may be one byte longer than keys. */
             send_one(hostile, client, &scan, true, "a scan from a key", size);
        buffer_deinit(&ops);
    }
    for (size_t size = BATCH_MAX - 1; ok && size <= BATCH_MAX + 1; size++) {
        Buffer ops = {0};
        size_t head = 1 + 1 + 1 + 4; /* type, key with its size, size of the value */
        memset(bytes, 'v', size);
        ok = buffer_append_byte(&ops, OP_PUT) == AIDB_OK &&
             buffer_append_slice(&ops, slice_make("h", 1)) == AIDB_OK &&
             buffer_append_slice(&ops, slice_make(bytes, size - head)) == AIDB_OK;
        if (ok && ops.size != size)
            ok = torture_failed(hostile->torture, "made %zu bytes for %zu", ops.size, size);
        Message write = {.type = MESSAGE_WRITE, .ops = buffer_slice(&ops)};
        ok = ok && send_one(hostile, client, &write, size <= BATCH_MAX, "a batch", size);
        buffer_deinit(&ops);
    }
    free(bytes);
    client_close(client);
    return ok;
}

bool attack_lies(Hostile *hostile)
{
    return lying_sizes(hostile) && cuts(hostile) && sizes_at_limits(hostile);
}

/* ---- floods -------------------------------------------------------------------------------------- */

bool attack_flood(Hostile *hostile)
{
    const ClientOptions options = {.connect_timeout_ms = PATIENCE_MS};
    Client *client;
    Message reply;
    if (client_connect(hostile->server.uri, &options, &client) != AIDB_OK)
        return hostile_failed(hostile, status_message());
    Status status = AIDB_OK;
    for (uint32_t i = 0; i < FLOOD && status == AIDB_OK; i++) {
        Message request = i % 2 == 0
                              ? (Message){.type = MESSAGE_PING}
                              : (Message){.type = MESSAGE_GET, .key = slice_from_string("none")};
        status = client_send(client, &request);
    }
    for (uint32_t i = 0; i < FLOOD && status == AIDB_OK; i++) {
        status = client_receive(client, &reply);
        if (status == AIDB_OK && reply.id != 2 + (uint64_t)i)
            status = status_set(AIDB_PROTOCOL, "reply %u came out of order", i);
    }
    client_close(client);
    return status == AIDB_OK || hostile_failed(hostile, status_message());
}
