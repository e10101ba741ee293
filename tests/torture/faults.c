/* Preloaded into a command: its n-th change of a file below FAULT_BELOW fails, ends the process, or moves the clock.

   FAULT_STATE is a file of 8,192 bytes that all processes of the command map: the count of changes, the count of each
   kind from a to z, then the path of the change that was hit, and that of the last one. FAULT_AT is n, from 1; 0 only
   counts. FAULT_DO is an errno, "kill", or "clock:SECONDS". FAULT_ON has a letter for each kind of change that counts:
   w write, s sync, m rename, o open for writing, d remove, r read (of a file opened for reading). FAULT_STAYS=1: every
   later one fails too, as on a full disk. */
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
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct state {
    atomic_long count, each['z' - 'a' + 1];
    char path[3900], last[3900];
};

#define SIZE 8192

static struct state* state;
static long at, shift;
static int error, kills, stays;
static const char *below, *on;

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void prepare(void) {
    const char *file = getenv("FAULT_STATE"), *what = getenv("FAULT_DO");
    if (!file || !what) return;
    int descriptor = NEXT(open)(file, O_RDWR);
    if (descriptor < 0) return;
    state = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (state == MAP_FAILED) abort();
    at = atol(getenv("FAULT_AT"));
    below = getenv("FAULT_BELOW");
    on = getenv("FAULT_ON");
    stays = getenv("FAULT_STAYS") != NULL;
    kills = strcmp(what, "kill") == 0;
    if (strncmp(what, "clock:", 6) == 0)
        shift = atol(what + 6);
    else if (!kills)
        error = atoi(what);
}

/* What the command prints is no file of the case: FAULT_BELOW.stdout and FAULT_BELOW.stderr. */
static int counts(const char* path) {
    size_t length = strlen(path);
    return strncmp(path, below, strlen(below)) == 0 && !(length > 7 && strncmp(path + length - 7, ".std", 4) == 0);
}

/* Count a change of this kind. 1 where it has to fail, with errno set. */
static int hit(char kind, const char* path) {
    if (!state || !strchr(on, kind) || !counts(path)) return 0;
    atomic_fetch_add(&state->each[kind - 'a'], 1);
    long now = atomic_fetch_add(&state->count, 1) + 1;
    if (at == 0 || now < at || (now > at && !stays)) return 0;
    if (now == at) snprintf(state->path, sizeof state->path, "%c %s", kind, path);
    snprintf(state->last, sizeof state->last, "%c %s", kind, path);
    if (kills) kill(getpid(), SIGKILL);
    if (!error) return 0;
    errno = error;
    return 1;
}

static int hit_open(char kind, int descriptor) {
    char link[64], path[PATH_MAX];
    if (!state || !strchr(on, kind)) return 0;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return hit(kind, path);
}

static int hit_at(char kind, int folder, const char* name) {
    char link[64], path[PATH_MAX + 4096];
    if (!state || !strchr(on, kind)) return 0;
    if (name[0] == '/') return hit(kind, name);
    int before = errno;
    ssize_t length = 0;
    if (folder == AT_FDCWD) {
        if (getcwd(path, PATH_MAX)) length = (ssize_t)strlen(path);
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        length = readlink(link, path, PATH_MAX);
    }
    errno = before;
    if (length <= 0) return 0;
    snprintf(path + length, 4096, "/%s", name);
    return hit(kind, path);
}

