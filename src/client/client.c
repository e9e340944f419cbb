/*
 * client.c - a client's side of the wire protocol.
 *
 * The socket is a blocking one: waiting for a reply is one system call. Sending never blocks
 * (MSG_DONTWAIT); when the server does not take more, poll waits for either direction and replies are
 * read into the input buffer meanwhile.
 *
 * Where to send a cancel request is kept as a resolved address, because client_cancel may run in a
 * signal handler, where names cannot be resolved and memory not be taken.
 */
#include "config.h"
#include "client/client.h"

#include "port/port.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define OUTPUT_FLUSH_SIZE ((size_t)32 << 10) /* client_send flushes from here on */
#define INPUT_READ_SIZE   ((size_t)64 << 10)
#define INPUT_TRUST_SIZE  ((size_t)16 << 20) /* room that is made at once for a reply */
#define INPUT_FULL_SIZE   ((size_t)1 << 20)  /* replies that may wait while requests go out */
#define INPUT_KEEP_SIZE   ((size_t)1 << 20)  /* larger buffers are given back when empty */

struct Client {
    int fd;
    char *uri;
    ClientServer server;
    uint64_t next_id;
    Buffer output;
    size_t sent; /* of output */
    Buffer input;
    size_t taken; /* of input */
    Status broken;
    char broken_text[512];

    struct sockaddr_storage address;
    socklen_t address_size;
};

/* ---- failure --------------------------------------------------------------------------------- */

Status client_break(Client *client, Status code)
{
    if (client->broken != AIDB_OK)
        return client->broken;
    client->broken = code;
    snprintf(client->broken_text, sizeof client->broken_text, "%s", status_message());
    return code;
}

static Status check_broken(const Client *client)
{
    if (client->broken == AIDB_OK)
        return AIDB_OK;
    return status_set(client->broken, "%s", client->broken_text);
}

static Status lost(Client *client, int err)
{
    if (err == 0)
        (void)status_set(AIDB_CONNECTION, "the server at %s closed the connection", client->uri);
    else
        (void)status_set(AIDB_CONNECTION, "lost the connection to %s: %s", client->uri,
                         strerror(err));
    return client_break(client, AIDB_CONNECTION);
}

/* ---- input and output ------------------------------------------------------------------------ */

/* Reads what is there; with `wait`, at least one byte. */
static Status read_some(Client *client, bool wait)
{
    if (client->taken == client->input.size) {
        buffer_clear(&client->input);
        client->taken = 0;
        if (client->input.capacity > INPUT_KEEP_SIZE)
            buffer_deinit(&client->input);
    } else if (client->taken > 0 && client->taken >= client->input.size / 2) {
        memmove(client->input.data, client->input.data + client->taken,
                client->input.size - client->taken);
        client->input.size -= client->taken;
        client->taken = 0;
    }
    /* A large frame is read straight to its end instead of in small pieces. */
    size_t want = INPUT_READ_SIZE, waiting = client->input.size - client->taken;
    Frame frame;
    if (waiting > 0 &&
        frame_decode(client->input.data + client->taken, waiting, SIZE_MAX, &frame) ==
            FRAME_PARTIAL &&
        frame.size > 0 && frame.size <= FRAME_HEADER_SIZE + client->server.body_max &&
        frame.size - waiting > want) {
        /* Memory follows what has come, not what a header says. */
        size_t most = waiting > INPUT_TRUST_SIZE ? waiting : INPUT_TRUST_SIZE;
        want = frame.size - waiting < most ? frame.size - waiting : most;
    }
    Status status = buffer_reserve(&client->input, want);
    if (status != AIDB_OK)
        return client_break(client, status);
    for (;;) {
        ssize_t got = recv(client->fd, client->input.data + client->input.size,
                           client->input.capacity - client->input.size, wait ? 0 : MSG_DONTWAIT);
        if (got > 0) {
            client->input.size += (size_t)got;
            return AIDB_OK;
        }
        if (got == 0)
            return lost(client, 0);
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            if (!wait)
                return AIDB_OK;
            (void)status_set(AIDB_TIMEOUT, "no answer from %s in time", client->uri);
            return client_break(client, AIDB_TIMEOUT);
        }
        return lost(client, errno);
    }
}

static FrameResult next_frame(const Client *client, Frame *frame)
{
    return frame_decode(client->input.data + client->taken, client->input.size - client->taken,
                        client->server.body_max, frame);
}

