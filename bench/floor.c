/*
 * floor.c - what this machine can do, without any store.
 *
 * bench/limits builds and runs it. Each line of output is one measurement: what, value, unit,
 * separated by tabs. Whatever a store does, it does not get below these: an empty server of the shape
 * of ours and of an event loop, syncs, copies, cache misses, hand-offs between processes.
 *
 *   floor DIR SECONDS     files are made in DIR; SECONDS for each measurement
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_SIZE    128
#define CONNECTIONS_MAX 64
#define PIPELINE_MAX    16
#define RECORD_SIZE     140
#define FILE_SIZE       ((size_t)64 << 20)

static const char *folder;
static double seconds;
static pid_t server; /* of the running echo test, a process group of its own; 0 for none */

static void stop_server(void)
{
    if (server > 0) {
        kill(-server, SIGKILL);
        waitpid(server, NULL, 0);
        server = 0;
    }
}

static void __attribute__((noreturn)) fail(const char *what)
{
    int error = errno;
    stop_server();
    fprintf(stderr, "floor: %s: %s\n", what, strerror(error));
    exit(1);
}

static void on_signal(int number)
{
    if (server > 0)
        kill(-server, SIGKILL);
    _exit(128 + number);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void __attribute__((format(printf, 3, 4)))
report(double value, const char *unit, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\t%.6g\t%s\n", value, unit);
    fflush(stdout);
}

/* Keeps the compiler from leaving out work whose result nobody reads. */
static volatile uint64_t sink;

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void *map(size_t size, int flags)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    return memory;
}

/* --- Echo servers ---------------------------------------------------------------------------- */

static void read_fully(int fd, char *buffer, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, buffer + done, size - done);
        if (n <= 0)
            _exit(0);
        done += (size_t)n;
    }
}

static void echo_once(int fd, char *buffer, size_t size)
{
    ssize_t n = read(fd, buffer, size);
    if (n <= 0 || write(fd, buffer, (size_t)n) != n)
        _exit(0);
}

static int set_nodelay(int fd, bool tcp)
{
    int one = 1;
    if (tcp && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0)
        fail("setsockopt");
    return fd;
}

static int listen_on(bool tcp, struct sockaddr_storage *address, socklen_t *size)
{
    memset(address, 0, sizeof *address);
    int fd = socket(tcp ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail("socket");
    if (tcp) {
        struct sockaddr_in *in = (struct sockaddr_in *)address;
        in->sin_family = AF_INET;
        in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        *size = sizeof *in;
    } else {
        struct sockaddr_un *un = (struct sockaddr_un *)address;
        un->sun_family = AF_UNIX;
        snprintf(un->sun_path, sizeof un->sun_path, "%s/echo", folder);
        unlink(un->sun_path);
        *size = sizeof *un;
    }
    if (bind(fd, (struct sockaddr *)address, *size) != 0 || listen(fd, 1024) != 0)
        fail("listen");
    socklen_t bound = sizeof *address;
    if (tcp && getsockname(fd, (struct sockaddr *)address, &bound) != 0)
        fail("getsockname");
    return fd;
}

static void serve_forking(int listener, bool tcp)
{
    static char buffer[MESSAGE_SIZE * PIPELINE_MAX];
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            _exit(1);
        if (fork() == 0) {
            set_nodelay(fd, tcp);
            for (;;)
                echo_once(fd, buffer, sizeof buffer);
        }
        close(fd);
    }
}

static void serve_events(int listener, bool tcp)
{
    static char buffer[MESSAGE_SIZE * PIPELINE_MAX];
    int events = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[CONNECTIONS_MAX];
    epoll_ctl(events, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(events, ready, CONNECTIONS_MAX, -1);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) {
                event.data.fd = set_nodelay(accept(listener, NULL, NULL), tcp);
                epoll_ctl(events, EPOLL_CTL_ADD, event.data.fd, &event);
                continue;
            }
            ssize_t n = read(fd, buffer, sizeof buffer);
            if (n <= 0 || write(fd, buffer, (size_t)n) != n)
                close(fd);
        }
    }
}

