/*
 * listen.c - listening sockets, and connections until a backend takes them.
 *
 * A connection costs no process and no slot before its greeting is complete: the postmaster peeks at
 * what has arrived, without taking it, and forks only when the whole HELLO is there. So clients that
 * dribble bytes or say nothing hold a descriptor each, up to PENDING_MAX of them, past which the oldest
 * is closed. Sockets are watched edge-triggered: what is peeked at stays in the socket, and a level
 * would report it without end.
 *
 * What cannot become a session is told why in the protocol's own terms, and kept for a moment so that
 * the client can read it. A cancel request is complete in its first frame and is carried out here.
 */
#include "config.h"
#include "postmaster/postmaster_internal.h"

#include "common/log.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ACCEPTS_AT_ONCE       64
#define REFUSED_NS            1000000000ull /* how long a refused client may take to read why */
#define COMPLAINT_INTERVAL_NS (10ull * 1000000000ull)

/* ---- opening --------------------------------------------------------------------------------- */

static Status watch(Postmaster *postmaster, int fd, uint32_t events, uint64_t tag)
{
    struct epoll_event event = {.events = events, .data.u64 = tag};
    if (epoll_ctl(postmaster->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        return status_set_errno(errno, "could not watch a socket");
    return AIDB_OK;
}

static Status add_listener(Postmaster *postmaster, int fd)
{
    if (postmaster->listener_count == LISTENERS_MAX) {
        close(fd);
        return status_set(AIDB_LIMIT, "listen_addresses: more than %d addresses", LISTENERS_MAX);
    }
    if (listen(fd, 1024) != 0) {
        int err = errno;
        close(fd);
        return status_set_errno(err, "could not listen");
    }
    postmaster->listeners[postmaster->listener_count++] = fd;
    return watch(postmaster, fd, EPOLLIN, (uint64_t)fd);
}

static Status open_tcp_address(Postmaster *postmaster, const struct addrinfo *info,
                               const char *name)
{
    uint32_t port = postmaster->config.server.port;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return status_set_errno(errno, "could not make a socket for %s", name);
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (info->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, info->ai_addr, info->ai_addrlen) != 0) {
        int err = errno;
        close(fd);
        Status status = status_set_errno(err, "could not listen on %s port %u", name, port);
        if (err == EADDRINUSE)
            status_hint("Another program uses port %u: stop it, or change `port` in aidb.yaml.",
                        port);
        return status;
    }
    return add_listener(postmaster, fd);
}

static Status open_tcp_name(Postmaster *postmaster, const char *name)
{
    char port[8];
    snprintf(port, sizeof port, "%u", postmaster->config.server.port);
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    bool any = strcmp(name, "*") == 0;
    int code = getaddrinfo(any ? NULL : name, port, &hints, &found);
    if (code != 0)
        return status_set(AIDB_INVALID, "listen_addresses: %s: %s", name, gai_strerror(code));
    Status status = AIDB_OK;
    for (const struct addrinfo *at = found; at != NULL && status == AIDB_OK; at = at->ai_next)
        status = open_tcp_address(postmaster, at, name);
    freeaddrinfo(found);
    return status;
}

static Status open_tcp(Postmaster *postmaster)
{
    const ServerSettings *settings = &postmaster->config.server;
    if (settings->port == 0)
        return AIDB_OK;
    char names[CONFIG_STRING_SIZE];
    memcpy(names, settings->listen_addresses, sizeof names);
    char *rest = NULL;
    const char *first = NULL;
    for (char *name = strtok_r(names, ", \t", &rest); name != NULL;
         name = strtok_r(NULL, ", \t", &rest)) {
        RETURN_IF_FAILED(open_tcp_name(postmaster, name));
        if (first == NULL)
            first = name;
    }
    if (first == NULL)
        return AIDB_OK;
    if (strcmp(first, "*") == 0 || strcmp(first, "0.0.0.0") == 0 || strcmp(first, "::") == 0)
        first = "127.0.0.1"; /* where this machine finds it; others know its name */
    bool bracket = strchr(first, ':') != NULL;
    snprintf(postmaster->pid_info.tcp_uri, sizeof postmaster->pid_info.tcp_uri, "aidb://%s%s%s:%u",
             bracket ? "[" : "", first, bracket ? "]" : "", settings->port);
    return AIDB_OK;
}

/* Whether somebody answers on a unix socket that is already there. */
static bool is_answered(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    bool answered =
        connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 || errno == EAGAIN;
    close(fd);
    return answered;
}

static Status open_unix(Postmaster *postmaster)
{
    static const mode_t MODES[] = {
        [ACCESS_OWNER] = 0600, [ACCESS_GROUP] = 0660, [ACCESS_ALL] = 0666};
    const ServerSettings *settings = &postmaster->config.server;
    if (settings->unix_socket[0] == '\0')
        return AIDB_OK;
    const char *directory = settings->unix_socket_directory[0] != '\0'
                                ? settings->unix_socket_directory
                                : postmaster->directory;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char path[1400];
    snprintf(path, sizeof path, "%s/%s", directory, settings->unix_socket);
    if (strlen(path) >= sizeof address.sun_path) {
        (void)status_set(AIDB_INVALID, "the path of the unix socket is longer than %zu bytes: %s",
                         sizeof address.sun_path - 1, path);
        status_hint("Set unix_socket_directory to a shorter path.");
        return AIDB_INVALID;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (is_answered(&address))
        return status_set(AIDB_LOCKED, "another server listens on %s", path);
    unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return status_set_errno(errno, "could not make a unix socket");
    mode_t before = umask(0777 & ~MODES[settings->unix_socket_access]);
    int failed = bind(fd, (const struct sockaddr *)&address, sizeof address);
    int err = errno;
    umask(before);
    if (failed != 0) {
        close(fd);
        return status_set_errno(err, "could not make the unix socket %s", path);
    }
    snprintf(postmaster->unix_path, sizeof postmaster->unix_path, "%s", path);
    snprintf(postmaster->pid_info.unix_uri, sizeof postmaster->pid_info.unix_uri, "aidb+unix:%s",
             path);
    return add_listener(postmaster, fd);
}

Status listen_open(Postmaster *postmaster)
{
    RETURN_IF_FAILED(open_tcp(postmaster));
    return open_unix(postmaster);
}

void listen_close(Postmaster *postmaster, bool remove)
{
    for (size_t i = 0; i < postmaster->listener_count; i++)
        close(postmaster->listeners[i]);
    postmaster->listener_count = 0;
    if (remove && postmaster->unix_path[0] != '\0')
        unlink(postmaster->unix_path);
    postmaster->unix_path[0] = '\0';
}

/* ---- connections that wait ------------------------------------------------------------------- */

static void close_pending(Postmaster *postmaster, Pending *pending)
{
    /* Closing alone would leave it watched while a backend has it open. */
    epoll_ctl(postmaster->epoll_fd, EPOLL_CTL_DEL, pending->fd, NULL);
    close(pending->fd);
    pending->state = PENDING_FREE;
    postmaster->pending_count--;
}

static void make_room(Postmaster *postmaster)
{
    Pending *oldest = NULL;
    for (size_t i = 0; i < PENDING_MAX; i++) {
        Pending *pending = &postmaster->pending[i];
        if (pending->state != PENDING_FREE &&
            (oldest == NULL || pending->since_ns < oldest->since_ns))
            oldest = pending;
    }
    if (oldest != NULL)
        close_pending(postmaster, oldest);
}

static void name_peer(int fd, const struct sockaddr_storage *address, socklen_t size,
                      Pending *pending)
{
    if (address->ss_family == AF_UNIX) {
        struct ucred user = {0};
        socklen_t user_size = sizeof user;
        bool known = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &user, &user_size) == 0;
        pending->administrator = known && (user.uid == 0 || user.uid == geteuid());
        if (known)
            snprintf(pending->peer, sizeof pending->peer, "unix:%d", (int)user.pid);
        else
            snprintf(pending->peer, sizeof pending->peer, "unix");
        return;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    char host[48] = "?", port[8] = "?";
    getnameinfo((const struct sockaddr *)address, size, host, sizeof host, port, sizeof port,
                NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(pending->peer, sizeof pending->peer, "%s:%s", host, port);
}

static void take_connection(Postmaster *postmaster, int fd, const struct sockaddr_storage *address,
                            socklen_t address_size)
{
    if (postmaster->pending_count == PENDING_MAX)
        make_room(postmaster);
    size_t index = 0;
    while (postmaster->pending[index].state != PENDING_FREE)
        index++;
    Pending *pending = &postmaster->pending[index];
    *pending = (Pending){.fd = fd, .state = PENDING_GREETING, .since_ns = port_monotonic_ns()};
    name_peer(fd, address, address_size, pending);
    postmaster->pending_count++;
    if (watch(postmaster, fd, EPOLLIN | EPOLLRDHUP | EPOLLET, ((uint64_t)1 << 32) | index) !=
        AIDB_OK)
        close_pending(postmaster, pending);
}

void listen_accept(Postmaster *postmaster, int listener)
{
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        struct sockaddr_storage address = {0};
        socklen_t size = sizeof address;
        int fd =
            accept4(listener, (struct sockaddr *)&address, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            take_connection(postmaster, fd, &address, size);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            uint64_t now = port_monotonic_ns();
            if (postmaster->accept_complained_ns == 0 ||
                now - postmaster->accept_complained_ns > COMPLAINT_INTERVAL_NS)
                server_log(LOG_LEVEL_ERROR, "could not accept a connection: %s", strerror(errno));
            postmaster->accept_complained_ns = now;
            make_room(postmaster);
        }
        return;
    }
}

/* Says why there is no session and leaves the client a moment to read it. */
static void refuse(Postmaster *postmaster, Pending *pending, Status status)
{
    static const uint8_t TLS_ALERT[] = {0x15, 0x03, 0x01, 0x00,
                                        0x02, 0x02, 0x28}; /* fatal: handshake failure */
    uint8_t first = 0;
    bool tls =
        recv(pending->fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) == 1 && first == PROTOCOL_TLS_HELLO;
    ssize_t put = 0;
    if (tls) {
        put = send(pending->fd, TLS_ALERT, sizeof TLS_ALERT, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
        Buffer buffer = {0};
        if (error_encode(&buffer, 0, status, true) == AIDB_OK)
            put = send(pending->fd, buffer.data, buffer.size, MSG_DONTWAIT | MSG_NOSIGNAL);
        buffer_deinit(&buffer);
    }
    (void)put; /* a client that cannot be told is closed all the same */
    if (postmaster->config.server.log_connections)
        server_log(LOG_LEVEL_INFO, "refused %s: %s", pending->peer, status_message());
    shutdown(pending->fd, SHUT_WR);
    pending->state = PENDING_REFUSED;
    pending->since_ns = port_monotonic_ns();
    listen_pending(postmaster, (size_t)(pending - postmaster->pending), false);
}

/* Whether this connection may have a slot now. */
static Status check_admission(const Postmaster *postmaster, const Pending *pending)
{
    const ServerSettings *settings = &postmaster->config.server;
    switch (postmaster->phase) {
    case PHASE_RUN:
        break;
    case PHASE_STARTUP:
    case PHASE_CRASH:
        (void)status_set(AIDB_BUSY, "the server is %s",
                         postmaster->crash_restarts > 0 || postmaster->phase == PHASE_CRASH
                             ? "recovering"
                             : "starting");
        status_hint("Try again in a moment.");
        return AIDB_BUSY;
    default:
        return status_set(AIDB_CONNECTION, "the server is shutting down");
    }
    uint32_t used = postmaster_backend_count(postmaster);
    uint32_t limit = settings->max_connections -
                     (pending->administrator ? 0 : settings->admin_reserved_connections);
    if (used < limit)
        return AIDB_OK;
    (void)status_set(
        AIDB_LIMIT, "too many connections: %u of %u are in use%s", used, settings->max_connections,
        used < settings->max_connections ? ", the rest is reserved for the administrator" : "");
    status_hint("Close idle clients, or raise max_connections in aidb.yaml.");
    return AIDB_LIMIT;
}

static uint64_t random_secret(void)
{
    uint64_t secret = 0;
    while (secret == 0 && port_random(&secret, sizeof secret))
        ;
    return secret;
}

/* A free slot, if possible one whose process is there already; slot_of_hosts when there is none. */
static uint32_t choose_slot(const Postmaster *postmaster)
{
    uint32_t found = postmaster->slot_of_hosts;
    for (uint32_t i = SLOT_OF_BACKENDS; i < postmaster->slot_of_hosts; i++) {
        if (postmaster_slot_used(postmaster, i))
            continue;
        if (postmaster->children[i].spare || postmaster->spare_count == 0)
            return i;
        if (found == postmaster->slot_of_hosts)
            found = i;
    }
    return found;
}

static void admit(Postmaster *postmaster, Pending *pending)
{
    Status status = check_admission(postmaster, pending);
    if (status != AIDB_OK) {
        refuse(postmaster, pending, status);
        return;
    }
    uint32_t slot = choose_slot(postmaster);
    if (slot == postmaster->slot_of_hosts) {
        refuse(postmaster, pending, status_set(AIDB_LIMIT, "no process slot is free"));
        return;
    }
    Child *child = &postmaster->children[slot];
    child->session = postmaster->next_session++;
    child->secret = random_secret();
    status = postmaster_serve(postmaster, slot, pending);
    if (status == AIDB_OK)
        close_pending(postmaster, pending);
    else
        refuse(postmaster, pending, status);
}

#define FIRST_LOOK (PROTOCOL_MAGIC_SIZE + FRAME_HEADER_SIZE + 16) /* a whole CANCEL */

static void look_at(Postmaster *postmaster, Pending *pending, bool hung_up)
{
    uint8_t bytes[FIRST_LOOK];
    ssize_t got = recv(pending->fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        close_pending(postmaster, pending);
        return;
    }
    size_t size = got > 0 ? (size_t)got : 0;
    size_t magic = size < PROTOCOL_MAGIC_SIZE ? size : PROTOCOL_MAGIC_SIZE;
    if (memcmp(bytes, PROTOCOL_MAGIC, magic) != 0) {
        (void)status_set(AIDB_PROTOCOL, "the first bytes are not those of an AiDb client");
        status_hint("This port speaks AiDb's own protocol, without TLS in this version.");
        refuse(postmaster, pending, AIDB_PROTOCOL);
        return;
    }
    Frame frame = {0};
    FrameResult result = FRAME_PARTIAL;
    if (size > PROTOCOL_MAGIC_SIZE)
        result = frame_decode(bytes + PROTOCOL_MAGIC_SIZE, size - PROTOCOL_MAGIC_SIZE,
                              FRAME_BODY_MAX_HELLO, &frame);
    if (result == FRAME_BAD) {
        refuse(postmaster, pending, AIDB_PROTOCOL);
        return;
    }
    if (frame.size > 0 && frame.type != MESSAGE_HELLO && frame.type != MESSAGE_CANCEL) {
        refuse(postmaster, pending,
               status_set(AIDB_PROTOCOL, "%s before HELLO", message_type_name(frame.type)));
        return;
    }
    Message message;
    if (result == FRAME_COMPLETE && frame.type == MESSAGE_CANCEL) {
        if (message_decode(&frame, &message) == AIDB_OK)
            postmaster_cancel(postmaster, message.session, message.secret);
        close_pending(postmaster, pending);
        return;
    }
    int arrived = 0;
    if (frame.size > 0 && frame.type == MESSAGE_HELLO &&
        ioctl(pending->fd, FIONREAD, &arrived) == 0 &&
        (size_t)arrived >= PROTOCOL_MAGIC_SIZE + frame.size)
        admit(postmaster, pending);
    else if (hung_up)
        close_pending(postmaster, pending);
}

void listen_pending(Postmaster *postmaster, size_t index, bool hung_up)
{
    if (index >= PENDING_MAX)
        return;
    Pending *pending = &postmaster->pending[index];
    if (pending->state == PENDING_GREETING) {
        look_at(postmaster, pending, hung_up);
        return;
    }
    if (pending->state != PENDING_REFUSED)
        return;
    char bytes[4096];
    for (int i = 0; i < 16; i++) {
        ssize_t got = recv(pending->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
            close_pending(postmaster, pending);
            return;
        }
        if (got < 0)
            return;
    }
    close_pending(postmaster, pending); /* it talks instead of listening */
}

void listen_expire(Postmaster *postmaster)
{
    uint64_t now = port_monotonic_ns();
    uint64_t limit = postmaster->config.server.authentication_timeout * 1000000u;
    for (size_t i = 0; i < PENDING_MAX && postmaster->pending_count > 0; i++) {
        Pending *pending = &postmaster->pending[i];
        if (pending->state == PENDING_GREETING && now - pending->since_ns >= limit)
            refuse(
                postmaster, pending,
                status_set(AIDB_TIMEOUT, "the greeting took longer than authentication_timeout"));
        else if (pending->state == PENDING_REFUSED && now - pending->since_ns >= REFUSED_NS)
            close_pending(postmaster, pending);
    }
}

void listen_forget(Postmaster *postmaster)
{
    listen_close(postmaster, false);
    for (size_t i = 0; i < PENDING_MAX; i++)
        if (postmaster->pending[i].state != PENDING_FREE)
            close(postmaster->pending[i].fd);
    close(postmaster->epoll_fd);
    close(postmaster->signal_fd);
}