bool client_has_reply(Client *client)
{
    Frame frame;
    while (client->input.size > client->taken) {
        FrameResult result = next_frame(client, &frame);
        if (result != FRAME_COMPLETE || frame.type != MESSAGE_NOTICE)
            return result != FRAME_PARTIAL;
        client->taken += frame.size;
    }
    return false;
}

Status client_flush(Client *client)
{
    RETURN_IF_FAILED(check_broken(client));
    while (client->sent < client->output.size) {
        ssize_t put = send(client->fd, client->output.data + client->sent,
                           client->output.size - client->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put >= 0) {
            client->sent += (size_t)put;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
            /* The reason, if the server gave one, stands in the input: client_receive finds it. */
            int err = errno;
            while (client->broken == AIDB_OK && read_some(client, true) == AIDB_OK)
                ;
            Message reason;
            client->broken = AIDB_OK;
            client->sent = client->output.size;
            while (client_has_reply(client))
                RETURN_IF_FAILED(client_receive(client, &reason));
            return lost(client, err);
        }
        if (client->input.size - client->taken >= INPUT_FULL_SIZE && client_has_reply(client))
            return AIDB_OK;
        struct pollfd both = {.fd = client->fd, .events = POLLIN | POLLOUT};
        if (poll(&both, 1, -1) > 0 && (both.revents & POLLIN) != 0)
            RETURN_IF_FAILED(read_some(client, false));
    }
    buffer_clear(&client->output);
    client->sent = 0;
    if (client->output.capacity > INPUT_KEEP_SIZE)
        buffer_deinit(&client->output);
    return AIDB_OK;
}

Status client_send(Client *client, Message *request)
{
    RETURN_IF_FAILED(check_broken(client));
    size_t before = client->output.size;
    bool names_scan = request->type == MESSAGE_SCAN_MORE || request->type == MESSAGE_SCAN_CLOSE;
    if (!names_scan)
        request->id = client->next_id;
    RETURN_IF_FAILED(message_encode(&client->output, request));
    size_t body = client->output.size - before - FRAME_HEADER_SIZE;
    if (body > client->server.body_max) {
        client->output.size = before;
        return status_set(AIDB_LIMIT,
                          "a request of %zu bytes is larger than the server takes (%zu)", body,
                          client->server.body_max);
    }
    client->next_id += !names_scan;
    return client->output.size - client->sent >= OUTPUT_FLUSH_SIZE ? client_flush(client) : AIDB_OK;
}

bool client_has_output(const Client *client)
{
    return client->broken == AIDB_OK && client->sent < client->output.size;
}

Status client_read(Client *client, bool *more)
{
    *more = false;
    RETURN_IF_FAILED(check_broken(client));
    RETURN_IF_FAILED(read_some(client, false));
    *more = client->input.size == client->input.capacity;
    return AIDB_OK;
}

int client_socket(const Client *client)
{
    return client->fd;
}

static Status broke_protocol(Client *client)
{
    char reason[256];
    snprintf(reason, sizeof reason, "%s", status_message());
    (void)status_set(AIDB_PROTOCOL, "%s does not speak the protocol of AiDb: %s", client->uri,
                     reason);
    return client_break(client, AIDB_PROTOCOL);
}

Status client_receive(Client *client, Message *reply)
{
    memset(reply, 0, sizeof *reply);
    RETURN_IF_FAILED(check_broken(client));
    if (client->output.size > 0)
        RETURN_IF_FAILED(client_flush(client));
    for (;;) {
        Frame frame;
        FrameResult result =
            client->input.size > client->taken ? next_frame(client, &frame) : FRAME_PARTIAL;
        if (result == FRAME_BAD)
            return broke_protocol(client);
        if (result == FRAME_PARTIAL) {
            RETURN_IF_FAILED(read_some(client, true));
            continue;
        }
        client->taken += frame.size;
        if (message_decode(&frame, reply) != AIDB_OK)
            return broke_protocol(client);
        if (reply->type == MESSAGE_ERROR && (reply->id == 0 || (reply->flags & ERROR_CLOSES) != 0))
            return client_break(client, error_take(reply));
        if (reply->type != MESSAGE_NOTICE)
            return AIDB_OK;
    }
}

/* ---- connecting ------------------------------------------------------------------------------ */

