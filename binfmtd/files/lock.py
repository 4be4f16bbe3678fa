"""A lock for a moment's work on a file: itself a file, there while somebody is at work, and gone afterwards.

Only its owner may open it, so nobody else can keep us waiting: flock(2) asks for no right to write.
"""

import errno
import fcntl
import os
import time
from contextlib import suppress

AGAIN = 0.05  # seconds until one that somebody else has is asked for again


class FileLock:
    """One that lies at ``path``; the kernel lets go of it, too, however its holder ends."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def take(self) -> bool:
        """Take it; False if somebody else has it.  Raises OSError.

        Where nobody can write, or there is no directory, nobody is at work.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in (errno.EROFS, errno.ENOENT):
                return True
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.lstat(self._path)):
                self._descriptor = descriptor
                return True
        except (BlockingIOError, FileNotFoundError):  # or whoever had it has just removed it
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return False

    def wait(self, patience: float) -> bool:
        """Take it within so many seconds; False if somebody else has it still.  Raises OSError."""
        give_up = time.monotonic() + patience
        while not self.take():
            if time.monotonic() >= give_up:
                return False
            time.sleep(AGAIN)
        return True

    def give_back(self) -> None:
        """Remove it, while it is still ours."""
        if self._descriptor < 0:
            return
        with suppress(OSError):
            os.unlink(self._path)
        os.close(self._descriptor)
        self._descriptor = -1
