/* What differs between the machines: the numbers of system calls, and the few functions that C cannot express.
 *
 * begin        is the entry point; it calls main_of with the address of argc.
 * system_call  makes a system call and returns its result, or minus the error number.
 * new_thread   makes a thread with clone; the stack begins with a function and its argument.
 * return_from_signal  ends a signal handler where the kernel takes that address from SA_RESTORER.
 *
 * Sources: syscall(2), clone(2), the psABI of each machine, and include/uapi/asm-generic/ and
 * arch/.../include/uapi/asm/ of Linux.
 */

#define HIDDEN __attribute__((visibility("hidden")))

HIDDEN long system_call(long number, long a, long b, long c, long d, long e, long f);
HIDDEN long new_thread(long flags, void *stack, int *parent_tid, void *thread_pointer, int *child_tid);
HIDDEN void return_from_signal(void);

/* These numbers are equal on all machines here. */
#define SYS_clone3 435
#define SYS_close_range 436
#define SYS_openat2 437
#define SYS_faccessat2 439
#define SYS_mount_setattr 442
#define SYS_fchmodat2 452

#define FUNCTION(name) ".hidden " #name "\n.globl " #name "\n.type " #name ",%function\n" #name ":\n"

#if defined(__x86_64__)

#define SYS_read 0
#define SYS_write 1
#define SYS_mmap 9
#define SYS_mprotect 10
#define SYS_munmap 11
#define SYS_brk 12
#define SYS_rt_sigaction 13
#define SYS_nanosleep 35
#define SYS_setitimer 38
#define SYS_getpid 39
#define SYS_clone 56
#define SYS_execve 59
#define SYS_exit 60
#define SYS_wait4 61
#define SYS_gettid 186
#define SYS_futex 202
#define SYS_clock_gettime 228
#define SYS_exit_group 231
#define SYS_tgkill 234
#define SYS_pipe2 293
#define SYS_statx 332
#define O_DIRECTORY 0x10000

__asm__(".globl begin\n.type begin,%function\nbegin:\n"
        "xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call main_of\n hlt\n"
        FUNCTION(system_call)
        "mov %rdi, %rax\n mov %rsi, %rdi\n mov %rdx, %rsi\n mov %rcx, %rdx\n mov %r8, %r10\n mov %r9, %r8\n"
        "mov 8(%rsp), %r9\n syscall\n ret\n"
        FUNCTION(new_thread)
        "mov %r8, %r10\n mov %rcx, %r8\n mov $56, %eax\n syscall\n test %eax, %eax\n jnz 1f\n"
        "xor %ebp, %ebp\n pop %rax\n pop %rdi\n call *%rax\n hlt\n 1: ret\n"
        FUNCTION(return_from_signal)
        "mov $15, %eax\n syscall\n hlt\n");

static inline void *thread_pointer(void)
{
    void *pointer;
    __asm__ volatile("mov %%fs:0, %0" : "=r"(pointer)); /* the first word of the thread's block is its address */
    return pointer;
}

#elif defined(__i386__)

#define SYS_exit 1
#define SYS_read 3
#define SYS_write 4
#define SYS_execve 11
#define SYS_getpid 20
#define SYS_brk 45
#define SYS_munmap 91
#define SYS_setitimer 104
#define SYS_wait4 114
#define SYS_clone 120
#define SYS_mprotect 125
#define SYS_nanosleep 162
#define SYS_rt_sigaction 174
#define SYS_mmap 192 /* mmap2 */
#define SYS_gettid 224
#define SYS_futex 240
#define SYS_set_thread_area 243
#define SYS_exit_group 252
#define SYS_tgkill 270
#define SYS_pipe2 331
#define SYS_statx 383
#define SYS_clock_gettime 403 /* clock_gettime64 */
#define O_DIRECTORY 0x10000

