/* Makes the nth call that writes, syncs, cuts or renames a file below a folder fail; counts them all.
 *
 * LD_PRELOADed. `fault_arm(folder, at, what)`: `at` counts from 1, 0 counts only. `what` is
 *   "EIO", "ENOSPC"   the call fails and does nothing;
 *   "short"           a write takes half of its bytes, and the next call of all fails with ENOSPC;
 *   "half"            a write takes half of its bytes, and says so: what follows works;
 *   "lasting"         this call and all after it fail with ENOSPC (what gives room back still works), until
 *                     `fault_disarm()`, which returns how many calls were struck.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NONE, FAIL, HALF };
enum { MOST_CALLS = 1 << 16 };

static char folder[PATH_MAX], what[16], trace[MOST_CALLS + 1];
static long at, calls, struck;
static int armed;

void fault_arm(const char *below, long nth, const char *kind) {
    snprintf(folder, sizeof folder, "%s/", below);
    snprintf(what, sizeof what, "%s", kind);
    memset(trace, 0, sizeof trace);
    at = nth, calls = struck = 0;
    __atomic_store_n(&armed, 1, __ATOMIC_SEQ_CST);
}

int fault_disarm(void) {
    __atomic_store_n(&armed, 0, __ATOMIC_SEQ_CST);
    return (int)struck;
}

const char *fault_trace(void) { return trace; }

static int below(const char *path) {
    return strncmp(path, folder, strlen(folder)) == 0 ||
           (strlen(path) + 1 == strlen(folder) && strncmp(path, folder, strlen(path)) == 0);
}

static int verdict_at(const char *path, char letter) {
    if (!below(path)) return NONE;
    long number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (number <= MOST_CALLS) trace[number - 1] = letter;
    int writes = letter == 'w';
    if (!at || number < at) return NONE;
    if (strcmp(what, "lasting") == 0 && letter == 't') return NONE;
    if (number > at && strcmp(what, "lasting") != 0 && !(number == at + 1 && strcmp(what, "short") == 0))
        return NONE;
    __atomic_add_fetch(&struck, 1, __ATOMIC_SEQ_CST);
    if (writes && number == at && (strcmp(what, "short") == 0 || strcmp(what, "half") == 0)) return HALF;
    errno = strcmp(what, "EIO") == 0 ? EIO : ENOSPC;
    return FAIL;
}

static int verdict(int fd, char letter) {
    if (!__atomic_load_n(&armed, __ATOMIC_SEQ_CST)) return NONE;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return NONE;
    path[n] = 0;
    return verdict_at(path, letter);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define HALF_OF(n) ((n) > 1 ? (n) / 2 : (n))

#define WRITING(name, parameters, count, ...)               \
    ssize_t name parameters {                               \
        static __typeof__(&name) real;                      \
        if (!real) real = REAL(name);                       \
        switch (verdict(fd, 'w')) {                         \
        case FAIL: return -1;                               \
        case HALF: count = HALF_OF(count); break;           \
        }                                                   \
        return real(__VA_ARGS__);                           \
    }
#define CALL(letter, name, parameters, ...)                 \
    int name parameters {                                   \
        static __typeof__(&name) real;                      \
        if (!real) real = REAL(name);                       \
        return verdict(fd, letter) == NONE ? real(__VA_ARGS__) : -1; \
    }

WRITING(write, (int fd, const void *data, size_t n), n, fd, data, n)
WRITING(pwrite, (int fd, const void *data, size_t n, off_t offset), n, fd, data, n, offset)
WRITING(pwrite64, (int fd, const void *data, size_t n, off64_t offset), n, fd, data, n, offset)
WRITING(writev, (int fd, const struct iovec *parts, int n), n, fd, parts, n)
CALL('s', fsync, (int fd), fd)
CALL('s', fdatasync, (int fd), fd)
CALL('t', ftruncate, (int fd, off_t length), fd, length)
CALL('t', ftruncate64, (int fd, off64_t length), fd, length)

static int renaming(const char *to) {
    return __atomic_load_n(&armed, __ATOMIC_SEQ_CST) ? verdict_at(to, 'r') : NONE;
}

int rename(const char *from, const char *to) {
    return renaming(to) == NONE ? REAL(rename)(from, to) : -1;
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    return renaming(to) == NONE ? REAL(renameat)(from_folder, from, to_folder, to) : -1;
}
