"""Other daemons of ours that keep the same instance: found among the processes, as far as they can be seen."""

import os
from typing import NamedTuple

from binfmtd.formats.mountinfo import parse_mountinfo
from binfmtd.kernel.module import FS_TYPE


class Other(NamedTuple):
    """A process that runs ``binfmtd run``."""

    pid: int
    arguments: tuple[str, ...]


def other_daemons(device: int, ours: int | None) -> list[Other]:
    """Those that have the instance of this device number mounted, but for ``ours``; those of others' users too."""
    number = (os.major(device), os.minor(device))
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        if int(name) in (ours, os.getpid()):
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = tuple(os.fsdecode(word) for word in file.read().split(b"\0"))
            if not _is_daemon(words):
                continue
            with open(f"/proc/{name}/mountinfo", "rb") as file:
                table = parse_mountinfo(file.read())
        except OSError:  # it has ended, or may not be looked at
            continue
        if any(line.fs_type == FS_TYPE and line.device == number for line in table):
            found.append(Other(int(name), words))
    return found


def _is_daemon(words: tuple[str, ...]) -> bool:
    """``python -m binfmtd run ...``, or a script of that name."""
    for place, word in enumerate(words[:-1]):
        if os.path.basename(word) == "binfmtd" and words[place + 1] == "run":
            # What starts it (env, nsenter, a container's init) has these words, too, but is no Python.
            return os.path.basename(words[0]).startswith(("python", "binfmtd"))
    return False
