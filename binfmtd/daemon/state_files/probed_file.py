"""The architectures whose programs run here, found by ``binfmtd probe --write``: probed.json in the state directory.

A process that may run emulators writes it: a child process of the daemon or, under systemd, a unit of its own.  Under
systemd the daemon and its children may have no memory that is both writable and executable.  The daemon only watches
the file.
"""

import os
from typing import Any, TypeVar, get_type_hints

from binfmtd.daemon.state_files.boot_file import BootFile
from binfmtd.errors import FormatError
from binfmtd.model.probe_result import Probed, Tried, TriedInterpreter

FILE_NAME = "probed.json"
SCHEMA = 2
_FAR = 1 << 37  # seconds since the epoch, in the year 6325: much later ones have no date

_Row = TypeVar("_Row", Tried, TriedInterpreter)


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
            {
                "at": probed.at,
                "architectures": [row._asdict() for row in probed.architectures],
                "interpreters": [row._asdict() for row in probed.interpreters],
            },
            "the result of the probe is neither in the status nor in the labels",
        )


def _parse(content: Any) -> Probed:
    if type(content["at"]) is not int or not 0 <= content["at"] < _FAR:
        raise FormatError("`at` is not a whole number of seconds since the epoch, or is too large")
    rows = (_rows(Tried, content["architectures"]), _rows(TriedInterpreter, content["interpreters"]))
    return Probed(content["at"], *rows)


def _rows(kind: type[_Row], rows: Any) -> tuple[_Row, ...]:
    """Return the rows as values of this kind.  Raises FormatError, and the errors of DAMAGE."""
    types = get_type_hints(kind)
    made = tuple(kind(**row) for row in rows)
    for row in made:
        for name, expected in types.items():
            if not isinstance(getattr(row, name), expected):
                raise FormatError(f"{name} of {row!r} has the wrong type")
    return made
