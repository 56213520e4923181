/*
 * Loaded before the C library into processes under test: counts calls that touch files, and lets
 * the one with a certain number fail.
 *
 * SEAL_CAMPAIGN_ROOT    only files below this directory
 * SEAL_CAMPAIGN_SHARED  a file of zeros for struct shared, for all processes that share it
 * SEAL_CAMPAIGN_FAULT   CALL:NUMBER:ERRNO:LASTING; the call with this number, from zero, fails, and
 *                       with LASTING 1 all after it too
 */
#define _GNU_SOURCE
#define _LARGEFILE64_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

/* In the order of CALLS in files.rs. */
enum call {
    OPEN, READ, WRITE, PREAD, PWRITE, SYNC, RENAME, LINK, UNLINK, MKDIR, RMDIR, FALLOCATE, TRUNCATE,
    FLOCK, FCNTL, MMAP, STAT, STATFS, OPENDIR, CHMOD, COPY, CALLS
};

static const char *const NAMES[CALLS] = {
    "open", "read", "write", "pread", "pwrite", "sync", "rename", "link", "unlink", "mkdir",
    "rmdir", "fallocate", "truncate", "flock", "fcntl", "mmap", "stat", "statfs", "opendir",
    "chmod", "copy",
};

struct shared {
    _Atomic unsigned long counts[CALLS];
    _Atomic unsigned long fired;
    char file[256];
};

static struct shared *shared;
static const char *root;
static enum call failing = CALLS;
static unsigned long number;
static int code, lasting;

static int (*real_open)(const char *, int, ...);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("SEAL_CAMPAIGN_SHARED"), *fault = getenv("SEAL_CAMPAIGN_FAULT");
    char name[16];
    void *map;
    int fd;

    if (!path)
        return;
    real_open = dlsym(RTLD_NEXT, "open");
    fd = real_open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *(*real_mmap)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, "mmap");
    map = real_mmap(0, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        return;
    if (fault && sscanf(fault, "%15[^:]:%lu:%d:%d", name, &number, &code, &lasting) == 4)
        for (int call = 0; call < CALLS; call++)
            if (!strcmp(name, NAMES[call]))
                failing = call;
    root = getenv("SEAL_CAMPAIGN_ROOT");
    shared = map;
}

/* Whether a call on `path` is to fail; counts it. */
static int fails(enum call call, const char *path)
{
    unsigned long seen;

    if (!shared || !root || !path || strncmp(path, root, strlen(root)) != 0)
        return 0;
    seen = atomic_fetch_add(&shared->counts[call], 1);
    if (call != failing || (lasting ? seen < number : seen != number))
        return 0;
    if (atomic_fetch_add(&shared->fired, 1) == 0) {
        const char *last = strrchr(path, '/');
        snprintf(shared->file, sizeof shared->file, "%s", last ? last + 1 : path);
    }
    errno = code;
    return 1;
}

static int fails_fd(enum call call, int fd)
{
    char link[64], path[4096];
    ssize_t length;
    int before = errno;

    if (!shared)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0)
        return 0;
    path[length] = 0;
    return fails(call, path);
}

/* `path` below `dir`, or below the working directory. */
static int fails_at(enum call call, int dir, const char *path)
{
    char whole[8192], link[64], base[4096];
    ssize_t length;
    int before = errno;

    if (!shared || !path)
        return 0;
    if (path[0] == '/')
        return fails(call, path);
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    length = readlink(dir == AT_FDCWD ? "/proc/self/cwd" : link, base, sizeof base - 1);
    errno = before;
    if (length < 0)
        return 0;
    base[length] = 0;
    snprintf(whole, sizeof whole, "%s%s%s", base, *path ? "/" : "", path);
    return fails(call, whole);
}

#define REAL(type, name, ...)                        \
    static type (*real)(__VA_ARGS__);                \
    if (!real)                                       \
        real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static mode_t mode_of(int flags, va_list list)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;
}

