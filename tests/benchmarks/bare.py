"""``bare.py DIR NAME LINE``: the same loop as loop.c, as one writes it with pyinotify and nothing else."""

import os
import sys

import pyinotify

directory, name, line = sys.argv[1:]
entry = os.path.join(directory, name)
register = os.path.join(directory, "register")


class Repair(pyinotify.ProcessEvent):  # type: ignore[misc]  # pyinotify has no types
    """Register the entry again where it is missing, whatever happened."""

    def process_default(self, _event: object) -> None:
        if not os.access(entry, os.F_OK):
            with open(register, "wb", buffering=0) as file:
                file.write(line.encode())


manager = pyinotify.WatchManager()
notifier = pyinotify.Notifier(manager, Repair())
manager.add_watch(directory, pyinotify.IN_MODIFY | pyinotify.IN_CLOSE_WRITE | pyinotify.IN_DELETE)
print("ready", flush=True)
notifier.loop()
