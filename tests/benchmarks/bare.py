"""``bare.py DIR NAME LINE [NAME LINE]...``: the loop of loop.c, in the usual way with pyinotify alone."""

import os
import sys

import pyinotify

directory, *words = sys.argv[1:]
lines = dict(zip(words[::2], words[1::2], strict=True))
register = os.path.join(directory, "register")


class Repair(pyinotify.ProcessEvent):  # type: ignore[misc]  # pyinotify has no types
    """Register each missing entry again, whatever the event."""

    def process_default(self, _event: object) -> None:
        for name, line in lines.items():
            if not os.access(os.path.join(directory, name), os.F_OK):
                with open(register, "wb", buffering=0) as file:
                    file.write(os.fsencode(line))


manager = pyinotify.WatchManager()
notifier = pyinotify.Notifier(manager, Repair())
manager.add_watch(directory, pyinotify.IN_MODIFY | pyinotify.IN_CLOSE_WRITE | pyinotify.IN_DELETE)
print("ready", flush=True)
notifier.loop()
