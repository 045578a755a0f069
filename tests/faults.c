/* Counts what a process does to files under one folder, and at the n-th of these calls kills the process (at a write:
   after half of it) or, from then on, says that the disk is full. Loaded with LD_PRELOAD; armed by `arm`. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, COUNT, KILL, FULL };
static int mode = OFF;
static long limit = 0;
static atomic_long calls = 0;
static char under[PATH_MAX];

void arm(int how, long at, const char *folder) {
    snprintf(under, sizeof under, "%s", folder);
    limit = at;
    calls = 0;
    mode = how;
}

long counted(void) { return calls; }

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

static int is_path(int dirfd, const char *path) {
    char whole[2 * PATH_MAX], link[64];
    if (mode == OFF || path == NULL) return 0;
    if (path[0] != '/' && dirfd != AT_FDCWD) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
        ssize_t n = readlink(link, whole, PATH_MAX);
        if (n < 0) return 0;
        whole[n] = 0;
        return strncmp(whole, under, strlen(under)) == 0;
    }
    return strncmp(path, under, strlen(under)) == 0;
}

static int is_fd(int fd) { return mode != OFF && is_path(fd, "."); }

/* Whether the call is to fail; does not return where it is to be the last. */
static int fault(int needs_room) {
    long now = atomic_fetch_add(&calls, 1) + 1;
    if (mode == KILL && now == limit) kill(getpid(), SIGKILL), pause();
    if (mode == FULL && now >= limit && needs_room) { errno = ENOSPC; return 1; }
    return 0;
}

static int last_write(void) {
    if (mode == KILL && calls + 1 == limit) return 1;
    return 0;
}

ssize_t write(int fd, const void *data, size_t n) {
    if (is_fd(fd)) {
        if (last_write()) REAL(write)(fd, data, n / 2);
        if (fault(1)) return -1;
    }
    return REAL(write)(fd, data, n);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    if (is_fd(fd)) {
        if (last_write()) REAL(pwrite)(fd, data, n / 2, at);
        if (fault(1)) return -1;
    }
    return REAL(pwrite)(fd, data, n, at);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    if (is_fd(fd)) {
        if (last_write()) REAL(pwrite64)(fd, data, n / 2, at);
        if (fault(1)) return -1;
    }
    return REAL(pwrite64)(fd, data, n, at);
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
    if (is_fd(fd) && fault(1)) return -1;
    return REAL(writev)(fd, parts, n);
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t n, unsigned flags) {
    if (is_fd(out) && fault(1)) return -1;
    return REAL(copy_file_range)(in, from, out, to, n, flags);
}

static mode_t mode_of(int flags, va_list rest) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; }

#define OPENS(name)                                                                   \
    int name(const char *path, int flags, ...) {                                      \
        va_list rest;                                                                 \
        va_start(rest, flags);                                                        \
        mode_t how = mode_of(flags, rest);                                            \
        va_end(rest);                                                                 \
        if (flags & (O_CREAT | O_TRUNC) && is_path(AT_FDCWD, path) && fault(1)) return -1; \
        return REAL(name)(path, flags, how);                                          \
    }
#define OPENS_AT(name)                                                                \
    int name(int dirfd, const char *path, int flags, ...) {                           \
        va_list rest;                                                                 \
        va_start(rest, flags);                                                        \
        mode_t how = mode_of(flags, rest);                                            \
        va_end(rest);                                                                 \
        if (flags & (O_CREAT | O_TRUNC) && is_path(dirfd, path) && fault(1)) return -1; \
        return REAL(name)(dirfd, path, flags, how);                                   \
    }
OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)

#define ON_PATH(name, room, dirfd, shown, parameters, arguments)                      \
    int name parameters {                                                             \
        if (is_path(dirfd, shown) && fault(room)) return -1;                          \
        return REAL(name) arguments;                                                  \
    }
ON_PATH(mkdir, 1, AT_FDCWD, p, (const char *p, mode_t m), (p, m))
ON_PATH(rmdir, 0, AT_FDCWD, p, (const char *p), (p))
ON_PATH(unlink, 0, AT_FDCWD, p, (const char *p), (p))
ON_PATH(unlinkat, 0, d, p, (int d, const char *p, int f), (d, p, f))
ON_PATH(rename, 0, AT_FDCWD, b, (const char *a, const char *b), (a, b))
ON_PATH(renameat, 0, e, b, (int d, const char *a, int e, const char *b), (d, a, e, b))
ON_PATH(renameat2, 0, e, b, (int d, const char *a, int e, const char *b, unsigned f), (d, a, e, b, f))
ON_PATH(link, 1, AT_FDCWD, b, (const char *a, const char *b), (a, b))
ON_PATH(linkat, 1, e, b, (int d, const char *a, int e, const char *b, int f), (d, a, e, b, f))

int ftruncate(int fd, off_t n) {
    if (is_fd(fd) && fault(0)) return -1;
    return REAL(ftruncate)(fd, n);
}
int ftruncate64(int fd, off64_t n) {
    if (is_fd(fd) && fault(0)) return -1;
    return REAL(ftruncate64)(fd, n);
}
