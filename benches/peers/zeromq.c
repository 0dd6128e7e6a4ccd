/*
 * The same echo by ZeroMQ, for the rows of large payloads: a server and a load of many calls in flight, one DEALER and
 * one ROUTER. Built by build.rs where pkg-config finds libzmq; run by the bench, whose commands it imitates.
 *
 *   zeromq serve PORT                        serves on 127.0.0.1 until stdin ends
 *   zeromq load PORT PAYLOAD CONNECTIONS IN_FLIGHT WARMUP SECONDS CALLS SERVER_PID     prints a report as one line of JSON
 *
 * CALLS above 0 is a run of exactly so many, and SERVER_PID 0 is a server whose processor time is not known.
 *
 * One DEALER has all connections: it sends on one after the other, so IN_FLIGHT calls are open on each in the mean. It would
 * not connect twice to the same endpoint, so each connection after the first comes from another address of loopback.
 *
 * A message goes back as it came, without a copy in this program. Each reply is compared with what was sent: length and
 * both ends, and one in 64 whole.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#define SAMPLES (1 << 20)

static void fail(const char *what)
{
    fprintf(stderr, "zeromq: %s: %s\n", what, zmq_strerror(zmq_errno()));
    exit(1);
}

/*
 * libzmq has no option for the congestion control of a socket, and all targets are to have the same one. So these two
 * stand in for the C library's: what is chosen before a connection is made, or accepted, is what it has.
 */
static void choose(int descriptor)
{
    const char *name = getenv("BENCH_CONGESTION");
    name = name ? name : "reno";
    if (strcmp(name, "system") && setsockopt(descriptor, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name)))
        fail("congestion control");
}

int connect(int descriptor, const struct sockaddr *address, socklen_t length)
{
    choose(descriptor);
    return (int)syscall(SYS_connect, descriptor, address, length);
}

int listen(int descriptor, int backlog)
{
    choose(descriptor);
    return (int)syscall(SYS_listen, descriptor, backlog);
}

static double clock_of(clockid_t clock)
{
    struct timespec time;
    if (clock_gettime(clock, &time))
        fail("clock");
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static double now(void) { return clock_of(CLOCK_MONOTONIC); }

static void *open_socket(int type, const char *port, size_t times, int (*join)(void *, const char *))
{
    char address[64];
    int none = 0;
    void *socket = zmq_socket(zmq_ctx_new(), type);
    snprintf(address, sizeof address, "tcp://127.0.0.1:%s", port);
    /* No bound on what waits: the load has its own. */
    if (!socket || zmq_setsockopt(socket, ZMQ_SNDHWM, &none, sizeof none)
        || zmq_setsockopt(socket, ZMQ_RCVHWM, &none, sizeof none) || zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none)
        || join(socket, address))
        fail(address);
    for (size_t time = 1; time < times; time++) {
        snprintf(address, sizeof address, "tcp://127.0.0.%zu:0;127.0.0.1:%s", time + 1, port);
        if (join(socket, address))
            fail(address);
    }
    return socket;
}

/* Answers what waits. */
static void answer(void *socket)
{
    for (;;) {
        int more;
        do {
            zmq_msg_t part;
            zmq_msg_init(&part);
            if (zmq_msg_recv(&part, socket, ZMQ_DONTWAIT) < 0) {
                zmq_msg_close(&part);
                if (errno == EAGAIN)
                    return;
                fail("receive");
            }
            more = zmq_msg_more(&part);
            if (zmq_msg_send(&part, socket, more ? ZMQ_SNDMORE : 0) < 0)
                fail("send");
        } while (more);
    }
}

static int serve(const char *port)
{
    void *socket = open_socket(ZMQ_ROUTER, port, 1, zmq_bind);
    printf("listening 127.0.0.1:%s\n", port);
    fflush(stdout);
    for (;;) {
        zmq_pollitem_t items[2] = {{socket, 0, ZMQ_POLLIN, 0}, {NULL, STDIN_FILENO, ZMQ_POLLIN, 0}};
        char octet;
        if (zmq_poll(items, 2, -1) < 0 && errno != EINTR)
            fail("poll");
        if (items[0].revents & ZMQ_POLLIN)
            answer(socket);
        if (items[1].revents && read(STDIN_FILENO, &octet, 1) <= 0)
            return 0;
    }
}

struct load {
    void *socket;
    size_t payload, connections, in_flight;
    unsigned char *text;
    double *began;
    uint64_t compared;
};

/* The payload of each caller is another window of one text, as in the other targets; the caller stands before it. */
static void send_call(struct load *load, uint64_t caller)
{
    zmq_msg_t head, body;
    zmq_msg_init_size(&head, sizeof caller);
    memcpy(zmq_msg_data(&head), &caller, sizeof caller);
    /* Shared, not copied: the text outlives the run. */
    if (zmq_msg_init_data(&body, load->text + caller, load->payload, NULL, NULL))
        fail("message");
    load->began[caller] = now();
    if (zmq_msg_send(&head, load->socket, ZMQ_SNDMORE) < 0 || zmq_msg_send(&body, load->socket, 0) < 0)
        fail("send");
}

