/*
 * session.c - any bytes as what one client of a server sends: the session of src/backend on a small store
 * of its own.
 *
 * Input: a byte of choices, a byte that says in which pieces the bytes arrive, then records: a message
 * (its frame's length is made to fit), bytes as they are, or something that happens meanwhile (a cancel
 * request, an order to end, a flush, the client hanging up). Everything happens in this thread, and the
 * store is new each time, so an input always does the same.
 *
 * What must hold: replies are whole frames, in order, each of a kind that its request may get; a
 * request that was not answered is still in the input; reads, scans, counts and conditions say what this
 * session's own writes say (values.h), now and at snapshots; what breaks the protocol ends the session with
 * the error that doc/protocol.md promises, after the answers to everything before it, and nothing
 * else does; between two turns the session is in no epoch and holds no lock; at the end it has given
 * back snapshots and request memory, and the store is sound.
 */
#include "config.h"

#include "fuzz/fuzz.h"
#include "fuzz/values.h"

#include "backend/backend_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define INPUT_BYTES_MAX 8192u
#define TURNS_MAX       200000u
#define SEND_BUFFER     4096 /* the least that the system gives, so that replies pile up */
#define NUMBER          7u   /* of the connection */
#define SLOW_BYTES      512u /* that may arrive one by one */

/* Choices. */
enum {
    HOSTED = 1,   /* the process serves many clients */
    NO_HELLO = 2, /* the greeting is part of the input */
    DEAF = 4,     /* replies are not read before everything is sent */
    CROWDED = 8,  /* other clients hold the request memory */
    VERIFY = 16   /* the store is verified afterwards */
};

/* Kinds of records: the low bits of their first byte. */
enum { RECORD_BYTES = 60, RECORD_TURN, RECORD_EVENT, RECORD_HANG_UP, RECORD_KINDS };
enum { WITH_SNAPSHOT = 128 }; /* in front of the body goes the LSN of the last snapshot */

typedef struct Asked {
    uint64_t id;
    size_t at; /* of its frame in what was sent */
    uint8_t type;
    bool many; /* a scan of several chunks */
    bool answered;
    Buffer bound; /* of a scan: where the next chunk begins, once there was one */
} Asked;

typedef struct Conversation {
    Db *db;
    Session *flusher;
    BackendProcess *process;
    Backend *backend;
    int fd; /* the client's end */
    uint8_t choices, pace;
    uint32_t turns;
    Want want;
    bool crowded;

    Buffer sent; /* all of it, for the model below */
    size_t delivered;
    size_t understood;
    Buffer replies;
    size_t read;

    /* What the session should make of it. */
    Asked *asked;
    size_t asked_count, asked_capacity;
    size_t body_max;
    bool greeted;
    bool breaks; /* the protocol, at `understood` */
    bool ids_reused;
    bool told_to_end;
    bool hung_up;
    bool ended; /* the server said that it closes */
    Status end_status;
    Values values;
    uint64_t snapshot; /* the last one that was given */
    int64_t snapshots; /* given and not taken back */
} Conversation;

static ServerShared shared;

/* ---- the store ------------------------------------------------------------------------------- */

static EngineOptions small_options(void)
{
    return (EngineOptions){.memory = 16u << 20,
                           .memtable_size = 1u << 20,
                           .cache_size = 1u << 20,
                           .block_size = 512,
                           .compression = COMPRESSION_ZSTD,
                           .compression_level = 1,
                           .filter_bits = 10,
                           .table_size = 64u << 10,
                           .level_base_size = 16u << 20,
                           .level_multiplier = 4,
                           .level0_files = 100000, /* none is ever due: nobody would do it */
                           .compactors = 1,
                           .durability = AIDB_OS,
                           .wal_segment_size = 64u << 10,
                           .wal_ring_size = 64u << 10,
                           .batch_max = 1u << 20};
}

static void must(Status status)
{
    fuzz_require(status == AIDB_OK);
}

static void open_store(Conversation *c)
{
    EngineOptions options = small_options();
    Session *session;
    must(db_create(fuzz_directory(), &options));
    must(db_setup(fuzz_directory(), &options, &(DbSlots){.count = 4}, &c->db));
    must(db_session_create(c->db, 2, SLOT_STARTUP, &session));
    must(db_recover(c->db, session));
    db_session_destroy(session);
    must(db_session_create(c->db, 2, SLOT_FLUSHER, &c->flusher));
}

