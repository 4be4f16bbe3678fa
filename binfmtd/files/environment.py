"""Where this process runs: in the host's own namespaces, or in a container.

The first namespaces of a kernel have fixed numbers.  Source: include/linux/proc_ns.h.
"""

import errno
import fcntl
import os

_NS_GET_USERNS = 0xB701  # linux/nsfs.h
_INITIAL_USER = "user:[4026531837]"
_INITIAL_PID = "pid:[4026531836]"
_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")
_CONTAINER_VARIABLES = ("container", "KUBERNETES_SERVICE_HOST")
_MANAGER_FILE = "/run/systemd/container"


def in_user_namespace() -> bool:
    """Return True in a user namespace other than the kernel's first; False without /proc."""
    return _namespace("user") not in (_INITIAL_USER, "")


def owns_mount_namespace() -> bool:
    """Return False if our mount namespace belongs to a user namespace around ours, which forbids each mount in it.

    After `unshare --user` alone it does.  Source: ns_get_owner in kernel/user_namespace.c, which then returns EPERM.
    """
    try:
        namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.close(fcntl.ioctl(namespace, _NS_GET_USERNS))
        finally:
            os.close(namespace)
    except OSError as error:
        return error.errno != errno.EPERM
    return True


def shares_first_processes() -> bool:
    """Return True if the processes that we see are the host's, and process 1 is its init."""
    return _namespace("pid") == _INITIAL_PID


def shares_root_with_init() -> bool | None:
    """Return True if our root directory is that of the host's process 1; None if we may not read the latter."""
    if not shares_first_processes():
        return False  # process 1 is the container's, not the host's
    try:
        ours, theirs = os.stat("/"), os.stat("/proc/1/root/")
    except OSError:
        return None
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


def init_lives_elsewhere() -> bool:
    """Return True if process 1 is in our user namespace but in another mount namespace.

    That is a container with ``--pid=host``: the host's files are below /proc/1/root, and its mount namespace can be
    entered.
    """
    init = _namespace("mnt", "1")
    return bool(init) and init != _namespace("mnt") and _namespace("user", "1") == _namespace("user")


def mounts_outlive_us() -> bool:
    """Return True if our mounts still exist when this process has ended.

    They do if process 1 shares our mount namespace and outlives us.  In the kernel's first process namespace it does.
    In a container, a system's init cannot be told from one that waits only for us (``docker run --init``).  So there
    it has to be systemd (sd_booted(3)), or none of our ancestors (``docker exec``).
    """
    if _namespace("mnt", "1") != _namespace("mnt") or os.getpid() == 1:
        return False
    return _namespace("pid") == _INITIAL_PID or booted_with_systemd() or not _descends_from_init()


def _descends_from_init() -> bool:
    process = os.getppid()
    while process > 1:
        try:
            with open(f"/proc/{process}/stat", "rb") as file:
                process = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return True  # this ancestor has ended meanwhile, and process 1 is the parent of its child now
    return process == 1


def in_container() -> bool:
    """Return True if a container's manager has marked this as a container.  Use it for the wording of output only.

    No other source is certain.  Docker and podman leave a file in the root; podman, LXC and systemd-nspawn set
    ``$container`` (systemd's container interface); Kubernetes sets its own variable in each pod.  On a host, process 1
    is never ours.
    """
    is_named = any(os.environ.get(variable) for variable in _CONTAINER_VARIABLES)
    return os.getpid() == 1 or is_named or any(map(os.path.exists, _CONTAINER_FILES))


def container_manager() -> str:
    """Return the name of this container's manager (``lxc``, ``systemd-nspawn``), or ""; for the wording of output only.

    The manager sets ``$container`` for process 1.  If that is systemd, its services do not inherit the variable, and
    systemd writes its value to a file (systemd's container interface).
    """
    if name := os.environ.get("container"):  # noqa: SIM112  its name
        return name
    try:
        with open(_MANAGER_FILE, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def in_pod() -> bool:
    """Return True in a container of Kubernetes, whose kubelet sets this variable; for the wording of output only."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


def booted_with_systemd() -> bool:
    """Return True if systemd manages the system that we see (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


def _namespace(kind: str, process: str = "self") -> str:
    try:
        return os.readlink(f"/proc/{process}/ns/{kind}")
    except OSError:
        return ""
