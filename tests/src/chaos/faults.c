// Loaded into a process under test (LD_PRELOAD): its wall clock jumps, its disk is full. The test says so in a small file
// that is mapped here, so a running process hears of it at once. Files that are appended to (logs) are spared.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct faults {
    int64_t clock_seconds; // added to the wall clock
    int64_t disk_full;     // not 0: nothing can be written to regular files
};

static volatile struct faults *faults;

__attribute__((constructor)) static void map_faults(void) {
    const char *path = getenv("LOCKSTEP_FAULTS");
    int fd = path ? open(path, O_RDONLY) : -1;
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof(struct faults), PROT_READ, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) faults = map;
    close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    long failed = syscall(SYS_clock_gettime, clock, time);
    if (!failed && clock == CLOCK_REALTIME && faults) time->tv_sec += faults->clock_seconds;
    return (int)failed;
}

static int on_the_full_disk(int fd) {
    struct stat file;
    if (!faults || !faults->disk_full || fstat(fd, &file) || !S_ISREG(file.st_mode)) return 0;
    return !(fcntl(fd, F_GETFL) & O_APPEND);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (!on_the_full_disk(fd)) return syscall(SYS_write, fd, bytes, count);
    errno = ENOSPC;
    return -1;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at) {
    if (!on_the_full_disk(fd)) return syscall(SYS_pwrite64, fd, bytes, count, at);
    errno = ENOSPC;
    return -1;
}
