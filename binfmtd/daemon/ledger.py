"""What binfmtd registered: ledger.json in the state directory.

The intent is written before a name is registered for the first time, so that a killed daemon's entries are known as
its own; repairs of known names are recorded after the kernel has them.  Records of another boot are void.  A lost or
corrupt ledger costs nothing but knowledge: entries equal to the desired state are adopted, everything else is foreign.
"""

import json
import os
from typing import Any

from binfmtd.errors import FormatError
from binfmtd.files.atomic import read_regular, write_atomically
from binfmtd.formats.line import decode_line, encode_line, to_bytes, to_text
from binfmtd.model.desired import Fingerprint
from binfmtd.model.drift import Record
from binfmtd.model.handler import Handler

FILE_NAME = "ledger.json"
SCHEMA = 1


class Ledger:
    """The records of this boot, in memory and on disk.

    A disk that cannot be written is a ``problem``, not a reason to stop repairing.  Without a state directory nothing
    is read or kept.
    """

    def __init__(self, state_dir: str | None, boot_id: str) -> None:
        self._path = None if state_dir is None else os.path.join(state_dir, FILE_NAME)
        self._boot_id = boot_id
        self.problem: str | None = None  # why the file could not be read or written
        self.records: dict[str, Record] = self._load()
        self._saved = dict(self.records)

    def intend(self, handlers: list[Handler]) -> None:
        """Say that these are about to be registered, where they were never before."""
        new = [handler for handler in handlers if handler.name not in self.records]
        self.records.update({handler.name: Record(handler.registration) for handler in new})
        self.save()

    def save(self) -> None:
        """Bring the file up to date; nothing is written when nothing has changed."""
        if self.records == self._saved or self._path is None:
            return
        entries = {name: _to_json(name, record) for name, record in sorted(self.records.items())}
        text = json.dumps({"schema": SCHEMA, "boot_id": self._boot_id, "entries": entries}, indent=1)
        try:
            write_atomically(self._path, text.encode("ascii"))
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror}: after a restart our entries will count as foreign"
        else:
            self.problem = None
            self._saved = dict(self.records)

    def _load(self) -> dict[str, Record]:
        if self._path is None:
            return {}
        try:
            content = json.loads(read_regular(self._path))
            if content["schema"] != SCHEMA:
                raise FormatError(f"schema {content['schema']!r} is not {SCHEMA}")
            if content["boot_id"] != self._boot_id:
                return {}
            return {name: _from_json(name, record) for name, record in content["entries"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, FormatError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self.problem = f"{self._path}: {error}: what it knew is lost, entries as declared are adopted"
            return {}


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
