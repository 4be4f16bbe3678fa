"""Short slices of CPU time: a thread that wakes to make a repair does not wait until a build's slice has ended.

From Linux 6.12 on a thread that wakes takes the core from one whose slice is longer, which otherwise runs until the
end of its own, some milliseconds (Documentation/scheduler/sched-eevdf.rst; PREEMPT_SHORT in kernel/sched/features.h).
An earlier kernel ignores it.  It takes no privilege.
"""

import ctypes
import errno
import os
import struct

# The call's number on the architectures of 64 bits that were looked up: arch/x86/entry/syscalls/syscall_64.tbl and
# include/uapi/asm-generic/unistd.h.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
_SCHED_ATTR = struct.Struct("IIQiIQQQ")  # size, policy, flags, nice, priority, runtime, deadline, period: version 0
_KEEP_POLICY = 8  # SCHED_FLAG_KEEP_POLICY (include/uapi/linux/sched.h)
_POINTER_BYTES = 8


def use_short_slices(seconds: float) -> None:
    """Have the scheduler give so short a slice to this thread, and to those that it starts.

    The kernel gives 0.1 ms at least; 0 is its default.  Raises OSError, also for a thread with a real-time policy,
    which has no slice of this kind, and on an architecture whose number of sched_setattr(2) is not known here.
    """
    number = _SCHED_SETATTR.get(os.uname().machine) if struct.calcsize("P") == _POINTER_BYTES else None
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, 0, _KEEP_POLICY, nice, 0, round(seconds * 1e9), 0, 0)
    if ctypes.CDLL(None, use_errno=True).syscall(number, 0, attributes, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
