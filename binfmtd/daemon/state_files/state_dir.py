"""The state directory: its path, the check that it is safe, and the lock that one daemon holds for its whole life."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable
from enum import Enum, auto

from binfmtd.errors import AlreadyRunningError, StateError
from binfmtd.files.atomic import make_directories
from binfmtd.files.cure import cure

ROOT_STATE_DIR = "/run/binfmtd"
LOCK_NAME = "lock"
RUN = "run"
APPLY = "apply"
_LOCKS = "/proc/locks"
PATIENCE = 0.5  # seconds that a start waits for another holder
READER_PATIENCE = 10.0  # for a process that only looks, as `status` does; one that waits for a core can take long


def default_state_dir() -> str:
    """Return ``$BINFMTD_STATE_DIR``; for root /run/binfmtd; else ``$XDG_RUNTIME_DIR/binfmtd``.  Raises StateError."""
    if named := os.environ.get("BINFMTD_STATE_DIR"):
        return named
    if os.geteuid() == 0:
        return ROOT_STATE_DIR
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return os.path.join(runtime, "binfmtd")
    raise StateError("no state directory: run this as root; or set XDG_RUNTIME_DIR, or name one with --state-dir")


def make_state_dir(path: str) -> None:
    """Make the directory if it does not exist.  Raises StateError unless only we and root can write in it."""
    from binfmtd.files.trust import Trust, untrusted

    try:
        make_directories(path)
        directory = os.lstat(path)
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}: {cure(error)}, or name another with --state-dir") from None
    if not stat.S_ISDIR(directory.st_mode):
        raise StateError(f"{path} is a symbolic link, or not a directory: name another with --state-dir")
    if reason := untrusted(os.path.abspath(path), Trust.of_this_process()):
        raise StateError(f"the state directory is not safe: {reason}")
    if directory.st_mode & 0o022:  # not even a sticky one is safe: another user could make the ledger there first
        raise StateError(
            f"other users can write to {path} (mode {directory.st_mode & 0o7777:04o}): run `chmod go-w {path}`"
        )


class Lock:
    """A lock for the life of a daemon (or of one ``apply``): the kernel releases it however the process ends."""

    def __init__(self, state_dir: str, purpose: str = RUN, before: Callable[[], None] = lambda: None) -> None:
        """Take the lock.

        ``before`` is called, perhaps a thousand times, when no other process holds the lock, and before ``running_pid``
        finds it held by us.  Raises AlreadyRunningError, which names the daemon that has it, and StateError for any
        other reason.
        """
        self._state_dir = state_dir
        self._purpose = purpose
        self._path = os.path.join(state_dir, LOCK_NAME)
        self.watched = {os.path.realpath(state_dir): {LOCK_NAME}}
        self._descriptor = self._acquire(PATIENCE, READER_PATIENCE, before)

    def keep(self) -> bool:
        """Make directory and lock again if another program has removed them; return True if so.

        Does not wait for another holder.  Raises AlreadyRunningError and StateError.
        """
        held = os.fstat(self._descriptor)
        try:
            there = os.lstat(self._path)
        except OSError:
            there = None
        if there is not None and (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino):
            return False
        make_state_dir(self._state_dir)
        old, self._descriptor = self._descriptor, self._acquire(0, 0, lambda: None)
        os.close(old)
        return True

    def release(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)

    def _acquire(self, patience: float, reader_patience: float, before: Callable[[], None]) -> int:
        try:
            # Only we may open it: flock(2) needs no right to write, so a user who may read it could block every daemon.
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if (by := _take(descriptor, patience, reader_patience, before)) is not None:
                    raise self._unavailable(by, descriptor)
                os.fchmod(descriptor, 0o600)  # an older version let every user read it
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n{self._purpose}\n".encode(), 0)
            except BaseException:
                os.close(descriptor)  # else it would still hold the lock at our next try
                raise
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise StateError(f"{self._path} is a symbolic link, which is not allowed there: remove it") from None
            remedy = f"{cure(error)}, or name another with --state-dir"
            raise StateError(f"{self._path}: {error.strerror}: {remedy}") from None
        return descriptor

    def _unavailable(self, by: "_By", descriptor: int) -> StateError:
        """Return the error for a lock that cannot be taken."""
        if by is _By.READER:
            return StateError(
                f"{self._path}: another process, perhaps a stopped `binfmtd status`, holds a shared lock on this file: "
                "`lslocks` lists it, end it"
            )
        return _taken(self._state_dir, *_holder(descriptor))


def running_pid(state_dir: str) -> int | None:
    """Return the process id of the daemon that holds the lock, as `holder` does; None if no daemon does."""
    pid, purpose = holder(state_dir) or (None, APPLY)
    return None if purpose == APPLY else pid


def holder(state_dir: str) -> tuple[int, str] | None:
    """Return the process id of the lock's holder and its purpose, RUN or APPLY; None if the lock is free.

    The holder writes both: the id is the one in its own pid namespace, and 0 if it is not written yet.  Where we may
    not open the lock, the id comes from /proc/locks, and the purpose is taken to be RUN.  That list leaves out
    processes outside of our pid namespace, and names files on btrfs by another device than stat(2) does.  Where it does
    not exist (mount option subset=pid), a daemon of the lock's owner counts as the holder.
    """
    path = os.path.join(state_dir, LOCK_NAME)
    try:
        # O_NONBLOCK: if a FIFO lies there, which is no lock, open(2) would wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except PermissionError:
        listed = _listed(path) if os.path.exists(_LOCKS) else _daemon_of_owner(path)
        return None if listed is None else (listed, RUN)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _holder(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def is_holder(pid: int, state_dir: str) -> bool:
    """Return True if the process that has this id in our pid namespace holds the lock.

    The id in the lock may be one of another pid namespace, and an unrelated process may have it in ours.  Where
    /proc/locks does not name the process, it counts as the holder if it has the file open.
    """
    path = os.path.join(state_dir, LOCK_NAME)
    if pid and _listed(path) == pid:
        return True
    try:  # /proc/locks may name the file by another device, as on btrfs and overlayfs
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    return any(_same(f"/proc/{pid}/fd/{descriptor}", path) for descriptor in descriptors)


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # closed meanwhile
        return False


def _listed(path: str) -> int | None:
    """Return the holder's process id in /proc/locks (proc_locks(5)); an arrow there marks a process that only waits."""
    try:
        lock = os.lstat(path)
        with open(_LOCKS, encoding="ascii", errors="replace") as locks:
            lines = [line.split() for line in locks]
    except OSError:
        return None
    file = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
    for _, kind, _, access, pid, locked, *_ in (line for line in lines if len(line) > 5):
        if (kind, access, locked) == ("FLOCK", "WRITE", file) and pid.isdigit():
            return int(pid)
    return None


