"""The state directory that a command line means."""

from argparse import Namespace
from pathlib import Path

import pytest

from binfmtd.cli.state import state_dir


def test_a_relative_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relative path, from the command line or from the environment, counts from the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BINFMTD_STATE_DIR", "other")
    assert state_dir(Namespace(state_dir="state")) == f"{tmp_path}/state"
    assert state_dir(Namespace(state_dir=None)) == f"{tmp_path}/other"
