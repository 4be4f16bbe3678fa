"""The slice of CPU time that the scheduler gives to a thread (sched_getattr(2))."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SLICE = 100_000  # nanoseconds; what the daemon asks for
# Prints it in nanoseconds, for the thread that the argument names; 0 before Linux 6.12.
PRINT_SLICE = """
import ctypes, os, struct, sys
number = {"x86_64": 315, "aarch64": 275, "riscv64": 275}[os.uname().machine]
attributes = ctypes.create_string_buffer(48)
if ctypes.CDLL(None, use_errno=True).syscall(number, int(sys.argv[1]), attributes, len(attributes), 0):
    sys.exit(os.strerror(ctypes.get_errno()))
print(struct.unpack_from("Q", attributes, 24)[0])
"""


def slice_of(thread: int) -> int:
    """Return the slice in nanoseconds; ProcessLookupError if there is no such thread."""
    done = subprocess.run([sys.executable, "-c", PRINT_SLICE, str(thread)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProcessLookupError(done.stderr)
    return int(done.stdout)


def kernel_has_slices() -> bool:
    """Return True if a thread can have its own slice: Linux 6.12 and later report the default, older kernels 0."""
    return slice_of(os.getpid()) > 0


@contextmanager
def ordinary_scheduling(thread: int) -> Iterator[None]:
    """Give ordinary scheduling to a thread, and so to the processes that it starts meanwhile; 0 is the caller.

    `chrt -i` before the tests gives them SCHED_IDLE, for which the kernel has no slices.
    """
    policy, parameter = os.sched_getscheduler(thread), os.sched_getparam(thread)
    if policy == os.SCHED_OTHER:
        yield
        return
    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(thread, policy, parameter)
