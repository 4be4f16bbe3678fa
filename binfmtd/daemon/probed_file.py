"""The architectures whose programs run here, found by ``binfmtd probe --write``: probed.json in the state directory.

A process that may run emulators writes it: a child process of the daemon or, under systemd, a unit of its own.  Under
systemd the daemon and its children may have no memory that is both writable and executable.  The daemon only watches
the file.
"""

import os
from typing import Any, get_type_hints

from binfmtd.daemon.boot_file import BootFile
from binfmtd.errors import FormatError
from binfmtd.model.probe_result import Probed, Tried

FILE_NAME = "probed.json"
SCHEMA = 1
_TYPES = get_type_hints(Tried)


class ProbedFile:
    """The file probed.json; without a state directory nothing is read or written."""

    def __init__(self, state_dir: str | None, boot_id: str) -> None:
        self._file = BootFile(state_dir, FILE_NAME, SCHEMA, boot_id)
        self.watched: dict[str, set[str]] = {} if state_dir is None else {os.path.realpath(state_dir): {FILE_NAME}}

    @property
    def problem(self) -> str | None:
        """The reason why the file could not be read or written."""
        return self._file.problem

    def read(self) -> Probed | None:
        """Return the last result of this boot; None if there is none."""
        self._file.problem = None
        return self._file.read(_parse, "it is unknown which architectures run until the next `binfmtd probe --write`")

    def write(self, probed: Probed) -> bool:
        """Replace the file; return False if that failed: ``problem`` then has the reason."""
        return self._file.write(
            {"at": probed.at, "architectures": [row._asdict() for row in probed.architectures]},
            "the result of the probe is neither in the status nor in the labels",
        )


def _parse(content: Any) -> Probed:
    rows = tuple(Tried(**row) for row in content["architectures"])
    for row in rows:
        for name, kind in _TYPES.items():
            if not isinstance(getattr(row, name), kind):
                raise FormatError(f"{name} of {row.name!r} has the wrong type")
    if type(content["at"]) is not int:
        raise FormatError("`at` is not a whole number of seconds")
    return Probed(content["at"], rows)
