"""The state directory: where it is, that it is ours, and the lock that one daemon holds on it for life."""

import fcntl
import os
import stat

from binfmtd.errors import AlreadyRunningError, StateError

LOCK_NAME = "lock"


def default_state_dir() -> str:
    """``$BINFMTD_STATE_DIR``; for root /run/binfmtd; else ``$XDG_RUNTIME_DIR/binfmtd``.  Raises StateError."""
    if named := os.environ.get("BINFMTD_STATE_DIR"):
        return named
    if os.geteuid() == 0:
        return "/run/binfmtd"
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return os.path.join(runtime, "binfmtd")
    raise StateError("no state directory: XDG_RUNTIME_DIR is not set, so name one with --state-dir")


def make_state_dir(path: str) -> None:
    """Make the directory if it is not there; raises StateError unless only we and root could write in it."""
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
        found = os.lstat(path)
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}: name another with --state-dir") from None
    if not stat.S_ISDIR(found.st_mode):
        raise StateError(f"{path} is not a directory of its own: name another with --state-dir")
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise StateError(
            f"{path} can be written by others (mode {found.st_mode & 0o7777:04o}): run `chmod go-w {path}`"
        )


class Lock:
    """Held as long as the daemon lives: the kernel lets go of it however the daemon ends."""

    def __init__(self, state_dir: str) -> None:
        """Take it.  Raises AlreadyRunningError, naming who has it, or StateError."""
        path = os.path.join(state_dir, LOCK_NAME)
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise StateError(f"{path}: {error.strerror}: name another directory with --state-dir") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = _pid(self._descriptor)
            os.close(self._descriptor)
            raise AlreadyRunningError(
                f"binfmtd already runs with the state directory {state_dir} (pid {pid or 'unknown'}): stop it first, "
                "or name another with --state-dir",
                pid,
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


def running_pid(state_dir: str) -> int | None:
    """The process id of the daemon that holds the lock; 0 if it holds it but does not say; None if nobody does."""
    try:
        descriptor = os.open(os.path.join(state_dir, LOCK_NAME), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _pid(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _pid(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0
