/* A program that makes one check of the machine, or the emulator, that runs it: `binfmtd probe --deep` runs it.
 *
 * The last argument names the check; binfmtd/catalog/deep_checks.py lists all of them.  If the check passes, the
 * program exits with 42.  Otherwise it writes one line to stdout, the step that failed and the error number in
 * hexadecimal (0 if no system call failed), separated by a tab, and exits with 1.
 *
 * It uses no library, and needs no file but itself: it also runs in an empty root directory.  build.py compiles it
 * twice for each platform: as a static PIE, and linked to a low fixed address.
 */

#include "machine.h"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define PASSED 42
#define FAILED 1
#define NOINLINE __attribute__((noinline))
#define PAGE 65536 /* the largest that distributions use */
#define AT_FDCWD (-100)
#define EINTR 4
#define EPERM 1
#define EBADF 9
#define EXDEV 18
#define PROT_NONE 0
#define PROT_READ 1
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAP_PRIVATE 2
#define MAP_ANONYMOUS 0x20
#define MAP_FIXED_NOREPLACE 0x100000
#define SIGUSR1 10
#define SIGSEGV 11
#define SIGALRM 14
#define SIGCHLD 17
#define SA_SIGINFO 4
#define SA_RESTORER 0x04000000
#define SA_RESTART 0x10000000
#define FUTEX_WAIT 0
#define FUTEX_WAKE 1
/* Those of pthread_create: CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID. */
#define CLONE_OF_THREADS 0x3d0f00

#define CALL(number, a, b, c, d, e) \
    system_call((number), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)

struct time {
    long seconds, nanoseconds;
};

static char *path_of_program;
static char **environment;

/* The compiler may call these. */
HIDDEN void *memcpy(void *to, const void *from, unsigned long size)
{
    volatile u8 *target = to;
    const u8 *source = from;
    while (size--)
        *target++ = *source++;
    return to;
}

HIDDEN void *memset(void *to, int value, unsigned long size)
{
    volatile u8 *target = to;
    while (size--)
        *target++ = (u8)value;
    return to;
}

static int is(const char *one, const char *other)
{
    while (*one && *one == *other)
        one++, other++;
    return *one == *other;
}

static unsigned long length(const char *text)
{
    unsigned long count = 0;
    while (text[count])
        count++;
    return count;
}

static _Noreturn void end(int status)
{
    for (;;)
        CALL(SYS_exit_group, status, 0, 0, 0, 0);
}

/* Write the step and the error number of a result, and end the program. */
static NOINLINE _Noreturn void fail(const char *step, long result)
{
    char line[128];
    unsigned long size = length(step), number = result < 0 && result > -4096 ? (unsigned long)-result : 0;
    if (size > 100)
        size = 100;
    memcpy(line, step, size);
    line[size++] = '\t';
    for (int shift = 8; shift >= 0; shift -= 4) /* hexadecimal: ARMv6 cannot divide */
        line[size++] = "0123456789abcdef"[number >> shift & 15];
    line[size++] = '\n';
    CALL(SYS_write, 1, line, size, 0, 0);
    end(FAILED);
}

static long succeeds(const char *step, long result)
{
    if (result < 0 && result > -4096)
        fail(step, result);
    return result;
}

static void expect(const char *step, int holds)
{
    if (!holds)
        fail(step, 0);
}

static void *map(void *where, unsigned long size, int protection, int flags)
{
    flags |= MAP_PRIVATE | MAP_ANONYMOUS;
#if defined(__s390x__)
    unsigned long arguments[6] = {(unsigned long)where, size, (unsigned long)protection, (unsigned long)flags, -1UL, 0};
    return (void *)CALL(SYS_mmap, arguments, 0, 0, 0, 0);
#else
    return (void *)system_call(SYS_mmap, (long)where, (long)size, protection, flags, -1, 0);
#endif
}

static char *memory(unsigned long size)
{
    return (char *)succeeds("mmap", (long)map(0, size, PROT_READ | PROT_WRITE, 0));
}

/* Wait for a child process; its exit status has to be this one. */
static void wait_for(long child, int status)
{
    int got = -1;
    succeeds("wait4", CALL(SYS_wait4, child, &got, 0, 0, 0));
    expect("the exit status of a child process", got == status << 8);
}

