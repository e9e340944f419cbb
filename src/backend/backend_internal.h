/* backend_internal.h - the state of a backend, shared by the loops (backend.c for one client, host.c for
 * many), the session (session.c), the requests (request.c) and what is told to people (report.c). */
#ifndef AIDB_BACKEND_BACKEND_INTERNAL_H
#define AIDB_BACKEND_BACKEND_INTERNAL_H

#include "backend/backend.h"
#include "protocol/protocol.h"

#include <signal.h>

#define OUTPUT_HIGH \
    ((size_t)256 << 10)      /* no further request is begun while more waits to be sent */
#define GROUP_MAX       128u /* pipelined writes that become one batch */
#define GROUP_BYTES_MAX ((size_t)64 << 10)
#define GROUP_WRITE_MAX ((size_t)16 << 10) /* larger writes go alone */
#define GETS_MAX        64u                /* pipelined gets that are looked up together */
#define SCANS_MAX       8u                 /* scans of a session that span chunks */
#define CHUNK_ROWS_MAX  65536u
#define CHUNK_BYTES_MAX ((size_t)1 << 20)

#define INPUT_START       ((size_t)16 << 10)
#define INPUT_MAX         ((size_t)256 << 10) /* for pipelined requests; single ones may be larger */
#define INPUT_HOSTED_MAX  ((size_t)64 << 10) /* what one client may do before it is another's turn */
#define LARGE_REQUEST     ((size_t)256 << 10) /* from here on a request draws on request_memory */
#define KEEP_SIZE         ((size_t)64 << 10)  /* buffers of an idle backend */
#define SPARE_BUFFERS_MAX 32u
#define SLOW_WRITE        ((size_t)1 << 20) /* a hosting process leaves larger ones to a thread */
#define TITLE_INTERVAL_NS 200000000u
#define REST_MS           5000
#define BUDGET_RETRY_MS   20
#define BRISK_REST_MS     200 /* who sleeps as long has no brisk client */

/* One write of the group that is being gathered. `ops` stands in the input buffer. */
typedef struct GroupedWrite {
    uint64_t id;
    Slice ops;
    uint32_t last;      /* offset of the last operation in ops */
    size_t frame_start; /* in the input: to begin again from it */
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
    uint64_t walked; /* bytes of the chunks sent */
    Buffer from;
    Buffer to;
} OpenScan;

struct Backend;

/* What decides whether a process spins for its clients (spin.c). */
typedef struct Spin {
    const void *client;   /* who sent something last; only compared */
    uint32_t short_waits; /* in a row, all for that client */
    uint32_t needed;      /* as many make it brisk */
    uint32_t brisk_max;   /* of ServerShared's `brisk`, to spin */
    bool brisk;           /* counted there */
    bool spinning;
    uint64_t since_ns;
    uint64_t looked_ns;
} Spin;

/* A process that serves one client or many. What stands here is used by one client at a time, so that
 * an idle one costs little. */
typedef struct BackendProcess {
    Db *db;
    ServerShared *shared;
    Session *session; /* acts for the slot of whoever is served */
    Slot *slot;       /* of the process: its latch */
    bool hosting;     /* many clients: nothing here may sleep for one of them */
    Config config;
    uint32_t config_version;
    void (*config_changed)(const Config *config);

    struct Backend *_Atomic running; /* for signal handlers */
    /* For SIGQUIT: descriptors (and one more) of clients to whom nothing is half sent, so that they can be
     * told why the process ends, one for each client; and what they are told. */
    _Atomic int *quiet;
    uint32_t quiet_count;
    volatile sig_atomic_t sending;
    volatile sig_atomic_t quit_after_send;
    Buffer crash_text;
    Buffer stop_text;

    GroupedWrite group[GROUP_MAX]; /* empty between two turns, and so are the gets */
    size_t group_count;
    size_t group_bytes;
    uint32_t group_ops;
    uint32_t group_ranges;
    aidb_durability group_durability;
    Buffer group_row;

    PendingGet gets[GETS_MAX];
    size_t get_count;

    Buffer spare[SPARE_BUFFERS_MAX]; /* of clients that are idle now */
    size_t spare_count;

    Spin spin;
} BackendProcess;

/* What a session waits for after a turn. */
typedef enum Want {
    WANT_INPUT,
    WANT_OUTPUT, /* that the client takes more */
    WANT_TURN,   /* nothing: there is more to do */
    WANT_TIME,   /* until resume_ns */
    WANT_THREAD, /* its next request is slow (`slow`): in a hosting process a thread carries it out */
    WANT_GOODBYE /* the conversation is over */
} Want;

