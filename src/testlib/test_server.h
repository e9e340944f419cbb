/*
 * test_server.h - what the tests of the server share: a server for each test, and clients of it.
 *
 * A forked child runs the postmaster on a temporary directory. It is asked to stop when the test ends,
 * and stops by itself (PDEATHSIG) when the test process dies.
 */
#ifndef AIDB_TESTLIB_TEST_SERVER_H
#define AIDB_TESTLIB_TEST_SERVER_H

#include "client/client.h"
#include "config/pidfile.h"
#include "config/settings.h"
#include "testlib/testlib.h"

#include <check.h>

#define WAIT_MS 60000 /* far beyond what anything takes: only to end a test that hangs */

extern char *directory; /* the test's */
extern Config config;   /* write_config makes it the server's */
extern pid_t server;    /* 0: stopped */
extern char unix_uri[256];
extern char tcp_uri[320];

/* ---- the server ------------------------------------------------------------------------------ */

void nap(void);
/* Zeros when no server holds the file. */
PidInfo pid_info(void);
void write_config(void);
uint32_t free_port(void);
/* A directory and its settings, with no server yet. */
void prepare_server(void);
/* The process of a server that begins. */
pid_t launch_server(void);
void start_server(void);
/* Sends the signal and returns the exit code. */
int stop_server(int signal_number);
/* Until the server is there again after one crash. */
void wait_restarted(void);
/* Children by the order in which they were begun: titles do not exist in a forked test. */
pid_t nth_child(int wanted);

void setup_server(void);
void teardown_server(void);

/* ---- clients --------------------------------------------------------------------------------- */

Client *connect_to(const char *uri);
Status refused_by(const char *uri);
/* Sends the request and takes its reply, which must be of the type. */
void call(Client *client, Message *request, uint8_t type, Message *reply);
void send_put(Client *client, const char *key, Slice value);
/* Returns the LSN. */
uint64_t put(Client *client, const char *key, const char *value);
bool has(Client *client, const char *key, const char *value);

int connect_raw(void);
void send_all(int fd, const uint8_t *bytes, size_t size);
/* Reads until the server closes, which it must. */
void drain(int fd);
/* The server has not crashed, and works. */
void assert_untouched(void);

/* One for each file of tests. */
void add_request_tests(TCase *tests);
void add_api_tests(TCase *tests);
void add_byte_tests(TCase *tests);
void add_greeting_tests(TCase *tests); /* with a short authentication_timeout */

#endif
