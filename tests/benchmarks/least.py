"""``least.py DIR NAME LINE [NAME LINE]...``: the loop of loop.c, in the fewest calls that Python needs."""

import os
import sys

import pyinotify

directory, *words = sys.argv[1:]
register = os.path.join(directory, "register")
lines = [(os.path.join(directory, name), os.fsencode(line)) for name, line in zip(words[::2], words[1::2], strict=True)]
manager = pyinotify.WatchManager()
manager.add_watch(directory, pyinotify.IN_MODIFY | pyinotify.IN_CLOSE_WRITE | pyinotify.IN_DELETE)
events = manager.get_fd()
print("ready", flush=True)
while os.read(events, 65536):
    for entry, line in lines:
        if not os.access(entry, os.F_OK):
            descriptor = os.open(register, os.O_WRONLY)
            os.write(descriptor, line)
            os.close(descriptor)
