"""A user namespace with an empty instance of binfmt_misc of its own (Linux 6.7 and later, no privileges needed).

The order matters.  A child namespace sees its parent's instance through the mounts that it inherits, and may write to
it; so an empty file system is put over the path first.  It is mounted in a namespace between the parent's and the own
one: what a namespace inherits from a more privileged one it cannot unmount (mount_namespaces(7)), so nobody in here can
ever uncover the parent's instance.
"""

import os

from binfmtd.errors import SandboxError
from binfmtd.kernel.mount import DEFAULT_DIRECTORY, FS_TYPE


def enter_own_instance(directory: str = DEFAULT_DIRECTORY) -> None:
    """Move this process into a user and mount namespace of its own, as root there, with an empty instance mounted.

    Raises SandboxError, which says what this machine lacks.
    """
    from binfmtd.kernel import syscalls

    try:
        _enter_namespace(os.geteuid(), os.getegid())
        syscalls.mount("tmpfs", directory, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
        _enter_namespace(0, 0)
    except OSError as error:
        where = error.filename or "unshare"
        raise SandboxError(
            f"cannot make a user namespace of our own ({where}: {error.strerror}): {_forbidden_by()}"
        ) from None
    try:
        syscalls.mount(FS_TYPE, directory, FS_TYPE)
    except OSError as error:
        raise SandboxError(
            f"cannot mount an own binfmt_misc ({error.strerror}): this needs Linux 6.7 or later "
            f"(here {os.uname().release}) with the module binfmt_misc loaded"
        ) from None


def _enter_namespace(uid: int, gid: int) -> None:
    """Become root of a new user namespace, as whom these ids show outside, and keep its mounts to ourselves."""
    from binfmtd.kernel import syscalls

    syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"0 {uid} 1")
    _write("/proc/self/gid_map", f"0 {gid} 1")
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


_SWITCHES = (
    ("/proc/sys/user/max_user_namespaces", "0", "set user.max_user_namespaces with sysctl"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "set kernel.unprivileged_userns_clone=1 with sysctl"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "allow it in AppArmor, or run as root"),
)


def _forbidden_by() -> str:
    for path, forbidding, remedy in _SWITCHES:
        try:
            with open(path, encoding="ascii") as file:
                if file.read().strip() == forbidding:
                    return f"{path} is {forbidding}: {remedy}"
        except OSError:
            continue
    return "a seccomp filter or a security module forbids it here (in a container: --security-opt seccomp=unconfined)"
