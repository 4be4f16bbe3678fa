/*
 * loop DIR NAME LINE [NAME LINE]...
 *
 * The least that can keep entries of binfmt_misc: when something happens in DIR and a NAME is not there, write its LINE
 * to register.  What binfmtd is measured against.  Prints "ready" when it watches.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

int main(int argc, char **argv) {
    static char events[65536];
    if (argc < 4 || argc % 2 != 0 || chdir(argv[1]) != 0)
        return 2;
    int watch = inotify_init1(IN_CLOEXEC);
    if (watch < 0 || inotify_add_watch(watch, ".", IN_MODIFY | IN_CLOSE_WRITE | IN_DELETE) < 0)
        return 1;
    puts("ready");
    fflush(stdout);
    while (read(watch, events, sizeof events) > 0) {
        int registering = -1;
        for (char **entry = argv + 2; *entry; entry += 2) {
            if (access(entry[0], F_OK) == 0)
                continue;
            if (registering < 0)
                registering = open("register", O_WRONLY);
            if (write(registering, entry[1], strlen(entry[1])) < 0)
                perror("register");
        }
        if (registering >= 0)
            close(registering);
    }
    return 1;
}