def _daemon_of_owner(path: str) -> int | None:
    from binfmtd.daemon.state_files.other_daemons import daemon_of

    try:
        return daemon_of(os.lstat(path).st_uid)
    except OSError:
        return None


class _By(Enum):
    """The process that keeps us from taking the lock."""

    HOLDER = auto()  # a daemon for its whole life, or an ``apply`` for a pass
    READER = auto()  # ``running_pid``, for an instant


def _take(descriptor: int, patience: float, reader_patience: float, before: Callable[[], None]) -> _By | None:
    """Take the lock and return None, or return who still has it after the time for such a process, in seconds.

    First comes a shared lock: it keeps other daemons from taking the lock, and ``running_pid`` does not count it.  So
    ``before`` has been called when ``running_pid`` first finds the lock held.
    """
    last, since = None, 0.0
    while True:
        by = _By.HOLDER
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            by = _By.READER
            os.ftruncate(descriptor, 0)  # the last holder's process id is no longer valid
            before()
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a failure releases the shared lock: flock(2)
        except BlockingIOError:
            now = time.monotonic()
            if by is not last:
                last, since = by, now
            if now - since >= (patience if by is _By.HOLDER else reader_patience):
                return by
            time.sleep(0.01)
        else:
            return None


def _holder(descriptor: int) -> tuple[int, str]:
    pid, _, purpose = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip().partition("\n")
    return (int(pid) if pid.isdigit() else 0), purpose


def _taken(state_dir: str, pid: int, holder: str) -> StateError:
    if holder == APPLY:
        return StateError(f"another `binfmtd apply` (pid {pid}) uses {state_dir}: try again when it has finished")
    return AlreadyRunningError(
        f"binfmtd already runs with the state directory {state_dir} (pid {pid or 'unknown'}): stop it first, or name "
        "another with --state-dir",
        pid,
    )