ssize_t write(int fd, const void* bytes, size_t size) { return hit_open('w', fd) ? -1 : NEXT(write)(fd, bytes, size); }
ssize_t pwrite(int fd, const void* bytes, size_t size, off_t place) {
    return hit_open('w', fd) ? -1 : NEXT(pwrite)(fd, bytes, size, place);
}
ssize_t pwrite64(int fd, const void* bytes, size_t size, off64_t place) {
    return hit_open('w', fd) ? -1 : NEXT(pwrite64)(fd, bytes, size, place);
}
ssize_t writev(int fd, const struct iovec* parts, int count) {
    return hit_open('w', fd) ? -1 : NEXT(writev)(fd, parts, count);
}
ssize_t sendfile(int to, int from, off_t* place, size_t size);
ssize_t sendfile(int to, int from, off_t* place, size_t size) {
    return hit_open('w', to) ? -1 : NEXT(sendfile)(to, from, place, size);
}
ssize_t copy_file_range(int from, off64_t* in, int to, off64_t* out, size_t size, unsigned flags) {
    return hit_open('w', to) ? -1 : NEXT(copy_file_range)(from, in, to, out, size, flags);
}
int ftruncate(int fd, off_t size) { return hit_open('w', fd) ? -1 : NEXT(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return hit_open('w', fd) ? -1 : NEXT(ftruncate64)(fd, size); }
ssize_t read(int fd, void* bytes, size_t size) { return hit_open('r', fd) ? -1 : NEXT(read)(fd, bytes, size); }
ssize_t pread(int fd, void* bytes, size_t size, off_t place) {
    return hit_open('r', fd) ? -1 : NEXT(pread)(fd, bytes, size, place);
}
ssize_t pread64(int fd, void* bytes, size_t size, off64_t place) {
    return hit_open('r', fd) ? -1 : NEXT(pread64)(fd, bytes, size, place);
}
int fsync(int fd) { return hit_open('s', fd) ? -1 : NEXT(fsync)(fd); }
int fdatasync(int fd) { return hit_open('s', fd) ? -1 : NEXT(fdatasync)(fd); }

int rename(const char* from, const char* to) { return hit_at('m', AT_FDCWD, to) ? -1 : NEXT(rename)(from, to); }
int renameat(int from_folder, const char* from, int to_folder, const char* to) {
    return hit_at('m', to_folder, to) ? -1 : NEXT(renameat)(from_folder, from, to_folder, to);
}
int unlink(const char* path) { return hit_at('d', AT_FDCWD, path) ? -1 : NEXT(unlink)(path); }
int rmdir(const char* path) { return hit_at('d', AT_FDCWD, path) ? -1 : NEXT(rmdir)(path); }
int unlinkat(int folder, const char* path, int flags) {
    return hit_at('d', folder, path) ? -1 : NEXT(unlinkat)(folder, path, flags);
}

#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT))
#define MODE(flags)                          \
    mode_t mode = 0;                         \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list rest;                        \
        va_start(rest, flags);               \
        mode = va_arg(rest, mode_t);         \
        va_end(rest);                        \
    }
int open(const char* path, int flags, ...) {
    MODE(flags)
    return WRITES(flags) && hit_at('o', AT_FDCWD, path) ? -1 : NEXT(open)(path, flags, mode);
}
int open64(const char* path, int flags, ...) {
    MODE(flags)
    return WRITES(flags) && hit_at('o', AT_FDCWD, path) ? -1 : NEXT(open64)(path, flags, mode);
}
int openat(int folder, const char* path, int flags, ...) {
    MODE(flags)
    return WRITES(flags) && hit_at('o', folder, path) ? -1 : NEXT(openat)(folder, path, flags, mode);
}
int openat64(int folder, const char* path, int flags, ...) {
    MODE(flags)
    return WRITES(flags) && hit_at('o', folder, path) ? -1 : NEXT(openat64)(folder, path, flags, mode);
}

/* The clock that a person sets jumps at the n-th change; the clock that only counts seconds does not. */
static time_t moved(void) { return shift && state && at > 0 && atomic_load(&state->count) >= at ? shift : 0; }

int clock_gettime(clockid_t clock, struct timespec* now) {
    int status = NEXT(clock_gettime)(clock, now);
    if (status == 0 && clock == CLOCK_REALTIME) now->tv_sec += moved();
    return status;
}
int gettimeofday(struct timeval* now, void* zone) {
    int status = NEXT(gettimeofday)(now, zone);
    if (status == 0) now->tv_sec += moved();
    return status;
}
time_t time(time_t* into) {
    time_t now = NEXT(time)(NULL) + moved();
    if (into) *into = now;
    return now;
}
