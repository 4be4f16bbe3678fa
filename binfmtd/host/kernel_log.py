"""The kernel's log: the denials of AppArmor and SELinux in it."""

import os
from contextlib import suppress
from errno import ENODEV

from binfmtd.formats.denial import Denial, parse_denial

_LOG = "/dev/kmsg"
_DEVICE = os.makedev(1, 11)  # Documentation/admin-guide/devices.txt
_RECORD_BYTES = 8192  # the longest record that the log has (CONSOLE_EXT_LOG_MAX)


def denials() -> list[Denial]:
    """Return the denials that the kernel's log still has, the oldest first.  Raises OSError if it cannot be read.

    With auditd they are in its own log instead.
    """
    if os.stat(_LOG).st_rdev != _DEVICE:  # in a container it may be /dev/null, whose reads never end, or a terminal
        raise OSError(ENODEV, "another file is in its place", _LOG)
    found = []
    log = os.open(_LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with suppress(BlockingIOError):  # the end of the log
            while True:
                with suppress(BrokenPipeError):  # the kernel has overwritten the next record
                    record = os.read(log, _RECORD_BYTES).decode("utf-8", "replace")
                    if denial := parse_denial(record.partition(";")[2].partition("\n")[0]):
                        found.append(denial)
    finally:
        os.close(log)
    return found