static void set_timeout(int fd, int timeout_ms)
{
    struct timeval limit = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

/* Connects within the time; 0 or an errno. */
static int connect_in_time(int fd, const struct sockaddr *address, socklen_t size, int timeout_ms)
{
    int flags = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    uint64_t deadline = port_monotonic_ns() + (uint64_t)timeout_ms * 1000000u;
    int err = connect(fd, address, size) == 0 ? 0 : errno;
    /* A unix socket whose queue is full says EAGAIN, and there is nothing to poll for. */
    while (err == EAGAIN && port_monotonic_ns() < deadline) {
        poll(NULL, 0, 10);
        err = connect(fd, address, size) == 0 ? 0 : errno;
    }
    while (err == EINPROGRESS || err == EINTR) {
        uint64_t now = port_monotonic_ns();
        if (now >= deadline) {
            err = ETIMEDOUT;
            break;
        }
        struct pollfd ready = {.fd = fd, .events = POLLOUT};
        if (poll(&ready, 1, (int)((deadline - now) / 1000000u) + 1) <= 0)
            continue;
        socklen_t err_size = sizeof err;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &err_size) != 0)
            err = errno;
    }
    fcntl(fd, F_SETFL, flags);
    return err;
}

static int try_address(Client *client, const struct sockaddr *address, socklen_t size,
                       int timeout_ms)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    int err = connect_in_time(fd, address, size, timeout_ms);
    if (err != 0) {
        close(fd);
        return err;
    }
    if (address->sa_family != AF_UNIX) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    }
    client->fd = fd;
    memcpy(&client->address, address, size);
    client->address_size = size;
    return 0;
}

static Status refused(const Client *client, int err)
{
    Status code = err == ETIMEDOUT ? AIDB_TIMEOUT : AIDB_CONNECTION;
    (void)status_set(code, "could not connect to %s: %s", client->uri, strerror(err));
    if (err == ECONNREFUSED || err == ENOENT)
        status_hint("Is the server running? `aidbctl status` tells, `aidbctl start` starts it.");
    return code;
}

static Status connect_unix(Client *client, const char *path, int timeout_ms)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path[0] == '\0' || strlen(path) >= sizeof address.sun_path)
        return status_set(AIDB_INVALID, "%s: the path of a unix socket has 1 to %zu bytes",
                          client->uri, sizeof address.sun_path - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    int err = try_address(client, (const struct sockaddr *)&address, sizeof address, timeout_ms);
    return err == 0 ? AIDB_OK : refused(client, err);
}

/* Splits "HOST[:PORT]", "[ADDRESS]:PORT"; a slash at the end is ignored. */
static Status split_host(const char *uri, const char *text, char *host, size_t host_size,
                         char *port, size_t port_size)
{
    size_t size = strlen(text);
    if (size > 0 && text[size - 1] == '/')
        size--;
    const char *host_end = text + size, *colon = NULL;
    if (text[0] == '[') {
        text++;
        host_end = memchr(text, ']', size - 1);
        if (host_end == NULL)
            return status_set(AIDB_INVALID, "%s: ] is missing", uri);
        size -= (size_t)(host_end + 1 - (text - 1));
        if (size > 0)
            colon = host_end + 1;
    } else {
        colon = memchr(text, ':', size);
        if (colon != NULL) {
            size -= (size_t)(colon - text);
            host_end = colon;
        }
    }
    int wrote = snprintf(host, host_size, "%.*s", (int)(host_end - text), text);
    if (host_end == text || wrote < 0 || (size_t)wrote >= host_size ||
        (colon != NULL && *colon != ':'))
        return status_set(AIDB_INVALID, "%s is not aidb://HOST:PORT", uri);
    snprintf(port, port_size, "%s", CLIENT_PORT_DEFAULT);
    if (colon != NULL) {
        size_t digits = size - 1;
        if (digits == 0 || digits > 5 || strspn(colon + 1, "0123456789") < digits)
            return status_set(AIDB_INVALID, "%s: the port is not a number", uri);
        long number = strtol(colon + 1, NULL, 10);
        if (number < 1 || number > 65535)
            return status_set(AIDB_INVALID, "%s: a port is a number from 1 to 65535", uri);
        snprintf(port, port_size, "%.*s", (int)digits, colon + 1);
    }
    return AIDB_OK;
}

static Status connect_tcp(Client *client, const char *text, int timeout_ms)
{
    char host[256], port[8];
    RETURN_IF_FAILED(split_host(client->uri, text, host, sizeof host, port, sizeof port));
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
    int code = getaddrinfo(host, port, &hints, &found);
    if (code != 0)
        return status_set(AIDB_CONNECTION, "could not find the host of %s: %s", client->uri,
                          gai_strerror(code));
    int err = ECONNREFUSED;
    for (const struct addrinfo *at = found; at != NULL; at = at->ai_next) {
        err = try_address(client, at->ai_addr, at->ai_addrlen, timeout_ms);
        if (err == 0)
            break;
    }
    freeaddrinfo(found);
    return err == 0 ? AIDB_OK : refused(client, err);
}

