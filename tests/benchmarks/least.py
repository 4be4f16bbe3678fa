"""``least.py DIR NAME LINE``: the same loop as loop.c, in the fewest calls that Python needs."""

import os
import sys

import pyinotify

directory, name, line = sys.argv[1:]
entry, register, data = os.path.join(directory, name), os.path.join(directory, "register"), line.encode()
manager = pyinotify.WatchManager()
manager.add_watch(directory, pyinotify.IN_MODIFY | pyinotify.IN_CLOSE_WRITE | pyinotify.IN_DELETE)
events = manager.get_fd()
print("ready", flush=True)
while os.read(events, 65536):
    if not os.access(entry, os.F_OK):
        descriptor = os.open(register, os.O_WRONLY)
        os.write(descriptor, data)
        os.close(descriptor)
