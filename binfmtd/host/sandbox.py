"""A user namespace with its own, empty instance of binfmt_misc (Linux 6.7 and later, no privileges needed).

The order matters.  A child namespace sees its parent's instance through the mounts that it inherits, and may write to
it.  So an empty file system is mounted over the path first, in a namespace between the parent's and our own.  A
namespace cannot unmount what it inherits from a more privileged one (mount_namespaces(7)), so no process inside can
ever uncover the parent's instance.
"""

import os

from binfmtd.errors import PASSING, SandboxError
from binfmtd.files.cure import cure
from binfmtd.files.environment import in_pod
from binfmtd.host.forked import in_a_child
from binfmtd.host.id_maps import Ids, enter, one, to_be_had
from binfmtd.host.kernel_module import DEFAULT_DIRECTORY, FS_TYPE, why_no_directory


def enter_own_instance(directory: str = DEFAULT_DIRECTORY) -> Ids:
    """Move this process into a new user and mount namespace, as root there, with an empty instance mounted.

    Returns the ids of the namespace: all that this process may map, or only its own, as root.  Raises SandboxError; its
    message names what this machine lacks.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        ids = _enter_as_root(to_be_had(uid, gid), uid, gid)
        _cover(directory)
        inside = Ids(tuple((i, i, n) for i, _, n in ids.uids), tuple((i, i, n) for i, _, n in ids.gids))
        _enter_as_root(inside if _many(inside) else None, 0, 0)
    except OSError as error:
        if error.filename == directory and not os.path.isdir(directory):
            if directory != DEFAULT_DIRECTORY:
                raise SandboxError(f"{directory} is not a directory: name one with --mount, or leave it out") from None
            raise SandboxError(f"{DEFAULT_DIRECTORY} does not exist: {why_no_directory()}") from None
        where = error.filename or "unshare"
        raise SandboxError(
            f"cannot create a user namespace ({where}: {error.strerror}): "
            f"{cure(error) if error.errno in PASSING else _forbidden_by()}"
        ) from None
    try:
        _mount_instance(directory)
    except OSError as error:
        raise SandboxError(
            f"cannot mount a separate binfmt_misc instance ({error.strerror}): this needs Linux 6.7 or later "
            f"(here {os.uname().release}) with the module binfmt_misc loaded"
        ) from None
    return inside


def enter_as_nobody() -> None:
    """Move this process into new namespaces with an empty instance, without mapping any user.

    So it takes no CAP_SETFCAP.  This is for our own small programs, which need no user.  Raises OSError.
    """
    _enter_namespace()
    _cover(DEFAULT_DIRECTORY)
    _mount_instance(DEFAULT_DIRECTORY)


def own_instance_refused() -> str | None:
    """Try ``enter_own_instance`` in a child process, which leaves nothing behind; return why it fails, or None."""
    return in_a_child(enter_own_instance)


def forbidding_switch() -> tuple[str, str] | None:
    """Return a sysctl that forbids user namespaces here, and the value that allows them; None if none of ours does."""
    for path, forbidding, allowing, _ in _SWITCHES:
        try:
            with open(path, encoding="ascii") as file:
                if file.read().strip() == forbidding:
                    return path, allowing
        except OSError:
            continue
    return None


def _enter_namespace() -> None:
    """Enter new user and mount namespaces, and make all mounts private."""
    from binfmtd.host import syscalls

    syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)


def _many(ids: Ids) -> bool:
    return sum(count for _, _, count in ids.uids) > 1


def _enter_as_root(wanted: Ids | None, uid: int, gid: int) -> Ids:
    """Enter new namespaces as root, with the ids ``wanted`` or, if that fails, only with our own; return the ids."""
    from binfmtd.host import syscalls

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
    """Map root to these ids outside; if they are 0 there, it takes CAP_SETFCAP (user_namespaces(7))."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _cover(directory: str) -> None:
    from binfmtd.host import syscalls

    syscalls.mount("tmpfs", directory, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)


def _mount_instance(directory: str) -> None:
    from binfmtd.host import syscalls

    syscalls.mount(FS_TYPE, directory, FS_TYPE)


# Path, the value that forbids user namespaces, the value that allows them, and the remedy for an administrator.
_SWITCHES = (
    ("/proc/sys/user/max_user_namespaces", "0", "15000", "set user.max_user_namespaces=15000 with sysctl"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "1", "set kernel.unprivileged_userns_clone=1 with sysctl"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "0",
        "load config/apparmor/binfmtd-sandbox, which allows them to /usr/bin/binfmtd, or do this as root",
    ),
)


def _forbidden_by() -> str:
    from binfmtd.formats.apparmor import enforced_profile
    from binfmtd.host.security_modules import label_of_process

    if switch := forbidding_switch():
        path, _ = switch
        ((state, remedy),) = ((state, remedy) for name, state, _, remedy in _SWITCHES if name == path)
        return f"{path} is {state}: {remedy}"
    if profile := enforced_profile(label_of_process()):
        without = (
            "in a pod: appArmorProfile and seccompProfile Unconfined"
            if in_pod()
            else "in a container: --security-opt apparmor=unconfined --security-opt seccomp=unconfined"
        )
        return (
            f"AppArmor's profile {profile} confines this process and forbids it, unless a seccomp filter does: add the "
            f"rules `userns,` and `mount,` to the profile, or run this without it ({without})"
        )
    allowing = (
        "in a pod: seccompProfile Unconfined" if in_pod() else "in a container: --security-opt seccomp=unconfined"
    )
    return f"a seccomp filter or a security module forbids it, or root lacks CAP_SETFCAP: allow it ({allowing})"
