/*
 * measure DIR NAME STAND_IN ROUNDS PAUSE_US
 *
 * Removes the entry NAME in the binfmt_misc at DIR, waits until somebody has registered NAME or STAND_IN, and prints the
 * nanoseconds between; ROUNDS times, one line each.  A round ends when NAME stands and STAND_IN does not, and PAUSE_US
 * microseconds have passed, in which the repairer may go back to sleep.
 *
 * It waits by inotify: looking up a missing entry in a loop would take the directory's lock and slow the repair that is
 * measured.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

enum { DEADLINE_MS = 10000 };

static int watch;
static char events[65536] __attribute__((aligned(__alignof__(struct inotify_event))));
static ssize_t filled, next;

static void fail(const char *what) {
    fprintf(stderr, "measure: %s: %s\n", what, strerror(errno));
    exit(1);
}

static long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static bool exists(const char *name) { return access(name, F_OK) == 0; }

/* The name that was written to next; waits for it. */
static const char *next_event(const char *waiting_for) {
    if (next >= filled) {
        struct pollfd readable = {.fd = watch, .events = POLLIN};
        if (poll(&readable, 1, DEADLINE_MS) != 1) {
            errno = ETIMEDOUT;
            fail(waiting_for);
        }
        filled = read(watch, events, sizeof events);
        if (filled <= 0)
            fail("reading events");
        next = 0;
    }
    const struct inotify_event *event = (const struct inotify_event *)(events + next);
    next += sizeof *event + event->len;
    if (event->mask & (IN_Q_OVERFLOW | IN_IGNORED | IN_UNMOUNT)) {
        errno = EIO;
        fail("the watch was lost");
    }
    return event->len ? event->name : "";
}

static void forget_events(void) {
    struct pollfd readable = {.fd = watch, .events = POLLIN};
    while (poll(&readable, 1, 0) == 1)
        if (read(watch, events, sizeof events) <= 0)
            fail("reading events");
    next = filled = 0;
}

static void sleep_us(long us) {
    struct timespec pause = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    nanosleep(&pause, NULL);
}

static long long one_round(const char *name, const char *stand_in) {
    forget_events();
    int entry = open(name, O_WRONLY);
    if (entry < 0)
        fail(name);

    long long start = now_ns();
    if (write(entry, "-1", 2) != 2)
        fail("removing");
    long long end;
    do {
        while (strcmp(next_event("no repair"), "register") != 0)
            ;
        end = now_ns();
    } while (!exists(name) && !exists(stand_in));

    close(entry);
    while (!exists(name) || exists(stand_in))
        next_event("no proper entry after the stand-in");
    return end - start;
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: measure DIR NAME STAND_IN ROUNDS PAUSE_US\n");
        return 2;
    }
    if (chdir(argv[1]) != 0)
        fail(argv[1]);
    watch = inotify_init1(IN_CLOEXEC);
    if (watch < 0 || inotify_add_watch(watch, ".", IN_MODIFY) < 0)
        fail("watching");
    for (long round = atol(argv[4]); round > 0; round--) {
        printf("%lld\n", one_round(argv[2], argv[3]));
        sleep_us(atol(argv[5]));
    }
    return 0;
}
