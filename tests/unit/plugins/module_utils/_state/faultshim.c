/*
 * Copyright (c) 2026 chainops.validator contributors
 * GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * For tests only: a disk that fails. Preloaded, it stands between Python and the C library, counts the calls that reach a file
 * below one directory, and lets the n-th of some kinds fail, or that and all later ones, or kills the process there. It can also
 * write down which calls there were, in order, without any failing.
 *
 * Both names of what has a 64-bit variant are here: which one an interpreter was built against is its own affair.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define CLONE_REQUEST 0x40049409

enum { OPEN = 1, CREATE = 2, READ = 4, WRITE = 8, SYNC = 16, RENAME = 32, LINK = 64, MKDIR = 128, UNLINK = 256, TRUNCATE = 512,
       META = 1024, CLONE = 2048, LOOK = 4096 };
enum { ONCE, FOREVER, KILL };

static char below[PATH_MAX];
static size_t below_length;
static unsigned families, afterwards;
static long fail_at;
static int fail_with, how, log_to = -1;
static atomic_long calls;
static atomic_int failed, armed;

void faults_arm(const char *directory, unsigned which, unsigned then, long at, int with, int mode, int log_handle)
{
    snprintf(below, sizeof below, "%s", directory);
    below_length = strlen(below);
    families = which;
    afterwards = then;
    fail_at = at;
    fail_with = with;
    how = mode;
    log_to = log_handle;
    atomic_store(&calls, 0);
    atomic_store(&failed, 0);
    atomic_store(&armed, 1);
}

void faults_pause(int on) { atomic_store(&armed, !on); }
int faults_failed(void) { return atomic_load(&failed); }

static const char *where_of(int handle, char *into)
{
    char link[48];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    long size = syscall(SYS_readlinkat, AT_FDCWD, link, into, PATH_MAX - 1);
    into[size > 0 ? size : 0] = 0;
    return into;
}

static const char *absolute(int folder, const char *path, char *into)
{
    if (path == NULL || path[0] == '/' || folder == AT_FDCWD)
        return path ? path : "";
    char base[PATH_MAX];
    where_of(folder, base);
    if (path[0])
        snprintf(into, PATH_MAX, "%.2000s/%.2000s", base, path);
    else
        snprintf(into, PATH_MAX, "%.4000s", base);
    return into;
}

/* True, with errno set, when this call is to fail. */
static int fails(unsigned family, const char *name, const char *path, const char *other)
{
    int before = errno;
    if (!atomic_load(&armed) || strncmp(path, below, below_length) != 0)
        return 0;
    if (log_to >= 0) {
        char line[2 * PATH_MAX];
        int size = snprintf(line, sizeof line, "%s\t%.2000s\t%.2000s\n", name, path, other);
        syscall(SYS_write, log_to, line, size);
    }
    errno = before;
    if (how == FOREVER && atomic_load(&failed)) {
        if (!(afterwards & family))
            return 0;
        errno = fail_with;
        return 1;
    }
    if (!(families & family) || atomic_fetch_add(&calls, 1) + 1 != fail_at)
        return 0;
    atomic_store(&failed, 1);
    if (how == KILL)
        syscall(SYS_kill, getpid(), SIGKILL);
    errno = fail_with;
    return 1;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define BY_HANDLE(family, type, name, declared, given, types) \
    type name declared { \
        REAL(type, name, types); \
        char path[PATH_MAX]; \
        if (atomic_load(&armed) && fails(family, #name, where_of(handle, path), "")) return -1; \
        return real given; \
    }
#define TYPES(...) __VA_ARGS__

#define BY_NAME(family, type, name, declared, given, types) \
    type name declared { \
        REAL(type, name, types); \
        if (fails(family, #name, path, "")) return -1; \
        return real given; \
    }

#define BY_FOLDER(family, type, name, declared, given, types) \
    type name declared { \
        REAL(type, name, types); \
        char whole[PATH_MAX]; \
        if (atomic_load(&armed) && fails(family, #name, absolute(folder, path, whole), "")) return -1; \
        return real given; \
    }

static unsigned opening(int flags)
{
    return (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT) ? CREATE : OPEN;
}

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, name, const char *, int, ...); \
        va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
        unsigned family = opening(flags); \
        if (fails(family, family == OPEN ? "open" : "create", path, "")) return -1; \
        return real(path, flags, mode); \
    }
#define OPENS_AT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        REAL(int, name, int, const char *, int, ...); \
        va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
        unsigned family = opening(flags); \
        char whole[PATH_MAX]; \
        if (atomic_load(&armed) && fails(family, family == OPEN ? "open" : "create", absolute(folder, path, whole), "")) \
            return -1; \
        return real(folder, path, flags, mode); \
    }
OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)

#define READS(kind, name) \
    BY_HANDLE(kind, ssize_t, name, (int handle, void *data, size_t size), (handle, data, size), TYPES(int, void *, size_t))
#define WRITES(name) \
    BY_HANDLE(WRITE, ssize_t, name, (int handle, const void *data, size_t size), (handle, data, size), \
              TYPES(int, const void *, size_t))
READS(READ, read)
WRITES(write)
#define READS_AT(name) \
    BY_HANDLE(READ, ssize_t, name, (int handle, void *data, size_t size, off64_t at), (handle, data, size, at), \
              TYPES(int, void *, size_t, off64_t))
#define WRITES_AT(name) \
    BY_HANDLE(WRITE, ssize_t, name, (int handle, const void *data, size_t size, off64_t at), (handle, data, size, at), \
              TYPES(int, const void *, size_t, off64_t))
READS_AT(pread)
READS_AT(pread64)
WRITES_AT(pwrite)
WRITES_AT(pwrite64)
#define MANY(kind, name) \
    BY_HANDLE(kind, ssize_t, name, (int handle, const struct iovec *parts, int count), (handle, parts, count), \
              TYPES(int, const struct iovec *, int))
#define MANY_AT(kind, name) \
    BY_HANDLE(kind, ssize_t, name, (int handle, const struct iovec *parts, int count, off64_t at), (handle, parts, count, at), \
              TYPES(int, const struct iovec *, int, off64_t))
#define MANY_AT_2(kind, name) \
    BY_HANDLE(kind, ssize_t, name, (int handle, const struct iovec *parts, int count, off64_t at, int flags), \
              (handle, parts, count, at, flags), TYPES(int, const struct iovec *, int, off64_t, int))
MANY(READ, readv)
MANY(WRITE, writev)
MANY_AT(READ, preadv)
MANY_AT(READ, preadv64)
MANY_AT(WRITE, pwritev)
MANY_AT(WRITE, pwritev64)
MANY_AT_2(READ, preadv2)
MANY_AT_2(READ, preadv64v2)
MANY_AT_2(WRITE, pwritev2)
MANY_AT_2(WRITE, pwritev64v2)

#define HANDLE_ONLY(family, name) BY_HANDLE(family, int, name, (int handle), (handle), int)
HANDLE_ONLY(SYNC, fsync)
HANDLE_ONLY(SYNC, fdatasync)
HANDLE_ONLY(SYNC, syncfs)

#define RENAMES(name, declared, given, types) \
    int name declared { \
        REAL(int, name, types); \
        char one[PATH_MAX], two[PATH_MAX]; \
        if (atomic_load(&armed) && fails(RENAME, #name, absolute(from_folder, from, one), absolute(to_folder, to, two))) \
            return -1; \
        return real given; \
    }
int rename(const char *from, const char *to)
{
    REAL(int, rename, const char *, const char *);
    return fails(RENAME, "rename", from, to) ? -1 : real(from, to);
}
RENAMES(renameat, (int from_folder, const char *from, int to_folder, const char *to), (from_folder, from, to_folder, to),
        TYPES(int, const char *, int, const char *))
RENAMES(renameat2, (int from_folder, const char *from, int to_folder, const char *to, unsigned flags),
        (from_folder, from, to_folder, to, flags), TYPES(int, const char *, int, const char *, unsigned))

int link(const char *from, const char *path)
{
    REAL(int, link, const char *, const char *);
    return fails(LINK, "link", path, "") ? -1 : real(from, path);
}
int linkat(int from_folder, const char *from, int folder, const char *path, int flags)
{
    REAL(int, linkat, int, const char *, int, const char *, int);
    char whole[PATH_MAX];
    if (atomic_load(&armed) && fails(LINK, "link", absolute(folder, path, whole), "")) return -1;
    return real(from_folder, from, folder, path, flags);
}
BY_NAME(LINK, int, symlink, (const char *text, const char *path), (text, path), TYPES(const char *, const char *))
BY_FOLDER(LINK, int, symlinkat, (const char *text, int folder, const char *path), (text, folder, path),
          TYPES(const char *, int, const char *))

BY_NAME(MKDIR, int, mkdir, (const char *path, mode_t mode), (path, mode), TYPES(const char *, mode_t))
BY_FOLDER(MKDIR, int, mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode), TYPES(int, const char *, mode_t))
BY_NAME(UNLINK, int, unlink, (const char *path), (path), const char *)
BY_NAME(UNLINK, int, rmdir, (const char *path), (path), const char *)
BY_FOLDER(UNLINK, int, unlinkat, (int folder, const char *path, int flags), (folder, path, flags), TYPES(int, const char *, int))

#define CUTS(name) BY_HANDLE(TRUNCATE, int, name, (int handle, off64_t size), (handle, size), TYPES(int, off64_t))
CUTS(ftruncate)
CUTS(ftruncate64)
BY_NAME(TRUNCATE, int, truncate, (const char *path, off64_t size), (path, size), TYPES(const char *, off64_t))
BY_NAME(TRUNCATE, int, truncate64, (const char *path, off64_t size), (path, size), TYPES(const char *, off64_t))
/* These say what went wrong by what they return. */
#define RESERVES(name) \
    int name(int handle, off64_t at, off64_t size) { \
        REAL(int, name, int, off64_t, off64_t); \
        char path[PATH_MAX]; \
        return atomic_load(&armed) && fails(WRITE, #name, where_of(handle, path), "") ? fail_with : real(handle, at, size); \
    }
RESERVES(posix_fallocate)
RESERVES(posix_fallocate64)

BY_NAME(META, int, chmod, (const char *path, mode_t mode), (path, mode), TYPES(const char *, mode_t))
BY_HANDLE(META, int, fchmod, (int handle, mode_t mode), (handle, mode), TYPES(int, mode_t))
BY_FOLDER(META, int, fchmodat, (int folder, const char *path, mode_t mode, int flags), (folder, path, mode, flags),
          TYPES(int, const char *, mode_t, int))
BY_NAME(META, int, chown, (const char *path, uid_t uid, gid_t gid), (path, uid, gid), TYPES(const char *, uid_t, gid_t))
BY_NAME(META, int, lchown, (const char *path, uid_t uid, gid_t gid), (path, uid, gid), TYPES(const char *, uid_t, gid_t))
BY_HANDLE(META, int, fchown, (int handle, uid_t uid, gid_t gid), (handle, uid, gid), TYPES(int, uid_t, gid_t))
BY_FOLDER(META, int, fchownat, (int folder, const char *path, uid_t uid, gid_t gid, int flags), (folder, path, uid, gid, flags),
          TYPES(int, const char *, uid_t, gid_t, int))
BY_HANDLE(META, int, futimens, (int handle, const struct timespec times[2]), (handle, times), TYPES(int, const struct timespec *))
BY_FOLDER(META, int, utimensat, (int folder, const char *path, const struct timespec times[2], int flags),
          (folder, path, times, flags), TYPES(int, const char *, const struct timespec *, int))
BY_NAME(META, int, setxattr, (const char *path, const char *key, const void *data, size_t size, int flags),
        (path, key, data, size, flags), TYPES(const char *, const char *, const void *, size_t, int))
BY_NAME(META, int, lsetxattr, (const char *path, const char *key, const void *data, size_t size, int flags),
        (path, key, data, size, flags), TYPES(const char *, const char *, const void *, size_t, int))
BY_HANDLE(META, int, fsetxattr, (int handle, const char *key, const void *data, size_t size, int flags),
          (handle, key, data, size, flags), TYPES(int, const char *, const void *, size_t, int))

int ioctl(int handle, unsigned long request, ...)
{
    REAL(int, ioctl, int, unsigned long, ...);
    va_list more;
    va_start(more, request);
    void *argument = va_arg(more, void *);
    va_end(more);
    char path[PATH_MAX];
    if (request == CLONE_REQUEST && atomic_load(&armed) && fails(CLONE, "clone", where_of(handle, path), "")) return -1;
    return real(handle, request, argument);
}

/* Looking at what a name is. To list a directory is to read it. */
#define LOOKS(name, kind) BY_NAME(LOOK, int, name, (const char *path, struct kind *info), (path, info), TYPES(const char *, struct kind *))
#define LOOKS_AT(name, kind) \
    BY_FOLDER(LOOK, int, name, (int folder, const char *path, struct kind *info, int flags), (folder, path, info, flags), \
              TYPES(int, const char *, struct kind *, int))
#define LOOKS_THROUGH(name, kind) \
    BY_HANDLE(LOOK, int, name, (int handle, struct kind *info), (handle, info), TYPES(int, struct kind *))
LOOKS(stat, stat)
LOOKS(stat64, stat64)
LOOKS(lstat, stat)
LOOKS(lstat64, stat64)
LOOKS_AT(fstatat, stat)
LOOKS_AT(fstatat64, stat64)
LOOKS_THROUGH(fstat, stat)
LOOKS_THROUGH(fstat64, stat64)
#define LISTS(name, kind) \
    struct kind *name(DIR *folder) { \
        REAL(struct kind *, name, DIR *); \
        char path[PATH_MAX]; \
        if (atomic_load(&armed) && fails(READ, #name, where_of(dirfd(folder), path), "")) return NULL; \
        return real(folder); \
    }
LISTS(readdir, dirent)
LISTS(readdir64, dirent64)
BY_NAME(LOOK, ssize_t, readlink, (const char *path, char *text, size_t size), (path, text, size), TYPES(const char *, char *, size_t))
BY_NAME(LOOK, ssize_t, listxattr, (const char *path, char *keys, size_t size), (path, keys, size), TYPES(const char *, char *, size_t))
BY_NAME(LOOK, ssize_t, llistxattr, (const char *path, char *keys, size_t size), (path, keys, size), TYPES(const char *, char *, size_t))
BY_HANDLE(LOOK, ssize_t, flistxattr, (int handle, char *keys, size_t size), (handle, keys, size), TYPES(int, char *, size_t))
