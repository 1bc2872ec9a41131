#pragma once
// Tell whoever started this process, by the sd_notify protocol, when it answers requests and how long each phase took to get there.
//
// One datagram, sent when the server is ready and only if NOTIFY_SOCKET names a Unix socket:
//     READY=1
//     X_WINDLASS_MARKS=main:1.002 listening:1.020 ...      (seconds of CLOCK_MONOTONIC, which all processes of a host share)
//     X_WINDLASS_READ_BYTES=4096                           (what this process itself has caused to be read from disks)
// Nothing here can fail a load: without a receiver, or with one that does not keep up, the datagram is lost and that is all.

#ifdef __linux__
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "llama.h"

namespace notify {

inline std::string marks;

inline void mark(const char * phase) {
    if (!getenv("NOTIFY_SOCKET") || marks.size() > 1024) {
        return;
    }
    timespec now {};
    clock_gettime(CLOCK_MONOTONIC, &now);
    char text[96];
    snprintf(text, sizeof(text), "%s%s:%lld.%06ld", marks.empty() ? "" : " ", phase, (long long) now.tv_sec, now.tv_nsec / 1000);
    marks += text;
}

// Whether parts of a conversation can be taken out of the cache of such a model, as is known of these families. The server computes
// two tokens to find out, with all the weights: half a second of a load that takes one. Every other family is still asked.
inline bool keeps_plain_cells(const llama_model * model) {
    static const char * const families[] = {
        "llama", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "gemma", "gemma2", "gemma3", "phi2", "phi3", "smollm3", "starcoder2", "olmo2",
    };
    char family[64] = "";
    if (llama_model_meta_val_str(model, "general.architecture", family, sizeof(family)) < 0 || llama_model_is_recurrent(model) ||
        llama_model_is_hybrid(model)) {
        return false;
    }
    for (const char * known : families) {
        if (strcmp(family, known) == 0) {
            return true;
        }
    }
    return false;
}

// What the kernel says this process has caused to be read from disks, page faults included; -1 where it does not say.
inline long long read_bytes() {
    long long bytes = -1;
    if (FILE * io = fopen("/proc/self/io", "r")) {
        char line[128];
        while (fgets(line, sizeof(line), io)) {
            if (sscanf(line, "read_bytes: %lld", &bytes) == 1) {
                break;
            }
        }
        fclose(io);
    }
    return bytes;
}

inline void ready() {
    mark("ready");
    const char * path = getenv("NOTIFY_SOCKET");
    sockaddr_un address {};
    address.sun_family = AF_UNIX;
    if (!path || !*path || strlen(path) >= sizeof(address.sun_path)) {
        return;
    }
    strcpy(address.sun_path, path);
    socklen_t length = sizeof(address);
    if (path[0] == '@') { // an abstract name
        address.sun_path[0] = 0;
        length = (socklen_t) (offsetof(sockaddr_un, sun_path) + strlen(path));
    }
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return;
    }
    const std::string text = "READY=1\nX_WINDLASS_MARKS=" + marks + "\nX_WINDLASS_READ_BYTES=" + std::to_string(read_bytes()) + "\n";
    if (sendto(fd, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL, (sockaddr *) &address, length) < 0) {
        perror("notify: READY was not delivered");
    }
    close(fd);
}

} // namespace notify
#else
#include "llama.h"
namespace notify {
inline void mark(const char *) {}
// What the kernel says this process has caused to be read from disks, page faults included; -1 where it does not say.
inline long long read_bytes() {
    long long bytes = -1;
    if (FILE * io = fopen("/proc/self/io", "r")) {
        char line[128];
        while (fgets(line, sizeof(line), io)) {
            if (sscanf(line, "read_bytes: %lld", &bytes) == 1) {
                break;
            }
        }
        fclose(io);
    }
    return bytes;
}

inline void ready() {}
} // namespace notify
#endif
