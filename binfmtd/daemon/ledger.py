"""What binfmtd registered: ledger.json in the state directory.

The intent is written before a proper entry is registered, and what came of it afterwards: so a killed daemon's entries
are known as its own at any moment.  A repair does not wait for that, as a stand-in serves already.  Records of another
boot are void.  A lost or corrupt ledger costs nothing but knowledge: entries equal to the desired state are adopted,
everything else is foreign.
"""

from typing import Any

from binfmtd.daemon.boot_file import BootFile
from binfmtd.errors import FormatError
from binfmtd.formats.line import decode_line, encode_line, to_bytes, to_text
from binfmtd.model.desired import Fingerprint
from binfmtd.model.drift import Record
from binfmtd.model.handler import Handler

FILE_NAME = "ledger.json"
SCHEMA = 1


class Ledger:
    """The records of this boot, in memory and on disk."""

    def __init__(self, state_dir: str | None, boot_id: str) -> None:
        self._file = BootFile(state_dir, FILE_NAME, SCHEMA, boot_id)
        found = self._file.read(_parse, "what it knew is lost, entries as declared are adopted")
        self.records: dict[str, Record] = found or {}
        self._saved = dict(self.records)

    @property
    def problem(self) -> str | None:
        """Why the file could not be read or written."""
        return self._file.problem

    def intend(self, handlers: list[Handler]) -> None:
        """Write down that these are about to be registered: an entry of theirs is ours, whatever its number."""
        if handlers:
            self._write(self.records | {handler.name: Record(handler.registration) for handler in handlers})

    def save(self) -> None:
        """Bring the file up to date; nothing is written when nothing has changed."""
        self._write(self.records)

    def _write(self, records: dict[str, Record]) -> None:
        if records == self._saved and (not records or self._file.there()):
            return
        entries = {name: _to_json(name, record) for name, record in sorted(records.items())}
        if self._file.write({"entries": entries}, "after a restart our entries will count as foreign"):
            self._saved = dict(records)


def _parse(content: Any) -> dict[str, Record]:
    return {name: _from_json(name, record) for name, record in content["entries"].items()}


def _to_json(name: str, record: Record) -> dict[str, Any]:
    pinned = record.pinned
    return {
        "line": to_text(encode_line(name, record.registration)),
        "inode": record.inode,
        "pinned": pinned and [pinned.device, pinned.inode, pinned.size, pinned.mtime_ns, pinned.ctime_ns],
    }


def _from_json(name: str, content: dict[str, Any]) -> Record:
    named, registration = decode_line(to_bytes(content["line"]))
    inode, pinned = content["inode"], content["pinned"]
    numbers = [inode, *(pinned or [])]
    if named != name or not all(number is None or type(number) is int for number in numbers):
        raise FormatError(f"the record of {name!r} is damaged")
    return Record(registration, inode, Fingerprint(*pinned) if pinned else None)
