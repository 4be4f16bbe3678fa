/*
 * measure CPU DIR TRIGGER ROUNDS PAUSE_US COMMAND NAME...
 *
 * Takes entries away from the binfmt_misc at DIR, and prints the nanoseconds until the first NAME and until each NAME has
 * a handler again: itself, or its stand-in.  They go by a write of -1 to the file TRIGGER, an entry or `status`; or
 * COMMAND, unless it is empty, is run and does so itself, and the clock starts with its write.  ROUNDS times, one line
 * each.  A round ends when each NAME stands, with a stand-in if it had one before and without if not, and PAUSE_US
 * microseconds have passed, in which the repairer may go back to sleep.
 *
 * It runs on CPU alone, and COMMAND on any other; -1: both wherever the scheduler puts them.
 *
 * It waits by inotify: looking up a missing entry in a loop would take the directory's lock and slow the repair that is
 * measured.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { DEADLINE_MS = 10000 };

static int watch;
static char events[65536] __attribute__((aligned(__alignof__(struct inotify_event))));
static ssize_t filled, next;
static cpu_set_t others; /* where the command runs */

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

static bool stand_in_exists(const char *name) {
    char stand_in[512];
    snprintf(stand_in, sizeof stand_in, ".binfmtd~%s", name); /* as a literal: this measures from outside */
    return exists(stand_in);
}

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

static void wait_for(const char *name, const char *what) {
    while (strcmp(next_event(what), name) != 0)
        ;
}

/* The moment of a write to this file: awake, since a command goes on at once. */
static long long spin_for(const char *name) {
    struct pollfd readable = {.fd = watch, .events = POLLIN};
    long long begin = now_ns(), now;
    do {
        while (next >= filled && poll(&readable, 1, 0) == 0)
            if (now_ns() - begin > DEADLINE_MS * 1000000LL) {
                errno = ETIMEDOUT;
                fail("the command's write");
            }
        now = now_ns();
    } while (strcmp(next_event("the command's write"), name) != 0);
    return now;
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

static void one_round(const char *trigger, const char *command, char **names, int count) {
    bool permanent = stand_in_exists(names[0]);
    forget_events();
    long long start, end, first = 0;
    int child = 0;
    if (*command) {
        child = fork();
        if (child == 0) {
            sched_setaffinity(0, sizeof others, &others);
            execl(command, command, NULL);
            _exit(127);
        }
        start = spin_for(trigger);
    } else {
        int entry = open(trigger, O_WRONLY);
        if (entry < 0)
            fail(trigger);
        start = now_ns();
        if (write(entry, "-1", 2) != 2)
            fail("removing");
        close(entry);
    }
    int served = 0;
    do {
        wait_for("register", "no repair"); /* which comes for each line that the kernel took */
        end = now_ns();
        if (!first)
            first = end;
        while (served < count && (stand_in_exists(names[served]) || exists(names[served])))
            served++;
    } while (served < count);

    int status = 0;
    if (child && (waitpid(child, &status, 0) != child || status != 0)) {
        errno = ECHILD;
        fail(command);
    }
    for (int settled = 0; settled < count;)
        if (exists(names[settled]) && stand_in_exists(names[settled]) == permanent)
            settled++;
        else
            next_event("no proper entry after the stand-in");
    printf("%lld %lld\n", first - start, end - start);
}

static void stay_on(int cpu) {
    if (sched_getaffinity(0, sizeof others, &others) != 0)
        fail("asking for the CPUs");
    if (cpu < 0)
        return;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    CPU_CLR(cpu, &others);
    if (sched_setaffinity(0, sizeof one, &one) != 0)
        fail("staying on one CPU");
}

int main(int argc, char **argv) {
    if (argc < 8) {
        fprintf(stderr, "usage: measure CPU DIR TRIGGER ROUNDS PAUSE_US COMMAND NAME...\n");
        return 2;
    }
    stay_on(atoi(argv[1]));
    if (chdir(argv[2]) != 0)
        fail(argv[2]);
    watch = inotify_init1(IN_CLOEXEC);
    if (watch < 0 || inotify_add_watch(watch, ".", IN_MODIFY) < 0)
        fail("watching");
    for (long round = atol(argv[4]); round > 0; round--) {
        one_round(argv[3], argv[6], argv + 7, argc - 7);
        sleep_us(atol(argv[5]));
    }
    return 0;
}