static void count_damage(void *arg, const char *path, uint64_t offset, const char *what)
{
    (void)path;
    (void)offset;
    (void)what;
    ++*(uint32_t *)arg;
}

static void close_store(Conversation *c)
{
    Session *session;
    uint32_t damage = 0;
    db_session_destroy(c->flusher);
    must(db_session_create(c->db, 0, SLOT_STARTUP, &session));
    must(db_stop(c->db, session, true));
    db_session_destroy(session);
    db_destroy(c->db);
    if ((c->choices & VERIFY) != 0) {
        must(db_verify(fuzz_directory(), false, count_damage, &damage));
        fuzz_require(damage == 0);
    }
    fuzz_remove_store();
}

/* ---- the model: what was asked, what came back ------------------------------------------------- */

static void ask(Conversation *c, const Message *message, size_t at)
{
    for (size_t i = 0; i < c->asked_count && !c->ids_reused; i++)
        c->ids_reused = c->asked[i].id == message->id;
    if (c->asked_count == c->asked_capacity) {
        c->asked_capacity = c->asked_capacity == 0 ? 64 : c->asked_capacity * 2;
        c->asked = realloc(c->asked, c->asked_capacity * sizeof *c->asked);
        fuzz_require(c->asked != NULL);
    }
    c->asked[c->asked_count++] = (Asked){
        .id = message->id,
        .at = at,
        .type = message->type,
        .many = message->type == MESSAGE_SCAN && (message->flags & SCAN_ONE_CHUNK) == 0,
    };
}

/* Whether a client may send this here. */
static bool is_request(const Conversation *c, const Message *message)
{
    if (!c->greeted)
        return message->type == MESSAGE_HELLO && message->version <= PROTOCOL_VERSION_MAX &&
               message->version_max >= PROTOCOL_VERSION_MIN;
    return message->id != 0 && message->type >= MESSAGE_PING && message->type <= MESSAGE_CONTROL;
}

/* Follows what has been delivered, frame by frame, until the end or until it breaks the protocol. */
static void understand(Conversation *c)
{
    while (!c->breaks && c->understood < c->delivered) {
        const uint8_t *data = c->sent.data + c->understood;
        size_t size = c->delivered - c->understood;
        if (c->understood == 0) {
            if (size < PROTOCOL_MAGIC_SIZE)
                return;
            c->breaks = memcmp(data, PROTOCOL_MAGIC, PROTOCOL_MAGIC_SIZE) != 0;
            c->understood = PROTOCOL_MAGIC_SIZE;
            continue;
        }
        Frame frame;
        Message message;
        FrameResult result = frame_decode(data, size, c->body_max, &frame);
        if (result == FRAME_PARTIAL)
            return;
        c->breaks = result == FRAME_BAD || message_decode(&frame, &message) != AIDB_OK ||
                    !is_request(c, &message);
        if (c->breaks)
            return;
        c->understood += frame.size;
        if (message.type != MESSAGE_SCAN_MORE && message.type != MESSAGE_SCAN_CLOSE)
            ask(c, &message, c->understood - frame.size);
        if (!c->greeted) {
            c->greeted = true;
            c->body_max = AIDB_VALUE_MAX + FRAME_BODY_SLACK;
        }
    }
}

static uint8_t reply_type(uint8_t request)
{
    switch (request) {
    case MESSAGE_HELLO:
        return MESSAGE_READY;
    case MESSAGE_GET:
        return MESSAGE_VALUE;
    case MESSAGE_MULTI_GET:
        return MESSAGE_VALUES;
    case MESSAGE_WRITE:
        return MESSAGE_COMMIT;
    case MESSAGE_SCAN:
        return MESSAGE_CHUNK;
    case MESSAGE_MEASURE:
        return MESSAGE_MEASURED;
    case MESSAGE_PROPERTY:
        return MESSAGE_TEXT;
    default:
        return MESSAGE_DONE;
    }
}

