/*
 * The entry point of a worker: `serve PROGRAM [ARGUMENT...]` becomes PROGRAM when it may.
 *
 * - Its files and sockets are open to the group (gateway and controller) and to nobody else.
 * - Where the run directory holds a file `read_ahead`, a child reads the files that WINDLASS_READ_AHEAD names (separated by colons)
 *   into the page cache, with several requests to the disk at once: page faults alone reach a fraction of the disk's speed. It is
 *   done here, since the kernel charges a page of a file to the container that reads it first.
 * - Where the run directory holds a FIFO `hold`, the program begins when somebody opens that for writing. Until then this process
 *   holds clean pages of files and no memory of its own, so it can wait beside a model that is leaving.
 * - In an image for GPUs (DRIVER names the library), it begins nothing where the container has no driver, unless the program is
 *   told `--device none`.
 *
 * The child says in one datagram to NOTIFY_SOCKET what it read and when; without a receiver it is lost, and that is all.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

#define RUN "/run/worker/"
#define THREADS 8
/* Long stretches, so that the kernel's own read-ahead runs ahead in each: 64 MiB read 1.7 times as fast as 8 MiB. */
#define CHUNK_BYTES ((size_t)64 << 20)
#define PIECE_BYTES ((size_t)1 << 20)

static struct {
    int fd;
    char *start;
    size_t bytes;
    atomic_size_t next;
} file;

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* What the kernel says this process has caused to be read from disks; -1 where it does not say. */
static long long read_bytes(void) {
    long long bytes = -1;
    char line[128];
    FILE *io = fopen("/proc/self/io", "r");
    if (io) {
        while (fgets(line, sizeof line, io) && sscanf(line, "read_bytes: %lld", &bytes) != 1) {
        }
        fclose(io);
    }
    return bytes;
}

/* For kernels that cannot populate a mapping. */
static int read_through(size_t from, size_t bytes) {
    static _Thread_local char *buffer;
    if (!buffer && !(buffer = malloc(PIECE_BYTES))) {
        return -1;
    }
    for (size_t done = 0; done < bytes;) {
        size_t piece = bytes - done < PIECE_BYTES ? bytes - done : PIECE_BYTES;
        ssize_t got = pread(file.fd, buffer, piece, (off_t)(from + done));
        if (got <= 0) {
            return -1;
        }
        done += (size_t)got;
    }
    return 0;
}

static void *read_chunks(void *unused) {
    (void)unused;
    for (;;) {
        size_t from = atomic_fetch_add(&file.next, CHUNK_BYTES);
        if (from >= file.bytes) {
            return NULL;
        }
        size_t bytes = file.bytes - from < CHUNK_BYTES ? file.bytes - from : CHUNK_BYTES;
        if (madvise(file.start + from, bytes, MADV_POPULATE_READ) && (errno != EINVAL || read_through(from, bytes))) {
            return NULL; /* the engine meets the same error and says more about it */
        }
    }
}

/* The mapping stays until this process ends: taking gigabytes of it away takes time, and the engine is waiting. */
static void read_file(const char *path) {
    struct stat found;
    pthread_t threads[THREADS];
    int started = 0;
    file.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (file.fd < 0 || fstat(file.fd, &found) || found.st_size <= 0) {
        perror(path);
        return;
    }
    file.bytes = (size_t)found.st_size;
    file.start = mmap(NULL, file.bytes, PROT_READ, MAP_SHARED, file.fd, 0);
    if (file.start != MAP_FAILED) {
        atomic_store(&file.next, 0);
        while (started < THREADS && !pthread_create(&threads[started], NULL, read_chunks, NULL)) {
            started++;
        }
        while (started > 0) {
            pthread_join(threads[--started], NULL);
        }
    }
    close(file.fd);
}

static void tell(const char *text) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    int fd;
    if (!path || strlen(path) >= sizeof address.sun_path || (fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) < 0) {
        return;
    }
    strcpy(address.sun_path, path);
    (void)sendto(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address, sizeof address);
    close(fd);
}

/* Begin to read, if that is wanted; say whether it is under way. */
static int read_ahead(char *paths) {
    char text[160];
    double began_s = now_s();
    if (!paths || access(RUN "read_ahead", F_OK)) {
        return 0;
    }
    if (fork() != 0) {
        return 1;
    }
    for (char *rest = NULL, *path = strtok_r(paths, ":", &rest); path; path = strtok_r(NULL, ":", &rest)) {
        read_file(path);
    }
    snprintf(text, sizeof text, "X_WINDLASS_READ=bytes:%lld began:%.6f ended:%.6f\n", read_bytes(), began_s, now_s());
    tell(text);
    _exit(0);
}

/* A server that finds no driver computes on the processors, many times slower, and answers as if all were well. */
static int lacks_driver(char **argv) {
#ifdef DRIVER
    for (char **word = argv; word[0] && word[1]; word++) {
        if (!strcmp(word[0], "--device") && !strcmp(word[1], "none")) {
            return 0;
        }
    }
    if (!dlopen(DRIVER, RTLD_LAZY | RTLD_LOCAL)) {
        fprintf(stderr, "serve: wanted NVIDIA's driver in this container, got: %s\n"
                        "serve: give it a GPU (--runtime nvidia, or --device with a name of the Container Device Interface), or say\n"
                        "serve: --device none to compute on the processors\n",
                dlerror());
        return 1;
    }
#else
    (void)argv;
#endif
    return 0;
}

int main(int argc, char **argv) {
    char *weights = getenv("WINDLASS_READ_AHEAD");
    int hold, reading;
    if (argc < 2) {
        fprintf(stderr, "usage: serve PROGRAM [ARGUMENT...]\n");
        return 64;
    }
    if (lacks_driver(argv)) {
        return 69; /* EX_UNAVAILABLE */
    }
    umask(0007);
    signal(SIGCHLD, SIG_IGN); /* nobody waits for the child, so the kernel does */
    reading = read_ahead(weights);
    hold = open(RUN "hold", O_RDONLY | O_CLOEXEC); /* waits for a writer; without that FIFO there is nothing to wait for */
    if (hold >= 0) {
        close(hold);
    }
    if (!reading) {
        read_ahead(weights); /* while it was held there may have been no room to read into */
    }
    execvp(argv[1], argv + 1);
    perror(argv[1]);
    return 127;
}
