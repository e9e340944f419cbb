/* bytes_test.c - conversations that are cut, changed or made up. */
#include "config.h"

#include "testlib/test_server.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void greet(Buffer *bytes)
{
    const Message hello = {.type = MESSAGE_HELLO,
                           .id = 1,
                           .version = 1,
                           .version_max = 1,
                           .name = slice_from_string("x")};
    ck_assert_int_eq(buffer_append(bytes, PROTOCOL_MAGIC, PROTOCOL_MAGIC_SIZE), AIDB_OK);
    ck_assert_int_eq(message_encode(bytes, &hello), AIDB_OK);
}

/* A short conversation as bytes. */
static void record(Buffer *bytes)
{
    const Message messages[] = {
        {.type = MESSAGE_WRITE, .id = 2, .ops = slice_make("\x01\x01k\x01v", 5)},
        {.type = MESSAGE_GET, .id = 3, .key = slice_from_string("k")},
        {.type = MESSAGE_MULTI_GET, .id = 4, .count = 1, .row = slice_make("\x01k", 2)},
        {.type = MESSAGE_SCAN, .id = 5, .rows = 1, .credits = 1},
        {.type = MESSAGE_MEASURE, .id = 6, .flags = 3},
        {.type = MESSAGE_SNAPSHOT, .id = 7},
        {.type = MESSAGE_PROPERTY, .id = 8, .name = slice_from_string("status")},
    };
    greet(bytes);
    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++)
        ck_assert_int_eq(message_encode(bytes, &messages[i]), AIDB_OK);
}

START_TEST(a_conversation_cut_at_every_byte)
{
    Buffer bytes = {0};
    record(&bytes);
    for (size_t size = 0; size <= bytes.size; size++) {
        int fd = connect_raw();
        send_all(fd, bytes.data, size);
        shutdown(fd, SHUT_WR);
        drain(fd);
        close(fd);
    }
    buffer_deinit(&bytes);
    assert_untouched();
}
END_TEST

/* The last request and the end of the connection reach the server as one. */
START_TEST(a_request_and_goodbye)
{
    Buffer bytes = {0};
    uint8_t reply[4096];
    const Message ping = {.type = MESSAGE_PING, .id = 2};
    greet(&bytes);
    int fd = connect_raw();
    send_all(fd, bytes.data, bytes.size);
    ck_assert_int_gt(recv(fd, reply, sizeof reply, 0), 0);
    bytes.size = 0;
    ck_assert_int_eq(message_encode(&bytes, &ping), AIDB_OK);
    for (int i = 3; nth_child(i) != 0; i++)
        kill(nth_child(i), SIGSTOP);
    send_all(fd, bytes.data, bytes.size);
    shutdown(fd, SHUT_WR);
    for (int i = 3; nth_child(i) != 0; i++)
        kill(nth_child(i), SIGCONT);
    drain(fd);
    close(fd);
    buffer_deinit(&bytes);
    assert_untouched();
}
END_TEST

/* Large requests give back the memory that they drew when they are answered, and not with the client's next
 * request: the last of these ends within the room that there was. */
START_TEST(answered_requests_hold_no_memory)
{
    static const size_t sizes[] = {20000, 40000, 70000, 140000, 300000};
    Buffer bytes = {0};
    greet(&bytes);
    static uint8_t value[300000], replies[65536];
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        Batch batch = {0};
        ck_assert_int_eq(batch_put(&batch, slice_from_string("large"), slice_make(value, sizes[i])),
                         AIDB_OK);
        const Message write = {.type = MESSAGE_WRITE, .id = 2 + i, .ops = buffer_slice(&batch.ops)};
        ck_assert_int_eq(message_encode(&bytes, &write), AIDB_OK);
        batch_deinit(&batch);
    }
    int fd = connect_raw();
    send_all(fd, bytes.data, bytes.size);
    Client *other = connect_to(unix_uri);
    Message reply, status = {.type = MESSAGE_PROPERTY, .name = slice_from_string("status")};
    Message get = {.type = MESSAGE_GET, .key = slice_from_string("large")};
    static const char line[] = "\nrequest_memory_used\t0\n";
    bool done = false;
    for (int i = 0; i < 2000 && !done; i++) {
        nap();
        call(other, &get, MESSAGE_VALUE, &reply);
        done = reply.value.size == sizes[sizeof sizes / sizeof sizes[0] - 1];
    }
    ck_assert(done);
    ck_assert_int_gt(recv(fd, replies, sizeof replies, 0), 0);
    done = false;
    for (int i = 0; i < 2000 && !done; i++) {
        nap();
        call(other, &status, MESSAGE_TEXT, &reply);
        done = memmem(reply.text.data, reply.text.size, line, sizeof line - 1) != NULL;
    }
    ck_assert(done);
    close(fd);
    client_close(other);
    buffer_deinit(&bytes);
    assert_untouched();
}
END_TEST

