/* backend_internal.h - the state of a backend, shared by its loop (backend.c), the requests (request.c)
 * and what is told to people (report.c). */
#ifndef AIDB_BACKEND_BACKEND_INTERNAL_H
#define AIDB_BACKEND_BACKEND_INTERNAL_H

#include "backend/backend.h"
#include "protocol/protocol.h"

#define OUTPUT_HIGH \
    ((size_t)256 << 10)      /* no further request is begun while more waits to be sent */
#define GROUP_MAX       128u /* pipelined writes that become one batch */
#define GROUP_BYTES_MAX ((size_t)64 << 10)
#define GROUP_WRITE_MAX ((size_t)16 << 10) /* larger writes go alone */
#define GETS_MAX        64u                /* pipelined gets that are looked up together */
#define SCANS_MAX       8u                 /* scans of a session that span chunks */
#define CHUNK_ROWS_MAX  65536u
#define CHUNK_BYTES_MAX ((size_t)1 << 20)

/* One write of the group that is being gathered. `ops` stands in the input buffer. */
typedef struct GroupedWrite {
    uint64_t id;
    Slice ops;
    uint32_t last; /* offset of the last operation in ops */
} GroupedWrite;

typedef struct PendingGet {
    uint64_t id;
    uint64_t snapshot;
    Slice key;          /* in the input buffer */
    size_t frame_start; /* there: to begin again from it */
} PendingGet;

typedef struct OpenScan {
    bool open;
    uint64_t id;
    uint64_t snapshot;
    bool own_snapshot; /* registered by the scan; else the client's */
    uint8_t flags;
    uint32_t rows;
    size_t bytes;
    uint64_t credits;
    Buffer from;
    Buffer to;
} OpenScan;

typedef struct Backend {
    const BackendStart *start;
    Db *db;
    ServerShared *shared;
    Session *session;
    Slot *slot;
    Config config;
    uint32_t config_version;
    int fd;
    int exit_code;

    bool magic_seen;
    bool greeted;
    bool closing;         /* send what is there, then end */
    bool linger;          /* the client may still be sending when it is closed */
    bool gone;            /* the client hung up: nothing can be sent */
    uint64_t deadline_ns; /* of the greeting */

    Buffer input;
    size_t taken; /* of input: requests begun */
    size_t body_max;
    uint64_t drawn; /* from the server's request memory */
    uint64_t drawn_since_ns;
    uint64_t input_since_ns; /* when bytes last came */
    bool input_full;         /* the last read filled the buffer: there may be more */

    Buffer output;
    size_t sent;
    size_t settled;      /* replies up to here are as durable as they say */
    uint64_t settle_end; /* the writes behind that end here */
    aidb_durability settle_durability;

    GroupedWrite group[GROUP_MAX];
    size_t group_count;
    size_t group_bytes;
    uint32_t group_ops;
    uint32_t group_ranges;
    aidb_durability group_durability;
    Buffer group_row;

    PendingGet gets[GETS_MAX];
    size_t get_count;

    OpenScan scans[SCANS_MAX];
    size_t scan_next; /* whose turn it is */

    const char *activity; /* a literal */
    uint64_t title_ns;
    bool title_stale;
    bool rested; /* nothing was done since the session gave back what it does not need when idle */
} Backend;

/* ---- backend.c ------------------------------------------------------------------------------- */

/* Says what the backend does: to the slot at once, to ps now and then. `activity` is a literal. */
void backend_activity(Backend *backend, const char *activity);
/* Appends an ERROR reply from the error record. A store that failed, or an order to end, also ends the
 * backend; an interrupt is told as what it was (canceled, out of time). */
void backend_error(Backend *backend, uint64_t id, Status status);
/* A fatal error: said to the client, then the connection is closed. */
void backend_fatal(Backend *backend, Status status);
/* Notes that the replies appended so far wait for this. */
void backend_settle_later(Backend *backend, uint64_t end, aidb_durability durability);
void backend_time_limit_begin(Backend *backend);
void backend_time_limit_end(Backend *backend);

/* ---- request.c ------------------------------------------------------------------------------- */

/* Carries out one request, or gathers it. `frame_start` is its place in the input. */
void request_handle(Backend *backend, const Frame *frame, size_t frame_start);
/* Carries out what was gathered. */
void request_finish(Backend *backend);
/* Sends the next chunk of an open scan that has credits. False when there is none. */
bool request_scan_step(Backend *backend);
bool request_scan_waits(const Backend *backend);
void request_deinit(Backend *backend);

/* ---- report.c -------------------------------------------------------------------------------- */

Status report_property(Backend *backend, Slice name, Buffer *text) MUST_CHECK;
Status report_control(Backend *backend, const Message *message) MUST_CHECK;

#endif