__asm__(".globl begin\n.type begin,%function\nbegin:\n"
        "xor %ebp, %ebp\n mov %esp, %eax\n and $-16, %esp\n sub $12, %esp\n push %eax\n call main_of\n hlt\n"
        FUNCTION(system_call)
        "push %ebp\n push %edi\n push %esi\n push %ebx\n mov 20(%esp), %eax\n mov 24(%esp), %ebx\n"
        "mov 28(%esp), %ecx\n mov 32(%esp), %edx\n mov 36(%esp), %esi\n mov 40(%esp), %edi\n mov 44(%esp), %ebp\n"
        "int $0x80\n pop %ebx\n pop %esi\n pop %edi\n pop %ebp\n ret\n"
        FUNCTION(new_thread)
        "push %edi\n push %esi\n push %ebx\n mov 16(%esp), %ebx\n mov 20(%esp), %ecx\n mov 24(%esp), %edx\n"
        "mov 28(%esp), %esi\n mov 32(%esp), %edi\n mov $120, %eax\n int $0x80\n test %eax, %eax\n jnz 1f\n"
        "xor %ebp, %ebp\n pop %eax\n pop %edx\n sub $4, %esp\n push %edx\n call *%eax\n hlt\n"
        "1: pop %ebx\n pop %esi\n pop %edi\n ret\n"
        FUNCTION(return_from_signal)
        "mov $173, %eax\n int $0x80\n hlt\n");

static inline void *thread_pointer(void)
{
    void *pointer;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(pointer)); /* the first word of the thread's block is its address */
    return pointer;
}

#elif defined(__aarch64__) || (defined(__riscv) && __riscv_xlen == 64)

#define SYS_pipe2 59
#define SYS_read 63
#define SYS_write 64
#define SYS_exit 93
#define SYS_exit_group 94
#define SYS_futex 98
#define SYS_nanosleep 101
#define SYS_setitimer 103
#define SYS_clock_gettime 113
#define SYS_tgkill 131
#define SYS_rt_sigaction 134
#define SYS_getpid 172
#define SYS_gettid 178
#define SYS_brk 214
#define SYS_munmap 215
#define SYS_clone 220
#define SYS_execve 221
#define SYS_mmap 222
#define SYS_mprotect 226
#define SYS_riscv_flush_icache 259
#define SYS_wait4 260
#define SYS_statx 291

#if defined(__aarch64__)

#define O_DIRECTORY 0x4000

__asm__(".globl begin\n.type begin,%function\nbegin:\n"
        "mov x29, #0\n mov x30, #0\n mov x0, sp\n and sp, x0, #-16\n bl main_of\n brk #1\n"
        FUNCTION(system_call)
        "mov x8, x0\n mov x0, x1\n mov x1, x2\n mov x2, x3\n mov x3, x4\n mov x4, x5\n mov x5, x6\n svc #0\n ret\n"
        FUNCTION(new_thread)
        "mov x8, #220\n svc #0\n cbnz x0, 1f\n mov x29, #0\n ldp x1, x0, [sp], #16\n blr x1\n brk #1\n 1: ret\n"
        FUNCTION(return_from_signal)
        "mov x8, #139\n svc #0\n brk #1\n");

static inline void *thread_pointer(void)
{
    void *pointer;
    __asm__ volatile("mrs %0, tpidr_el0" : "=r"(pointer));
    return pointer;
}

#else

#define O_DIRECTORY 0x10000
#define NO_RESTORER /* struct sigaction has no such field */

__asm__(".globl begin\n.type begin,%function\nbegin:\n"
        "li ra, 0\n mv a0, sp\n andi sp, sp, -16\n call main_of\n ebreak\n"
        FUNCTION(system_call)
        "mv a7, a0\n mv a0, a1\n mv a1, a2\n mv a2, a3\n mv a3, a4\n mv a4, a5\n mv a5, a6\n ecall\n ret\n"
        FUNCTION(new_thread)
        "li a7, 220\n ecall\n bnez a0, 1f\n ld a1, 0(sp)\n ld a0, 8(sp)\n addi sp, sp, 16\n jalr a1\n ebreak\n"
        "1: ret\n");

static inline void *thread_pointer(void)
{
    void *pointer;
    __asm__ volatile("mv %0, tp" : "=r"(pointer));
    return pointer;
}

#endif

#elif defined(__arm__)

