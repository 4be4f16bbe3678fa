/*
 * Prints what a program finds when it starts, without a C library: its stack, its registers, bss and brk area.
 * "loads" counts the PT_LOAD program headers at AT_PHDR.
 */
#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n"
        "or %rbx, %rax\n or %rcx, %rax\n or %rdx, %rax\n or %rsi, %rax\n or %rdi, %rax\n or %rbp, %rax\n"
        "or %r8, %rax\n or %r9, %rax\n or %r10, %rax\n or %r11, %rax\n or %r12, %rax\n or %r13, %rax\n"
        "or %r14, %rax\n or %r15, %rax\n mov %rax, %rsi\n mov %rsp, %rdi\n and $-16, %rsp\n call report\n");
enum { WRITE = 1, BRK = 12, EXIT = 60, UNAME = 63, GETEUID = 107 };
static long call(long number, long first, long second, long third)
{
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(first), "S"(second), "d"(third)
                     : "rcx", "r11", "memory");
    return result;
}
#else
__asm__(".globl _start\n_start:\n"
        "orr x0, x0, x1\n orr x0, x0, x2\n orr x0, x0, x3\n orr x0, x0, x4\n orr x0, x0, x5\n orr x0, x0, x6\n"
        "orr x0, x0, x7\n orr x0, x0, x8\n orr x0, x0, x9\n orr x0, x0, x10\n orr x0, x0, x11\n orr x0, x0, x12\n"
        "orr x0, x0, x13\n orr x0, x0, x14\n orr x0, x0, x15\n orr x0, x0, x16\n orr x0, x0, x17\n"
        "mov x1, x0\n mov x0, sp\n bl report\n");
enum { WRITE = 64, EXIT = 93, UNAME = 160, GETEUID = 175, BRK = 214 };
static long call(long number, long first, long second, long third)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = first;
    register long x1 __asm__("x1") = second;
    register long x2 __asm__("x2") = third;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
#endif

enum { AT_PHDR = 3, AT_PHENT = 4, AT_PHNUM = 5, AT_EXECFN = 31, BSS = 100000, MORE = 1 << 20 };

static volatile char bss[BSS];
static char line[8192];
static volatile char data[BSS] = "data";

static void print(const char *word, const char *text)
{
    int size = 0;

    while (*word)
        line[size++] = *word++;
    line[size++] = ' ';
    while (*text && size < (int)sizeof line - 1)
        line[size++] = *text++;
    line[size++] = '\n';
    call(WRITE, 1, (long)line, size);
}

static void number(const char *word, unsigned long value)
{
    char text[20];
    int place = sizeof text - 1;

    text[place] = 0;
    do
        text[--place] = "0123456789abcdef"[value & 15];
    while (value >>= 4);
    print(word, text + place);
}

__attribute__((used)) void report(long *stack, unsigned long registers)
{
    char **argv = (char **)(stack + 1), **environment = argv + stack[0] + 1;
    unsigned long *auxiliary, headers = 0, size = 0, count = 0, loads = 0, brk;
    char name[6 * 65];
    int place;

    number("registers", registers);
    number("alignment", (unsigned long)stack & 15);
    for (; *argv; argv++)
        print("argument", *argv);
    for (; *environment; environment++)
        print("variable", *environment);
    for (auxiliary = (unsigned long *)(environment + 1); auxiliary[0]; auxiliary += 2) {
        number("type", auxiliary[0]);
        number("value", auxiliary[1]);
        if (auxiliary[0] == AT_EXECFN)
            print("executed", (char *)auxiliary[1]);
        if (auxiliary[0] == AT_PHDR)
            headers = auxiliary[1];
        if (auxiliary[0] == AT_PHENT)
            size = auxiliary[1];
        if (auxiliary[0] == AT_PHNUM)
            count = auxiliary[1];
    }
    for (; count; count--, headers += size)
        loads += *(unsigned int *)headers == 1;
    number("loads", loads);
    for (place = 0; place < BSS && !bss[place]; place++)
        bss[place] = 1;
    number("zeros", place);
    print("data", (char *)data);
    brk = call(BRK, 0, 0, 0);
    loads = call(BRK, brk + MORE, 0, 0) - brk;
    number("more", loads);
    if (loads == MORE)
        ((volatile char *)brk)[MORE - 1] = 1;
    call(UNAME, (long)name, 0, 0);
    print("release", name + 2 * 65);
    number("user", call(GETEUID, 0, 0, 0));
    call(EXIT, 42, 0, 0);
    __builtin_unreachable();
}
