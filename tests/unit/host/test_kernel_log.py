"""The kernel's log, where another file is in its place."""

import os
from pathlib import Path

import pytest

from binfmtd.host import kernel_log


@pytest.mark.parametrize("null", [True, False])
def test_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, null: bool) -> None:
    """/dev/null or a regular file, which some containers have there, is not read: that would never end."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(kernel_log, "_LOG", os.devnull if null else str(tmp_path / "file"))
    monkeypatch.setattr(os, "read", lambda *_: pytest.fail("it is read"))
    with pytest.raises(OSError, match="another file is in its place"):
        kernel_log.denials()
