"""A user namespace with an empty instance of binfmt_misc of its own (Linux 6.7 and later, no privileges needed).

The order matters.  A child namespace sees its parent's instance through the mounts that it inherits, and may write to
it; so an empty file system is put over the path first.  It is mounted in a namespace between the parent's and the own
one: what a namespace inherits from a more privileged one it cannot unmount (mount_namespaces(7)), so nobody in here can
ever uncover the parent's instance.
"""

import os

from binfmtd.errors import PASSING, SandboxError
from binfmtd.files.cure import cure
from binfmtd.files.whereabouts import in_pod
from binfmtd.kernel.child import in_a_child
from binfmtd.kernel.ids import Ids, enter, one, to_be_had
from binfmtd.kernel.module import DEFAULT_DIRECTORY, FS_TYPE


def enter_own_instance(directory: str = DEFAULT_DIRECTORY) -> Ids:
    """Move this process into a user and mount namespace of its own, as root there, with an empty instance mounted.

    Returns the ids that there are in it: all that may be had, or only our own, as root.  Raises SandboxError, which
    says what this machine lacks.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        ids = _enter_as_root(to_be_had(uid, gid), uid, gid)
        _cover(directory)
        inside = Ids(tuple((i, i, n) for i, _, n in ids.uids), tuple((i, i, n) for i, _, n in ids.gids))
        _enter_as_root(inside if _many(inside) else None, 0, 0)
    except OSError as error:
        where = error.filename or "unshare"
        raise SandboxError(
            f"cannot make a user namespace of our own ({where}: {error.strerror}): "
            f"{cure(error) if error.errno in PASSING else _forbidden_by()}"
        ) from None
    try:
        _mount_instance(directory)
    except OSError as error:
        raise SandboxError(
            f"cannot mount an own binfmt_misc ({error.strerror}): this needs Linux 6.7 or later "
            f"(here {os.uname().release}) with the module binfmt_misc loaded"
        ) from None
    return inside


def enter_as_nobody(directory: str = DEFAULT_DIRECTORY) -> None:
    """The same for programs of our own that need no name: without any user mapped, and so without CAP_SETFCAP.

    Raises OSError.
    """
    _enter_namespace()
    _cover(directory)
    _mount_instance(directory)


def own_instance_refused() -> str | None:
    """Try it in a child, which leaves nothing behind: why it cannot be had, or None if it can."""
    return in_a_child(enter_own_instance)


def forbidding_switch() -> tuple[str, str] | None:
    """A sysctl that forbids user namespaces here, and the value that allows them; None if it is none that we know."""
    for path, forbidding, allowing, _ in _SWITCHES:
        try:
            with open(path, encoding="ascii") as file:
                if file.read().strip() == forbidding:
                    return path, allowing
        except OSError:
            continue
    return None


def _enter_namespace() -> None:
    """Enter new user and mount namespaces, and keep their mounts to ourselves."""
    from binfmtd.kernel import syscalls

    syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)


def _many(ids: Ids) -> bool:
    return sum(count for _, _, count in ids.uids) > 1


def _enter_as_root(wanted: Ids | None, uid: int, gid: int) -> Ids:
    """Enter them with the wanted ids, or with none but our own; returns those that there are.  We are root then."""
    from binfmtd.kernel import syscalls

    flags = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS
    why_not = "" if wanted is None else enter(flags, wanted)
    if wanted is None:
        syscalls.unshare(flags)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    if wanted is not None and why_not is None:
        return wanted
    _become_root(uid, gid)
    return one(0, 0, uid, gid)


def _become_root(uid: int, gid: int) -> None:
    """Map root to who these ids are outside; mapping root itself takes CAP_SETFCAP (user_namespaces(7))."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _cover(directory: str) -> None:
    from binfmtd.kernel import syscalls

    syscalls.mount("tmpfs", directory, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)


def _mount_instance(directory: str) -> None:
    from binfmtd.kernel import syscalls

    syscalls.mount(FS_TYPE, directory, FS_TYPE)


# Path, what it says where it forbids, what it says where it allows, and how an admin does that.
_SWITCHES = (
    ("/proc/sys/user/max_user_namespaces", "0", "15000", "set user.max_user_namespaces with sysctl"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "1", "set kernel.unprivileged_userns_clone=1 with sysctl"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "0", "allow it in AppArmor, or run as root"),
)


def _forbidden_by() -> str:
    if found := forbidding_switch():
        path, _ = found
        ((said, remedy),) = ((said, remedy) for name, said, _, remedy in _SWITCHES if name == path)
        return f"{path} is {said}: {remedy}"
    allowing = (
        "in a pod: seccompProfile Unconfined" if in_pod() else "in a container: --security-opt seccomp=unconfined"
    )
    return f"a seccomp filter, a security module or, for root, a missing CAP_SETFCAP forbids it here ({allowing})"