static uint64_t receive_reply(struct load *load)
{
    zmq_msg_t head, body;
    uint64_t caller;
    zmq_msg_init(&head);
    zmq_msg_init(&body);
    if (zmq_msg_recv(&head, load->socket, 0) < 0 || zmq_msg_recv(&body, load->socket, 0) < 0)
        fail("receive");
    memcpy(&caller, zmq_msg_data(&head), sizeof caller);
    const unsigned char *sent = load->text + caller, *came = zmq_msg_data(&body);
    size_t ends = load->payload < 64 ? load->payload : 64, last = load->payload - ends;
    int whole = load->payload <= 4096 || ++load->compared % 64 == 0;
    if (zmq_msg_size(&head) != sizeof caller || caller >= load->in_flight || zmq_msg_size(&body) != load->payload
        || (whole ? memcmp(sent, came, load->payload)
                  : memcmp(sent, came, ends) || memcmp(sent + last, came + last, ends))) {
        fprintf(stderr, "zeromq: a reply is not what was sent\n");
        exit(1);
    }
    zmq_msg_close(&head);
    zmq_msg_close(&body);
    return caller;
}

static int ascending(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static double quantile(const double *sorted, size_t count, double part)
{
    size_t at = (size_t)(part * (double)count);
    return count ? sorted[at < count ? at : count - 1] * 1e6 : 0;
}

static int load(char **argv)
{
    struct load load = {0};
    double warmup = atof(argv[5]), seconds = atof(argv[6]), begin = 0, end = 0, own[2] = {0}, server[2] = {0};
    unsigned long long budget = strtoull(argv[7], NULL, 10), left = budget, calls = 0;
    int pid = atoi(argv[8]);
    clockid_t server_clock = 0;
    size_t samples = 0, open = 0;
    double *taken = malloc(SAMPLES * sizeof *taken);
    uint32_t state = 0x9E3779B9;

    load.payload = strtoull(argv[2], NULL, 10);
    load.connections = strtoull(argv[3], NULL, 10);
    load.in_flight = strtoull(argv[4], NULL, 10) * load.connections;
    load.text = malloc(load.payload + load.in_flight);
    load.began = calloc(load.in_flight, sizeof *load.began);
    if (!taken || !load.text || !load.began || (pid && clock_getcpuclockid(pid, &server_clock)))
        fail("begin");
    for (size_t at = 0; at < load.payload + load.in_flight; at++) {
        state ^= state << 13, state ^= state >> 17, state ^= state << 5;
        load.text[at] = (unsigned char)(state >> 24);
    }
    load.socket = open_socket(ZMQ_DEALER, argv[1], load.connections, zmq_connect);

    double start = now(), time = start;
    int measuring = 0;
    for (size_t caller = 0; caller < load.in_flight && (!budget || left); caller++, open++, left -= budget > 0)
        send_call(&load, caller);
    while (open) {
        if (!measuring && (budget || time - start >= warmup)) {
            measuring = 1, calls = 0, samples = 0, begin = budget ? start : time;
            own[0] = clock_of(CLOCK_PROCESS_CPUTIME_ID), server[0] = pid ? clock_of(server_clock) : 0;
        }
        if (measuring == 1 && !budget && time - begin >= seconds) {
            measuring = 2, end = time;
            own[1] = clock_of(CLOCK_PROCESS_CPUTIME_ID), server[1] = pid ? clock_of(server_clock) : 0;
        }
        uint64_t caller = receive_reply(&load);
        time = now();
        open--;
        if (measuring == 1) {
            calls++;
            if (samples < SAMPLES)
                taken[samples++] = time - load.began[caller];
        }
        if (measuring < 2 && (!budget || left)) {
            left -= budget > 0;
            send_call(&load, caller);
            open++;
        }
    }
    if (budget) {
        end = time;
        own[1] = clock_of(CLOCK_PROCESS_CPUTIME_ID), server[1] = pid ? clock_of(server_clock) : 0;
    }
    if (!calls) {
        fprintf(stderr, "zeromq: nothing was answered in time\n");
        return 1;
    }
    qsort(taken, samples, sizeof *taken, ascending);
    double each = 1e6 / (double)calls;
    printf("{\"target\":\"zeromq\",\"payload_octets\":%zu,\"connections\":%zu,\"in_flight\":%zu,\"mode\":\"closed\",\"rate\":null,"
           "\"seconds\":%.6f,\"calls\":%llu,\"calls_per_second\":%.3f,\"latency_samples\":%zu,\"latency_sample_every\":1,"
           "\"p50_us\":%.3f,\"p99_us\":%.3f,\"p999_us\":%.3f,\"max_us\":%.3f,\"not_begun\":0,\"server_cpu_us_per_call\":",
           load.payload, load.connections, load.in_flight / load.connections, end - begin, calls, (double)calls / (end - begin), samples,
           quantile(taken, samples, 0.5), quantile(taken, samples, 0.99), quantile(taken, samples, 0.999),
           quantile(taken, samples, 1.0));
    if (pid)
        printf("%.3f", (server[1] - server[0]) * each);
    else
        printf("null");
    printf(",\"client_cpu_us_per_call\":%.3f}\n", (own[1] - own[0]) * each);
    return 0;
}

int main(int argc, char **argv)
{
    int major, minor, patch;
    if (argc == 2 && !strcmp(argv[1], "version")) {
        zmq_version(&major, &minor, &patch);
        printf("%d.%d.%d\n", major, minor, patch);
        return 0;
    }
    if (argc == 3 && !strcmp(argv[1], "serve"))
        return serve(argv[2]);
    if (argc == 10 && !strcmp(argv[1], "load"))
        return load(argv + 1);
    fprintf(stderr, "zeromq: not understood\n");
    return 1;
}
