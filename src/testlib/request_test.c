/* request_test.c - requests, pipelines and scans, and what interrupts them. */
#include "config.h"

#include "testlib/test_server.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>

/* ---- requests -------------------------------------------------------------------------------- */

START_TEST(ten_thousand_pipelined_requests)
{
    enum { COUNT = 10000 };
    Client *client = connect_to(_i == 0 ? unix_uri : tcp_uri);
    static uint64_t lsns[COUNT];
    char key[32], value[32];
    Message reply;
    for (int i = 0; i < COUNT; i++) {
        snprintf(key, sizeof key, "key %05d", i);
        snprintf(value, sizeof value, "value %d", i);
        send_put(client, key, slice_from_string(value));
    }
    for (int i = 0; i < COUNT; i++) {
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
        ck_assert_uint_eq(reply.type, MESSAGE_COMMIT);
        ck_assert_uint_eq(reply.id, 2 + (uint64_t)i);
        lsns[i] = reply.lsn;
        ck_assert(i == 0 || lsns[i] > lsns[i - 1]);
    }
    for (int i = 0; i < COUNT; i++) {
        snprintf(key, sizeof key, "key %05d", i);
        Message get = {.type = MESSAGE_GET, .key = slice_from_string(key)};
        ck_assert_int_eq(client_send(client, &get), AIDB_OK);
    }
    for (int i = 0; i < COUNT; i++) {
        snprintf(value, sizeof value, "value %d", i);
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
        ck_assert_uint_eq(reply.version, lsns[i]); /* also for writes that were put together */
        ck_assert(slice_equal(reply.value, slice_from_string(value)));
        ck_assert_uint_ge(reply.lsn, lsns[COUNT - 1]);
    }
    client_close(client);
}
END_TEST

/* A client reads its own writes, whatever is gathered. */
START_TEST(order_in_a_pipeline)
{
    Client *client = connect_to(unix_uri);
    Message reply;
    char value[32];
    for (int i = 0; i < 1000; i++) {
        snprintf(value, sizeof value, "%d", i);
        send_put(client, "k", slice_from_string(value));
        Message get = {.type = MESSAGE_GET, .key = slice_from_string("k")};
        ck_assert_int_eq(client_send(client, &get), AIDB_OK);
    }
    for (int i = 0; i < 1000; i++) {
        snprintf(value, sizeof value, "%d", i);
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
        ck_assert(slice_equal(reply.value, slice_from_string(value)));
    }
    client_close(client);
}
END_TEST

START_TEST(bad_requests_are_answered)
{
    Client *client = connect_to(unix_uri);
    Message reply;
    const Message wrong[] = {
        {.type = MESSAGE_GET, .snapshot = 12345, .key = slice_from_string("k")},
        {.type = MESSAGE_GET},
        {.type = MESSAGE_WRITE, .ops = slice_from_string("\x09garbage")},
        {.type = MESSAGE_WRITE, .durability = 9, .ops = slice_make("\x01\x01k\x01v", 5)},
        {.type = MESSAGE_WRITE,
         .ops = slice_make("\x01\x01k\x01v", 5),
         .expectations = slice_from_string("\x07")},
        {.type = MESSAGE_MULTI_GET, .count = 2, .row = slice_make("\x01k", 2)},
        {.type = MESSAGE_SCAN, .flags = 0x80},
        {.type = MESSAGE_RELEASE, .lsn = 5},
        {.type = MESSAGE_RELEASE},
        {.type = MESSAGE_PROPERTY, .name = slice_from_string("no such thing")},
        {.type = MESSAGE_CONTROL, .name = slice_from_string("dance")},
        {.type = MESSAGE_CONTROL, .name = slice_from_string("terminate x")},
        {.type = MESSAGE_CONTROL, .name = slice_from_string("terminate 999")},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        Message request = wrong[i];
        call(client, &request, MESSAGE_ERROR, &reply);
        ck_assert_uint_gt(reply.text.size, 0);
        ck_assert(reply.status == AIDB_INVALID || reply.status == AIDB_PROTOCOL);
    }
    ck_assert_uint_gt(put(client, "k", "v"), 0);
    ck_assert(has(client, "k", "v"));
    client_close(client);
}
END_TEST

static uint64_t count_rows(const Message *chunk)
{
    size_t cursor = 0;
    uint64_t rows = 0, lsn;
    Slice key, value;
    bool damaged;
    while (entry_row_next(chunk->row, &cursor, &key, &value, &lsn, &damaged))
        rows++;
    ck_assert(!damaged);
    return rows;
}

