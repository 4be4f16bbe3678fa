"""``binfmtd status`` where no daemon runs."""

import os
from pathlib import Path

import pytest
from support.cli import BINFMTD, Result, run, unprivileged_python


def status(directory: Path, *options: str) -> Result:
    return run([*BINFMTD, "status", "--state-dir", str(directory), *options])


@pytest.mark.parametrize(("options", "expected"), [((), 1), (("--json",), 1), (("--check",), 3)])
def test_never_ran(tmp_path: Path, options: tuple[str, ...], expected: int) -> None:
    """Without a status file it fails, for --check as in any state but converged, and names the command to start."""
    for directory in (tmp_path, tmp_path / "missing"):
        result = status(directory, *options)
        assert (result.status, result.stdout) == (expected, "")
        assert result.message.startswith(f"{directory}/status.json does not exist: ")
        assert "`binfmtd run`" in result.message


def test_damaged(tmp_path: Path) -> None:
    """A status file that cannot be parsed is one clear error."""
    (tmp_path / "status.json").write_text("{")
    result = status(tmp_path)
    assert (result.status, result.stdout) == (1, "")
    assert result.message.startswith(f"{tmp_path}/status.json ")


def test_no_state_directory_at_all() -> None:
    """Without $XDG_RUNTIME_DIR an ordinary user means root's daemon; the error names --state-dir."""
    if os.path.exists("/run/binfmtd"):
        pytest.skip("/run/binfmtd is there: root's daemon has run on this machine")
    command = ["env", "-u", "XDG_RUNTIME_DIR", "-u", "BINFMTD_STATE_DIR", *unprivileged_python()]
    result = run([*command, "-m", "binfmtd", "status"], cwd="/")
    assert (result.status, result.stdout) == (1, "")
    assert result.message.startswith("/run/binfmtd/status.json does not exist")
    assert result.message.endswith("--state-dir")


def test_start_up_is_light(tmp_path: Path) -> None:
    """Neither status nor help loads pydantic, structlog or pyinotify, which take longer than all the rest."""
    python, *module = BINFMTD
    for arguments in (["status", "--state-dir", str(tmp_path)], ["--help"], ["run", "--help"]):
        loaded = set(run([python, "-X", "importtime", *module, *arguments]).stderr.split())
        assert "binfmtd.cli.main" in loaded
        assert not {"pydantic", "structlog", "pyinotify"} & loaded