static Status greet(Client *client, const ClientOptions *options)
{
    Message hello = {
        .type = MESSAGE_HELLO,
        .version = PROTOCOL_VERSION_MIN,
        .version_max = PROTOCOL_VERSION_MAX,
        .name = slice_from_string(options->application != NULL ? options->application : ""),
    };
    Message reply;
    RETURN_IF_FAILED(buffer_append(&client->output, PROTOCOL_MAGIC, PROTOCOL_MAGIC_SIZE));
    RETURN_IF_FAILED(client_send(client, &hello));
    RETURN_IF_FAILED(client_receive(client, &reply));
    if (reply.type == MESSAGE_ERROR)
        return error_take(&reply);
    if (reply.type == MESSAGE_CHALLENGE)
        return status_set(AIDB_AUTHENTICATION,
                          "%s asks for authentication (%.*s), which this version does not know",
                          client->uri, (int)reply.name.size, (const char *)reply.name.data);
    if (reply.type != MESSAGE_READY || reply.bytes < FRAME_BODY_MAX_HELLO ||
        reply.version != PROTOCOL_VERSION_MAX)
        return status_set(AIDB_PROTOCOL, "%s answered the greeting with %s", client->uri,
                          message_type_name(reply.type));
    ClientServer *server = &client->server;
    snprintf(server->version, sizeof server->version, "%.*s", (int)reply.name.size,
             (const char *)reply.name.data);
    server->session = reply.session;
    server->secret = reply.secret;
    server->body_max = (size_t)reply.bytes;
    server->durability = (aidb_durability)reply.durability;
    server->lsn = reply.lsn;
    return AIDB_OK;
}

Status client_connect(const char *uri, const ClientOptions *options, Client **connected)
{
    *connected = NULL;
    Client *client = calloc(1, sizeof *client);
    if (client == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    client->fd = -1;
    client->next_id = 1;
    client->server.body_max = FRAME_BODY_MAX_HELLO;
    client->uri = strdup(uri);
    Status status = client->uri != NULL ? AIDB_OK : status_set(AIDB_NO_MEMORY, "out of memory");
    if (status != AIDB_OK)
        goto out;
    if (strncmp(uri, "aidb+unix:", 10) == 0)
        status = connect_unix(client, uri + 10, options->connect_timeout_ms);
    else if (strncmp(uri, "aidb://", 7) == 0)
        status = connect_tcp(client, uri + 7, options->connect_timeout_ms);
    else
        status = status_set(AIDB_INVALID, "%s is neither aidb://HOST:PORT nor aidb+unix:PATH", uri);
    if (status != AIDB_OK)
        goto out;
    set_timeout(client->fd, options->connect_timeout_ms);
    status = greet(client, options);
    set_timeout(client->fd, 0);
out:
    if (status != AIDB_OK) {
        client_close(client);
        return status;
    }
    *connected = client;
    return AIDB_OK;
}

void client_close(Client *client)
{
    if (client == NULL)
        return;
    if (client->fd >= 0)
        close(client->fd);
    buffer_deinit(&client->output);
    buffer_deinit(&client->input);
    free(client->uri);
    free(client);
}

const ClientServer *client_server(const Client *client)
{
    return &client->server;
}

void client_cancel(const Client *client)
{
    int err = errno;
    uint8_t bytes[PROTOCOL_MAGIC_SIZE + FRAME_HEADER_SIZE + 16] = PROTOCOL_MAGIC;
    uint8_t *frame = bytes + PROTOCOL_MAGIC_SIZE;
    put_fixed32(frame, 16);
    frame[4] = MESSAGE_CANCEL;
    put_fixed64(frame + FRAME_HEADER_SIZE, client->server.session);
    put_fixed64(frame + FRAME_HEADER_SIZE + 8, client->server.secret);
    int fd = socket(client->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        if (connect(fd, (const struct sockaddr *)&client->address, client->address_size) == 0) {
            ssize_t put = send(fd, bytes, sizeof bytes, MSG_NOSIGNAL);
            (void)put; /* nothing can be done about it here: the call goes on uninterrupted */
        }
        close(fd);
    }
    errno = err;
}
