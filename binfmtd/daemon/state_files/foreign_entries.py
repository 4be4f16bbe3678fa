"""Foreign entries to restore after a flush: foreign.json in the state directory, so that a restart forgets none.

model/restore.py decides which entries these are, and when they count as lost.
"""

from collections.abc import Collection, Iterable
from typing import Any

from binfmtd.daemon.state_files.boot_file import BootFile
from binfmtd.errors import FormatError
from binfmtd.formats.register_line import decode_line, encode_line, to_bytes, to_text
from binfmtd.model.drift import Remembered

FILE_NAME = "foreign.json"
SCHEMA = 1


class ForeignEntryStore:
    """The foreign entries of this boot that may have to be restored, oldest first.

    The file also has the inode numbers of our own entries at that moment, so that the next daemon can tell a flush from
    the removal of a foreign entry alone.  The ledger, another file, may be newer than this one after a kill.
    """

    def __init__(self, state_dir: str | None, boot_id: str) -> None:
        self.file = BootFile(state_dir, FILE_NAME, SCHEMA, boot_id)
        content = self.file.read(_parse, "foreign entries may not be restored after a flush")
        self.entries, self._ours = content or ({}, frozenset())
        self._saved: _Content | None = None if self.entries or self.problem else ([], frozenset())

    @property
    def problem(self) -> str | None:
        """The reason why the file could not be read or written; None if it could."""
        return self.file.problem

    def forget(self, names: Collection[str]) -> None:
        """Forget these entries: another program has removed them by name."""
        for name in names:
            self.entries.pop(name, None)

    def inodes(self) -> frozenset[int]:
        """Return the inode numbers of the entries that existed when an earlier daemon wrote the file."""
        return self._ours.union(remembered.inode for remembered in self.entries.values())

    def save(self, ours: Iterable[int | None]) -> None:
        """Bring the file up to date; unchanged content is written again only if the file lacks it.

        ``ours``: the inode numbers of our own entries, None for one without.
        """
        known = list(self.entries.items())
        numbers = frozenset(number for number in ours if number is not None) if known else frozenset()
        if (known, numbers) == self._saved:
            self.file.put_again()
            return
        self._saved = known, numbers
        self.file.put(
            lambda: {"entries": [_to_json(name, remembered) for name, remembered in known], "ours": sorted(numbers)},
            "after a restart of the daemon, foreign entries may not be restored",
        )


def can_be_written(name: str, remembered: Remembered) -> bool:
    """Return True if a registration line can express the entry.

    It cannot if the line would be too long, or if the entry contains every delimiter that we use: another program may
    have registered it with an unusual one.
    """
    try:
        encode_line(name, remembered.registration)
    except FormatError:
        return False
    return True


_Content = tuple[list[tuple[str, Remembered]], frozenset[int]]


def _parse(content: Any) -> tuple[dict[str, Remembered], frozenset[int]]:
    ours = frozenset(content["ours"])
    if not all(type(number) is int for number in ours):
        raise FormatError('a number in "ours" is invalid')
    return dict(_from_json(entry) for entry in content["entries"]), ours


def _to_json(name: str, remembered: Remembered) -> dict[str, Any]:
    return {
        "line": to_text(encode_line(name, remembered.registration)),
        "inode": remembered.inode,
        "enabled": remembered.enabled,
        "above": remembered.above,
        "lost": remembered.lost,
    }


def _from_json(content: dict[str, Any]) -> tuple[str, Remembered]:
    name, registration = decode_line(to_bytes(content["line"]))
    inode, flags = content["inode"], [content[key] for key in ("enabled", "above", "lost")]
    if type(inode) is not int or not all(type(flag) is bool for flag in flags):
        raise FormatError(f"the file's record of entry {name!r} is invalid")
    return name, Remembered(registration, flags[0], inode, *flags[1:])
