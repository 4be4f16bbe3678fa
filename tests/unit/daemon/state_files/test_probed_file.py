"""probed.json, which one process writes and another reads."""

import json
from pathlib import Path
from typing import Any

import pytest

from binfmtd.daemon.state_files.probed_file import FILE_NAME, ProbedFile
from binfmtd.model.probe_result import Probed, Tried, TriedInterpreter

ROW = Tried("arm", runs=True, natively=None, entry=None, in_chroot=None, reason="", duration_us=5)
PROBED = Probed(7, (ROW,), (TriedInterpreter("/usr/bin/qemu-arm", "1:2:3:4:5", "its exit status is 1"),))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Results are read back as they were within the boot; in another boot there are none."""
    file = ProbedFile(str(tmp_path), "boot")
    assert file.read() is None
    assert file.write(PROBED)
    assert file.read() == PROBED
    assert ProbedFile(str(tmp_path), "another").read() is None
    assert file.problem is None


@pytest.mark.parametrize(
    ("rows", "damage"),
    [
        ("architectures", {"runs": "yes"}),
        ("architectures", {"entry": 1}),
        ("architectures", {"more": 1}),
        ("architectures", {"name": None}),
        ("architectures", {"duration_us": "5"}),
        ("interpreters", {"file": 1}),
        ("interpreters", {"reason": None}),
        ("interpreters", {"more": 1}),
    ],
)
def test_a_damaged_file_is_a_problem(tmp_path: Path, rows: str, damage: dict[str, Any]) -> None:
    """A damaged file is a problem that names it, and none of its results are used."""
    file = ProbedFile(str(tmp_path), "boot")
    file.write(PROBED)
    content = json.loads((tmp_path / FILE_NAME).read_text())
    content[rows][0] |= damage
    (tmp_path / FILE_NAME).write_text(json.dumps(content))
    assert file.read() is None
    assert file.problem is not None
    assert file.problem.startswith(str(tmp_path / FILE_NAME))


@pytest.mark.parametrize("at", [1 << 37, 10**20, -1, True, 1.5, "7"])
def test_a_time_without_a_date_is_a_problem(tmp_path: Path, at: object) -> None:
    """The status has the time of the probe as a date, so a time that has none counts as damage."""
    file = ProbedFile(str(tmp_path), "boot")
    file.write(PROBED)
    content = json.loads((tmp_path / FILE_NAME).read_text())
    (tmp_path / FILE_NAME).write_text(json.dumps(content | {"at": at}))
    assert file.read() is None
    assert file.problem is not None
