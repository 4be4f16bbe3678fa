"""The ledger of registered entries, across restarts, and with a damaged file."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registrations import NAMES, REGISTRATIONS

from binfmtd.daemon.state_files.ledger import FILE_NAME, Ledger
from binfmtd.errors import FormatError
from binfmtd.formats.register_line import encode_line
from binfmtd.model.desired import FileIdentity
from binfmtd.model.drift import Record
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Magic

SAYS = Registration(Magic(b"A"), "/i", Flags.F)
FILE = FileIdentity(1, 2, 3, 4, 5)
BOOT = "a-boot"


def saved(directory: Path, **records: Record) -> Ledger:
    ledger = Ledger(str(directory), BOOT)
    ledger.records.update(records)
    ledger.save()
    return ledger


def test_what_is_saved_is_known_after_a_restart(tmp_path: Path) -> None:
    """A record survives a restart: the registration, the inode number and the file that F opened, each if known."""
    records = {"a": Record(SAYS, 7, FILE), "b": Record(SAYS), "l\udce4t \x1b": Record(SAYS, 2**40)}
    assert saved(tmp_path, **records).problem is None
    again = Ledger(str(tmp_path), BOOT)
    assert (again.records, again.problem) == (records, None)


def test_a_great_many_are_known_after_a_restart(tmp_path: Path) -> None:
    """A file may be as large when it is read as when it is written: here several mebibytes."""
    says = Registration(Magic(bytes(128), bytes(128)), f"/{'i' * 127}", Flags.F)
    records = {f"handler-{number}": Record(says, number, FILE) for number in range(2_500)}
    saved(tmp_path, **records)
    assert (tmp_path / FILE_NAME).stat().st_size > 2 << 20
    again = Ledger(str(tmp_path), BOOT)
    assert (again.records, again.problem) == (records, None)


FINGERPRINTS = st.builds(FileIdentity, *[st.integers(0, 2**63)] * 5)
RECORDS = st.builds(Record, REGISTRATIONS, st.none() | st.integers(1, 2**63), st.none() | FINGERPRINTS)


def has_line(name: str, record: Record) -> bool:
    try:
        encode_line(name, record.registration)
    except FormatError:
        return False
    return True


@given(records=st.dictionaries(NAMES, RECORDS, max_size=3))
def test_every_record_survives(tmp_path_factory: pytest.TempPathFactory, records: dict[str, Record]) -> None:
    """Every registration that the kernel takes can be recorded."""
    directory = tmp_path_factory.mktemp("state")
    known = {name: record for name, record in records.items() if has_line(name, record)}
    saved(directory, **known)
    assert Ledger(str(directory), BOOT).records == known


def test_no_ledger_is_no_problem(tmp_path: Path) -> None:
    """A first start has no records; a daemon without a state directory has none, and keeps none."""
    assert (Ledger(str(tmp_path), BOOT).records, Ledger(str(tmp_path), BOOT).problem) == ({}, None)
    nowhere = Ledger(None, BOOT)
    nowhere.intend([Handler("a", SAYS)])
    assert (nowhere.records, nowhere.problem) == ({}, None)


def test_records_of_another_boot_are_void(tmp_path: Path) -> None:
    """Records of another boot are void: the numbers of entries begin anew with each boot."""
    saved(tmp_path, a=Record(SAYS, 7))
    other = Ledger(str(tmp_path), "another-boot")
    assert (other.records, other.problem) == ({}, None)


def observed(*entries: tuple[str, int]) -> ObservedState:
    return ObservedState(tuple(Entry(name, inode, enabled=True, registration=SAYS) for name, inode in entries))


def test_the_intent_is_on_disk_before_the_deed(tmp_path: Path) -> None:
    """The entries of a daemon that is killed right after it registered them are recognised as binfmtd's own."""
    Ledger(str(tmp_path), BOOT).intend([Handler("a", SAYS)])
    again = Ledger(str(tmp_path), BOOT)
    again.claim(observed(("a", 7)), 1)
    assert again.records == {"a": Record(SAYS, 7)}


def test_an_intent_is_no_knowledge(tmp_path: Path) -> None:
    """An entry that equals an intent is ours, but the file that F opened is unknown."""
    ledger = saved(tmp_path, a=Record(SAYS, 7, FILE), b=Record(SAYS, 8, FILE))
    ledger.intend([Handler(name, SAYS) for name in "abc"])
    again = Ledger(str(tmp_path), BOOT)
    assert again.records == ledger.records, "what is recorded stays known"
    again.claim(observed(("a", 9), ("b", 8)), 1)
    assert again.records == {"a": Record(SAYS, 9), "b": Record(SAYS, 8, FILE)}


def test_an_intent_claims_no_entry_that_was_foreign(tmp_path: Path) -> None:
    """Another program's identical entry stays foreign after a crash; one registered later counts as the daemon's."""
    ledger = Ledger(str(tmp_path), BOOT)
    ledger.save([Handler(name, SAYS) for name in "ab"], observed(("a", 7), ("b", 8)))
    ledger.intend([Handler("c", SAYS)])
    again = Ledger(str(tmp_path), BOOT)
    again.claim(observed(("a", 7), ("b", 9)), 1)
    assert again.records == {"b": Record(SAYS, 9)}


