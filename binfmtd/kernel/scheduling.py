"""When a thread that wakes to make a repair gets a core that a build uses.

* Short slices of CPU time take no privilege.  From Linux 6.12 on a thread that wakes takes the core from one whose
  slice is longer, which otherwise runs until the end of its own, some milliseconds
  (Documentation/scheduler/sched-eevdf.rst; PREEMPT_SHORT in kernel/sched/features.h).  An earlier kernel ignores them.
* Real-time scheduling (SCHED_FIFO, sched(7)) takes the core at once, and keeps it until the thread waits.  It takes
  CAP_SYS_NICE, or RLIMIT_RTPRIO of 1 or more.  The kernel schedules what such a thread starts ordinarily, with niceness
  0 (SCHED_RESET_ON_FORK): so each of our threads begins with ``begin_thread``.
"""

import errno
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# The call's number on the architectures of 64 bits that were looked up: arch/x86/entry/syscalls/syscall_64.tbl and
# include/uapi/asm-generic/unistd.h.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
_SCHED_ATTR = struct.Struct("IIQiIQQQ")  # size, policy, flags, nice, priority, runtime, deadline, period: version 0
_KEEP_POLICY = 8  # SCHED_FLAG_KEEP_POLICY (include/uapi/linux/sched.h)
_POINTER_BYTES = 8
_SLICE = 0.0001  # seconds; the kernel gives no shorter one
_PRIORITY = 1  # the lowest of the real-time ones: any is above all ordinary threads
LONGEST_REAL_TIME = 0.5  # seconds of CPU time that the thread may take without a wait; an answer takes milliseconds
_KILLED_AFTER = 5.0  # the same seconds, if not even the signal's handler runs


class _Process:
    """What this process has asked for."""

    niceness: int | None = None  # before it used real-time scheduling; None: it never did
    real_time = False  # its loop has a real-time policy, but for what is not urgent


def use_short_slices(seconds: float = _SLICE) -> None:
    """Have the scheduler give so short a slice to this thread, and to those that it starts.

    The kernel gives 0.1 ms at least; 0 is its default.  Raises OSError, also for a thread with a real-time policy,
    which has no slice of this kind, and on an architecture whose number of sched_setattr(2) is not known here.
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

    The kernel sends SIGXCPU to the process when the thread has not waited for ``LONGEST_REAL_TIME`` (RLIMIT_RTTIME in
    getrlimit(2)): so a fault does not keep a core from all other programs.  The handler calls ``end_real_time``.
    Raises OSError if it is not allowed.
    """
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    _use_fifo()
    _Process.niceness, _Process.real_time = niceness, True
    limits = resource.getrlimit(resource.RLIMIT_RTTIME)  # an administrator's own may be lower
    ours = (round(seconds * 1e6) for seconds in (LONGEST_REAL_TIME, _KILLED_AFTER))
    soft, hard = (min(b, a) if a != resource.RLIM_INFINITY else b for a, b in zip(limits, ours, strict=True))
    try:
        resource.setrlimit(resource.RLIMIT_RTTIME, (soft, hard))
    except (OSError, ValueError) as error:  # Python makes a ValueError of EPERM
        end_real_time()
        raise OSError(errno.EPERM, f"RLIMIT_RTTIME cannot be set: {error}") from None


def end_real_time() -> bool:
    """Schedule this thread ordinarily from now on, as it was before; False if it is so already."""
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
    """Do something that is not urgent: in the block this thread has no real-time priority."""
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


def begin_thread() -> None:
    """Give this new thread the niceness and the slices of the process, which its starter could not hand down."""
    if _Process.niceness is None:
        return
    with suppress(OSError):  # RLIMIT_NICE may not allow it
        os.setpriority(os.PRIO_PROCESS, 0, _Process.niceness)
    with suppress(OSError):
        use_short_slices()


def _use_fifo() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(_PRIORITY))