static long fork_process(void)
{
#if defined(__s390x__)
    return succeeds("clone, as fork does it", CALL(SYS_clone, 0, SIGCHLD, 0, 0, 0));
#else
    return succeeds("clone, as fork does it", CALL(SYS_clone, SIGCHLD, 0, 0, 0, 0));
#endif
}

static void check_start(long count, char **arguments, long *auxiliary)
{
    unsigned long page = 0, random = 0, entry = 0;
    expect("the number of arguments: flag P of the entry does not suit the emulator", count == 3);
    expect("an empty argument", is(arguments[1], ""));
    expect("the environment", environment[0] && is(environment[0], "BINFMTD=deep") && !environment[1]);
    for (; auxiliary[0]; auxiliary += 2) {
        if (auxiliary[0] == 6)
            page = (unsigned long)auxiliary[1];
        else if (auxiliary[0] == 9)
            entry = (unsigned long)auxiliary[1];
        else if (auxiliary[0] == 25)
            random = (unsigned long)auxiliary[1];
    }
    expect("the page size (AT_PAGESZ)", page >= 4096 && page <= PAGE && !(page & (page - 1)));
    expect("the entry point (AT_ENTRY)", entry != 0);
    expect("the random bytes (AT_RANDOM)", random != 0);
}

static void check_floats(void)
{
    static volatile const double one = 1, two = 2, three = 3;
    union {
        double value;
        u64 bits;
    } got;
    got.value = one / three;
    expect("1 / 3", got.bits == 0x3fd5555555555555);
    got.value = __builtin_sqrt(two);
    expect("the square root of 2", got.bits == 0x3ff6a09e667f3bcd);
    got.value = one / (two - two);
    expect("1 / 0", got.bits == 0x7ff0000000000000);
    expect("-7 / 2 as an integer", (int)(-(two * two + three) / two) == -3);
    got.value = (double)(long)(three * 1e8);
    expect("300000000 as an integer and back", got.bits == 0x41b1e1a300000000);
}

static void check_heap(void)
{
    const long size = 4 << 20;
    char *start = (char *)CALL(SYS_brk, 0, 0, 0, 0, 0), *end_of_heap = start + size;
    expect("brk returns the end of the heap", start != 0 && (long)start != -1);
    expect("brk enlarges the heap by 4 MiB", CALL(SYS_brk, end_of_heap, 0, 0, 0, 0) == (long)end_of_heap);
    for (char *at = start; at < end_of_heap; at += 4096) {
        expect("new heap contains zeros", *(volatile char *)at == 0);
        *(volatile char *)at = 1;
    }
    expect("brk makes the heap smaller", CALL(SYS_brk, start, 0, 0, 0, 0) == (long)start);
}

static void check_memory(void)
{
    char *block = memory(4 * PAGE);
    block[0] = 1;
    block[4 * PAGE - 1] = 2;
    succeeds("munmap of the middle", CALL(SYS_munmap, block + PAGE, 2 * PAGE, 0, 0, 0));
    expect("what munmap left", *(volatile char *)block == 1 && ((volatile char *)block)[4 * PAGE - 1] == 2);
    char *low = (char *)(1 << 20);
    expect("mmap at a low fixed address",
           map(low, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED_NOREPLACE) == low && *(volatile char *)low == 0);
    *(volatile char *)low = 3;
    expect("memory at a low fixed address", *(volatile char *)low == 3);
}

static void check_fixed(void)
{
    expect("the address of the program", (unsigned long)&check_fixed >> 20 == 0);
    check_heap();
}

static NOINLINE int first_code(void)
{
    return 42;
}

static NOINLINE int second_code(void)
{
    return 43;
}

/* Copy a function's code to a block, and call the copy. */
static int run_copy(char *block, int (*code)(void))
{
    /* A function in Thumb code has an odd address. */
    unsigned long thumb = 0;
#if defined(__thumb__)
    thumb = 1;
#endif
    memcpy(block, (const char *)((unsigned long)code & ~thumb), 32);
    flush_instructions(block, block + 32);
    int (*volatile copy)(void) = (int (*)(void))((unsigned long)block | thumb);
    return copy();
}

static void check_code(void)
{
    char *block = memory(PAGE);
    succeeds("mprotect to executable",
             CALL(SYS_mprotect, block, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, 0, 0));
    expect("code made at run time", run_copy(block, first_code) == 42);
    expect("code that was changed", run_copy(block, second_code) == 43);
}

