"""The name of a container's manager: from the environment, else from systemd's file."""

from pathlib import Path

import pytest

from binfmtd.files import environment


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file in which systemd names the manager; it does not exist yet."""
    file = tmp_path / "container"
    monkeypatch.setattr(environment, "_MANAGER_FILE", str(file))
    monkeypatch.delenv("container", raising=False)
    return file


def test_no_manager(file: Path) -> None:
    """On a host neither has a name."""
    assert not file.exists()
    assert environment.container_manager() == ""


def test_a_service(file: Path) -> None:
    """A service of systemd in a container has no such variable: systemd's file has the name."""
    file.write_text("lxc\n")
    assert environment.container_manager() == "lxc"


def test_the_variable_first(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable of this process comes first."""
    file.write_text("lxc\n")
    monkeypatch.setenv("container", "systemd-nspawn")
    assert environment.container_manager() == "systemd-nspawn"