/* The first request that has no answer, scans of several chunks aside; NULL when all have. */
static Asked *next_unanswered(Conversation *c)
{
    for (size_t i = 0; i < c->asked_count; i++)
        if (!c->asked[i].answered && !c->asked[i].many)
            return &c->asked[i];
    return NULL;
}

/* A chunk of a scan: what it says, and where the next one begins. */
static void check_chunk(Conversation *c, Asked *scan, const Message *request, const Message *reply)
{
    bool reverse = (request->flags & SCAN_REVERSE) != 0, damaged = false;
    Slice bound = buffer_slice(&scan->bound), key = {0}, value;
    uint64_t lsn;
    values_check_chunk(&c->values, request, reply,
                       bound.size > 0 && !reverse ? bound : request->from,
                       bound.size > 0 && reverse ? bound : request->to);
    for (size_t cursor = 0; entry_row_next(reply->row, &cursor, &key, &value, &lsn, &damaged);)
        continue;
    if (key.size == 0)
        return;
    buffer_clear(&scan->bound);
    must(buffer_append(&scan->bound, key.data, key.size));
    if (!reverse)
        must(buffer_append_byte(&scan->bound, 0));
}

/* What the reply says of keys and values. Errors say nothing, and nothing was done. */
static void check_values(Conversation *c, Asked *asked, const Message *reply)
{
    Frame frame;
    Message request;
    fuzz_require(frame_decode(c->sent.data + asked->at, c->sent.size - asked->at,
                              AIDB_VALUE_MAX + FRAME_BODY_SLACK, &frame) == FRAME_COMPLETE);
    must(message_decode(&frame, &request));
    if (reply->type == MESSAGE_ERROR || c->values.lost)
        return;
    if (request.type == MESSAGE_WRITE)
        values_check_commit(&c->values, &request, reply);
    else if (request.type == MESSAGE_SCAN)
        check_chunk(c, asked, &request, reply);
    else
        values_check_read(&c->values, &request, reply);
}

static void take_answer(Conversation *c, const Message *reply)
{
    if (c->ids_reused) {
        c->values.lost = true;
        return; /* it cannot be told which one is answered */
    }
    Asked *next = next_unanswered(c);
    bool error = reply->type == MESSAGE_ERROR;
    if (next != NULL && next->id == reply->id) {
        fuzz_require(error || reply->type == reply_type(next->type));
        fuzz_require(reply->type != MESSAGE_CHUNK || (reply->flags & CHUNK_LAST) != 0);
        next->answered = true;
        check_values(c, next, reply);
        if (next->type == MESSAGE_SNAPSHOT && !error)
            c->snapshot = reply->lsn;
        if (!error)
            c->snapshots += (next->type == MESSAGE_SNAPSHOT) - (next->type == MESSAGE_RELEASE);
        return;
    }
    for (size_t i = 0; i < c->asked_count; i++) {
        Asked *scan = &c->asked[i];
        if (!scan->many || scan->answered || scan->id != reply->id)
            continue;
        fuzz_require(error || reply->type == MESSAGE_CHUNK);
        check_values(c, scan, reply);
        scan->answered = error || (reply->flags & CHUNK_LAST) != 0;
        return;
    }
    fuzz_require(false); /* nobody asked for this now */
}

static void take_reply(Conversation *c, const Frame *frame)
{
    Message reply;
    fuzz_require(!c->ended); /* nothing follows the last message */
    must(message_decode(frame, &reply));
    fuzz_require(reply.type >= MESSAGE_READY && reply.type != MESSAGE_CHALLENGE);
    fuzz_require(fuzz_rows_fit(&reply));
    if (reply.type == MESSAGE_ERROR && (reply.flags & ERROR_CLOSES) != 0) {
        fuzz_require(reply.id == 0);
        c->ended = true;
        c->end_status = error_take(&reply);
        return;
    }
    fuzz_require(reply.id != 0 || reply.type == MESSAGE_READY);
    take_answer(c, &reply);
}