static int start_server(bool forking, bool tcp, struct sockaddr_storage *address, socklen_t *size)
{
    int listener = listen_on(tcp, address, size);
    pid_t parent = getpid();
    server = fork();
    if (server < 0)
        fail("fork");
    if (server == 0) {
        setpgid(0, 0);
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        if (forking)
            serve_forking(listener, tcp);
        else
            serve_events(listener, tcp);
    }
    setpgid(server, server);
    close(listener);
    return 0;
}

static int dial(bool tcp, const struct sockaddr_storage *address, socklen_t size)
{
    int fd = socket(tcp ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)address, size) != 0)
        fail("connect");
    return set_nodelay(fd, tcp);
}

/* One client process with an event loop; each connection has one burst under way at a time. */
static double echo_rate(bool tcp, const struct sockaddr_storage *address, socklen_t size, int count,
                        int pipeline)
{
    static char buffer[MESSAGE_SIZE * PIPELINE_MAX];
    size_t burst = (size_t)pipeline * MESSAGE_SIZE, left[CONNECTIONS_MAX];
    int fds[CONNECTIONS_MAX], events = epoll_create1(0);
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        fds[i] = dial(tcp, address, size);
        epoll_ctl(events, EPOLL_CTL_ADD, fds[i], &event);
        left[i] = burst;
        if (write(fds[i], buffer, burst) != (ssize_t)burst)
            fail("write");
    }
    uint64_t answered = 0;
    double begin = now(), end = begin + seconds;
    while (now() < end) {
        struct epoll_event ready[CONNECTIONS_MAX];
        int n = epoll_wait(events, ready, CONNECTIONS_MAX, 1000);
        for (int k = 0; k < n; k++) {
            uint32_t i = ready[k].data.u32;
            ssize_t got = read(fds[i], buffer, sizeof buffer);
            if (got <= 0)
                fail("the echo server went away");
            left[i] -= (size_t)got;
            if (left[i] != 0)
                continue;
            answered += (uint64_t)pipeline;
            left[i] = burst;
            if (write(fds[i], buffer, burst) != (ssize_t)burst)
                fail("write");
        }
    }
    double rate = (double)answered / (now() - begin);
    for (int i = 0; i < count; i++)
        close(fds[i]);
    close(events);
    return rate;
}

static double connect_rate(bool tcp, const struct sockaddr_storage *address, socklen_t size)
{
    char buffer[MESSAGE_SIZE] = {0};
    uint64_t done = 0;
    double begin = now(), end = begin + seconds;
    for (; now() < end; done++) {
        int fd = dial(tcp, address, size);
        if (write(fd, buffer, sizeof buffer) != sizeof buffer)
            fail("write");
        read_fully(fd, buffer, sizeof buffer);
        close(fd);
    }
    return (double)done / (now() - begin);
}

static void measure_echo(void)
{
    static const struct {
        int connections, pipeline;
    } cells[] = {{1, 1}, {8, 1}, {50, 1}, {8, 16}, {50, 16}};
    for (int tcp = 1; tcp >= 0; tcp--) {
        for (int forking = 0; forking <= 1; forking++) {
            struct sockaddr_storage address;
            socklen_t size;
            const char *model = forking ? "process per connection" : "one event loop";
            const char *transport = tcp ? "TCP" : "unix";
            start_server(forking, tcp, &address, &size);
            for (size_t i = 0; i < sizeof cells / sizeof cells[0]; i++)
                report(echo_rate(tcp, &address, size, cells[i].connections, cells[i].pipeline),
                       "/s", "echo of 128 B, %s, %s, c=%d P=%d", transport, model,
                       cells[i].connections, cells[i].pipeline);
            report(connect_rate(tcp, &address, size), "/s", "connect, echo, close, %s, %s",
                   transport, model);
            stop_server();
        }
    }
}

