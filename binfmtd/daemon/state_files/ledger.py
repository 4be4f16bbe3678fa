"""The entries that binfmtd registered: ledger.json in the state directory.

Before an entry may be registered, the ledger gets an intent: name and registration, no inode number.  Afterwards it
gets a record with the number.  A daemon has intents for all its handlers.  So the next daemon recognises the entries of
one that was killed: an entry that equals an intent was registered by it, unless the ledger has its number as that of a
foreign entry.

Records of another boot are void.  Without a ledger, entries that equal the desired state are adopted, and all others
are foreign.
"""

from collections.abc import Iterable
from typing import Any

from binfmtd.daemon.state_files.boot_file import BootFile
from binfmtd.errors import FormatError
from binfmtd.formats.register_line import decode_line, encode_line, to_bytes, to_text
from binfmtd.model.desired import FileIdentity
from binfmtd.model.drift import Record
from binfmtd.model.entry import ObservedState
from binfmtd.model.handler import Handler, Registration
from binfmtd.model.ownership import equal

FILE_NAME = "ledger.json"
SCHEMA = 1


class Ledger:
    """The records of this boot, in memory and on disk."""

    def __init__(self, state_dir: str | None, boot_id: str) -> None:
        self.file = BootFile(state_dir, FILE_NAME, SCHEMA, boot_id)
        content = self.file.read(
            _parse, "its records are lost: entries that equal the config count as binfmtd's, all others as foreign"
        )
        self.records, self._earlier_intents, self._instance, self._earlier_foreign = content or ({}, {}, None, {})
        self._intents: dict[str, Registration] = {}
        self.earlier_intents = frozenset(self._earlier_intents)  # names; none if they are for another instance
        self._foreign: dict[str, int] = {}  # name -> inode of an entry that another program registered under it
        self._saved: _Content | None = None if content else ({}, {}, None, {})

    @property
    def problem(self) -> str | None:
        """The reason why the file could not be read or written; None if it could."""
        return self.file.problem

    def claim(self, observed: ObservedState, created: int) -> None:
        """Record the entries that equal an intent of an earlier daemon, which was killed before it recorded them.

        ``created`` is when the instance was created (``Instance.created``, in nanoseconds).  Intents for another
        instance are void.
        """
        intents, self._earlier_intents = self._earlier_intents, {}
        if self._instance not in (None, created):
            intents, self.earlier_intents = {}, frozenset()
        self._instance = created
        for name, registration in intents.items():
            entry, record = observed.by_name.get(name), self.records.get(name)
            recorded = entry is not None and record is not None and record.inode in (None, entry.inode)
            if entry is None or recorded or entry.inode == self._earlier_foreign.get(name):
                continue
            if equal(entry.registration, registration):
                self.records[name] = Record(registration, entry.inode)

    def intend(self, handlers: Iterable[Handler]) -> None:
        """Write down that the enabled ones of these may be registered, beside those that are intended already."""
        self._intents = self._intents | _registrations(handlers)
        self._put()

    def save(self, intended: Iterable[Handler] = (), observed: ObservedState | None = None) -> None:
        """Write down the records; from now on the enabled ones of ``intended``, and no others, may be registered.

        ``observed``: the entries now; those with such a name and without a record are another program's.
        """
        self._intents = _registrations(intended)
        entries = {} if observed is None else observed.by_name
        unrecorded = self._intents.keys() - self.records.keys()
        self._foreign = {name: entries[name].inode for name in unrecorded if name in entries}
        self._put()

    def _put(self) -> None:
        """Bring the file up to date; unchanged content is written again only if the file lacks it."""
        content = dict(self.records), self._intents, self._instance, self._foreign
        unchanged = content == self._saved
        self._saved = content  # even if it is equal: two objects are compared faster if they are the same one
        if unchanged:
            self.file.put_again()
            return
        records, intents, instance, foreign = content
        self.file.put(
            lambda: {
                "instance": instance,
                "entries": {name: _to_json(name, record) for name, record in sorted(records.items())},
                "intents": {name: to_text(encode_line(name, intent)) for name, intent in sorted(intents.items())},
                "foreign": dict(sorted(foreign.items())),
            },
            "after a restart of the daemon, entries of binfmtd that differ from the config may count as foreign",
        )


def _registrations(handlers: Iterable[Handler]) -> dict[str, Registration]:
    """Return the registrations that may be written; a handler with ``enabled = false`` is never registered."""
    return {handler.name: handler.registration for handler in handlers if handler.enabled}


_Content = tuple[dict[str, Record], dict[str, Registration], int | None, dict[str, int]]


def _parse(content: Any) -> _Content:
    records = {name: _from_json(name, record) for name, record in content["entries"].items()}
    intents = {name: _line(name, line) for name, line in content.get("intents", {}).items()}
    instance = content.get("instance")
    if instance is not None and type(instance) is not int:
        raise FormatError('the key "instance" is not a number')
    foreign = dict(content.get("foreign", {}))  # missing in the file of an earlier version
    if not all(type(number) is int for number in foreign.values()):
        raise FormatError('a number in "foreign" is invalid')
    return records, intents, instance, foreign


def _to_json(name: str, record: Record) -> dict[str, Any]:
    opened_file = record.opened_file
    return {
        "line": to_text(encode_line(name, record.registration)),
        "inode": record.inode,
        "pinned": opened_file
        and [opened_file.device, opened_file.inode, opened_file.size, opened_file.mtime_ns, opened_file.ctime_ns],
    }


def _from_json(name: str, content: dict[str, Any]) -> Record:
    registration = _line(name, content["line"])
    inode, opened_file = content["inode"], content["pinned"]
    numbers = [inode, *(opened_file or [])]
    if not all(number is None or type(number) is int for number in numbers):
        raise FormatError(f"the file's record of entry {name!r} is invalid")
    return Record(registration, inode, FileIdentity(*opened_file) if opened_file else None)


def _line(name: str, line: str) -> Registration:
    named, registration = decode_line(to_bytes(line))
    if named != name:
        raise FormatError(f"the file's record of entry {name!r} is invalid")
    encode_line(name, registration)  # as it is written again: that must not fail then
    return registration
