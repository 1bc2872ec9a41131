/*
 * Ask an HTTP server in an open loop: requests leave at the times of a Poisson process, whether or not earlier ones were answered.
 *
 *   paced PORT RATE SECONDS HEADERS-FILE BODY-FILE
 *
 * Prints one latency in microseconds a line, each from the moment its request was due, so that a server that stalls is charged for
 * everybody who came meanwhile. wrk(1) only knows the closed loop, in which a slow server is asked less often. The same seed draws the
 * same arrivals in every run. Exits with 1 if an answer was not 200, was lost, or is late by more than five seconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 512, BUFFER_BYTES = 64 * 1024, TEXT_BYTES = 64 * 1024 };

static const double LAST_WAIT_S = 5.0;
static const double WARM_UP_S = 1.0;

struct connection {
    int file;
    int busy;
    double due_s;
    size_t used;
    char data[BUFFER_BYTES + 1];
};

static struct connection pool[CONNECTIONS];
static char request[2 * TEXT_BYTES];
static size_t request_bytes;
static long answered, sent, skipped;

static void fail(const char *what) {
    fprintf(stderr, "paced: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_s(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static size_t load(const char *path, char *into) {
    FILE *file = fopen(path, "r");
    if (file == NULL) fail(path);
    size_t size = fread(into, 1, TEXT_BYTES - 1, file);
    fclose(file);
    into[size] = '\0';
    return size;
}

static void compose(const char *headers_path, const char *body_path) {
    static char headers[TEXT_BYTES], body[TEXT_BYTES];
    load(headers_path, headers);
    size_t size = load(body_path, body);
    request_bytes = (size_t)snprintf(request, sizeof request, "%scontent-length: %zu\r\n\r\n%s", headers, size, body);
}

static void open_all(int port, int poller) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1;
    for (int i = 0; i < CONNECTIONS; i++) {
        int file = socket(AF_INET, SOCK_STREAM, 0);
        if (file < 0 || connect(file, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
        setsockopt(file, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        pool[i].file = file;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &pool[i]};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, file, &event) != 0) fail("epoll_ctl");
    }
}

/* The connection that was used last is taken first, as a client's pool does. */
static void send_one(double due_s) {
    for (int i = 0; i < CONNECTIONS; i++) {
        if (pool[i].busy) continue;
        pool[i].busy = 1;
        pool[i].due_s = due_s;
        pool[i].used = 0;
        if (write(pool[i].file, request, request_bytes) != (ssize_t)request_bytes) fail("write");
        sent++;
        return;
    }
    skipped++; /* as many are on their way as there are connections: counted as lost, and the run fails */
}

static void receive(struct connection *one, double began_s) {
    ssize_t got = read(one->file, one->data + one->used, BUFFER_BYTES - one->used);
    if (got <= 0) fail("the server closed a connection");
    one->used += (size_t)got;
    one->data[one->used] = '\0';
    char *end = strstr(one->data, "\r\n\r\n");
    if (end == NULL) return;
    char *length = strcasestr(one->data, "\r\ncontent-length:");
    if (length == NULL || length > end) {
        fprintf(stderr, "paced: wanted an answer with a length, got %.200s\n", one->data);
        exit(1);
    }
    if (one->used < (size_t)(end - one->data) + 4 + strtoul(length + 17, NULL, 10)) return;
    if (strncmp(one->data, "HTTP/1.1 200", 12) != 0) {
        fprintf(stderr, "paced: wanted status 200, got %.400s\n", one->data);
        exit(1);
    }
    one->busy = 0;
    answered++;
    if (one->due_s >= began_s + WARM_UP_S) printf("%.1f\n", (now_s() - one->due_s) * 1e6);
}

int main(int count, char **words) {
    if (count != 6) {
        fprintf(stderr, "usage: paced PORT RATE SECONDS HEADERS-FILE BODY-FILE\n");
        return 2;
    }
    double rate = atof(words[2]), seconds = atof(words[3]) + WARM_UP_S;
    int poller = epoll_create1(0);
    compose(words[4], words[5]);
    open_all(atoi(words[1]), poller);
    srand48(1);
    double began_s = now_s(), due_s = began_s;
    struct epoll_event events[CONNECTIONS];
    while (answered < sent || due_s < began_s + seconds) {
        double now = now_s();
        while (due_s < began_s + seconds && due_s <= now) {
            send_one(due_s);
            due_s += -log(1 - drand48()) / rate;
        }
        double wait_s = due_s < began_s + seconds ? due_s - now : LAST_WAIT_S;
        struct timespec pause = {.tv_sec = (time_t)wait_s, .tv_nsec = (long)((wait_s - floor(wait_s)) * 1e9)};
        int ready = epoll_pwait2(poller, events, CONNECTIONS, &pause, NULL);
        if (ready == 0 && wait_s >= LAST_WAIT_S) break;
        for (int i = 0; i < ready; i++) receive(events[i].data.ptr, began_s);
    }
    if (answered < sent || skipped > 0) {
        fprintf(stderr, "paced: %ld of %ld requests were never answered, %ld could not be sent\n", sent - answered, sent, skipped);
        return 1;
    }
    return 0;
}
