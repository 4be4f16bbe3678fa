"""Labels of processes and files, the mode of SELinux, and the denials of AppArmor and SELinux."""

import os
from contextlib import suppress

from binfmtd.formats.denial import Denial, parse_denial
from binfmtd.formats.selinux import is_context

_SELINUX = "/sys/fs/selinux"
_MAPPED = ("read", "map", "execute")  # what the kernel does with a file that runs
_LOG = "/dev/kmsg"
_RECORD_BYTES = 8192  # the longest record that the kernel's log has (CONSOLE_EXT_LOG_MAX)


def label_of_process(pid: int | str = "self") -> str:
    """Return the profile of AppArmor or the context of SELinux that a process has; "" if there is none to be read."""
    try:
        with open(f"/proc/{pid}/attr/current", "rb") as file:
            return file.read().decode("utf-8", "replace").strip("\0\n ")
    except OSError:  # no security module, or another user's process
        return ""


def selinux_enforces() -> bool:
    """Return True if SELinux is enforcing, or may be: a container sees its own context, and often not the mode."""
    try:
        with open(f"{_SELINUX}/enforce", "rb") as file:
            return file.read().strip() == b"1"
    except OSError:
        return is_context(label_of_process())


def label_of_file(path: str) -> str:
    """Return the context of SELinux that a file has; "" if it has none, or cannot be read."""
    try:
        return os.getxattr(path, "security.selinux").decode("utf-8", "replace").rstrip("\0")
    except (OSError, ValueError):
        return ""


def may_execute(process: str, file: str) -> bool | None:
    """Ask the policy if a process with this context may execute a file with that label.

    Returns None if the policy cannot be asked here, or has no such context.
    """
    try:
        with open(f"{_SELINUX}/class/file/index", encoding="ascii") as index:
            question = f"{process} {file} {index.read()}"
        needed = 0
        for name in _MAPPED:
            with open(f"{_SELINUX}/class/file/perms/{name}", encoding="ascii") as number:
                needed |= 1 << int(number.read()) - 1
        access = os.open(f"{_SELINUX}/access", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(access, question.encode())
            allowed = int(os.read(access, _RECORD_BYTES).split()[0], 16)
        finally:
            os.close(access)
    except (OSError, ValueError, IndexError):
        return None
    return allowed & needed == needed


def denials() -> list[Denial]:
    """Return the denials that the kernel's log still has, the oldest first.  Raises OSError if it cannot be read.

    With auditd they are in its own log instead.
    """
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
