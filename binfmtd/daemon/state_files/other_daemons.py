"""Other daemons of binfmtd that have the same instance mounted: a search of /proc.

A process is left out if /proc does not show its command line or its mount table to us.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

from binfmtd.formats.mountinfo import parse_mountinfo
from binfmtd.host.kernel_module import FS_TYPE


class Other(NamedTuple):
    """A process that runs ``binfmtd run``: its process id, as /proc has it, and its command line."""

    pid: int
    arguments: tuple[str, ...]


def other_daemons(device: int, ours: int | None) -> list[Other]:
    """Return the daemons, of all users, that have the instance of this device number mounted, except ``ours``."""
    number = (os.major(device), os.minor(device))
    daemons = []
    for daemon, _ in _daemons():
        if daemon.pid in (ours, os.getpid()):
            continue
        try:
            with open(f"/proc/{daemon.pid}/mountinfo", "rb") as file:
                table = parse_mountinfo(file.read())
        except OSError:  # the process has ended, or we may not read its files
            continue
        if any(line.fs_type == FS_TYPE and line.device == number for line in table):
            daemons.append(daemon)
    return daemons


def daemon_of(user: int) -> int | None:
    """Return the process id of a daemon that this user runs; None if /proc shows none."""
    return next((daemon.pid for daemon, owner in _daemons() if owner == user), None)


def _daemons() -> Iterator[tuple[Other, int]]:
    """Yield each daemon that /proc shows, with the id of its user."""
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = tuple(os.fsdecode(word) for word in file.read().split(b"\0"))
                owner = os.fstat(file.fileno()).st_uid
        except OSError:  # the process has ended, or we may not read its files
            continue
        if _is_daemon(words):
            yield Other(int(name), words), owner


def _is_daemon(words: tuple[str, ...]) -> bool:
    """Return True for ``python -m binfmtd run ...``, or a script named binfmtd."""
    for place, word in enumerate(words[:-1]):
        if os.path.basename(word) == "binfmtd" and words[place + 1] == "run":
            # A program that starts it (env, nsenter, a container's init) has these words, too, but is not Python.
            return os.path.basename(words[0]).startswith(("python", "binfmtd"))
    return False
