/*
 * For servers that listen on TCP alone: `forward PORT PROGRAM [ARGUMENT...]` runs PROGRAM, and carries connections to the worker's Unix
 * socket on to 127.0.0.1:PORT. A sealed container has no network but its own loopback, which nobody else can reach.
 *
 * - The socket appears when the program answers GET /health with 200, and the controller is told so by a datagram to NOTIFY_SOCKET.
 * - Bytes are carried as they come, each way with a bounded buffer: who reads slowly slows down the other side and nobody else. The
 *   end of one direction is passed on as such; a caller that hangs up is a connection that is reset, so that the server stops working.
 * - SIGTERM and SIGINT are passed on. When the program ends, so does this process: with its code, or 128 and its signal, once what it
 *   had still written has been delivered.
 *
 * One thread and no allocation beyond the connections: the memory and the processors of the box are for the model.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SOCKET "/run/worker/worker.sock"
#define MOST_PAIRS 512
#define BUFFER_BYTES ((size_t)64 << 10)
#define BACKLOG 128
#define ASK_PAUSE_MS 50
#define ASK_LIMIT_S 2
#define DRAIN_S 2.0

enum { CALLER, SERVER, SIDES };

/* What was read from one side and is still to be written to the other. */
struct side {
    int fd;
    int ended;  /* it writes no more */
    int closed; /* and has been told that the other writes no more */
    size_t from, to;
    char buffer[BUFFER_BYTES];
};

struct pair {
    struct side sides[SIDES];
};

static struct pair *pairs[MOST_PAIRS];
static struct pollfd polled[2 + MOST_PAIRS * SIDES];
static int count, listening = -1, crowded;

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int dial(int port, int flags) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0) {
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Whether the server answers, and that it is well. */
static int is_ready(int port) {
    static const char request[] = "GET /health HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n";
    struct timeval limit = {.tv_sec = ASK_LIMIT_S};
    char answer[16] = "", rest[1024];
    size_t got = 0;
    int fd = dial(port, 0);
    if (fd < 0) {
        return 0;
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) == (ssize_t)sizeof request - 1) {
        ssize_t more;
        while (got < sizeof answer - 1 && (more = recv(fd, answer + got, sizeof answer - 1 - got, 0)) > 0) {
            got += (size_t)more;
        }
        while (recv(fd, rest, sizeof rest, 0) > 0) { /* to its end: a server that is cut off writes that into its log */
        }
    }
    close(fd);
    return !strncmp(answer, "HTTP/1.1 200", 12) || !strncmp(answer, "HTTP/1.0 200", 12);
}

static int open_socket(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink(SOCKET); /* what a killed worker left behind is in the way, and of no use */
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, BACKLOG)) {
        perror(SOCKET);
        exit(1);
    }
    return fd;
}

static void say_ready(double began_s) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    char text[128];
    int fd;
    if (!path || strlen(path) >= sizeof address.sun_path || (fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) < 0) {
        return;
    }
    strcpy(address.sun_path, path);
    snprintf(text, sizeof text, "READY=1\nX_WINDLASS_MARKS=main:%.6f ready:%.6f\n", began_s, now_s());
    (void)sendto(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address, sizeof address);
    close(fd);
}

static void drop(int number) {
    struct linger reset = {.l_onoff = 1};
    struct pair *pair = pairs[number];
    /* The server takes a reset for what it is; an orderly end it would notice when it next writes. */
    setsockopt(pair->sides[SERVER].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(pair->sides[SERVER].fd);
    close(pair->sides[CALLER].fd);
    free(pair);
    pairs[number] = pairs[--count];
    crowded = 0;
}

static void take_callers(int port) {
    while (count < MOST_PAIRS) {
        int caller = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), server;
        struct pair *pair;
        if (caller < 0) {
            crowded = errno != EAGAIN && errno != EINTR && errno != ECONNABORTED; /* until somebody leaves */
            return;
        }
        server = dial(port, SOCK_NONBLOCK);
        pair = server < 0 ? NULL : malloc(sizeof *pair);
        if (!pair) {
            close(caller);
            if (server >= 0) {
                close(server);
            }
            continue;
        }
        for (int which = 0; which < SIDES; which++) {
            struct side *side = &pair->sides[which];
            side->fd = which == CALLER ? caller : server;
            side->ended = side->closed = 0;
            side->from = side->to = 0;
        }
        pairs[count++] = pair;
    }
}

