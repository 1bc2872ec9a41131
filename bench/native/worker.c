/*
 * A worker without a model: answers every request at once, so that what is measured is everything but the engine.
 *
 *   worker [--host SOCKET] [--port PORT] [anything else, ignored]
 *
 * It takes llama.cpp's command line, so that the controller starts it as it starts a real engine, in the same sealed container. One
 * process, one thread, epoll(7), HTTP/1.1 with content-length and keep-alive, which is all that its callers send.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 4096, BUFFER_BYTES = 64 * 1024, EVENTS = 256 };

/* What llama.cpp answers to a short chat, as long as such an answer is. */
static const char ANSWER[] =
    "{\"choices\":[{\"finish_reason\":\"stop\",\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"A windlass lifts what one "
    "person cannot.\"}}],\"created\":1760000000,\"model\":\"fake\",\"system_fingerprint\":\"b0\",\"object\":\"chat.completion\","
    "\"usage\":{\"completion_tokens\":9,\"prompt_tokens\":14,\"total_tokens\":23},\"id\":\"chatcmpl-0\",\"timings\":{\"cache_n\":0,"
    "\"prompt_n\":14,\"prompt_ms\":0.1,\"predicted_n\":9,\"predicted_ms\":0.1}}";
static const char HEALTHY[] = "{\"status\":\"ok\"}";

struct connection {
    size_t used;
    char data[BUFFER_BYTES + 1];
};

static struct connection *connections[MOST_CONNECTIONS];
static int poller;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void watch(int file) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = file};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, file, &event) != 0) fail("epoll_ctl");
}

static int listen_on(struct sockaddr *address, socklen_t length, int family) {
    int file = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    if (file < 0) fail("socket");
    setsockopt(file, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(file, address, length) != 0) fail("bind");
    if (listen(file, 1024) != 0) fail("listen");
    watch(file);
    return file;
}

static int listen_unix(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    unlink(path);
    umask(0007); /* the gateway is of our group, and a socket that nobody may write to cannot be connected to */
    return listen_on((struct sockaddr *)&address, sizeof address, AF_UNIX);
}

static int listen_tcp(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return listen_on((struct sockaddr *)&address, sizeof address, AF_INET);
}

static void drop(int file) {
    free(connections[file]);
    connections[file] = NULL;
    close(file);
}

static void answer(int file, const char *body, size_t size) {
    char text[2048];
    int length = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %zu\r\n\r\n", size);
    memcpy(text + length, body, size);
    if (write(file, text, (size_t)length + size) < 0 && errno != EPIPE && errno != ECONNRESET) perror("write");
}

/* Answer one whole request at the start of the buffer and return its length; 0 while it is not whole, -1 if it is no request. */
static long serve(int file, struct connection *one) {
    one->data[one->used] = '\0';
    char *end = strstr(one->data, "\r\n\r\n");
    if (end == NULL) return one->used == BUFFER_BYTES ? -1 : 0;
    *end = '\0';
    char *length = strcasestr(one->data, "\r\ncontent-length:");
    size_t whole = (size_t)(end - one->data) + 4 + (length ? strtoul(length + 17, NULL, 10) : 0);
    int is_get = strncmp(one->data, "GET ", 4) == 0;
    *end = '\r';
    if (whole > BUFFER_BYTES) return -1;
    if (one->used < whole) return 0;
    if (is_get)
        answer(file, HEALTHY, sizeof HEALTHY - 1);
    else
        answer(file, ANSWER, sizeof ANSWER - 1);
    return (long)whole;
}

static void receive(int file) {
    struct connection *one = connections[file];
    ssize_t got = read(file, one->data + one->used, BUFFER_BYTES - one->used);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        drop(file);
        return;
    }
    one->used += (size_t)got;
    long done;
    while (one->used > 0 && (done = serve(file, one)) != 0) {
        if (done < 0) {
            drop(file);
            return;
        }
        one->used -= (size_t)done;
        memmove(one->data, one->data + done, one->used);
    }
}

static void admit(int listener) {
    int file, yes = 1;
    while ((file = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (file >= MOST_CONNECTIONS || (connections[file] = calloc(1, sizeof(struct connection))) == NULL) {
            close(file);
            continue;
        }
        setsockopt(file, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        watch(file);
    }
}

static void stop(int number) {
    (void)number;
    _exit(0);
}

int main(int count, char **words) {
    int listeners[2] = {-1, -1};
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, stop); /* the first process of a container has no default for it */
    if ((poller = epoll_create1(0)) < 0) fail("epoll_create1");
    for (int i = 1; i + 1 < count; i++) {
        if (strcmp(words[i], "--host") == 0) listeners[0] = listen_unix(words[i + 1]);
        if (strcmp(words[i], "--port") == 0) listeners[1] = listen_tcp(atoi(words[i + 1]));
    }
    if (listeners[0] < 0 && listeners[1] < 0) {
        fprintf(stderr, "worker: wanted --host SOCKET or --port PORT, got neither\n");
        return 2;
    }
    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int file = events[i].data.fd;
            if (file == listeners[0] || file == listeners[1])
                admit(file);
            else
                receive(file);
        }
    }
}
