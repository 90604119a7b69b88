/* Makes system calls on the files of a process fail, as a bad disk would. Loaded by LD_PRELOAD; steered through a file
 * that both sides map: see io_faults.rs, which has the same layout. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

enum { WRITES = 1, SYNCS = 2, TRUNCATES = 4 };
enum { NOTHING = 0, FAILS = 1, SHORT = 2, SLOW = 3 };

struct control {
    uint32_t what;
    uint32_t calls;
    uint32_t error;
    /* How many calls are left that it happens to; the highest number stands for all. */
    uint32_t left;
    uint32_t hits;
    /* The end of the file's path, or, where it begins with a slash, the beginning. */
    char name[236];
};

static struct control *control;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("IO_FAULTS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED) control = mapped;
}

static int is_meant(int fd) {
    char link[64], path[4096];
    const char *name = control->name;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    size_t size = strlen(name);
    if (name[0] == '/') return strncmp(path, name, size) == 0;
    return (size_t)length >= size && strcmp(path + length - size, name) == 0;
}

/* What happens to this call. */
static uint32_t fault(int fd, uint32_t call) {
    if (!control) return NOTHING;
    uint32_t what = __atomic_load_n(&control->what, __ATOMIC_ACQUIRE);
    if (what == NOTHING || !(control->calls & call)) return NOTHING;
    int kept = errno;
    int meant = is_meant(fd);
    errno = kept;
    if (!meant) return NOTHING;
    uint32_t left = __atomic_load_n(&control->left, __ATOMIC_ACQUIRE);
    while (left != UINT32_MAX) {
        if (left == 0) return NOTHING;
        if (__atomic_compare_exchange_n(&control->left, &left, left - 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) break;
    }
    __atomic_add_fetch(&control->hits, 1, __ATOMIC_ACQ_REL);
    if (what == SLOW) usleep(300 * 1000);
    return what;
}

#define REAL(call) \
    static __typeof__(&call) real; \
    if (!real) real = (__typeof__(&call))dlsym(RTLD_NEXT, #call)
#define FAIL_IF(call) \
    uint32_t what = fault(fd, call); \
    if (what == FAILS) { errno = (int)control->error; return -1; }
#define SHORTEN \
    if (what == SHORT && count > 1) count = (count + 1) / 2

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(write);
    FAIL_IF(WRITES);
    SHORTEN;
    return real(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    REAL(pwrite);
    FAIL_IF(WRITES);
    SHORTEN;
    return real(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    REAL(pwrite64);
    FAIL_IF(WRITES);
    SHORTEN;
    return real(fd, bytes, count, at);
}

int fsync(int fd) {
    REAL(fsync);
    FAIL_IF(SYNCS);
    return real(fd);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    FAIL_IF(SYNCS);
    return real(fd);
}

int ftruncate(int fd, off_t length) {
    REAL(ftruncate);
    FAIL_IF(TRUNCATES);
    return real(fd, length);
}

int ftruncate64(int fd, off64_t length) {
    REAL(ftruncate64);
    FAIL_IF(TRUNCATES);
    return real(fd, length);
}
