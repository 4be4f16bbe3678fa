"""Scheduling: how soon a thread that wakes for a repair gets a core that a build uses.

* Short slices of CPU time need no privilege.  From Linux 6.12 on a thread that wakes takes the core from a thread with
  a longer slice, which otherwise runs to the end of its slice, some milliseconds
  (Documentation/scheduler/sched-eevdf.rst; PREEMPT_SHORT in kernel/sched/features.h).  An earlier kernel ignores them.
* A thread with real-time scheduling (SCHED_FIFO, sched(7)) takes the core at once, and keeps it until it waits.  This
  needs CAP_SYS_NICE, or RLIMIT_RTPRIO of 1 or more.  The kernel gives ordinary scheduling with niceness 0 to the
  threads that such a thread starts (SCHED_RESET_ON_FORK), so each of them begins with ``begin_thread``.
"""

import errno
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# The call's number on architectures of 64 bits: syscall_64.tbl of arch/x86, syscall.tbl of arch/powerpc and arch/s390,
# and for the others include/uapi/asm-generic/unistd.h.
_SCHED_SETATTR = {
    "x86_64": 314,
    "aarch64": 274,
    "riscv64": 274,
    "loongarch64": 274,
    "ppc64": 355,
    "ppc64le": 355,
    "s390x": 345,
}
_SCHED_ATTR = struct.Struct("IIQiIQQQ")  # size, policy, flags, nice, priority, runtime, deadline, period: version 0
_KEEP_POLICY = 8  # SCHED_FLAG_KEEP_POLICY (include/uapi/linux/sched.h)
_POINTER_BYTES = 8
_SLICE = 0.0001  # seconds; the kernel's minimum
_PRIORITY = 1  # the lowest real-time priority; it is above all ordinary threads
LONGEST_REAL_TIME = 0.5  # seconds of CPU time that the thread may take without a wait; a repair takes milliseconds
_KILLED_AFTER = 5.0  # seconds of it after which the kernel kills the process, if the signal's handler does not run


class _Process:
    """The scheduling that this process has requested."""

    niceness: int | None = None  # before real-time scheduling; None: never requested
    real_time = False  # the loop has a real-time policy, except for work that is not urgent


def use_short_slices(seconds: float = _SLICE) -> None:
    """Give CPU slices of this length to this thread, and to those that it starts.

    The kernel gives 0.1 ms at least; 0 is its default.  Raises OSError.  It does so also for a thread with a real-time
    policy, which has no such slice, and on an architecture whose number of sched_setattr(2) is missing here.
    """
    import ctypes

    number = _SCHED_SETATTR.get(os.uname().machine) if struct.calcsize("P") == _POINTER_BYTES else None
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, 0, _KEEP_POLICY, nice, 0, round(seconds * 1e9), 0, 0)
    if ctypes.CDLL(None, use_errno=True).syscall(number, 0, attributes, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def use_real_time() -> None:
    """Schedule this thread by SCHED_FIFO.

    The kernel sends SIGXCPU to the process when the thread has taken ``LONGEST_REAL_TIME`` of CPU time without a wait
    (RLIMIT_RTTIME in getrlimit(2)).  The signal's handler calls ``end_real_time``, so a fault does not keep a core from
    all other programs.  Raises OSError if this is not allowed.
    """
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    _use_fifo()
    _Process.niceness, _Process.real_time = niceness, True
    limits = resource.getrlimit(resource.RLIMIT_RTTIME)  # an administrator may have set lower ones
    ours = (round(seconds * 1e6) for seconds in (LONGEST_REAL_TIME, _KILLED_AFTER))
    soft, hard = (min(b, a) if a != resource.RLIM_INFINITY else b for a, b in zip(limits, ours, strict=True))
    try:
        resource.setrlimit(resource.RLIMIT_RTTIME, (soft, hard))
    except (OSError, ValueError) as error:  # Python raises ValueError for EPERM
        end_real_time()
        raise OSError(errno.EPERM, f"RLIMIT_RTTIME cannot be set: {error}") from None


def end_real_time() -> bool:
    """Return this thread to the ordinary scheduling that it had before; return False if it has that already."""
    if not _Process.real_time:
        return False
    _Process.real_time = False
    with suppress(OSError):
        _use_ordinary()
    return True


def _use_ordinary() -> None:
    os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    with suppress(OSError):
        use_short_slices()


@contextmanager
def ordinary_time() -> Iterator[None]:
    """Suspend the real-time priority of this thread in the block, for work that is not urgent."""
    if not _Process.real_time:
        yield
        return
    _use_ordinary()
    try:
        yield
    finally:
        if _Process.real_time:  # SIGXCPU may have ended it meanwhile
            with suppress(OSError):  # no longer allowed
                _use_fifo()


@contextmanager
def urgent_time() -> Iterator[None]:
    """Do something urgent in a block of ``ordinary_time``: in this one the thread has real-time priority again."""
    if not _Process.real_time:
        yield
        return
    with suppress(OSError):
        _use_fifo()
    try:
        yield
    finally:
        _use_ordinary()


def begin_thread() -> None:
    """Give a new thread the process's niceness and slices, which a real-time thread does not pass on."""
    if _Process.niceness is None:
        return
    with suppress(OSError):  # RLIMIT_NICE may not allow it
        os.setpriority(os.PRIO_PROCESS, 0, _Process.niceness)
    with suppress(OSError):
        use_short_slices()


def _use_fifo() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(_PRIORITY))
