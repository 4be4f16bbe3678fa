"""A lock for short work on a file: itself a file, which exists while a process holds the lock.

Only its owner may open it.  Otherwise any user could hold the lock and make us wait, since flock(2) requires no right
to write.
"""

import errno
import fcntl
import os
import time
from contextlib import suppress

AGAIN = 0.05  # seconds until a lock that another process holds is tried again


class FileLock:
    """A lock at ``path``; the kernel releases it if its holder ends, in whichever way."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def take(self) -> bool:
        """Take the lock; return False if another process holds it.  Raises OSError.

        Return True without a lock if the file system is read-only or full, or the directory is missing: no process can
        write a file there.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOENT):
                return True
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.lstat(self._path)):
                self._descriptor = descriptor
                return True
        except (BlockingIOError, FileNotFoundError):  # it is held, or its holder has just removed it
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return False

    def wait(self, patience: float) -> bool:
        """Take the lock within ``patience`` seconds; return False if it is still held then.  Raises OSError."""
        give_up = time.monotonic() + patience
        while not self.take():
            if time.monotonic() >= give_up:
                return False
            time.sleep(AGAIN)
        return True

    def give_back(self) -> None:
        """Remove the file while we still hold the lock, then release it; do nothing if we do not hold it."""
        if self._descriptor < 0:
            return
        with suppress(OSError):
            os.unlink(self._path)
        os.close(self._descriptor)
        self._descriptor = -1
