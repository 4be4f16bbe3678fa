"""Waiting for a child that may hang, for as long as it works.

On a busy machine, or where memory is short, a program that starts in 20 ms elsewhere takes seconds.  So the time that
has passed does not show that it hangs.  It hangs if it sleeps, and neither its CPU time nor its number of major page
faults has grown meanwhile (proc_pid_stat(5)).
"""

import os
import select

_LOOKS = 8  # in the time of the patience: work at its start then costs an eighth of it, not all of it again
_MOST_TIMES = 6  # as long as the patience, for a child that works but does not end
_MOST_SECONDS = 60.0  # or so long, unless the patience is longer


def ends(child: int, patience: float) -> bool:
    """Whether it ends; False if it did nothing for ``patience`` seconds, or works for several times as long.

    It is not reaped.
    """
    descriptor = os.pidfd_open(child)
    try:
        left = min(_MOST_TIMES * patience, max(_MOST_SECONDS, patience))
        before, idle = _progress(child), 0
        while left > 0:
            if select.select([descriptor], [], [], min(patience / _LOOKS, left))[0]:
                return True
            left -= patience / _LOOKS
            now = _progress(child)
            before, idle = now, idle + 1 if now == before else 0
            if idle == _LOOKS:
                return False
        return False
    finally:
        os.close(descriptor)


def _progress(child: int) -> tuple[bytes, ...] | None:
    """What grows while it works; its state counts as well, as one that waits for the CPU or a disk does not hang."""
    try:
        with open(f"/proc/{child}/stat", "rb") as file:
            state, *numbers = file.read().rpartition(b") ")[2].split()
    except OSError:
        return None
    if state in b"RD":
        return (os.urandom(8),)  # never the same
    return (numbers[8], numbers[10], numbers[11])  # majflt, utime, stime
