"""The state directory: where it is, that it is ours, and the lock that one daemon holds on it for life."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable

from binfmtd.errors import AlreadyRunningError, StateError
from binfmtd.files.atomic import make_directories
from binfmtd.files.cure import cure

ROOT_STATE_DIR = "/run/binfmtd"
LOCK_NAME = "lock"
RUN = "run"
APPLY = "apply"
PATIENCE = 0.5  # seconds


def default_state_dir() -> str:
    """``$BINFMTD_STATE_DIR``; for root /run/binfmtd; else ``$XDG_RUNTIME_DIR/binfmtd``.  Raises StateError."""
    if named := os.environ.get("BINFMTD_STATE_DIR"):
        return named
    if os.geteuid() == 0:
        return ROOT_STATE_DIR
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return os.path.join(runtime, "binfmtd")
    raise StateError("no state directory: run this as root; or set XDG_RUNTIME_DIR, or name one with --state-dir")


def make_state_dir(path: str) -> None:
    """Make the directory if it is not there; raises StateError unless only we and root could write in it."""
    from binfmtd.files.trust import Trust, untrusted

    try:
        make_directories(path)
        found = os.lstat(path)
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}: {cure(error)}, or name another with --state-dir") from None
    if not stat.S_ISDIR(found.st_mode):
        raise StateError(f"{path} is not a directory of its own: name another with --state-dir")
    if reason := untrusted(os.path.abspath(path), Trust.of_this_process()):
        raise StateError(f"the state directory is not safe: {reason}")
    if found.st_mode & 0o022:  # not even a sticky one will do: others could make the ledger there before we do
        raise StateError(
            f"{path} can be written by others (mode {found.st_mode & 0o7777:04o}): run `chmod go-w {path}`"
        )


class Lock:
    """Held as long as the daemon (or one ``apply``) lives: the kernel lets go of it however that ends."""

    def __init__(self, state_dir: str, purpose: str = RUN, before: Callable[[], None] = lambda: None) -> None:
        """Take it.

        ``before`` is called, perhaps several times, when no other process holds the lock and ours is not seen yet.
        Raises AlreadyRunningError, naming the daemon that has it, and StateError for any other reason.
        """
        self._state_dir = state_dir
        self._purpose = purpose
        self._path = os.path.join(state_dir, LOCK_NAME)
        self._descriptor = self._acquire(PATIENCE, before)

    def keep(self) -> bool:
        """See that directory and lock are there still; True if somebody removed them, and they are made again.

        Raises as the making of both does; nobody is waited for.
        """
        held = os.fstat(self._descriptor)
        try:
            found = os.lstat(self._path)
        except OSError:
            found = None
        if found is not None and (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino):
            return False
        make_state_dir(self._state_dir)
        old, self._descriptor = self._descriptor, self._acquire(0, lambda: None)
        os.close(old)
        return True

    def release(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)

    def _acquire(self, patience: float, before: Callable[[], None]) -> int:
        try:
            # Ours alone: flock(2) asks for no right to write, so whoever may read it could keep every daemon out.
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if not _take(descriptor, patience, before):
                    raise _taken(self._state_dir, *_holder(descriptor))
                os.fchmod(descriptor, 0o600)  # an older version's was open to all
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n{self._purpose}\n".encode(), 0)
            except BaseException:
                os.close(descriptor)  # or it would keep ourselves out at the next try
                raise
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise StateError(f"{self._path} is a link, and none is followed there: remove it") from None
            remedy = f"{cure(error)}, or name another with --state-dir"
            raise StateError(f"{self._path}: {error.strerror}: {remedy}") from None
        return descriptor


def running_pid(state_dir: str) -> int | None:
    """Return the process id of the lock's holder as `holder` does; None if the lock is free."""
    found = holder(state_dir)
    return found and found[0]


def holder(state_dir: str) -> tuple[int, str] | None:
    """Return the process id of the lock's holder and its purpose, RUN or APPLY; None if the lock is free.

    The holder writes both: the id is the one in its own pid namespace, and 0 if it is not written yet.  Where we may
    not open the lock, the kernel's list has the id, but no purpose.  The list leaves out processes outside of our pid
    namespace, and names files on btrfs by another device than stat(2) does.
    """
    path = os.path.join(state_dir, LOCK_NAME)
    try:
        # O_NONBLOCK: of a FIFO, which is no lock, it would wait for the other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except PermissionError:
        listed = _listed(path)
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
    """Return whether the process that has this id in our pid namespace holds the lock.

    The id in the lock may be one of another pid namespace, and an unrelated process may have it in ours.
    """
    path = os.path.join(state_dir, LOCK_NAME)
    if pid and _listed(path) == pid:
        return True
    try:  # the kernel's list may know the file by another device, as on btrfs and overlayfs
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
    """Who holds the lock, by /proc/locks (proc_locks(5)); who only waits for it is marked there with an arrow."""
    try:
        found = os.lstat(path)
        with open("/proc/locks", encoding="ascii", errors="replace") as locks:
            lines = [line.split() for line in locks]
    except OSError:
        return None
    file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for _, kind, _, access, pid, locked, *_ in (line for line in lines if len(line) > 5):
        if (kind, access, locked) == ("FLOCK", "WRITE", file) and pid.isdigit():
            return int(pid)
    return None


def _take(descriptor: int, patience: float, before: Callable[[], None]) -> bool:
    """Wait a little: ``running_pid`` holds it for an instant, and ``apply`` for a pass.

    A shared lock keeps other daemons from taking it, and ``running_pid`` does not count it: so ``before`` has been
    called when it first finds the lock held.
    """
    give_up = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)  # the last holder's process id says nothing any more
            before()
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # loses the shared lock if it fails: flock(2)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                return False
            time.sleep(0.01)
        else:
            return True


def _holder(descriptor: int) -> tuple[int, str]:
    pid, _, purpose = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip().partition("\n")
    return (int(pid) if pid.isdigit() else 0), purpose


def _taken(state_dir: str, pid: int, holder: str) -> StateError:
    if holder == APPLY:
        return StateError(
            f"another `binfmtd apply` (pid {pid}) is at work with {state_dir}: try again when it has ended"
        )
    return AlreadyRunningError(
        f"binfmtd already runs with the state directory {state_dir} (pid {pid or 'unknown'}): stop it first, or name "
        "another with --state-dir",
        pid,
    )
