/*
 * report.c - what a backend tells about the server, and what it does on command.
 *
 * Other processes' slots are read while they change: texts may be torn, so they are copied with their
 * ends forced, and nothing is decided from them but what TERMINATE is asked to do.
 */
#include "config.h"
#include "backend/backend_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *state_name(uint32_t state)
{
    static const char *const NAMES[] = {"starting", "recovering", "running", "stopping"};
    return state < 4 ? NAMES[state] : "unknown";
}

static uint32_t count_connections(Backend *backend)
{
    SlotTable *slots = db_slots(backend->db);
    uint32_t count = 0;
    for (uint32_t i = 0; i < slots->count; i++)
        count += atomic_load_explicit(&slots->slots[i].kind, memory_order_relaxed) == SLOT_BACKEND;
    return count;
}

static Status report_status(Backend *backend, Buffer *text)
{
    const ServerShared *shared = backend->shared;
    uint64_t now = port_realtime_us();
    uint64_t uptime = now > shared->started_us ? (now - shared->started_us) / 1000000u : 0;
    const char *uri = shared->unix_uri[0] != '\0' ? shared->unix_uri : shared->tcp_uri;
    RETURN_IF_FAILED(buffer_append_format(
        text,
        "state\t%s\nversion\t%s\npid\t%d\nuri\t%s\ntcp_uri\t%s\ndata_directory\t%s\nuptime_"
        "seconds\t%" PRIu64
        "\ncrash_restarts\t%u\nconnections\t%u\nmax_connections\t%u\nrequest_memory_used\t%" PRIu64
        "\n",
        state_name(atomic_load(&shared->state)), AIDB_VERSION, shared->pid, uri, shared->tcp_uri,
        shared->directory, uptime, atomic_load(&shared->crash_restarts), count_connections(backend),
        backend->config->server.max_connections, atomic_load(&shared->request_memory_used)));
    return db_property(backend->session, "status", text);
}

/* A text that its owner may be changing: cut at `size`, without tabs and line ends. */
static Status append_text(Buffer *text, const char *from, size_t size)
{
    char copy[64];
    memcpy(copy, from, size < sizeof copy ? size : sizeof copy);
    copy[(size < sizeof copy ? size : sizeof copy) - 1] = '\0';
    for (char *at = copy; *at != '\0'; at++)
        if ((unsigned char)*at < ' ')
            *at = ' ';
    return buffer_append_format(text, "\t%s", copy);
}

static Status report_backends(Backend *backend, Buffer *text)
{
    SlotTable *slots = db_slots(backend->db);
    uint64_t now = port_realtime_us();
    RETURN_IF_FAILED(buffer_append_format(
        text, "id\tpid\tclient\tapplication\tconnected_seconds\tsnapshots\tactivity\n"));
    for (uint32_t i = 0; i < slots->count; i++) {
        const Slot *slot = &slots->slots[i];
        if (atomic_load_explicit(&slot->kind, memory_order_acquire) != SLOT_BACKEND)
            continue;
        uint64_t started = atomic_load(&slot->started_us);
        uint32_t snapshots = 0;
        for (int s = 0; s < SLOT_SNAPSHOTS; s++)
            snapshots +=
                atomic_load_explicit(&slot->snapshots[s], memory_order_relaxed) != SNAPSHOT_NONE;
        RETURN_IF_FAILED(buffer_append_format(
            text, "%" PRIu64 "\t%d", atomic_load(&slot->session_id), (int)atomic_load(&slot->pid)));
        RETURN_IF_FAILED(append_text(text, slot->peer, sizeof slot->peer));
        RETURN_IF_FAILED(append_text(text, slot->application, sizeof slot->application));
        RETURN_IF_FAILED(buffer_append_format(
            text, "\t%" PRIu64 "\t%u", now > started ? (now - started) / 1000000u : 0, snapshots));
        RETURN_IF_FAILED(append_text(text, slot->activity, sizeof slot->activity));
        RETURN_IF_FAILED(buffer_append_byte(text, '\n'));
    }
    return AIDB_OK;
}

static bool is_name(Slice name, const char *word)
{
    return slice_equal(name, slice_from_string(word));
}

Status report_property(Backend *backend, Slice name, Buffer *text)
{
    if (is_name(name, "status"))
        return report_status(backend, text);
    if (is_name(name, "backends"))
        return report_backends(backend, text);
    if (is_name(name, "config"))
        return config_show(backend->config, text);
    if (is_name(name, "version"))
        return buffer_append_format(text, "%s", AIDB_VERSION);
    char word[32];
    if (name.size >= sizeof word || memchr(name.data, 0, name.size) != NULL)
        return status_set(AIDB_INVALID, "unknown property");
    memcpy(word, name.data, name.size);
    word[name.size] = '\0';
    return db_property(backend->session, word, text);
}

static Status terminate(Backend *backend, const char *number)
{
    char *end;
    uint64_t wanted = strtoull(number, &end, 10);
    if (end == number || *end != '\0' || wanted == 0)
        return status_set(AIDB_INVALID, "terminate: \"%s\" is not the number of a connection",
                          number);
    SlotTable *slots = db_slots(backend->db);
    for (uint32_t i = 0; i < slots->count; i++) {
        Slot *slot = &slots->slots[i];
        if (atomic_load(&slot->kind) != SLOT_BACKEND || atomic_load(&slot->session_id) != wanted)
            continue;
        atomic_fetch_or(&slot->interrupt, SLOT_INTERRUPT_TERMINATE);
        latch_wake(slot);
        return AIDB_OK;
    }
    (void)status_set(AIDB_INVALID, "there is no connection %" PRIu64, wanted);
    status_hint("SHOW BACKENDS lists the connections.");
    return AIDB_INVALID;
}

Status report_control(Backend *backend, const Message *message)
{
    char command[64];
    if (message->name.size >= sizeof command)
        return status_set(AIDB_INVALID, "unknown command");
    memcpy(command, message->name.data, message->name.size);
    command[message->name.size] = '\0';
    if (strcmp(command, "flush") == 0) {
        backend_activity(backend, "flush");
        return db_flush(backend->session);
    }
    if (strcmp(command, "compact") == 0) {
        backend_activity(backend, "compact");
        return db_compact(backend->session, message->from, message->to);
    }
    if (strcmp(command, "compact_wait") == 0) {
        backend_activity(backend, "compact_wait");
        return db_compact_wait(backend->session);
    }
    if (strncmp(command, "terminate ", 10) == 0)
        return terminate(backend, command + 10);
    return status_set(AIDB_INVALID, "unknown command \"%s\"", command);
}