START_TEST(scans_stop_without_credits)
{
    Client *client = connect_to(unix_uri);
    char key[32];
    Message reply;
    for (int i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "%04d", i);
        send_put(client, key, slice_from_string("v"));
    }
    for (int i = 0; i < 1000; i++)
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);

    Message scan = {.type = MESSAGE_SCAN, .rows = 100, .credits = 2};
    ck_assert_int_eq(client_send(client, &scan), AIDB_OK);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
        ck_assert_uint_eq(reply.type, MESSAGE_CHUNK);
        ck_assert_uint_eq(reply.flags, 0);
        ck_assert_uint_eq(count_rows(&reply), 100);
    }
    uint64_t at = reply.lsn;
    put(client, "0500", "later"); /* is answered: no chunk comes before it */
    put(client, "05001", "not seen by the scan");
    uint64_t rows = 200;
    do {
        Message ping = {.type = MESSAGE_PING};
        call(client, &ping, MESSAGE_DONE, &reply);
        Message credit = {.type = MESSAGE_SCAN_MORE, .credits = 1};
        credit.id = scan.id; /* it names the scan */
        ck_assert_int_eq(client_send(client, &credit), AIDB_OK);
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
        ck_assert_uint_eq(reply.type, MESSAGE_CHUNK);
        ck_assert_uint_eq(reply.lsn, at);
        rows += count_rows(&reply);
    } while ((reply.flags & CHUNK_LAST) == 0);
    ck_assert_uint_eq(rows, 1000);
    client_close(client);
}
END_TEST

/* A client that asks for much and reads nothing: bounded memory, and nobody else waits. */
START_TEST(slow_reader)
{
    enum { VALUE = 2 << 20, GETS = 100 };
    Client *client = connect_to(unix_uri), *other = connect_to(unix_uri);
    char *value = calloc(1, VALUE);
    Message reply;
    send_put(client, "big", slice_make(value, VALUE));
    ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
    free(value);
    for (int i = 0; i < GETS; i++) {
        Message get = {.type = MESSAGE_GET, .key = slice_from_string("big")};
        ck_assert_int_eq(client_send(client, &get), AIDB_OK);
    }
    ck_assert_int_eq(client_flush(client), AIDB_OK);
    for (int i = 0; i < 100; i++)
        put(other, "k", "v");
    for (int i = 0; i < GETS; i++) {
        ck_assert_msg(client_receive(client, &reply) == AIDB_OK, "%s", status_text());
        ck_assert_uint_eq(reply.value.size, VALUE);
    }
    client_close(client);
    client_close(other);
}
END_TEST

START_TEST(idle_cancel_requests_do_nothing)
{
    Client *client = connect_to(unix_uri);
    for (int i = 0; i < 20; i++) {
        client_cancel(client);
        put(client, "k", "v"); /* may be interrupted at worst in a wait, of which there is none */
    }
    client_close(client);
    assert_untouched();
}
END_TEST

/* ---- interrupts ------------------------------------------------------------------------------ */

#define MANY_ROWS 100000u

static void put_many(Client *client, uint32_t rows)
{
    for (uint32_t i = 0; i < rows;) {
        Batch batch = {0};
        do {
            char key[16];
            snprintf(key, sizeof key, "%08u", i++);
            ck_assert_int_eq(batch_put(&batch, slice_from_string(key), slice_make("v", 1)),
                             AIDB_OK);
        } while (i % 1000 != 0);
        Message write = {.type = MESSAGE_WRITE, .ops = buffer_slice(&batch.ops)}, reply;
        call(client, &write, MESSAGE_COMMIT, &reply);
        batch_deinit(&batch);
    }
}

/* The request that runs is given up, the ones behind it are not. */
START_TEST(a_running_request_is_canceled)
{
    Client *client = connect_to(unix_uri);
    put_many(client, MANY_ROWS);
    Message count = {.type = MESSAGE_MEASURE, .flags = MEASURE_COUNT}, reply;
    bool canceled = false;
    int ahead = 0;
    while (!canceled) {
        for (; ahead < 20; ahead++) {
            ck_assert_int_eq(client_send(client, &count), AIDB_OK);
            ck_assert_int_eq(client_flush(client), AIDB_OK);
        }
        client_cancel(client);
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
        ahead--;
        canceled = reply.type == MESSAGE_ERROR;
        if (canceled)
            ck_assert_uint_eq(reply.status, AIDB_CANCELED);
        else
            ck_assert_uint_eq(reply.count, MANY_ROWS);
    }
    for (; ahead > 0; ahead--) /* those behind; a cancel request may still have been on its way */
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
    call(client, &count, MESSAGE_MEASURED, &reply);
    ck_assert_uint_eq(reply.count, MANY_ROWS);
    ck_assert(has(client, "00000007", "v"));
    client_close(client);
}
END_TEST

/* What takes longer than allowed is given up, when somebody gets round to looking at the time: one of a
 * hundred counts at least. */
