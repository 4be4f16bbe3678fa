"""The name of a container's manager: from the environment, else from systemd's file."""

from pathlib import Path

import pytest

from binfmtd.files import environment


@pytest.mark.parametrize(
    ("text", "variable", "manager"),
    [
        ("", "", ""),  # on a host
        ("lxc\n", "", "lxc"),  # a service of systemd in a container has no such variable
        ("lxc\n", "systemd-nspawn", "systemd-nspawn"),
    ],
)
def test_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, variable: str, manager: str) -> None:
    """The variable of this process comes first, then the file in which systemd names the manager."""
    monkeypatch.setattr(environment, "_MANAGER_FILE", str(tmp_path / "container"))
    monkeypatch.delenv("container", raising=False)
    if text:
        (tmp_path / "container").write_text(text)
    if variable:
        monkeypatch.setenv("container", variable)
    assert environment.container_manager() == manager