/* Reads what the server has sent. */
static void read_replies(Conversation *c)
{
    for (;;) {
        must(buffer_reserve(&c->replies, 65536));
        ssize_t got = recv(c->fd, c->replies.data + c->replies.size,
                           c->replies.capacity - c->replies.size, MSG_DONTWAIT);
        if (got <= 0)
            break;
        c->replies.size += (size_t)got;
    }
    understand(c);
    while (c->read < c->replies.size) {
        Frame frame;
        FrameResult result = frame_decode(c->replies.data + c->read, c->replies.size - c->read,
                                          AIDB_VALUE_MAX + FRAME_BODY_SLACK, &frame);
        fuzz_require(result != FRAME_BAD);
        if (result == FRAME_PARTIAL)
            return;
        take_reply(c, &frame);
        c->read += frame.size;
    }
}

/* ---- turns ------------------------------------------------------------------------------------- */

/* What must hold whenever the session waits for something. */
static void check_between_turns(const Conversation *c)
{
    const Backend *backend = c->backend;
    fuzz_require(c->process->group_count == 0 && c->process->get_count == 0);
    fuzz_require(atomic_load(&backend->slot->epoch) == 0 && backend->slot->epoch_depth == 0);
    fuzz_require(atomic_load(&c->process->slot->lock_ranks) == 0);
    fuzz_require(atomic_load(&backend->slot->lock_ranks) == 0);
    fuzz_require(backend->settle_end == 0 && backend->exit_code == CHILD_EXIT_OK);
    fuzz_require(backend->taken <= backend->input.size);
    fuzz_require(backend->output.size - backend->sent <=
                 OUTPUT_HIGH + backend->body_max + FRAME_HEADER_SIZE);
}

/* The client's snapshots and those of open scans are registered, and no others. */
static void check_snapshots(const Conversation *c)
{
    int64_t registered = 0, expected = c->snapshots;
    for (int i = 0; i < SLOT_SNAPSHOTS; i++)
        registered += atomic_load(&c->backend->slot->snapshots[i]) != SNAPSHOT_NONE;
    for (size_t i = 0; i < SCANS_MAX; i++)
        expected += c->backend->scans[i].own_snapshot;
    fuzz_require(registered == expected || c->ids_reused);
}

static void turn(Conversation *c)
{
    Backend *backend = c->backend;
    fuzz_require(++c->turns < TURNS_MAX);
    if (c->process->hosting)
        db_session_act_for(c->process->session, backend->slot);
    session_work(backend);
    if (backend->settle_end != 0)
        session_settled(backend,
                        db_wait(backend->session, backend->settle_end, backend->settle_durability));
    c->want = session_send(backend);
    if (c->want == WANT_THREAD) {
        request_slow(backend);
        backend->slow = false;
        c->want = WANT_TURN;
    }
    check_between_turns(c);
}

/* Time passes, and what others do meanwhile is done. */
static void let_time_pass(Conversation *c)
{
    int wait_ms;
    if (c->crowded)
        atomic_fetch_sub(&shared.request_memory_used, c->backend->config->server.request_memory);
    c->crowded = false;
    must(db_step(c->flusher, &wait_ms));
    c->backend->debt.left_ns = 0;
    if (c->backend->resume_ns != 0)
        c->backend->resume_ns = 1;
}

/* Lets the session work until it has nothing more to do with what was sent. */
static void work(Conversation *c)
{
    bool listens = (c->choices & DEAF) == 0;
    for (;;) {
        bool looks = c->want == WANT_INPUT;
        ReadResult result = looks ? session_read(c->backend, false) : READ_NOTHING;
        turn(c);
        if (listens)
            read_replies(c);
        if (c->want == WANT_TIME)
            let_time_pass(c);
        else if (c->want == WANT_GOODBYE || (c->want == WANT_OUTPUT && !listens))
            return;
        else if (c->want == WANT_INPUT && looks && result == READ_NOTHING)
            break;
    }
    session_idle(c->backend);
    check_between_turns(c);
    if (listens)
        check_snapshots(c);
}

/* Sends what was recorded so far, in pieces. */
static void deliver(Conversation *c)
{
    while (c->delivered < c->sent.size && !c->hung_up && c->want != WANT_GOODBYE) {
        size_t piece = c->sent.size - c->delivered;
        size_t most = c->pace == 0                 ? piece
                      : c->delivered <= SLOW_BYTES ? c->pace
                                                   : c->pace * (size_t)64;
        if (piece > most)
            piece = most;
        ssize_t put = send(c->fd, c->sent.data + c->delivered, piece, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put < 0 && c->want == WANT_OUTPUT) {
            c->choices &= (uint8_t)~DEAF; /* neither side goes on otherwise */
            put = 0;
        }
        if (put < 0) {
            fuzz_require(errno == EAGAIN);
            put = 0;
        }
        c->delivered += (size_t)put;
        work(c);
    }
}

