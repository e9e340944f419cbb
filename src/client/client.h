/*
 * client.h - one connection to a server: requests go out in order, replies come back.
 *
 * Requests are gathered in an output buffer (client_send) and go out when it is flushed, when it has
 * grown, or when a reply is awaited. While the server is slow to take requests, replies that it sends
 * meanwhile are read, so that two full buffers never wait for each other; when a megabyte of them waits,
 * the rest of the requests stays in the output buffer until the caller has taken some.
 *
 * A connection is broken by any failure of the socket or of the protocol and stays so: every later
 * call returns the first failure. One thread at a time, but for client_cancel.
 */
#ifndef AIDB_CLIENT_CLIENT_H
#define AIDB_CLIENT_CLIENT_H

#include "protocol/protocol.h"

#define CLIENT_PORT_DEFAULT "7654"

typedef struct ClientOptions {
    const char *application; /* NULL: none */
    int connect_timeout_ms;  /* for the connection and the greeting */
} ClientOptions;

typedef struct ClientServer {
    char version[32];
    uint64_t session;
    uint64_t secret;
    size_t body_max; /* largest body of a frame, both ways */
    aidb_durability durability;
    uint64_t lsn; /* visible when the connection was made */
} ClientServer;

typedef struct Client Client;

/* "aidb://HOST[:PORT]" or "aidb+unix:PATH". AIDB_CONNECTION, AIDB_TIMEOUT, AIDB_INVALID (the name), or
 * what the server refuses with. */
Status client_connect(const char *uri, const ClientOptions *options, Client **client) MUST_CHECK;
/* Closes the socket without a word; safe in a forked child. NULL is fine. */
void client_close(Client *client);
const ClientServer *client_server(const Client *client);

/* Appends a request and gives it the next id (in `request`; SCAN_MORE and SCAN_CLOSE come with their
 * scan's). AIDB_LIMIT when the body is larger than
 * the server takes: nothing was appended. */
Status client_send(Client *client, Message *request) MUST_CHECK;
/* Sends what was gathered, or until a megabyte of replies is here (client_has_output tells). */
Status client_flush(Client *client) MUST_CHECK;
bool client_has_output(const Client *client);
/* Flushes and waits for the next reply, which borrows until the next call. Notices are passed over;
 * an ERROR that is no reply breaks the connection and is returned as its status. */
Status client_receive(Client *client, Message *reply) MUST_CHECK;
/* Whether a reply is already here in full, or what cannot become one, so that client_receive does not
 * wait. */
bool client_has_reply(Client *client);
/* Takes in what has arrived without waiting; `more` says that there may be more of it. */
Status client_read(Client *client, bool *more) MUST_CHECK;
/* To be waited for, not to be read from. */
int client_socket(const Client *client);
/* Gives up on the connection: every later call returns `code`, whose story is in the error record. */
Status client_break(Client *client, Status code);

/* Asks the server, over a connection of its own, to interrupt what this one runs. Safe in a signal
 * handler and in another thread. */
void client_cancel(const Client *client);

#endif