def test_an_intent_claims_no_other_entry(tmp_path: Path) -> None:
    """An intent claims no different entry, and none after the first look: from then on there are records."""
    other = Registration(Magic(b"B"), "/i", Flags.F)
    Ledger(str(tmp_path), BOOT).intend([Handler("a", other)])
    again = Ledger(str(tmp_path), BOOT)
    again.claim(observed(("a", 7)), 1)
    assert again.records == {}
    again.intend([Handler("a", SAYS)])
    again.claim(observed(("a", 8)), 1)
    assert again.records == {}


def test_a_disabled_handler_is_no_intent(tmp_path: Path) -> None:
    """A handler with `enabled = false` is never registered, so an equal entry is another program's."""
    disabled = Handler("a", SAYS, enabled=False)
    ledger = Ledger(str(tmp_path), BOOT)
    ledger.intend([disabled, Handler("b", SAYS)])
    ledger.save([disabled, Handler("b", SAYS)])
    again = Ledger(str(tmp_path), BOOT)
    again.claim(observed(("a", 7), ("b", 8)), 1)
    assert again.records == {"b": Record(SAYS, 8)}


def test_nothing_is_written_when_nothing_has_changed(tmp_path: Path) -> None:
    """Without a change nothing is written: fast repairs and an idle daemon leave the disk alone."""
    ledger = saved(tmp_path, a=Record(SAYS, 7))
    before = (tmp_path / FILE_NAME).stat()
    ledger.intend([])
    ledger.save()
    assert (tmp_path / FILE_NAME).stat().st_ino == before.st_ino
    ledger.records["a"] = Record(SAYS, 8)
    ledger.save()
    assert (tmp_path / FILE_NAME).stat().st_ino != before.st_ino


def test_everybody_may_read_it(tmp_path: Path) -> None:
    """The ledger has mode 0644, since every user may run `plan` and `status`."""
    saved(tmp_path, a=Record(SAYS, 7))
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o7777 == 0o644


def test_a_disk_that_cannot_be_written_is_a_problem_and_no_reason_to_stop(tmp_path: Path) -> None:
    """A ledger that cannot be written is a problem until a save succeeds, and the records in memory stay."""
    directory = tmp_path / "state"
    ledger = saved(directory, a=Record(SAYS, 7))
    assert str(directory) in str(ledger.problem)
    assert ledger.records == {"a": Record(SAYS, 7)}
    directory.mkdir()
    ledger.save()
    assert ledger.problem is None
    assert Ledger(str(directory), BOOT).records == {"a": Record(SAYS, 7)}


GOOD: dict[str, Any] = {"line": ":a:M:0:A::/i:F", "inode": 7, "pinned": [1, 2, 3, 4, 5]}


def content(**changes: object) -> bytes:
    return json.dumps({"schema": 1, "boot_id": BOOT, "entries": {"a": {**GOOD, **changes}}}).encode()


def test_the_format_stays_readable(tmp_path: Path) -> None:
    """A ledger of the first version is read, so a new version recognises the entries that are ours."""
    (tmp_path / FILE_NAME).write_bytes(content())
    assert Ledger(str(tmp_path), BOOT).records == {"a": Record(SAYS, 7, FILE)}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b"[" * 10000,
        b'{"schema": 2, "boot_id": "a-boot", "entries": {}}',
        b'{"schema": 1, "boot_id": "a-boot"}',
        b'{"schema": 1, "boot_id": "a-boot", "entries": []}',
        b'{"schema": 1, "boot_id": "a-boot", "entries": {"a": 1}}',
        content(line=":a:M:0:A::i:F"),
        content(line="nonsense"),
        content(line=1),
        content(line=":b:M:0:A::/i:F"),
        content(line=":a:M:0:\ud800::/i:F"),
        content(inode="7"),
        content(inode=True),
        content(pinned=[1, 2, 3, 4]),
        content(pinned=[1, 2, 3, 4, "5"]),
        content(pinned={"device": 1}),
        content(pinned=1),
    ],
)
def test_a_damaged_ledger_costs_nothing_but_knowledge(tmp_path: Path, text: bytes) -> None:
    """With a damaged ledger the daemon has no records, reports that in one line, and writes a good ledger."""
    (tmp_path / FILE_NAME).write_bytes(text)
    ledger = Ledger(str(tmp_path), BOOT)
    assert ledger.records == {}
    assert ledger.problem is not None
    assert ledger.problem.startswith(f"{tmp_path / FILE_NAME}: ")
    assert "\n" not in ledger.problem
    python = r"indices|object|NoneType|attribute|argument|subscriptable|iterable|unpack|Expecting|codec|int\(\)"
    assert not re.search(python, ledger.problem), "Python's own words mean nothing to a user"
    ledger.intend([Handler("a", SAYS)])
    again = Ledger(str(tmp_path), BOOT)
    again.claim(observed(("a", 7)), 1)
    assert (again.records, again.problem) == ({"a": Record(SAYS, 7)}, None)


def test_a_ledger_that_is_no_file_is_damaged_too(tmp_path: Path) -> None:
    """A FIFO in the place of the ledger counts as damaged, and does not block."""
    os.mkfifo(tmp_path / FILE_NAME)
    assert Ledger(str(tmp_path), BOOT).problem is not None


def test_an_intent_claims_nothing_in_another_instance(tmp_path: Path) -> None:
    """After an unmount and a mount, intents are void: another program has registered what exists now."""
    ledger = Ledger(str(tmp_path), BOOT)
    ledger.claim(observed(), 1)
    ledger.intend([Handler("a", SAYS)])
    for created, records in ((2, {}), (1, {"a": Record(SAYS, 7)})):
        again = Ledger(str(tmp_path), BOOT)
        again.claim(observed(("a", 7)), created)
        assert again.records == records
