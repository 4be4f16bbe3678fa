"""Pauses, as the commands ``pause`` and ``resume`` write them: paused.json in the state directory.

The daemon watches the file, and a daemon that starts later reads it, too.  The end of a pause is a time of
CLOCK_BOOTTIME, which no program can set and which goes on while the machine is suspended.  All pauses end with the
boot.
"""

import os
import time
from typing import Any

from binfmtd.daemon.state_files.boot_file import BootFile
from binfmtd.errors import FormatError
from binfmtd.model.pause import Pauses

FILE_NAME = "paused.json"
SCHEMA = 1
LONGEST = 87600 * 3600.0  # seconds, ten years: the longest pause that has an end
_LOSS = "the daemon keeps only the pauses that it has already read"
_AGAIN = 1.0  # seconds until a file that could not be read is read again
_FAR = 10 * LONGEST  # no machine stays up for so long


def since_boot() -> float:
    """Return the seconds since the boot, by CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class PauseFile:
    """The file paused.json; without a state directory nothing is read or written."""

    def __init__(self, state_dir: str | None, boot_id: str) -> None:
        self._file = BootFile(state_dir, FILE_NAME, SCHEMA, boot_id)
        self._again_at = float("inf")
        self.watched: dict[str, set[str]] = {} if state_dir is None else {os.path.realpath(state_dir): {FILE_NAME}}

    @property
    def problem(self) -> str | None:
        """The reason why the file could not be read or written."""
        return self._file.problem

    def read(self, before: Pauses = Pauses()) -> Pauses:  # noqa: B008  a tuple
        """Return the pauses that have not ended.

        Where the file cannot be read, these are the pauses of ``before``: no repair undoes an administrator's
        maintenance.
        """
        self._file.problem = None
        pauses = self._file.read(_parse, _LOSS) or Pauses()
        failed = self.problem is not None
        self._again_at = time.monotonic() + _AGAIN if failed else float("inf")
        return (before if failed else pauses).at(since_boot())

    def due_at(self, pauses: Pauses) -> float:
        """Return when the next of these ends, or an unreadable file is to be read again (monotonic, in seconds)."""
        return min(time.monotonic() + pauses.end_at() - since_boot(), self._again_at)

    def write(self, pauses: Pauses) -> bool:
        """Replace the file; return False if that failed: ``problem`` then has the reason."""
        until = {name: None if end == float("inf") else end for name, end in pauses.until.items()}
        return self._file.write({"until": until}, "the pauses are unchanged")


def _parse(content: Any) -> Pauses:
    until = content["until"]
    if not all(end is None or (type(end) in (int, float) and abs(end) < _FAR) for end in until.values()):
        raise FormatError("the end of a pause is not a number of seconds, or is too large")
    return Pauses({name: float("inf") if end is None else float(end) for name, end in until.items()})
