/* A build's work for a platform that Debian's mirror here may lack: it executes itself again and again.

   work NUMBER       execute `work SEED MULTIPLIER` that often, and check each result
   work SEED MULTIPLIER    exit with the lowest bits of SEED * MULTIPLIER, computed by additions */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc == 3) {
        unsigned sum = 0, seed = strtoul(argv[1], NULL, 10), times = strtoul(argv[2], NULL, 10);
        while (times--)
            sum += seed;
        return sum & 0x7f;
    }
    unsigned number = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
    for (unsigned i = 1; i <= number; i++) {
        char seed[16];
        int status;
        pid_t child = fork();
        if (child == 0) {
            snprintf(seed, sizeof seed, "%u", i);
            execl(argv[0], argv[0], seed, "1000", (char *)NULL);
            _exit(126);
        }
        if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
            (unsigned)WEXITSTATUS(status) != (i * 1000 & 0x7f)) {
            fprintf(stderr, "work: execution %u of %u failed\n", i, number);
            return 1;
        }
    }
    printf("work: %u executions\n", number);
    return number == 0;
}
