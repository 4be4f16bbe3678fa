/*
 * executes PROGRAM STATUS COUNTS
 *
 * Executes PROGRAM without a pause until it is killed, or its parent ends.  COUNTS is a file of two numbers of eight
 * bytes that is mapped: how many executions there were, and how many of them failed, or ended with another exit status
 * than STATUS.
 */
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int file = open(argv[3], O_RDWR);
    volatile int64_t *counts = mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file < 0 || counts == MAP_FAILED) {
        perror("executes");
        return 1;
    }
    int wanted = atoi(argv[2]);
    char *program[] = {argv[1], NULL};
    puts("ready");
    fflush(stdout);
    for (;;) {
        pid_t child;
        int status = -1;
        int failed = posix_spawn(&child, argv[1], NULL, NULL, program, environ) != 0;
        if (!failed)
            failed = waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != wanted;
        counts[1] += failed;
        counts[0]++;
    }
}
