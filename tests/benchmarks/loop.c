/*
 * loop DIR NAME LINE
 *
 * The least that can keep one entry of binfmt_misc: when something happens in DIR and NAME is not there, write LINE to
 * register.  What binfmtd is measured against.  Prints "ready" when it watches.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

int main(int argc, char **argv) {
    static char events[65536];
    if (argc != 4 || chdir(argv[1]) != 0)
        return 2;
    int watch = inotify_init1(IN_CLOEXEC);
    if (watch < 0 || inotify_add_watch(watch, ".", IN_MODIFY | IN_CLOSE_WRITE | IN_DELETE) < 0)
        return 1;
    puts("ready");
    fflush(stdout);
    size_t length = strlen(argv[3]);
    while (read(watch, events, sizeof events) > 0) {
        if (access(argv[2], F_OK) == 0)
            continue;
        int registering = open("register", O_WRONLY);
        if (registering < 0 || write(registering, argv[3], length) != (ssize_t)length)
            perror("register");
        close(registering);
    }
    return 1;
}
