"""paused.json: the pauses, across restarts."""

import time
from pathlib import Path

import pytest

from binfmtd.daemon.state_files.pause_file import FILE_NAME, PauseFile, since_boot
from binfmtd.model.pause import Pauses

BOOT = "a-boot"
FOREVER = float("inf")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Pauses are read back, with an end or without; a pause that has ended is left out."""
    pauses = Pauses({"a": FOREVER, "l\udce4t \x1b": since_boot() + 1000})
    assert PauseFile(str(tmp_path), BOOT).write(pauses)
    assert PauseFile(str(tmp_path), BOOT).read() == pauses
    assert PauseFile(str(tmp_path), BOOT).write(Pauses({"a": since_boot() - 1}))
    assert PauseFile(str(tmp_path), BOOT).read() == Pauses()


def test_another_boot_pauses_nothing(tmp_path: Path) -> None:
    """Pauses of another boot are void: its clock began anew."""
    PauseFile(str(tmp_path), BOOT).write(Pauses({"a": FOREVER}))
    assert PauseFile(str(tmp_path), "another").read() == Pauses()


ENDS = ['"x"', "1e300", "-1e300", "9" * 400, "9" * 5000, "NaN", "Infinity", "true"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", *(f'{{"schema": 1, "boot_id": "a-boot", "until": {{"a": {end}}}}}' for end in ENDS)]
)
def test_a_damaged_one_pauses_nothing_else(tmp_path: Path, text: str) -> None:
    """A damaged file pauses nothing, and is a problem; pauses from before stay, and it is soon read again."""
    (tmp_path / FILE_NAME).write_text(text)
    file = PauseFile(str(tmp_path), BOOT)
    assert file.read() == Pauses()
    assert file.problem is not None
    assert file.problem.endswith("the daemon keeps only the pauses that it has already read")
    before = Pauses({"b": FOREVER, "c": since_boot() - 1})
    assert file.read(before) == Pauses({"b": FOREVER})
    assert file.due_at(before) < time.monotonic() + 5
    assert file.write(before)
    assert file.read() == Pauses({"b": FOREVER})
    assert not file.problem
    assert file.due_at(Pauses()) == FOREVER


def test_the_deadline_is_of_the_monotonic_clock(tmp_path: Path) -> None:
    """The deadline is on the monotonic clock, and infinitely far if no pause ends by itself."""
    file = PauseFile(str(tmp_path), BOOT)
    assert file.due_at(Pauses({"a": FOREVER})) == FOREVER
    early, late = (file.due_at(Pauses({"a": since_boot() + seconds})) for seconds in (1, 3))
    assert 1.5 < late - early < 2.5