START_TEST(requests_run_out_of_time)
{
    uint32_t rows = 5 * MANY_ROWS;
    Client *client = connect_to(unix_uri), *other;
    put_many(client, rows);
    client_close(client);
    ck_assert_int_eq(stop_server(SIGINT), 0);
    config.server.statement_timeout = 1;
    write_config();
    start_server();
    client = connect_to(unix_uri);
    other = connect_to(unix_uri);
    Message count = {.type = MESSAGE_MEASURE, .flags = MEASURE_COUNT}, reply;
    for (int round = 0, timed_out = 0; timed_out < 2; round++) {
        ck_assert_int_lt(round, 100);
        ck_assert_int_eq(client_send(client, &count), AIDB_OK);
        ck_assert_int_eq(client_flush(client), AIDB_OK);
        ck_assert(has(other, "00000007", "v")); /* nobody else is out of time */
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
        if (reply.type == MESSAGE_ERROR) {
            ck_assert_uint_eq(reply.status, AIDB_TIMEOUT);
            timed_out++;
        } else {
            ck_assert_uint_eq(reply.count, rows);
        }
        ck_assert(has(client, "00000008", "v"));
    }
    client_close(client);
    client_close(other);
}
END_TEST

typedef struct Writer {
    Client *client;
    pthread_t thread;
    _Atomic uint32_t written;
    _Atomic bool enough;
    Status status;
} Writer;

static void *write_much(void *arg)
{
    Writer *writer = arg;
    static uint8_t value[8 << 10];
    while (writer->status == AIDB_OK && !atomic_load(&writer->enough)) {
        char key[16];
        Batch batch = {0};
        Message reply;
        snprintf(key, sizeof key, "%08u", atomic_load(&writer->written));
        writer->status = batch_put(&batch, slice_from_string(key), slice_make(value, sizeof value));
        Message write = {.type = MESSAGE_WRITE, .ops = buffer_slice(&batch.ops)};
        if (writer->status == AIDB_OK)
            writer->status = client_send(writer->client, &write);
        if (writer->status == AIDB_OK)
            writer->status = client_receive(writer->client, &reply);
        if (writer->status == AIDB_OK && reply.type != MESSAGE_COMMIT)
            writer->status = AIDB_INTERNAL;
        batch_deinit(&batch);
        atomic_fetch_add(&writer->written, 1);
    }
    return NULL;
}

/* While nothing is flushed, writers stop when memory is full; readers go on, whoever serves them, and so do
 * the writers in the end. */
START_TEST(writers_that_wait_hold_up_nobody)
{
    Client *readers[3];
    for (int i = 0; i < 3; i++)
        readers[i] = connect_to(unix_uri);
    put(readers[0], "k", "v");
    pid_t flusher = nth_child(1);
    ck_assert_int_eq(kill(flusher, SIGSTOP), 0);
    Writer writer = {.client = connect_to(unix_uri)};
    ck_assert_int_eq(pthread_create(&writer.thread, NULL, write_much, &writer), 0);
    uint32_t before = UINT32_MAX;
    for (int quiet = 0; quiet < 100; quiet++) {
        for (int i = 0; i < 3; i++)
            ck_assert(has(readers[i], "k", "v"));
        uint32_t now = atomic_load(&writer.written);
        if (now != before)
            quiet = 0;
        before = now;
        nap();
    }
    atomic_store(&writer.enough, true);
    ck_assert_int_eq(kill(flusher, SIGCONT), 0);
    ck_assert_int_eq(pthread_join(writer.thread, NULL), 0);
    ck_assert_msg(writer.status == AIDB_OK, "status %d", (int)writer.status);
    Message count = {.type = MESSAGE_MEASURE, .flags = MEASURE_COUNT}, reply;
    call(readers[0], &count, MESSAGE_MEASURED, &reply);
    ck_assert_uint_eq(reply.count, atomic_load(&writer.written) + 1);
    client_close(writer.client);
    for (int i = 0; i < 3; i++)
        client_close(readers[i]);
}
END_TEST

void add_request_tests(TCase *tests)
{
    tcase_add_loop_test(tests, ten_thousand_pipelined_requests, 0, 2);
    tcase_add_test(tests, order_in_a_pipeline);
    tcase_add_test(tests, bad_requests_are_answered);
    tcase_add_test(tests, scans_stop_without_credits);
    tcase_add_test(tests, slow_reader);
    tcase_add_test(tests, idle_cancel_requests_do_nothing);
    tcase_add_test(tests, a_running_request_is_canceled);
    tcase_add_test(tests, requests_run_out_of_time);
    tcase_add_test(tests, writers_that_wait_hold_up_nobody);
}