/* ---- records ----------------------------------------------------------------------------------- */

static void append(Conversation *c, const void *data, size_t size)
{
    must(buffer_append(&c->sent, data, size));
}

static void greet(Conversation *c)
{
    Message hello = {.type = MESSAGE_HELLO,
                     .id = UINT64_MAX,
                     .version = PROTOCOL_VERSION_MIN,
                     .version_max = PROTOCOL_VERSION_MAX,
                     .name = slice_from_string("fuzz")};
    append(c, PROTOCOL_MAGIC, PROTOCOL_MAGIC_SIZE);
    must(message_encode(&c->sent, &hello));
}

static void event(Conversation *c, uint8_t what)
{
    Slot *slot = c->backend->slot;
    int wait_ms;
    deliver(c);
    switch (what % 3) {
    case 0:
        atomic_fetch_or(&slot->interrupt, SLOT_INTERRUPT_CANCEL);
        break;
    case 1:
        atomic_fetch_or(&slot->interrupt, SLOT_INTERRUPT_TERMINATE);
        c->told_to_end = true;
        break;
    default:
        must(db_step(c->flusher, &wait_ms));
        break;
    }
    work(c);
}

/* One record; returns its size. */
static size_t take_record(Conversation *c, const uint8_t *data, size_t size)
{
    uint8_t kind = data[0] % 64;
    if (kind == RECORD_TURN) {
        deliver(c);
        return 1;
    }
    if (kind == RECORD_HANG_UP) {
        deliver(c);
        c->hung_up = true;
        fuzz_require(shutdown(c->fd, SHUT_WR) == 0);
        work(c);
        return 1;
    }
    if (kind == RECORD_EVENT) {
        event(c, size > 1 ? data[1] : 0);
        return 2;
    }
    if (size < 5)
        return size;
    size_t body = (size_t)data[3] | (size_t)data[4] << 8;
    if (body > size - 5)
        body = size - 5;
    if (kind >= RECORD_BYTES) {
        append(c, data + 5, body);
        return 5 + body;
    }
    bool snapshot = (data[0] & WITH_SNAPSHOT) != 0 && body >= 8;
    if (snapshot)
        deliver(c);
    uint8_t frame[FRAME_HEADER_SIZE] = {0};
    put_fixed32(frame, (uint32_t)body);
    frame[4] = kind;
    frame[5] = data[1];
    put_fixed64(frame + 8, data[2]);
    append(c, frame, sizeof frame);
    append(c, data + 5, body);
    if (snapshot)
        put_fixed64(c->sent.data + c->sent.size - body, c->snapshot);
    return 5 + body;
}

/* ---- beginning and end ------------------------------------------------------------------------- */

/* The handlers of a server's process are not for a fuzzer's. */
static void begin_process(Conversation *c)
{
    static const int signals[] = {SIGTERM, SIGALRM, SIGHUP, SIGQUIT};
    struct sigaction kept[4];
    sigset_t mask;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    for (int i = 0; i < 4; i++)
        sigaction(signals[i], NULL, &kept[i]);
    bool hosted = (c->choices & HOSTED) != 0;
    BackendStart start = {.db = c->db, .shared = &shared, .slot = 0};
    must(process_init(c->process, &start, hosted ? SLOT_HOST : SLOT_BACKEND));
    for (int i = 0; i < 4; i++)
        sigaction(signals[i], &kept[i], NULL);
    sigprocmask(SIG_SETMASK, &mask, NULL);
}

static void end_process(Conversation *c)
{
    sigset_t mask;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    process_deinit(c->process);
    sigprocmask(SIG_SETMASK, &mask, NULL);
}