/* One client's conversation. */
typedef struct Backend {
    BackendProcess *process;
    Db *db;
    ServerShared *shared;
    Session *session;     /* the process's, or that of the thread which works for this one */
    const Config *config; /* likewise */
    Slot *slot;
    _Atomic int *quiet; /* the process's, for this client */
    int fd;
    int exit_code;
    uint64_t number; /* of the connection */
    uint64_t secret;
    char peer[64];

    bool magic_seen;
    bool greeted;
    bool closing; /* send what is there, then end */
    bool linger;  /* the client may still be sending when it is closed */
    bool gone;    /* the client hung up: nothing can be sent */
    bool said_goodbye;
    bool slow;                 /* slow_frame waits for a thread */
    _Atomic bool timed_out;    /* SLOT_INTERRUPT_CANCEL is statement_timeout's */
    uint64_t deadline_ns;      /* of the greeting; later of the goodbye */
    uint64_t resume_ns;        /* no request is begun before */
    uint64_t stalled_since_ns; /* a write has waited for a flush since */
    DbDebt debt;

    Buffer input;
    size_t taken; /* of input: requests begun */
    size_t body_max;
    uint64_t drawn; /* from the server's request memory */
    uint64_t drawn_since_ns;
    bool waits_for_memory;
    uint64_t input_since_ns; /* when bytes last came */
    bool input_full;         /* the last read filled the buffer: there may be more */
    Frame slow_frame;        /* in input */

    Buffer output;
    size_t sent;
    size_t settled;      /* replies up to here are as durable as they say */
    uint64_t settle_end; /* the writes behind that end here */
    aidb_durability settle_durability;
    uint64_t sending_since_ns; /* it has taken nothing since */
    size_t sent_before;

    OpenScan scans[SCANS_MAX];
    size_t scan_next; /* whose turn it is */

    const char *activity; /* a literal */
    uint64_t title_ns;
    bool title_stale;
    bool rested; /* nothing was done since the session gave back what it does not need when idle */
} Backend;

/* ---- process.c ------------------------------------------------------------------------------- */

Status process_init(BackendProcess *process, const BackendStart *start, SlotKind kind) MUST_CHECK;
void process_deinit(BackendProcess *process);
/* Around what is sent to a client: in between SIGQUIT only makes a note. `whole`: no part of it is left. */
void process_begin_send(Backend *backend);
void process_end_send(Backend *backend, bool whole);
/* Takes a changed configuration over. */
void process_take_config(BackendProcess *process);
/* The monotonic clock, cheap and coarse. */
uint64_t coarse_now(void);

/* ---- spin.c ---------------------------------------------------------------------------------- */

void spin_init(BackendProcess *process);
/* A wait for clients begins. True: look for input, and again after each spin_go_on that is true. */
bool spin_begin(BackendProcess *process);
bool spin_go_on(BackendProcess *process);
/* The wait has ended, awake or asleep: `client` alone has sent something (NULL: nobody, or several). */
void spin_end(BackendProcess *process, const void *client);
/* The process has no brisk client any more: it ends, or sleeps for longer than BRISK_REST_MS. */
void spin_rest(BackendProcess *process);

/* ---- session.c ------------------------------------------------------------------------------- */

/* The peer's name and the socket are taken over. */
void session_init(Backend *backend, BackendProcess *process, Slot *slot,
                  const BackendClient *client);
void session_deinit(Backend *backend);
typedef enum ReadResult { READ_GOT, READ_NOTHING, READ_NO_BUDGET } ReadResult;
/* Reads what is there. `wait`: as long as the socket's time limit says. */
ReadResult session_read(Backend *backend, bool wait);
/* A turn: carries out the requests that are there and sends the next chunks of scans, up to a bound.
 * Then comes session_settle, when settle_end is not 0, and session_send. */
void session_work(Backend *backend);
/* Waits until the replies may be sent. `status` is that of the wait, which may have been for several. */
void session_settled(Backend *backend, Status status);
/* Sends what the client takes without waiting; says what the session waits for. */
Want session_send(Backend *backend);
/* Nothing has come or gone for too long: ends the session where that holds something up. `wake_ns` is
 * when this should be called at the latest (0: never). */
void session_check_time(Backend *backend, Want want);
uint64_t session_wake_ns(const Backend *backend, Want want);
/* Nothing is under way: gives memory back, forgets a cancel request that has nothing to cancel. */
void session_idle(Backend *backend);
/* After WANT_GOODBYE, again and again until it returns true; in between, until deadline_ns, input. */
bool session_goodbye(Backend *backend);

/* Says what the backend does: to the slot at once, to ps now and then. `activity` is a literal. */
void backend_activity(Backend *backend, const char *activity);
void backend_set_title(Backend *backend);
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
/* Carries out slow_frame, in a thread of its own. */
void request_slow(Backend *backend);
void request_deinit(Backend *backend);

/* ---- report.c -------------------------------------------------------------------------------- */

Status report_property(Backend *backend, Slice name, Buffer *text) MUST_CHECK;
Status report_control(Backend *backend, const Message *message) MUST_CHECK;

#endif
