/*
 * Loaded before the C library into a process under test: a file system without locks. Those of
 * fcntl and flock fail with ENOLCK for files with SEAL_TEST_NO_LOCKS in their path.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static int is_without(int fd)
{
    const char *part = getenv("SEAL_TEST_NO_LOCKS");
    char link[64], path[4096];
    ssize_t length;

    if (!part)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strstr(path, part) != NULL;
}

int flock(int fd, int operation)
{
    static int (*real)(int, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "flock");
    if (operation != LOCK_UN && is_without(fd)) {
        errno = ENOLCK;
        return -1;
    }
    return real(fd, operation);
}

static int locks(int command)
{
    return command == F_SETLK || command == F_SETLKW || command == F_GETLK
        || command == F_OFD_SETLK || command == F_OFD_SETLKW || command == F_OFD_GETLK;
}

#define FCNTL(name)                                                                               \
    int name(int fd, int command, ...)                                                            \
    {                                                                                             \
        static int (*real)(int, int, void *);                                                     \
        va_list arguments;                                                                        \
        void *argument;                                                                           \
        va_start(arguments, command);                                                             \
        argument = va_arg(arguments, void *);                                                     \
        va_end(arguments);                                                                        \
        if (!real)                                                                                \
            real = dlsym(RTLD_NEXT, #name);                                                       \
        if (locks(command) && is_without(fd)) {                                                   \
            errno = ENOLCK;                                                                       \
            return -1;                                                                            \
        }                                                                                         \
        return real(fd, command, argument);                                                       \
    }

FCNTL(fcntl)
FCNTL(fcntl64)
