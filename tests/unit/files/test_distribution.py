"""The command that installs a package, on this system and for this Python."""

import sys

import pytest

from binfmtd.files import distribution
from binfmtd.files.distribution import (
    emulators_remedy,
    install_emulators,
    install_module,
    missing_program,
    other_emulators,
)
from binfmtd.formats.os_release import System


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Return the monkeypatch by which a test changes the system."""
    monkeypatch.setattr(distribution, "this_system", lambda: System("fedora"))
    monkeypatch.setattr(distribution, "in_image", lambda: False)
    return monkeypatch


@pytest.mark.usefixtures("on")
def test_on_a_host() -> None:
    """On a host the remedy contains the command of its package manager."""
    assert emulators_remedy("arm") == f"run `{install_emulators()}`" == "run `dnf install qemu-user-static`"


def test_where_no_command_helps(on: pytest.MonkeyPatch) -> None:
    """The remedy has no command in an image, on NixOS, where it names the option, and on an unknown system."""
    on.setattr(distribution, "this_system", lambda: System("nixos"))
    assert "environment.systemPackages" in emulators_remedy()
    on.setattr(distribution, "this_system", System)
    assert emulators_remedy().startswith("install QEMU's user mode emulators")
    on.setattr(distribution, "in_image", lambda: True)
    assert emulators_remedy().startswith("this image contains no emulators: ")
    assert emulators_remedy("hexagon").startswith("this image contains no emulator for hexagon: ")
    assert install_emulators() == ""


def test_a_python_module(on: pytest.MonkeyPatch) -> None:
    """In a virtual environment the remedy is pip; else it is the system's package, if that is known.

    A virtual environment does not see the system's packages, and a system's Python often refuses pip.
    """
    on.setattr(sys, "base_prefix", sys.prefix)
    assert install_module("structlog") == "dnf install python3-structlog"
    on.setattr(distribution, "this_system", System)
    assert install_module("structlog") == f"{sys.executable} -m pip install structlog"
    on.setattr(distribution, "this_system", lambda: System("fedora"))
    on.setattr(sys, "base_prefix", "/elsewhere")
    assert install_module("structlog") == f"{sys.executable} -m pip install structlog"


@pytest.mark.usefixtures("on")
def test_a_place_of_an_administrators_own() -> None:
    """For a path that no package uses the remedy is to put the emulator there, unless another path is a usual one."""
    assert emulators_remedy("arm", ["/opt/a/qemu-arm"]) == "put the emulator there, or correct [emulators] paths"
    assert emulators_remedy("arm", ["/opt/a/qemu-arm", "/usr/bin/qemu-arm"]) == emulators_remedy("arm")


def test_where_no_config_is_read(on: pytest.MonkeyPatch) -> None:
    """The command `binfmt` reads no config: the remedy names a variable with the directory of emulators, or none."""
    own = ["/opt/a/qemu-arm"]
    assert emulators_remedy("arm", own, "$DIR") == "put the emulator there, or correct $DIR"
    assert emulators_remedy("arm", own, "") == "put the emulator there"
    of_table = "[emulators.arm] interpreter"
    assert emulators_remedy("arm", own, of_table) == f"put the emulator there, or correct {of_table}"
    for system, directory in (("nixos", "/run/current-system/sw/bin"), ("", "their directory")):
        on.setattr(distribution, "this_system", lambda system=system: System(system))
        assert emulators_remedy("arm", set_by="$DIR").endswith(f", and write {directory} in $DIR")
        assert emulators_remedy("arm", set_by="").endswith(", and link the emulators into /usr/bin")
        assert emulators_remedy("arm").endswith("[emulators] paths")


def test_another_version(on: pytest.MonkeyPatch) -> None:
    """Another version comes with the distribution's package only to the paths of packages, and not in an image."""
    elsewhere = "put such a version there, or correct [emulators] paths"
    assert other_emulators("arm", ["/opt/a/qemu-arm"]) == elsewhere
    assert other_emulators("arm", iter(["/opt/a/qemu-arm", "/usr/bin/qemu-arm"])) == f"run `{install_emulators()}`"
    on.setattr(distribution, "in_image", lambda: True)
    assert other_emulators("arm", ["/usr/bin/qemu-arm"]) == elsewhere


def test_a_missing_program(on: pytest.MonkeyPatch) -> None:
    """The remedy is the package manager's command; in an image, where nothing is installed, it is another place."""
    assert missing_program("dpkg-deb", "dpkg") == "dpkg-deb is missing: run `dnf install dpkg`"
    on.setattr(distribution, "this_system", System)
    assert missing_program("dpkg-deb", "dpkg") == "dpkg-deb is missing: install the package dpkg"
    on.setattr(distribution, "in_image", lambda: True)
    assert missing_program("skopeo", "skopeo").startswith("this image contains no skopeo: run this command on the host")