/* --- Files ----------------------------------------------------------------------------------- */

static char path[4096];

static int make_file(const char *name, int flags, bool fill)
{
    static char zeros[1 << 20];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        fail(path);
    for (size_t done = 0; fill && done < FILE_SIZE; done += sizeof zeros) {
        if (write(fd, zeros, sizeof zeros) != sizeof zeros)
            fail(path);
    }
    if (fill && fsync(fd) != 0)
        fail("fsync");
    if (flags != 0) {
        close(fd);
        fd = open(path, O_RDWR | O_CLOEXEC | flags);
        if (fd < 0)
            fail(path);
    }
    return fd;
}

static void measure_sync(const char *what, bool fill, bool allocate, int flags, bool mapped)
{
    static char block[4096] __attribute__((aligned(4096)));
    int fd = make_file("sync", flags, fill);
    char *memory = NULL;
    if (allocate && fallocate(fd, 0, 0, (off_t)FILE_SIZE) != 0) {
        close(fd); /* not every file system can */
        unlink(path);
        return;
    }
    if (mapped) {
        memory = mmap(NULL, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED)
            fail("mmap");
    }
    uint64_t done = 0;
    double begin = now(), end = begin + seconds;
    for (; now() < end; done++) {
        size_t at = done * sizeof block % FILE_SIZE;
        block[0]++;
        if (mapped)
            memcpy(memory + at, block, sizeof block);
        else if (pwrite(fd, block, sizeof block, (off_t)at) != sizeof block)
            fail("pwrite");
        if ((flags & O_DSYNC) == 0 && fdatasync(fd) != 0)
            fail("fdatasync");
    }
    report((double)done / (now() - begin), "/s", "sync of 4 KiB, %s", what);
    if (mapped)
        munmap(memory, FILE_SIZE);
    close(fd);
    unlink(path);
}