#define SYS_exit 1
#define SYS_read 3
#define SYS_write 4
#define SYS_execve 11
#define SYS_getpid 20
#define SYS_brk 45
#define SYS_munmap 91
#define SYS_setitimer 104
#define SYS_wait4 114
#define SYS_clone 120
#define SYS_mprotect 125
#define SYS_nanosleep 162
#define SYS_rt_sigaction 174
#define SYS_mmap 192 /* mmap2 */
#define SYS_gettid 224
#define SYS_futex 240
#define SYS_exit_group 248
#define SYS_tgkill 268
#define SYS_pipe2 359
#define SYS_statx 397
#define SYS_clock_gettime 403 /* clock_gettime64 */
#define SYS_cacheflush 0xf0002
#define O_DIRECTORY 0x4000

#if defined(__thumb__)
#define CODE ".thumb_func\n"
#else
#define CODE ""
#endif

__asm__(".syntax unified\n"
        ".globl begin\n.type begin,%function\n" CODE "begin:\n"
        "mov r0, sp\n bl main_of\n udf #0\n"
        CODE FUNCTION(system_call)
        "push {r4, r5, r7, lr}\n mov r7, r0\n mov r0, r1\n mov r1, r2\n mov r2, r3\n ldr r3, [sp, #16]\n"
        "ldr r4, [sp, #20]\n ldr r5, [sp, #24]\n svc #0\n pop {r4, r5, r7, pc}\n"
        CODE FUNCTION(new_thread)
        "push {r4, r7}\n ldr r4, [sp, #8]\n mov r7, #120\n svc #0\n cmp r0, #0\n bne 1f\n"
        "ldr r1, [sp]\n ldr r0, [sp, #4]\n blx r1\n udf #0\n 1: pop {r4, r7}\n bx lr\n"
        CODE FUNCTION(return_from_signal)
        "mov r7, #173\n svc #0\n udf #0\n");

static inline void *thread_pointer(void)
{
    void *pointer;
    __asm__ volatile("mrc p15, 0, %0, c13, c0, 3" : "=r"(pointer));
    return pointer;
}

#elif defined(__powerpc64__)

#define SYS_exit 1
#define SYS_read 3
#define SYS_write 4
#define SYS_execve 11
#define SYS_getpid 20
#define SYS_brk 45
#define SYS_mmap 90
#define SYS_munmap 91
#define SYS_setitimer 104
#define SYS_wait4 114
#define SYS_clone 120
#define SYS_mprotect 125
#define SYS_nanosleep 162
#define SYS_rt_sigaction 173
#define SYS_gettid 207
#define SYS_futex 221
#define SYS_exit_group 234
#define SYS_clock_gettime 246
#define SYS_tgkill 250
#define SYS_pipe2 317
#define SYS_statx 383
#define O_DIRECTORY 0x4000

/* At the entry point r12 has its address; code reaches its data through r2. */
__asm__(".globl begin\n.type begin,%function\nbegin:\n"
        "addis 2, 12, .TOC.-begin@ha\n addi 2, 2, .TOC.-begin@l\n .localentry begin, .-begin\n"
        "mr 3, 1\n clrrdi 1, 1, 4\n li 0, 0\n stdu 0, -64(1)\n mtlr 0\n bl main_of\n nop\n trap\n"
        FUNCTION(system_call)
        "mr 0, 3\n mr 3, 4\n mr 4, 5\n mr 5, 6\n mr 6, 7\n mr 7, 8\n mr 8, 9\n sc\n bnslr\n neg 3, 3\n blr\n"
        FUNCTION(new_thread)
        "li 0, 120\n sc\n bso 2f\n cmpdi 3, 0\n bnelr\n ld 12, 0(1)\n ld 3, 8(1)\n mtctr 12\n li 0, 0\n"
        "stdu 0, -64(1)\n bctrl\n trap\n 2: neg 3, 3\n blr\n"
        FUNCTION(return_from_signal)
        "li 0, 172\n sc\n trap\n");

