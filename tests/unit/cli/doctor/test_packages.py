"""Findings about packages whose scripts call update-binfmts while the instance is sealed."""

from pathlib import Path

import pytest

from binfmtd.cli.doctor import managers
from binfmtd.cli.doctor.managers import of_packages
from binfmtd.files import managers as files
from binfmtd.files.managers import packages_that_register
from binfmtd.model.finding import Level


def test_which_packages_register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with a script that calls update-binfmts is listed once, without its architecture."""
    for name, text in (
        ("one.postinst", "update-binfmts --import one"),
        ("one.prerm", "update-binfmts --package one --remove"),
        ("two:amd64.postrm", "#!/bin/sh\nupdate-binfmts --unimport"),
        ("three.postinst", "systemctl restart systemd-binfmt"),
        ("four.list", "/usr/sbin/update-binfmts"),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(files, "_SCRIPTS", str(tmp_path))
    assert packages_that_register() == ("one", "two")


def test_their_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such packages are a warning with a remedy that installs the hook for apt; with the hook nothing is wrong."""
    monkeypatch.setattr(managers, "APT_HOOK", str(tmp_path / "hook"))
    assert list(of_packages(())) == []
    (found,) = of_packages(("one", "two"))
    assert found.level is Level.WARNING
    assert "one, two" in found.text
    assert "binfmtd-apt" in found.remedy
    (tmp_path / "hook").touch()
    (found,) = of_packages(("one",))
    assert found.level is Level.OK
