"""Labels of processes and files, and the mode and policy of SELinux."""

import os
from contextlib import suppress

from binfmtd.formats.selinux import for_all_containers, is_context

_SELINUX = "/sys/fs/selinux"
_MAPPED = ("read", "map", "execute")  # what the kernel does with a file that runs
_LABEL = "security.selinux"  # the extended attribute of a file
_ANSWER_BYTES = 4096  # the longest answer of selinuxfs


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


def label_of_file(path: str | int) -> str:
    """Return the context of SELinux that a file or a descriptor has; "" if it has none, or it cannot be read."""
    try:
        return os.getxattr(path, _LABEL).decode("utf-8", "replace").rstrip("\0")
    except (OSError, ValueError):
        return ""


def let_containers_execute(descriptor: int) -> None:
    """Give a file the label with which every container may execute it; a refusal leaves the label as it is.

    Does nothing where SELinux is not in use.
    """
    context = label_of_file(descriptor)
    if is_context(context):
        with suppress(OSError):  # the policy forbids it, or has no such type
            os.setxattr(descriptor, _LABEL, for_all_containers(context).encode() + b"\0")


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
            allowed = int(os.read(access, _ANSWER_BYTES).split()[0], 16)
        finally:
            os.close(access)
    except (OSError, ValueError, IndexError):
        return None
    return allowed & needed == needed