struct action {
    void (*handler)(int, void *, void *);
    unsigned long flags;
#if !defined(NO_RESTORER)
    void (*restorer)(void);
#endif
    u64 mask;
};

static void on_signal(int number, void (*handler)(int, void *, void *), unsigned long flags)
{
    struct action action;
    memset(&action, 0, sizeof action);
    action.handler = handler;
    action.flags = SA_SIGINFO | flags;
#if !defined(NO_RESTORER)
    action.flags |= SA_RESTORER;
    action.restorer = return_from_signal;
#endif
    succeeds("rt_sigaction", CALL(SYS_rt_sigaction, number, &action, 0, sizeof action.mask, 0));
}

static volatile int signals;
static char *volatile guarded;
static int ends_of_pipe[2];

static void count_signal(int number, void *information, void *context)
{
    (void)context;
    expect("the number of a signal in its handler", number == SIGUSR1 && *(int *)information == SIGUSR1);
    signals++;
}

static void make_writable(int number, void *information, void *context)
{
    (void)number, (void)context;
    /* si_addr, behind three integers and, on machines of 64 bits, four bytes of padding. */
    char *address = *(char **)((char *)information + (sizeof(long) == 8 ? 16 : 12));
    if (address != guarded)
        fail("the address of a fault (si_addr)", 0);
    signals++;
    succeeds("mprotect in a signal handler", CALL(SYS_mprotect, guarded, PAGE, PROT_READ | PROT_WRITE, 0, 0));
}

static void check_signals(void)
{
    on_signal(SIGUSR1, count_signal, 0);
    for (int round = 1; round <= 3; round++) {
        succeeds("tgkill", CALL(SYS_tgkill, CALL(SYS_getpid, 0, 0, 0, 0, 0), CALL(SYS_gettid, 0, 0, 0, 0, 0), SIGUSR1,
                                0, 0));
        expect("a signal to oneself", signals == round);
    }
    signals = 0;
    on_signal(SIGSEGV, make_writable, 0);
    guarded = memory(PAGE);
    for (int round = 1; round <= 3; round++) {
        succeeds("mprotect to read-only", CALL(SYS_mprotect, guarded, PAGE, PROT_READ, 0, 0));
        *(volatile int *)guarded = round; /* faults, and is done again when the handler returns */
        expect("a write after SIGSEGV was handled", signals == round && *(volatile int *)guarded == round);
    }
}

static void write_to_pipe(int number, void *information, void *context)
{
    (void)number, (void)information, (void)context;
    signals++;
    CALL(SYS_write, ends_of_pipe[1], "x", 1, 0, 0);
}

/* Have SIGALRM sent in 20 ms, and then every 20 ms: the first one may come before the call that it is to interrupt. */
static void send_alarms(void)
{
    long timer[4] = {0, 20000, 0, 20000};
    succeeds("setitimer", CALL(SYS_setitimer, 0, timer, 0, 0, 0));
}

static void check_interrupts(void)
{
    struct time long_time = {60, 0};
    char byte = 0;
    succeeds("pipe2", CALL(SYS_pipe2, ends_of_pipe, 0, 0, 0, 0));
    on_signal(SIGALRM, write_to_pipe, 0);
    send_alarms();
    expect("a signal interrupts nanosleep", CALL(SYS_nanosleep, &long_time, 0, 0, 0, 0) == -EINTR && signals > 0);
    long nothing[4] = {0, 0, 0, 0};
    succeeds("setitimer, to stop it", CALL(SYS_setitimer, 0, nothing, 0, 0, 0));
    while (signals > 0) {
        expect("read of a pipe", CALL(SYS_read, ends_of_pipe[0], &byte, 1, 0, 0) == 1);
        signals--;
    }
    on_signal(SIGALRM, write_to_pipe, SA_RESTART);
    send_alarms();
    expect("read goes on after a signal (SA_RESTART)",
           CALL(SYS_read, ends_of_pipe[0], &byte, 1, 0, 0) == 1 && byte == 'x' && signals > 0);
}

#define THREADS 8
#define ROUNDS 1000

struct thread {
    void *self; /* x86 reads the thread pointer from memory at the thread pointer */
    int id;
    int running;
#if defined(__i386__)
    struct {
        u32 number, base, limit, flags;
    } descriptor;
#endif
};

