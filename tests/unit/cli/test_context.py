"""The message of commands that only look, where no process has binfmt_misc mounted."""

import argparse
import os
from pathlib import Path

import pytest

from binfmtd.cli import context
from binfmtd.cli.context import not_mounted
from binfmtd.daemon.state_files.state_dir import RUN, Lock, make_state_dir

CAUSE = "/place: binfmt_misc is not mounted, so there are no entries: "


def given(state_dir: Path, **others: str) -> argparse.Namespace:
    return argparse.Namespace(**{"config": None, "mount": None, "state_dir": str(state_dir)} | others)


@pytest.mark.parametrize(("outlive", "command"), [(True, "apply"), (False, "run")])
def test_the_command_whose_mount_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, *, outlive: bool
) -> None:
    """It is `apply` if its mount outlasts it, else the daemon; it has the options of this command line."""
    monkeypatch.setattr(context, "mounts_outlive_us", lambda: outlive)
    remedy = f"run `binfmtd {command} --mount '/a b' --state-dir {tmp_path}`, which mounts it and registers handlers"
    assert not_mounted(given(tmp_path, mount="/a b"), "/place") == CAUSE + remedy


def test_beside_a_daemon(tmp_path: Path) -> None:
    """A daemon mounts it itself, so its status has the reason why it did not."""
    directory = os.fspath(tmp_path / "state")
    make_state_dir(directory)
    lock = Lock(directory, RUN)
    try:
        remedy = f"a daemon runs, and should mount it: see its problem in `binfmtd status --state-dir {directory}`"
        assert not_mounted(given(tmp_path / "state"), "/place") == CAUSE + remedy
    finally:
        lock.release()