/* Read from one side what fits; 0 if the connection is broken. */
static int fill(struct side *side) {
    ssize_t got;
    if (side->ended || side->from != side->to) {
        return 1;
    }
    got = recv(side->fd, side->buffer, BUFFER_BYTES, 0);
    if (got > 0) {
        int on = 1;
        /* A server that writes head and body apart waits 40 ms between them for a word that its first part has come. */
        setsockopt(side->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
        side->from = 0;
        side->to = (size_t)got;
    } else if (got == 0) {
        side->ended = 1;
    } else {
        return errno == EAGAIN || errno == EINTR || errno == ENOTCONN;
    }
    return 1;
}

/* Write to the other side what was read, and that there is no more; 0 if the connection is broken. */
static int pour(struct side *side, struct side *other) {
    while (side->from < side->to) {
        ssize_t put = send(other->fd, side->buffer + side->from, side->to - side->from, MSG_NOSIGNAL);
        if (put < 0) {
            return errno == EAGAIN || errno == EINTR;
        }
        side->from += (size_t)put;
    }
    if (side->ended && !other->closed) {
        other->closed = 1;
        shutdown(other->fd, SHUT_WR);
    }
    return 1;
}

/* Carry on; 0 if this pair is done with. */
static int carry(struct pair *pair, short caller_events) {
    struct side *caller = &pair->sides[CALLER], *server = &pair->sides[SERVER];
    if (caller_events & (POLLHUP | POLLERR | POLLNVAL)) {
        return 0; /* it has hung up: nobody hears the answer */
    }
    if (!fill(caller) || !pour(caller, server)) {
        return 0;
    }
    if (!fill(server)) {
        server->ended = 1; /* broken off; what was read before is delivered */
    }
    if (!pour(server, caller)) {
        return 0;
    }
    return !(caller->closed && server->closed);
}

static short wanted(const struct side *side, const struct side *other) {
    short events = 0;
    if (!side->ended && side->from == side->to) {
        events |= POLLIN;
    }
    if (other->from < other->to) {
        events |= POLLOUT;
    }
    return events;
}

/* Wait for something to happen to any connection, or to us. */
static void watch(int signals, int timeout_ms) {
    polled[0] = (struct pollfd){.fd = signals, .events = POLLIN};
    polled[1] = (struct pollfd){.fd = crowded || count == MOST_PAIRS ? -1 : listening, .events = POLLIN};
    for (int number = 0; number < count; number++) {
        struct side *caller = &pairs[number]->sides[CALLER], *server = &pairs[number]->sides[SERVER];
        short events = wanted(server, caller);
        polled[2 + 2 * number] = (struct pollfd){.fd = caller->fd, .events = wanted(caller, server)};
        /* Of a server that has gone poll() would tell again and again, while its last words are not delivered. */
        polled[3 + 2 * number] = (struct pollfd){.fd = events ? server->fd : -1, .events = events};
    }
    while (poll(polled, (nfds_t)(2 + 2 * count), timeout_ms) < 0 && errno == EINTR) {
    }
}

static void carry_all(void) {
    for (int number = count - 1; number >= 0; number--) { /* from the end, as dropping moves the last one down */
        short caller = polled[2 + 2 * number].revents, server = polled[3 + 2 * number].revents;
        if ((caller || server) && !carry(pairs[number], caller)) {
            drop(number);
        }
    }
}

/* Pass signals on, and bury whoever has ended; the exit status of the program if that was one of them, else -1. */
static int heed(int signals, pid_t child) {
    struct signalfd_siginfo told;
    int status, ended = -1;
    pid_t pid;
    while (read(signals, &told, sizeof told) == sizeof told) {
        if (told.ssi_signo != SIGCHLD) {
            kill(child, (int)told.ssi_signo);
        }
    }
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == child) {
            ended = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
    }
    return ended;
}

static int has_last_words(void) {
    for (int number = 0; number < count; number++) {
        const struct side *server = &pairs[number]->sides[SERVER];
        if (!server->ended || server->from < server->to) {
            return 1;
        }
    }
    return 0;
}

static void deliver_last_words(int signals) {
    double until_s = now_s() + DRAIN_S;
    close(listening);
    listening = -1;
    while (has_last_words() && now_s() < until_s) {
        watch(signals, 100);
        carry_all();
    }
}

int main(int argc, char **argv) {
    double began_s = now_s();
    int port = argc > 2 ? atoi(argv[1]) : 0, signals, status;
    sigset_t ours, before;
    pid_t child;
    if (port < 1 || port > 65535) {
        fprintf(stderr, "usage: forward PORT PROGRAM [ARGUMENT...]\n");
        return 64;
    }
    umask(0007);
    signal(SIGCHLD, SIG_DFL); /* whoever ignores it is told nothing of its children, and that is inherited */
    sigemptyset(&ours);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGCHLD);
    sigprocmask(SIG_BLOCK, &ours, &before);
    signals = signalfd(-1, &ours, SFD_NONBLOCK | SFD_CLOEXEC);
    child = signals < 0 ? -1 : fork();
    if (child == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execvp(argv[2], argv + 2);
        perror(argv[2]);
        _exit(127);
    }
    if (child < 0) {
        perror("forward");
        return 1;
    }
    while ((status = heed(signals, child)) < 0) {
        watch(signals, listening < 0 ? ASK_PAUSE_MS : -1);
        carry_all();
        if (listening < 0 && is_ready(port)) {
            listening = open_socket();
            say_ready(began_s);
        } else if (polled[1].revents) {
            take_callers(port);
        }
    }
    unlink(SOCKET);
    if (listening >= 0) {
        deliver_last_words(signals);
    }
    return status;
}
