"""What to type to have a package, on this system and in this Python."""

import sys

import pytest

from binfmtd.files import distribution
from binfmtd.files.distribution import emulators_remedy, install_emulators, install_module
from binfmtd.formats.os_release import System


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Return what changes the system."""
    monkeypatch.setattr(distribution, "this_system", lambda: System("fedora"))
    monkeypatch.setattr(distribution, "in_image", lambda: False)
    return monkeypatch


@pytest.mark.usefixtures("on")
def test_on_a_host() -> None:
    """A command, which can be found in the text."""
    assert emulators_remedy("arm") == f"run `{install_emulators()}`" == "run `dnf install qemu-user-static`"


def test_where_no_command_helps(on: pytest.MonkeyPatch) -> None:
    """In an image nobody installs anything; on NixOS its configuration says what there is; else none is known."""
    on.setattr(distribution, "this_system", lambda: System("nixos"))
    assert "environment.systemPackages" in emulators_remedy()
    on.setattr(distribution, "this_system", System)
    assert emulators_remedy().startswith("install QEMU's user mode emulators")
    on.setattr(distribution, "in_image", lambda: True)
    assert emulators_remedy().startswith("this image contains no emulators")
    assert install_emulators() == ""


def test_a_python_module(on: pytest.MonkeyPatch) -> None:
    """A virtual environment does not see the system's packages, so pip it is; a system's Python often refuses pip."""
    on.setattr(sys, "base_prefix", sys.prefix)
    assert install_module("structlog") == "dnf install python3-structlog"
    on.setattr(distribution, "this_system", System)
    assert install_module("structlog") == f"{sys.executable} -m pip install structlog"
    on.setattr(distribution, "this_system", lambda: System("fedora"))
    on.setattr(sys, "base_prefix", "/elsewhere")
    assert install_module("structlog") == f"{sys.executable} -m pip install structlog"


@pytest.mark.usefixtures("on")
def test_a_place_of_an_administrators_own() -> None:
    """No package puts an emulator there; of several places one that packages use is enough."""
    assert emulators_remedy("arm", ["/opt/a/qemu-arm"]) == "put the emulator there, or correct [emulators] paths"
    assert emulators_remedy("arm", ["/opt/a/qemu-arm", "/usr/bin/qemu-arm"]) == emulators_remedy("arm")
