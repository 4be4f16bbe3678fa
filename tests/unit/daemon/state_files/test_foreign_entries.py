"""The memory of foreign entries, across restarts, and with a damaged file."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registrations import NAMES, REGISTRATIONS

from binfmtd.daemon.state_files.foreign_entries import FILE_NAME, ForeignEntryStore, can_be_written
from binfmtd.model.drift import Remembered
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Magic

BOOT = "a-boot"
SAYS = Registration(Magic(b"MZ"), "/i", Flags.NONE)
WAS = Remembered(SAYS, enabled=True, inode=7)
OURS = [8, None]  # an entry, and one that is intended
REMEMBERED = st.builds(
    Remembered, REGISTRATIONS, st.booleans(), st.integers(1, 2**63), above=st.booleans(), lost=st.booleans()
)


def saved(directory: Path, entries: dict[str, Remembered], boot: str = BOOT) -> ForeignEntryStore:
    foreign_entries = ForeignEntryStore(str(directory), boot)
    foreign_entries.entries = entries
    foreign_entries.save(OURS)
    return foreign_entries


@given(entries=st.dictionaries(NAMES, REMEMBERED, max_size=4))
def test_a_restart_forgets_nothing(tmp_path_factory: pytest.TempPathFactory, entries: dict[str, Remembered]) -> None:
    """Every entry that has a registration line is read back as it was, in the same order."""
    directory = tmp_path_factory.mktemp("state")
    entries = {name: was for name, was in entries.items() if can_be_written(name, was)}
    saved(directory, entries)
    assert list(ForeignEntryStore(str(directory), BOOT).entries.items()) == list(entries.items())


def test_a_great_many_come_back(tmp_path: Path) -> None:
    """A file may be as large when it is read as when it is written."""
    says = SAYS._replace(interpreter=f"/{'i' * 63}")
    entries = {f"entry-{number}": WAS._replace(registration=says, inode=number) for number in range(8_000)}
    saved(tmp_path, entries)
    assert (tmp_path / FILE_NAME).stat().st_size > 1 << 20
    again = ForeignEntryStore(str(tmp_path), BOOT)
    assert (again.entries, again.problem) == (entries, None)


def test_entries_of_another_boot_are_forgotten(tmp_path: Path) -> None:
    """Entries of another boot are forgotten: a service that starts later may register them."""
    saved(tmp_path, {"W": WAS})
    again = ForeignEntryStore(str(tmp_path), "another-boot")
    assert (again.entries, again.problem) == ({}, None)


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    """The file is written only if the entries, or our own, have changed."""
    foreign_entries = saved(tmp_path, {"W": WAS})
    before = (tmp_path / FILE_NAME).stat().st_ino
    foreign_entries.entries = dict(foreign_entries.entries)
    foreign_entries.save(OURS)
    assert (tmp_path / FILE_NAME).stat().st_ino == before
    foreign_entries.save([*OURS, 9])
    assert (tmp_path / FILE_NAME).stat().st_ino != before
    assert ForeignEntryStore(str(tmp_path), BOOT).inodes() == {7, 8, 9}


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content["entries"][0].update(line="nonsense"),
        lambda content: content["entries"][0].update(inode="7"),
        lambda content: content["entries"][0].update(enabled=1),
        lambda content: content["entries"][0].pop("lost"),
        lambda content: content.update(ours=["8"]),
        lambda content: content.pop("ours"),
    ],
    ids=["line", "inode", "enabled", "lost", "ours", "no ours"],
)
def test_a_damaged_file_is_a_problem(tmp_path: Path, damage: Any) -> None:
    """A damaged file is a problem, which names the file and the effect, until the next pass has written it anew."""
    saved(tmp_path, {"W": WAS})
    path = tmp_path / FILE_NAME
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    foreign_entries = ForeignEntryStore(str(tmp_path), BOOT)
    assert foreign_entries.entries == {}
    problem = foreign_entries.problem
    assert problem is not None
    assert problem.startswith(f"{path}: ")
    assert problem.endswith("foreign entries may not be restored after a flush")
    foreign_entries.save(())
    assert foreign_entries.problem is None
    assert ForeignEntryStore(str(tmp_path), BOOT).problem is None
