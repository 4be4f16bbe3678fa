"""Waiting for a child process that may hang, for as long as it makes progress.

On a busy machine, or if memory is short, a program that elsewhere starts in 20 ms takes seconds.  So elapsed time does
not show that it hangs.  It hangs if it sleeps, and neither its CPU time nor its number of major page faults grows
meanwhile (proc_pid_stat(5)).
"""

import os
import select

_LOOKS = 8  # checks per patience: after some work, a hang is found an eighth of it later, not all of it
_MOST_TIMES = 6  # times the patience, for a child that works but does not end
_MOST_SECONDS = 60.0  # the most, unless the patience is longer


def ends(child: int, patience: float, sooner: int | None = None) -> bool:
    """Return True when the child ends; False if it made no progress for ``patience`` seconds.

    Returns True also as soon as ``sooner``, a descriptor, can be read or is at its end.
    Returns False also if it works, but does not end within 6 times ``patience``, or within 60 s if that is shorter (but
    not before ``patience``).  Does not reap the child.
    """
    descriptor = os.pidfd_open(child)
    awaited = [descriptor] if sooner is None else [descriptor, sooner]
    try:
        left = min(_MOST_TIMES * patience, max(_MOST_SECONDS, patience))
        before, idle = _progress(child), 0
        while left > 0:
            if select.select(awaited, [], [], min(patience / _LOOKS, left))[0]:
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
    """Return numbers that change while the child works; waiting for the CPU or a disk (R, D) counts as work."""
    try:
        with open(f"/proc/{child}/stat", "rb") as file:
            state, *numbers = file.read().rpartition(b") ")[2].split()
    except OSError:
        return None
    if state in b"RD":
        return (os.urandom(8),)  # differs each time
    return (numbers[8], numbers[10], numbers[11])  # majflt, utime, stime
