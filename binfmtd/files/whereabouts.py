"""Where this process stands: in the host's own namespaces, or in somebody's container.

Source of the numbers: include/linux/proc_ns.h.  The first namespaces of a kernel have fixed ones.
"""

import os

_INITIAL_USER = "user:[4026531837]"
_INITIAL_PID = "pid:[4026531836]"
_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")
_CONTAINER_VARIABLES = ("container", "KUBERNETES_SERVICE_HOST")


def in_user_namespace() -> bool:
    """Whether this is a user namespace other than the kernel's first; without /proc, no."""
    return _namespace("user") not in (_INITIAL_USER, "")


def shares_first_processes() -> bool:
    """Whether the processes that we see are the host's, and process 1 its init."""
    return _namespace("pid") == _INITIAL_PID


def shares_root_with_init() -> bool | None:
    """Whether our root directory is that of the host's process 1; None where we may not look."""
    if not shares_first_processes():
        return False  # then process 1 is the container's, and says nothing about the host
    try:
        ours, theirs = os.stat("/"), os.stat("/proc/1/root/")
    except OSError:
        return None
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


def init_lives_elsewhere() -> bool:
    """Whether process 1 is in our user namespace but in another mount namespace: a container with ``--pid=host``.

    Then the host's files are below /proc/1/root, and its mount namespace can be entered.
    """
    init = _namespace("mnt", "1")
    return bool(init) and init != _namespace("mnt") and _namespace("user", "1") == _namespace("user")


def mounts_outlive_us() -> bool:
    """Whether what we mount is still there when this process has ended.

    It is if process 1 shares our mount namespace and goes on after us.  On the kernel's first process namespace it
    does.  In a container nobody can tell a system's init from one that waits only for us (``docker run --init``), so
    there it has to be systemd (sd_booted(3)), or to be none of our ancestors (``docker exec``).
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
            return True  # it has ended meanwhile: who then is our parent is process 1
    return process == 1


def in_container() -> bool:
    """Whether this is a container, as its manager tells (nothing else could know): for how we talk, never for more.

    Sources: docker and podman leave a file in the root; podman, LXC and systemd-nspawn set ``$container`` (systemd's
    container interface); Kubernetes sets its own variable in each pod.  And a host's process 1 is never ours.
    """
    told = any(os.environ.get(variable) for variable in _CONTAINER_VARIABLES)
    return os.getpid() == 1 or told or any(map(os.path.exists, _CONTAINER_FILES))


def in_pod() -> bool:
    """Whether this is a container of Kubernetes, whose kubelet sets this variable in each: for how we talk."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


def booted_with_systemd() -> bool:
    """Whether systemd manages the system that we see (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


def _namespace(kind: str, process: str = "self") -> str:
    try:
        return os.readlink(f"/proc/{process}/ns/{kind}")
    except OSError:
        return ""