static int compare_seconds(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Synced records one after the other, as a log writes them: all blocks of 4 KiB that a record lies in, the one that
 * the record before ended in included, by one call to a file of zeros. What is slow here is slow for every store. */
static void measure_sync_times(size_t record)
{
    static char blocks[1 << 16] __attribute__((aligned(4096)));
    static double times[1 << 18];
    int fd = make_file("sync", O_DIRECT | O_DSYNC, true);
    size_t count = 0, at = 0;
    for (double end = now() + seconds; now() < end && count < sizeof times / sizeof times[0];) {
        size_t from = at / 4096 * 4096, to = (at + record + 4095) / 4096 * 4096;
        blocks[0]++;
        double begin = now();
        if (pwrite(fd, blocks, to - from, (off_t)from) != (ssize_t)(to - from))
            fail("pwrite");
        times[count++] = now() - begin;
        at = at + 2 * record > FILE_SIZE ? 0 : at + record;
    }
    qsort(times, count, sizeof times[0], compare_seconds);
    static const struct {
        const char *name;
        double part;
    } ranks[] = {{"median", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}};
    for (size_t i = 0; i < sizeof ranks / sizeof ranks[0]; i++)
        report(times[(size_t)((double)count * ranks[i].part)] * 1e6, "us",
               "synced records of %zu B, %s", record, ranks[i].name);
    close(fd);
    unlink(path);
}

static void measure_reads(void)
{
    static char block[4096];
    int fd = make_file("read", 0, true);
    uint64_t state = 88172645463325252u, done = 0;
    double begin = now(), end = begin + seconds;
    for (; now() < end; done++) {
        off_t at = (off_t)(random_next(&state) % (FILE_SIZE / sizeof block) * sizeof block);
        if (pread(fd, block, sizeof block, at) != sizeof block)
            fail("pread");
    }
    report((now() - begin) / (double)done * 1e9, "ns", "pread of 4 KiB from the page cache");
    close(fd);
    unlink(path);
}

/* A log record of 140 bytes, not synced: by write(), or copied into a mapped file. */
static void measure_records(void)
{
    static char record[RECORD_SIZE * 16];
    for (int count = 1; count <= 16; count *= 16) {
        int fd = make_file("log", 0, true);
        size_t size = (size_t)count * RECORD_SIZE;
        uint64_t done = 0;
        size_t at = 0;
        double begin = now(), end = begin + seconds;
        for (; now() < end; done += (uint64_t)count) {
            if (at + size > FILE_SIZE)
                at = 0;
            if (pwrite(fd, record, size, (off_t)at) != (ssize_t)size)
                fail("pwrite");
            at += size;
        }
        report((now() - begin) / (double)done * 1e9, "ns", "log record of 140 B, %s",
               count == 1 ? "a write() each" : "16 in a write()");
        close(fd);
        unlink(path);
    }
    for (int file = 1; file >= 0; file--) {
        size_t ring = (size_t)16 << 20, at = 0;
        int fd = file ? make_file("ring", 0, true) : -1;
        char *memory = mmap(NULL, ring, PROT_READ | PROT_WRITE,
                            MAP_SHARED | (file ? 0 : MAP_ANONYMOUS), fd, 0);
        if (memory == MAP_FAILED)
            fail("mmap");
        memset(memory, 1, ring);
        uint64_t done = 0;
        double begin = now(), end = begin + seconds;
        while (now() < end) {
            for (int i = 0; i < 1000; i++, done++) {
                if (at + RECORD_SIZE > ring)
                    at = 0;
                record[0]++;
                memcpy(memory + at, record, RECORD_SIZE);
                at += RECORD_SIZE;
            }
        }
        report((now() - begin) / (double)done * 1e9, "ns", "log record of 140 B, copied into %s",
               file ? "a mapped file" : "shared memory");
        munmap(memory, ring);
        if (file) {
            close(fd);
            unlink(path);
        }
    }
}

/* --- Memory ---------------------------------------------------------------------------------- */

static void measure_copy(size_t size, const char *name)
{
    char *from = map(size, MAP_PRIVATE), *to = map(size, MAP_PRIVATE);
    memset(from, 1, size);
    memset(to, 2, size);
    uint64_t done = 0;
    double begin = now(), end = begin + seconds;
    while (now() < end) {
        for (size_t i = 0; i < ((size_t)64 << 20) / size + 1; i++, done++) {
            memcpy(to, from, size);
            __asm__ volatile("" : : "r"(to), "r"(from) : "memory");
        }
    }
    report((double)done * (double)size / (now() - begin) / 1e9, "GB/s", "memcpy of %s", name);
    munmap(from, size);
    munmap(to, size);
}

/* Each load gives the place of the next: nothing but the memory's latency. */
static void measure_loads(size_t size, bool huge, const char *name)
{
    uint32_t *next = map(size, MAP_PRIVATE);
    if (madvise(next, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) != 0 && huge)
        return;
    size_t step = 64 / sizeof *next, count = size / 64;
    uint64_t state = 1181783497276652981u;
    for (size_t i = 0; i < count; i++)
        next[i * step] = (uint32_t)i;
    for (size_t i = count - 1; i > 0; i--) { /* one cycle through all lines */
        size_t k = random_next(&state) % i;
        uint32_t other = next[k * step];
        next[k * step] = next[i * step];
        next[i * step] = other;
    }
    uint64_t done = 0;
    uint32_t at = 0;
    double begin = now(), end = begin + seconds;
    while (now() < end) {
        for (int i = 0; i < 10000; i++, done++)
            at = next[at * step];
    }
    sink = at;
    report((now() - begin) / (double)done * 1e9, "ns", "dependent random load, %s", name);
    munmap(next, size);
}

static void measure_first_touch(void)
{
    size_t size = (size_t)256 << 20;
    char *memory = map(size, MAP_SHARED);
    double begin = now();
    for (size_t i = 0; i < size; i += 4096)
        memory[i] = 1;
    report((now() - begin) / (double)(size / 4096) * 1e6, "us",
           "first touch of 4 KiB of shared memory");
    munmap(memory, size);
}

/* --- Processes ------------------------------------------------------------------------------- */

static void measure_fork(void)
{
    uint64_t done = 0;
    double begin = now(), end = begin + seconds;
    for (; now() < end; done++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        if (pid < 0 || waitpid(pid, NULL, 0) != pid)
            fail("fork");
    }
    report((now() - begin) / (double)done * 1e6, "us", "fork, exit, wait");
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static void futex(_Atomic uint32_t *word, int operation, uint32_t value)
{
    syscall(SYS_futex, word, operation, value, NULL, NULL, 0);
}

static void await_turn(_Atomic uint32_t *turn, uint32_t wanted, bool spinning)
{
    for (;;) {
        uint32_t seen = atomic_load(turn);
        if (seen == wanted || seen == 2)
            return;
        if (!spinning)
            futex(turn, FUTEX_WAIT, seen);
    }
}

/* Two processes hand a word to and fro; the figure is one way. */
static void measure_handoff(const char *what, int first, int second, bool spinning)
{
    _Atomic uint32_t *turn = map(4096, MAP_SHARED);
    cpu_set_t before;
    sched_getaffinity(0, sizeof before, &before);
    pid_t pid = fork();
    if (pid < 0)
        fail("fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin(second);
        while (atomic_load(turn) != 2) {
            await_turn(turn, 1, spinning);
            if (atomic_load(turn) == 2)
                break;
            atomic_store(turn, 0);
            if (!spinning)
                futex(turn, FUTEX_WAKE, 1);
        }
        _exit(0);
    }
    pin(first);
    uint64_t done = 0;
    double begin = now(), end = begin + seconds;
    for (; now() < end; done++) {
        atomic_store(turn, 1);
        if (!spinning)
            futex(turn, FUTEX_WAKE, 1);
        await_turn(turn, 0, spinning);
    }
    double each = (now() - begin) / (double)done / 2;
    atomic_store(turn, 2);
    futex(turn, FUTEX_WAKE, 1);
    waitpid(pid, NULL, 0);
    sched_setaffinity(0, sizeof before, &before);
    report(each * 1e6, "us", "hand-off to another process, %s", what);
    munmap(turn, 4096);
}

int main(int argc, char **argv)
{
    if (argc != 3 || (seconds = strtod(argv[2], NULL)) <= 0) {
        fprintf(stderr, "usage: floor DIR SECONDS\n");
        return 3;
    }
    folder = argv[1];
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGPIPE, SIG_IGN);

    measure_echo();
    measure_sync("file grows", false, false, 0, false);
    measure_sync("allocated, not written", false, true, 0, false);
    measure_sync("zero-filled", true, false, 0, false);
    measure_sync("zero-filled, O_DSYNC", true, false, O_DSYNC, false);
    measure_sync("zero-filled, O_DIRECT and O_DSYNC", true, false, O_DIRECT | O_DSYNC, false);
    measure_sync("zero-filled, stored through a mapping", true, false, 0, true);
    measure_sync_times(160);
    measure_sync_times(1088);
    measure_sync_times(8192);
    measure_records();
    measure_reads();
    measure_copy((size_t)4 << 10, "4 KiB");
    measure_copy((size_t)8 << 20, "8 MiB");
    measure_copy((size_t)256 << 20, "256 MiB");
    measure_loads((size_t)64 << 20, false, "64 MiB, small pages");
    measure_loads((size_t)512 << 20, false, "512 MiB, small pages");
    measure_loads((size_t)512 << 20, true, "512 MiB, huge pages");
    measure_first_touch();
    measure_fork();
    if (sysconf(_SC_NPROCESSORS_ONLN) > 1) {
        measure_handoff("on another core", 0, 1, false);
        measure_handoff("on another core, both spinning", 0, 1, true);
    }
    measure_handoff("on the same core", 0, 0, false);
    return 0;
}
