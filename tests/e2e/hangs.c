/*
 * Loaded before the C library into a process under test: whoever opens a file with SEAL_TEST_HANG
 * in its path waits for ever, as on a share that does not answer.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int open64(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, ...);
    const char *part = getenv("SEAL_TEST_HANG");
    mode_t mode = 0;
    va_list arguments;

    if (!real)
        real = dlsym(RTLD_NEXT, "open64");
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    while (part && strstr(path, part))
        pause();
    return real(path, flags, mode);
}
