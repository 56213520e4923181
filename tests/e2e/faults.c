/*
 * Loaded before the C library into a process under test: lets one system call fail.
 *
 * SEAL_TEST_FAULT is CALL:PART:AFTER:ERRNO. The call fails for files with PART in their path, from
 * the time on when it has succeeded AFTER times for them. CALL is pread, pwrite, fsync or flock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static atomic_long seen;

static int fails(const char *call, int fd)
{
    const char *fault = getenv("SEAL_TEST_FAULT");
    char name[16], part[256], link[64], path[4096];
    long after;
    int code;
    ssize_t length;

    if (!fault || sscanf(fault, "%15[^:]:%255[^:]:%ld:%d", name, part, &after, &code) != 4)
        return 0;
    if (strcmp(name, call) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    if (!strstr(path, part) || atomic_fetch_add(&seen, 1) < after)
        return 0;
    errno = code;
    return 1;
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t offset)
{
    static ssize_t (*real)(int, void *, size_t, off64_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "pread64");
    return fails("pread", fd) ? -1 : real(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "pwrite64");
    return fails("pwrite", fd) ? -1 : real(fd, bytes, count, offset);
}

int flock(int fd, int operation)
{
    static int (*real)(int, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "flock");
    return fails("flock", fd) ? -1 : real(fd, operation);
}

int fsync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fsync");
    return fails("fsync", fd) ? -1 : real(fd);
}