/* statement_timeout holds for a client that has long stopped taking replies when it is set. */
START_TEST(a_new_limit_for_who_does_not_read)
{
    enum { VALUE = 1 << 20, GETS = 40 };
    Client *client = connect_to(unix_uri);
    char *value = calloc(1, VALUE);
    Message reply;
    send_put(client, "big", slice_make(value, VALUE));
    ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
    free(value);
    client_close(client);
    Buffer bytes = {0};
    greet(&bytes);
    for (uint64_t id = 2; id < 2 + GETS; id++) {
        Message get = {.type = MESSAGE_GET, .id = id, .key = slice_from_string("big")};
        ck_assert_int_eq(message_encode(&bytes, &get), AIDB_OK);
    }
    int fd = connect_raw();
    send_all(fd, bytes.data, bytes.size);
    buffer_deinit(&bytes);
    usleep(300000); /* it stands still by now; if not, the test proves less */
    config.server.statement_timeout = 500;
    write_config();
    kill(server, SIGHUP);
    struct pollfd gone = {.fd = fd, .events = POLLRDHUP};
    ck_assert_int_eq(poll(&gone, 1, WAIT_MS), 1);
    close(fd);
    assert_untouched();
}
END_TEST

START_TEST(mutated_conversations)
{
    uint64_t state = test_seed("server_test") | 1;
    Buffer bytes = {0};
    record(&bytes);
    for (int round = 0; round < 1500; round++) {
        uint8_t copy[1024];
        ck_assert_uint_le(bytes.size, sizeof copy);
        memcpy(copy, bytes.data, bytes.size);
        /* Most rounds leave the greeting alone, so that the requests are read. */
        size_t from = round % 8 == 0 ? 0 : 40;
        for (uint64_t n = 1 + test_random_below(&state, 4); n > 0; n--)
            copy[from + test_random_below(&state, bytes.size - from)] =
                (uint8_t)test_random(&state);
        int fd = connect_raw();
        send_all(fd, copy, bytes.size);
        shutdown(fd, SHUT_WR);
        drain(fd);
        close(fd);
    }
    buffer_deinit(&bytes);
    assert_untouched();
}
END_TEST

static const struct {
    const char *bytes;
    size_t size;
} GARBAGE[] = {
    {"", 0},
    {"A", 1},
    {"GET / HTTP/1.1\r\n\r\n", 18},
    {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11},
    {"AiDb\xff\xff\xff\xff", 8},
    {"AiDb\x00\x00\x00\x80", 8},
    {"AiDb\x01\x28\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00",
     20}, /* 10 KiB and one */
    {"AiDb\x00\x00\x00\x00\x10\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00", 20}, /* GET first */
    {"AiDb\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00", 20}, /* empty HELLO */
    {"AiDb\x10\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
     "\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00",
     36}, /* CANCEL, wrong secret */
    {"AiDb\x0a\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"
     "\x09\x00\x0a\x00\x00\x00\x00\x00\x00\x00",
     30}, /* versions 9 to 10 */
};

START_TEST(garbage_is_refused)
{
    int fd = connect_raw();
    send_all(fd, (const uint8_t *)GARBAGE[_i].bytes, GARBAGE[_i].size);
    shutdown(fd, SHUT_WR);
    drain(fd);
    close(fd);
    assert_untouched();
}
END_TEST

START_TEST(half_greetings_hold_up_nobody)
{
    enum { COUNT = 200 };
    int held[COUNT];
    for (int i = 0; i < COUNT; i++) {
        held[i] = connect_raw();
        send_all(held[i], (const uint8_t *)"AiDb\x0a\x00", 6);
    }
    assert_untouched();
    for (int i = 0; i < COUNT; i++) /* cut at authentication_timeout, which the fixture lowers */
        drain(held[i]);
    for (int i = 0; i < COUNT; i++)
        close(held[i]);
    assert_untouched();
}
END_TEST

void add_byte_tests(TCase *tests)
{
    tcase_add_test(tests, a_conversation_cut_at_every_byte);
    tcase_add_test(tests, a_request_and_goodbye);
    tcase_add_test(tests, answered_requests_hold_no_memory);
    tcase_add_test(tests, a_new_limit_for_who_does_not_read);
    tcase_add_test(tests, mutated_conversations);
    tcase_add_loop_test(tests, garbage_is_refused, 0, sizeof GARBAGE / sizeof GARBAGE[0]);
}

void add_greeting_tests(TCase *tests)
{
    tcase_add_test(tests, half_greetings_hold_up_nobody);
}