#define OPENS(name)                                                     \
    int name(const char *path, int flags, ...)                          \
    {                                                                   \
        REAL(int, name, const char *, int, ...);                        \
        va_list list;                                                   \
        va_start(list, flags);                                          \
        mode_t mode = mode_of(flags, list);                             \
        va_end(list);                                                   \
        return fails_at(OPEN, AT_FDCWD, path) ? -1 : real(path, flags, mode); \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                                  \
    int name(int dir, const char *path, int flags, ...)                 \
    {                                                                   \
        REAL(int, name, int, const char *, int, ...);                   \
        va_list list;                                                   \
        va_start(list, flags);                                          \
        mode_t mode = mode_of(flags, list);                             \
        va_end(list);                                                   \
        return fails_at(OPEN, dir, path) ? -1 : real(dir, path, flags, mode); \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

#define ON_FD(type, name, call, failed, declared, types, used) \
    type name declared                                         \
    {                                                          \
        REAL(type, name, types);                               \
        return fails_fd(call, fd) ? (failed) : real used;      \
    }
#define TYPES(...) __VA_ARGS__

ON_FD(ssize_t, read, READ, -1, (int fd, void *to, size_t count), TYPES(int, void *, size_t), (fd, to, count))
ON_FD(ssize_t, write, WRITE, -1, (int fd, const void *from, size_t count), TYPES(int, const void *, size_t), (fd, from, count))
ON_FD(ssize_t, readv, READ, -1, (int fd, const struct iovec *to, int count), TYPES(int, const struct iovec *, int), (fd, to, count))
ON_FD(ssize_t, writev, WRITE, -1, (int fd, const struct iovec *from, int count), TYPES(int, const struct iovec *, int), (fd, from, count))
ON_FD(ssize_t, pread, PREAD, -1, (int fd, void *to, size_t count, off_t at), TYPES(int, void *, size_t, off_t), (fd, to, count, at))
ON_FD(ssize_t, pread64, PREAD, -1, (int fd, void *to, size_t count, off64_t at), TYPES(int, void *, size_t, off64_t), (fd, to, count, at))
ON_FD(ssize_t, pwrite, PWRITE, -1, (int fd, const void *from, size_t count, off_t at), TYPES(int, const void *, size_t, off_t), (fd, from, count, at))
ON_FD(ssize_t, pwrite64, PWRITE, -1, (int fd, const void *from, size_t count, off64_t at), TYPES(int, const void *, size_t, off64_t), (fd, from, count, at))
ON_FD(int, fsync, SYNC, -1, (int fd), TYPES(int), (fd))
ON_FD(int, fdatasync, SYNC, -1, (int fd), TYPES(int), (fd))
ON_FD(int, sync_file_range, SYNC, -1, (int fd, off64_t at, off64_t count, unsigned flags), TYPES(int, off64_t, off64_t, unsigned), (fd, at, count, flags))
ON_FD(int, fallocate, FALLOCATE, -1, (int fd, int mode, off_t at, off_t count), TYPES(int, int, off_t, off_t), (fd, mode, at, count))
ON_FD(int, fallocate64, FALLOCATE, -1, (int fd, int mode, off64_t at, off64_t count), TYPES(int, int, off64_t, off64_t), (fd, mode, at, count))
ON_FD(int, posix_fallocate, FALLOCATE, code, (int fd, off_t at, off_t count), TYPES(int, off_t, off_t), (fd, at, count))
ON_FD(int, posix_fallocate64, FALLOCATE, code, (int fd, off64_t at, off64_t count), TYPES(int, off64_t, off64_t), (fd, at, count))
ON_FD(int, ftruncate, TRUNCATE, -1, (int fd, off_t length), TYPES(int, off_t), (fd, length))
ON_FD(int, ftruncate64, TRUNCATE, -1, (int fd, off64_t length), TYPES(int, off64_t), (fd, length))
ON_FD(int, flock, FLOCK, -1, (int fd, int what), TYPES(int, int), (fd, what))
ON_FD(int, fstatfs, STATFS, -1, (int fd, struct statfs *to), TYPES(int, struct statfs *), (fd, to))
ON_FD(int, fstatfs64, STATFS, -1, (int fd, struct statfs64 *to), TYPES(int, struct statfs64 *), (fd, to))
ON_FD(int, fstatvfs, STATFS, -1, (int fd, struct statvfs *to), TYPES(int, struct statvfs *), (fd, to))
ON_FD(int, fstatvfs64, STATFS, -1, (int fd, struct statvfs64 *to), TYPES(int, struct statvfs64 *), (fd, to))
ON_FD(int, fchmod, CHMOD, -1, (int fd, mode_t mode), TYPES(int, mode_t), (fd, mode))
ON_FD(int, fstat, STAT, -1, (int fd, struct stat *to), TYPES(int, struct stat *), (fd, to))
ON_FD(int, fstat64, STAT, -1, (int fd, struct stat64 *to), TYPES(int, struct stat64 *), (fd, to))

#define ON_PATH(type, name, call, failed, declared, types, used)      \
    type name declared                                                \
    {                                                                 \
        REAL(type, name, types);                                      \
        return fails_at(call, AT_FDCWD, path) ? (failed) : real used; \
    }

ON_PATH(int, rename, RENAME, -1, (const char *path, const char *to), TYPES(const char *, const char *), (path, to))
ON_PATH(int, link, LINK, -1, (const char *path, const char *to), TYPES(const char *, const char *), (path, to))
ON_PATH(int, unlink, UNLINK, -1, (const char *path), TYPES(const char *), (path))
ON_PATH(int, mkdir, MKDIR, -1, (const char *path, mode_t mode), TYPES(const char *, mode_t), (path, mode))
ON_PATH(int, rmdir, RMDIR, -1, (const char *path), TYPES(const char *), (path))
ON_PATH(int, statfs, STATFS, -1, (const char *path, struct statfs *to), TYPES(const char *, struct statfs *), (path, to))
ON_PATH(int, statfs64, STATFS, -1, (const char *path, struct statfs64 *to), TYPES(const char *, struct statfs64 *), (path, to))
ON_PATH(int, statvfs, STATFS, -1, (const char *path, struct statvfs *to), TYPES(const char *, struct statvfs *), (path, to))
ON_PATH(int, statvfs64, STATFS, -1, (const char *path, struct statvfs64 *to), TYPES(const char *, struct statvfs64 *), (path, to))
ON_PATH(int, stat, STAT, -1, (const char *path, struct stat *to), TYPES(const char *, struct stat *), (path, to))
ON_PATH(int, stat64, STAT, -1, (const char *path, struct stat64 *to), TYPES(const char *, struct stat64 *), (path, to))
ON_PATH(int, lstat, STAT, -1, (const char *path, struct stat *to), TYPES(const char *, struct stat *), (path, to))
ON_PATH(int, lstat64, STAT, -1, (const char *path, struct stat64 *to), TYPES(const char *, struct stat64 *), (path, to))
ON_PATH(int, chmod, CHMOD, -1, (const char *path, mode_t mode), TYPES(const char *, mode_t), (path, mode))
ON_PATH(DIR *, opendir, OPENDIR, 0, (const char *path), TYPES(const char *), (path))

#define AT(type, name, call, declared, types, used)        \
    type name declared                                     \
    {                                                      \
        REAL(type, name, types);                           \
        return fails_at(call, dir, path) ? -1 : real used; \
    }

AT(int, renameat, RENAME, (int dir, const char *path, int other, const char *to), TYPES(int, const char *, int, const char *), (dir, path, other, to))
AT(int, renameat2, RENAME, (int dir, const char *path, int other, const char *to, unsigned flags), TYPES(int, const char *, int, const char *, unsigned), (dir, path, other, to, flags))
AT(int, linkat, LINK, (int dir, const char *path, int other, const char *to, int flags), TYPES(int, const char *, int, const char *, int), (dir, path, other, to, flags))
AT(int, unlinkat, UNLINK, (int dir, const char *path, int flags), TYPES(int, const char *, int), (dir, path, flags))
AT(int, mkdirat, MKDIR, (int dir, const char *path, mode_t mode), TYPES(int, const char *, mode_t), (dir, path, mode))
AT(int, statx, STAT, (int dir, const char *restrict path, int flags, unsigned mask, struct statx *restrict to), TYPES(int, const char *, int, unsigned, struct statx *), (dir, path, flags, mask, to))
AT(int, fstatat64, STAT, (int dir, const char *path, struct stat64 *to, int flags), TYPES(int, const char *, struct stat64 *, int), (dir, path, to, flags))

ssize_t copy_file_range(int fd, off64_t *at, int to, off64_t *to_at, size_t count, unsigned flags)
{
    REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned);
    return fails_fd(COPY, fd) ? -1 : real(fd, at, to, to_at, count, flags);
}

#define MAPS(name, offset)                                                       \
    void *name(void *hint, size_t length, int protection, int flags, int fd, offset at) \
    {                                                                            \
        REAL(void *, name, void *, size_t, int, int, int, offset);               \
        if (fd >= 0 && fails_fd(MMAP, fd))                                       \
            return MAP_FAILED;                                                   \
        return real(hint, length, protection, flags, fd, at);                    \
    }
MAPS(mmap, off_t)
MAPS(mmap64, off64_t)

static int locks(int command)
{
    return command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK ||
           command == F_OFD_SETLKW || command == F_SETLEASE;
}

#define CONTROLS(name)                                         \
    int name(int fd, int command, ...)                         \
    {                                                          \
        REAL(int, name, int, int, ...);                        \
        va_list list;                                          \
        va_start(list, command);                               \
        void *argument = va_arg(list, void *);                 \
        va_end(list);                                          \
        if (locks(command) && fails_fd(FCNTL, fd))             \
            return -1;                                         \
        return real(fd, command, argument);                    \
    }
CONTROLS(fcntl)
CONTROLS(fcntl64)