static struct thread threads[THREADS + 1]; /* the last one is of the first thread, on i386 */
static int lock, counted_atomically;
static volatile int counted_with_lock;

static void futex(int *word, int operation, int value)
{
    CALL(SYS_futex, word, operation, value, 0, 0);
}

static void take_lock(void)
{
    int found = 0;
    /* 0: free, 1: taken, 2: taken, and other threads wait. */
    if (__atomic_compare_exchange_n(&lock, &found, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return;
    while (__atomic_exchange_n(&lock, 2, __ATOMIC_ACQUIRE))
        futex(&lock, FUTEX_WAIT, 2);
}

static void free_lock(void)
{
    if (__atomic_exchange_n(&lock, 0, __ATOMIC_RELEASE) == 2)
        futex(&lock, FUTEX_WAKE, 1);
}

static void be_thread(void *argument)
{
    struct thread *self = argument;
    expect("the thread pointer", thread_pointer() == self);
    expect("the thread's id", CALL(SYS_gettid, 0, 0, 0, 0, 0) == __atomic_load_n(&self->id, __ATOMIC_ACQUIRE));
    for (int round = 0; round < ROUNDS; round++) {
        __atomic_add_fetch(&counted_atomically, 1, __ATOMIC_RELAXED);
        take_lock();
        counted_with_lock = counted_with_lock + 1;
        free_lock();
    }
    expect("the thread pointer at the end", thread_pointer() == self);
    for (;;)
        CALL(SYS_exit, 0, 0, 0, 0, 0);
}

static void *prepare_thread_pointer(struct thread *thread)
{
    thread->self = thread;
#if defined(__i386__)
    /* A segment of its own; all threads have the same number, which the first thread gets from the kernel. */
    static u32 number = -1U;
    thread->descriptor.base = (u32)thread;
    thread->descriptor.limit = 0xfffff;
    thread->descriptor.flags = 0x51; /* 32 bits, in pages, usable */
    if (number == -1U) {
        threads[THREADS].descriptor = thread->descriptor;
        threads[THREADS].descriptor.number = -1U;
        succeeds("set_thread_area", CALL(SYS_set_thread_area, &threads[THREADS].descriptor, 0, 0, 0, 0));
        number = threads[THREADS].descriptor.number;
        __asm__ volatile("mov %0, %%gs" : : "r"(number * 8 + 3));
    }
    thread->descriptor.number = number;
    return &thread->descriptor;
#else
    return thread;
#endif
}

static void check_threads(void)
{
    char *stacks = memory(THREADS * PAGE);
    for (int number = 0; number < THREADS; number++) {
        struct thread *thread = &threads[number];
        void **top = (void **)(stacks + (number + 1) * PAGE - 16);
        top[0] = (void *)be_thread;
        top[1] = thread;
        thread->running = 1;
        succeeds("clone of a thread", new_thread(CLONE_OF_THREADS, top, &thread->id, prepare_thread_pointer(thread),
                                                 &thread->running));
    }
    for (int number = 0; number < THREADS; number++)
        while (__atomic_load_n(&threads[number].running, __ATOMIC_ACQUIRE))
            futex(&threads[number].running, FUTEX_WAIT, 1);
    expect("a counter of eight threads, with atomic instructions", counted_atomically == THREADS * ROUNDS);
    expect("a counter of eight threads, with a lock", counted_with_lock == THREADS * ROUNDS);
}

static void check_processes(void)
{
    static volatile int shared = 1;
    long child = fork_process();
    if (child == 0) {
        shared = 2;
        end(7);
    }
    wait_for(child, 7);
    expect("a child process has its own memory", shared == 1);
    child = fork_process();
    if (child == 0) {
        char *arguments[4] = {path_of_program, "", "nothing", 0};
        CALL(SYS_execve, path_of_program, arguments, environment, 0, 0);
        end(8);
    }
    wait_for(child, PASSED);
}

static void check_clock(void)
{
    /* As in a kernel of 64 bits; programs of 32 bits use the call that does so, for times after 2038. */
    u64 before[2], after[2];
    struct time pause = {0, 1000000};
    succeeds("clock_gettime", CALL(SYS_clock_gettime, 1, before, 0, 0, 0));
    succeeds("nanosleep", CALL(SYS_nanosleep, &pause, 0, 0, 0, 0));
    succeeds("clock_gettime", CALL(SYS_clock_gettime, 1, after, 0, 0, 0));
    expect("nanoseconds of the clock", before[1] < 1000000000 && after[1] < 1000000000);
    expect("the clock goes on during nanosleep",
           after[0] > before[0] || (after[0] == before[0] && after[1] > before[1]));
}

static void check_statx(void)
{
    static u64 status[32];
    succeeds("statx", CALL(SYS_statx, AT_FDCWD, "/", 0, 0x7ff, status));
    const u8 *bytes = (const u8 *)status;
    expect("the mode of the root directory", (*(const u16 *)(bytes + 28) & 0170000) == 0040000);
    expect("the inode number of the root directory", *(const u64 *)(bytes + 32) != 0);
}

static void check_clone3(void)
{
    u64 arguments[8] = {0, 0, 0, 0, SIGCHLD, 0, 0, 0};
    long child = succeeds("clone3", CALL(SYS_clone3, arguments, sizeof arguments, 0, 0, 0));
    if (child == 0)
        end(7);
    wait_for(child, 7);
}

static void check_openat2(void)
{
    u64 how[3] = {O_DIRECTORY, 0, 8}; /* RESOLVE_BENEATH */
    succeeds("openat2", CALL(SYS_openat2, AT_FDCWD, ".", how, sizeof how, 0));
    expect("openat2 refuses .. with RESOLVE_BENEATH",
           CALL(SYS_openat2, AT_FDCWD, "..", how, sizeof how, 0) == -EXDEV);
}

static void check_close_range(void)
{
    int ends_of[2];
    char byte;
    succeeds("pipe2", CALL(SYS_pipe2, ends_of, 0, 0, 0, 0));
    int low = ends_of[0] < ends_of[1] ? ends_of[0] : ends_of[1];
    succeeds("close_range", CALL(SYS_close_range, low, ends_of[0] + ends_of[1] - low, 0, 0, 0));
    expect("close_range closes files", CALL(SYS_read, ends_of[0], &byte, 1, 0, 0) == -EBADF);
}

static void check_mount_setattr(void)
{
    u64 nothing[4] = {0, 0, 0, 0};
    long result = CALL(SYS_mount_setattr, AT_FDCWD, "/", 0, nothing, sizeof nothing);
    if (result != -EPERM) /* the privilege is not what is checked */
        succeeds("mount_setattr", result);
}

HIDDEN __attribute__((used)) _Noreturn void main_of(long *stack)
{
    long count = stack[0];
    char **arguments = (char **)(stack + 1);
    environment = arguments + count + 1;
    long *auxiliary = (long *)environment;
    while (*auxiliary)
        auxiliary++;
    path_of_program = arguments[0];
    const char *name = count > 1 ? arguments[count - 1] : "";
    if (is(name, "start"))
        check_start(count, arguments, auxiliary + 1);
    else if (is(name, "fixed"))
        check_fixed();
    else if (is(name, "memory"))
        check_memory();
    else if (is(name, "heap"))
        check_heap();
    else if (is(name, "code"))
        check_code();
    else if (is(name, "floats"))
        check_floats();
    else if (is(name, "clock"))
        check_clock();
    else if (is(name, "signals"))
        check_signals();
    else if (is(name, "interrupts"))
        check_interrupts();
    else if (is(name, "threads"))
        check_threads();
    else if (is(name, "processes"))
        check_processes();
    else if (is(name, "statx"))
        check_statx();
    else if (is(name, "clone3"))
        check_clone3();
    else if (is(name, "openat2"))
        check_openat2();
    else if (is(name, "close_range"))
        check_close_range();
    else if (is(name, "faccessat2"))
        succeeds("faccessat2", CALL(SYS_faccessat2, AT_FDCWD, "/", 1, 0x200, 0)); /* X_OK, AT_EACCESS */
    else if (is(name, "fchmodat2"))
        succeeds("fchmodat2", CALL(SYS_fchmodat2, AT_FDCWD, path_of_program, 0700, 0x100, 0)); /* AT_SYMLINK_NOFOLLOW */
    else if (is(name, "mount_setattr"))
        check_mount_setattr();
    else if (!is(name, "nothing"))
        fail("no such check", 0);
    end(PASSED);
}