static inline void *thread_pointer(void)
{
    void *pointer;
    __asm__ volatile("mr %0, 13" : "=r"(pointer));
    return pointer;
}

#elif defined(__s390x__)

#define SYS_exit 1
#define SYS_read 3
#define SYS_write 4
#define SYS_execve 11
#define SYS_getpid 20
#define SYS_brk 45
#define SYS_mmap 90 /* its arguments are in memory */
#define SYS_munmap 91
#define SYS_setitimer 104
#define SYS_wait4 114
#define SYS_clone 120
#define SYS_mprotect 125
#define SYS_nanosleep 162
#define SYS_rt_sigaction 174
#define SYS_gettid 236
#define SYS_futex 238
#define SYS_tgkill 241
#define SYS_exit_group 248
#define SYS_clock_gettime 260
#define SYS_pipe2 325
#define SYS_statx 379
#define O_DIRECTORY 0x10000

__asm__(".globl begin\n.type begin,%function\nbegin:\n"
        "lgr %r2, %r15\n aghi %r15, -160\n xc 0(8, %r15), 0(%r15)\n brasl %r14, main_of\n j .+2\n"
        FUNCTION(system_call)
        "stmg %r6, %r7, 48(%r15)\n lgr %r1, %r2\n lgr %r2, %r3\n lgr %r3, %r4\n lgr %r4, %r5\n lgr %r5, %r6\n"
        "lg %r6, 160(%r15)\n lg %r7, 168(%r15)\n svc 0\n lmg %r6, %r7, 48(%r15)\n br %r14\n"
        FUNCTION(new_thread)
        "stg %r6, 48(%r15)\n lgr %r0, %r2\n lgr %r2, %r3\n lgr %r3, %r0\n lgr %r0, %r5\n lgr %r5, %r6\n lgr %r6, %r0\n"
        "svc 120\n ltgr %r2, %r2\n jnz 1f\n lg %r1, 0(%r15)\n lg %r2, 8(%r15)\n aghi %r15, -160\n"
        "xc 0(8, %r15), 0(%r15)\n basr %r14, %r1\n j .+2\n 1: lg %r6, 48(%r15)\n br %r14\n"
        FUNCTION(return_from_signal)
        "svc 173\n j .+2\n");

static inline void *thread_pointer(void)
{
    unsigned long high, low;
    __asm__ volatile("ear %0, %%a0\n ear %1, %%a1" : "=r"(high), "=r"(low));
    return (void *)(high << 32 | (low & 0xffffffffUL));
}

#else
#error "no such machine here"
#endif

/* Make the processor fetch instructions that were written to memory as data. */
static inline void flush_instructions(char *from, char *to)
{
#if defined(__aarch64__)
    unsigned long type;
    __asm__ volatile("mrs %0, ctr_el0" : "=r"(type));
    const unsigned long data_line = 4UL << (type >> 16 & 15), code_line = 4UL << (type & 15);
    for (unsigned long at = (unsigned long)from & -data_line; at < (unsigned long)to; at += data_line)
        __asm__ volatile("dc cvau, %0" : : "r"(at) : "memory");
    __asm__ volatile("dsb ish" : : : "memory");
    for (unsigned long at = (unsigned long)from & -code_line; at < (unsigned long)to; at += code_line)
        __asm__ volatile("ic ivau, %0" : : "r"(at) : "memory");
    __asm__ volatile("dsb ish\n isb" : : : "memory");
#elif defined(__riscv)
    system_call(SYS_riscv_flush_icache, (long)from, (long)to, 0, 0, 0, 0);
    __asm__ volatile("fence.i" : : : "memory");
#elif defined(__arm__)
    system_call(SYS_cacheflush, (long)from, (long)to, 0, 0, 0, 0);
#elif defined(__powerpc64__)
    for (char *at = from; at < to; at += 16)
        __asm__ volatile("dcbst 0, %0\n sync\n icbi 0, %0" : : "r"(at) : "memory");
    __asm__ volatile("sync\n isync" : : : "memory");
#else
    (void)from, (void)to; /* x86 and z compare by themselves */
    __asm__ volatile("" : : : "memory");
#endif
}
