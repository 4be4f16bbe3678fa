"""Pauses, as the commands ``pause`` and ``resume`` write them: paused.json in the state directory.

The daemon watches the file, and one that starts later obeys it, too.  Ends are told by a clock that nobody sets and
that goes on while the machine is suspended (CLOCK_BOOTTIME); with the boot all pauses end.
"""

import os
import time
from typing import Any

from binfmtd.daemon.boot_file import BootFile
from binfmtd.errors import FormatError
from binfmtd.model.pause import Pauses

FILE_NAME = "paused.json"
SCHEMA = 1
LONGEST = 87600 * 3600.0  # seconds, ten years: what lasts longer has no end
_LOSS = "nothing else is paused than before"
_AGAIN = 1.0  # seconds
_FAR = 10 * LONGEST  # no machine runs for so long


def since_boot() -> float:
    """Seconds since the boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class PauseFile:
    """The file, and what it says at the moment."""

    def __init__(self, state_dir: str | None, boot_id: str) -> None:
        self._file = BootFile(state_dir, FILE_NAME, SCHEMA, boot_id)
        self._again_at = float("inf")
        self.watched: dict[str, set[str]] = {} if state_dir is None else {os.path.realpath(state_dir): {FILE_NAME}}

    @property
    def problem(self) -> str | None:
        """Why the file could not be read or written."""
        return self._file.problem

    def read(self, before: Pauses = Pauses()) -> Pauses:  # noqa: B008  a tuple
        """What is paused now; what was ``before``, where that cannot be read: then nobody's maintenance is undone."""
        self._file.problem = None
        found = self._file.read(_parse, _LOSS) or Pauses()
        failed = self.problem is not None
        self._again_at = time.monotonic() + _AGAIN if failed else float("inf")
        return (before if failed else found).at(since_boot())

    def due_at(self, pauses: Pauses) -> float:
        """When the next of these ends, or what could not be read is to be tried again, by the monotonic clock."""
        return min(time.monotonic() + pauses.end_at() - since_boot(), self._again_at)

    def write(self, pauses: Pauses) -> bool:
        """Replace it; False if that failed, and ``problem`` says why."""
        until = {name: None if end == float("inf") else end for name, end in pauses.until.items()}
        return self._file.write({"until": until}, "nothing has changed")


def _parse(content: Any) -> Pauses:
    until = content["until"]
    if not all(end is None or (type(end) in (int, float) and abs(end) < _FAR) for end in until.values()):
        raise FormatError("an end is no number of seconds, or in no calendar")
    return Pauses({name: float("inf") if end is None else float(end) for name, end in until.items()})
