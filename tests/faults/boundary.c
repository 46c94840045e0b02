/*
 * Copyright (c) 2026 chainops.validator contributors
 * GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * For the fault suite only: stops or kills a process exactly at a boundary of a turn's journal. Preloaded into the engine by a
 * drop-in of its unit, it looks at each record that is written to <state_dir>/<instance>/journal/<turn>/journal.log, and does
 * what the file FAULTS_DIR/armed says, once, when it comes to the record that is meant:
 *
 *     <mode> <times> <seconds>
 *     <part of the record>
 *     <another part>...
 *
 * Modes: kill-before (the record is never written), kill-torn (half of it is), kill-after (it is on disk), stop-before and
 * stop-after (SIGSTOP instead, so that somebody else may be killed there), eio (the write fails), clock (the record is written,
 * and from then on the wall clock of this process is off by <seconds>). <times>: how many such records are hit.
 * What was hit is said by renaming the file to FAULTS_DIR/fired. FAULTS_CLOCK is an offset of the wall clock from the start.
 *
 * The product knows nothing of it: what happens at a boundary happens to its system calls.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#ifndef FAULTS_DIR
#define FAULTS_DIR "/var/lib/faults"
#endif
#define ARMED FAULTS_DIR "/armed"
#define FIRED FAULTS_DIR "/fired"

static char mode[32];
static int matched;
static double offset;

__attribute__((constructor)) static void begin(void)
{
    const char *told = getenv("FAULTS_CLOCK");
    offset = told ? atof(told) : 0.0;
}

static int is_journal(int handle)
{
    char name[64], path[PATH_MAX];
    snprintf(name, sizeof name, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    const char *end = strrchr(path, '/');
    return end && !strcmp(end, "/journal.log") && strstr(path, "/journal/");
}

/* Whether this is the record that is meant; then `mode` says what to do, and the order is taken off the table. */
static int is_meant(const char *record, size_t length)
{
    char line[512], rest[4096] = "";
    int times = 0, found = 1;
    double seconds = 0;
    FILE *order = fopen(ARMED, "re");
    if (!order)
        return 0;
    if (!fgets(line, sizeof line, order) || sscanf(line, "%31s %d %lf", mode, &times, &seconds) != 3)
        found = 0;
    while (found && fgets(line, sizeof line, order)) {
        strncat(rest, line, sizeof rest - strlen(rest) - 1);
        line[strcspn(line, "\n")] = 0;
        if (*line && !memmem(record, length, line, strlen(line)))
            found = 0;
    }
    fclose(order);
    if (!found)
        return 0;
    if (times > 1) {
        order = fopen(ARMED ".tmp", "we");
        if (!order)
            return 0;
        fprintf(order, "%s %d %f\n%s", mode, times - 1, seconds, rest);
        fclose(order);
        rename(ARMED ".tmp", ARMED);
    } else {
        rename(ARMED, FIRED);
    }
    if (!strcmp(mode, "clock"))
        offset = seconds;
    return 1;
}

static ssize_t record(ssize_t (*next)(int, const void *, size_t, off_t), int handle, const void *data, size_t size, off_t at)
{
    /* A single byte ends a torn tail, and what an engine writes when it opens a journal anew ends in zeros: those are no records. */
    if (size > 1 && ((const char *)data)[size - 1] == '\n' && is_journal(handle) && is_meant(data, size)) {
        if (!strcmp(mode, "kill-before"))
            kill(getpid(), SIGKILL);
        if (!strcmp(mode, "kill-torn")) {
            next(handle, data, size / 2, at);
            kill(getpid(), SIGKILL);
        }
        if (!strcmp(mode, "stop-before"))
            kill(getpid(), SIGSTOP);
        if (!strcmp(mode, "eio")) {
            errno = EIO;
            return -1;
        }
        matched = 1;
    }
    return next(handle, data, size, at);
}

ssize_t pwrite(int handle, const void *data, size_t size, off_t at)
{
    return record((ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite"), handle, data, size, at);
}

ssize_t pwrite64(int handle, const void *data, size_t size, off_t at)
{
    return record((ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64"), handle, data, size, at);
}

int fdatasync(int handle)
{
    int done = ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(handle);
    if (matched && is_journal(handle)) {
        matched = 0;
        if (!strcmp(mode, "kill-after"))
            kill(getpid(), SIGKILL);
        if (!strcmp(mode, "stop-after"))
            kill(getpid(), SIGSTOP);
    }
    return done;
}

int clock_gettime(clockid_t which, struct timespec *now)
{
    int done = ((int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime"))(which, now);
    if (!done && offset != 0.0 && which == CLOCK_REALTIME)
        now->tv_sec += (time_t)offset;
    return done;
}