static void begin_session(Conversation *c)
{
    int fds[2], small = SEND_BUFFER;
    fuzz_require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    (void)setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    c->fd = fds[1];
    Slot *slot = c->process->slot;
    if (c->process->hosting)
        slot = db_client_slot_claim(c->process->session, 1);
    fuzz_require(slot != NULL);
    BackendClient client = {
        .slot = slot->index, .fd = fds[0], .session = NUMBER, .secret = 42, .peer = "fuzz"};
    session_init(c->backend, c->process, slot, &client);
    c->want = WANT_INPUT;
}

static void end_session(Conversation *c)
{
    Slot *slot = c->backend->slot;
    shutdown(c->fd, SHUT_WR);
    c->hung_up = true;
    c->choices &= (uint8_t)~DEAF;
    if (c->want != WANT_GOODBYE)
        work(c);
    fuzz_require(c->want == WANT_GOODBYE);
    fuzz_require(session_goodbye(c->backend)); /* nobody is there any more */
    read_replies(c);
    fuzz_require(c->read == c->replies.size);
    session_deinit(c->backend);
    fuzz_require(atomic_load(&shared.request_memory_used) == 0);
    fuzz_require(atomic_load(&shared.request_memory_waiters) == 0);
    if (c->process->hosting) {
        db_session_act_for(c->process->session, c->process->slot);
        slot_release(slot);
    }
}

/* When everything has been said: what the session made of it. */
static void check_outcome(Conversation *c)
{
    if (c->ended && c->end_status == AIDB_CONNECTION) /* an input may also end itself by CONTROL */
        return;
    fuzz_require(c->ended == c->breaks);
    if (c->ended)
        fuzz_require(c->end_status == AIDB_PROTOCOL ||
                     (c->end_status == AIDB_UNSUPPORTED && !c->greeted));
    else
        fuzz_require(c->backend->input.size - c->backend->taken == c->delivered - c->understood);
    fuzz_require(c->ids_reused || next_unanswered(c) == NULL);
}

/* The process's slot and the client's are as good as new. */
static void check_slots(const Conversation *c)
{
    const Slot *slots = db_slots(c->db)->slots;
    for (uint32_t i = 0; i < 2; i++) {
        fuzz_require(atomic_load(&slots[i].kind) == SLOT_FREE);
        for (int j = 0; j < SLOT_SNAPSHOTS; j++)
            fuzz_require(atomic_load(&slots[i].snapshots[j]) == SNAPSHOT_NONE);
    }
}

static void prepare_shared(void)
{
    shared = (ServerShared){.pid = (int)getpid()};
    config_init(&shared.config);
    shared.config.engine = small_options();
    atomic_store(&shared.state, SERVER_READY);
    strcpy(shared.unix_uri, "aidb+unix:/nowhere");
    strcpy(shared.directory, "/nowhere");
}

void fuzz_session(const uint8_t *data, size_t size)
{
    if (size < 2 || size > INPUT_BYTES_MAX)
        return;
    Conversation c = {.choices = data[0], .pace = data[1], .body_max = FRAME_BODY_MAX_HELLO};
    prepare_shared();
    open_store(&c);
    c.process = calloc(1, sizeof *c.process);
    c.backend = calloc(1, sizeof *c.backend);
    fuzz_require(c.process != NULL && c.backend != NULL);
    begin_process(&c);
    begin_session(&c);
    c.crowded = (c.choices & CROWDED) != 0;
    if (c.crowded)
        atomic_fetch_add(&shared.request_memory_used, c.backend->config->server.request_memory);

    if ((c.choices & NO_HELLO) == 0)
        greet(&c);
    for (size_t at = 2; at < size && !c.hung_up && c.want != WANT_GOODBYE;)
        at += take_record(&c, data + at, size - at);
    deliver(&c);
    c.choices &= (uint8_t)~DEAF;
    if (c.want != WANT_GOODBYE)
        work(&c);
    read_replies(&c);
    if (!c.hung_up && !c.told_to_end)
        check_outcome(&c);
    if (c.crowded)
        let_time_pass(&c);
    end_session(&c);

    end_process(&c);
    check_slots(&c);
    close(c.fd);
    close_store(&c);
    free(c.backend);
    free(c.process);
    for (size_t i = 0; i < c.asked_count; i++)
        buffer_deinit(&c.asked[i].bound);
    free(c.asked);
    values_deinit(&c.values);
    buffer_deinit(&c.sent);
    buffer_deinit(&c.replies);
}
