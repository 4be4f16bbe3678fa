"""The commands that install packages on this system.

They follow from os-release(5), from whether this is a container's image, and from whether this Python runs in a virtual
environment.
"""

import os
import sys
from collections.abc import Iterable
from functools import cache

from binfmtd.files.environment import booted_with_systemd, in_container
from binfmtd.formats.os_release import EMULATORS, System, install, install_program, parse_os_release

_PACKAGED = frozenset({"/usr/bin", "/usr/libexec/qemu-binfmt"})  # where distributions install emulators
_FILES = ("/etc/os-release", "/usr/lib/os-release")  # os-release(5)
_IMAGE = (
    "this image contains no emulator{}: build the target binfmtd of our Containerfile with the argument EMULATORS=all, "
    "or bind-mount the host's emulators into /usr/bin"
)
_NIXOS = "add qemu-user to environment.systemPackages, and "
_NIXOS_DIRECTORY = "/run/current-system/sw/bin"
_ELSEWHERE = "install QEMU's user mode emulators, and "
_PATHS = "[emulators] paths"


@cache
def this_system() -> System:
    """Return the distribution; the file is read once and the result kept."""
    for path in _FILES:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return parse_os_release(file.read())
        except OSError:
            continue
    return System()


@cache
def in_image() -> bool:
    """Return True in a container that runs an image, where administrators install no packages.

    A container in which systemd runs counts as a host.
    """
    return in_container() and not booted_with_systemd()


def install_emulators(architecture: str | None = None, *, again: bool = False) -> str:
    """Return the command that installs emulators, at least that of this architecture; empty if none is known.

    ``again``: what is installed is damaged, so the command installs it again.
    """
    return "" if in_image() else install(this_system(), EMULATORS, architecture or "aarch64", again=again)


def emulators_remedy(architecture: str | None = None, paths: Iterable[str] = (), set_by: str = _PATHS) -> str:
    """Return the remedy for a missing emulator in words, to follow a colon.

    ``paths`` are where an emulator was looked for, if that is known.  No package installs one into an administrator's
    own directory, so for such paths alone the remedy contains no command.  ``set_by`` names these paths (SetBy.paths).
    """
    looked_for = list(paths)
    if looked_for and not any(map(_is_packaged, looked_for)):
        return "put the emulator there" + (f", or correct {set_by}" if set_by else "")
    if command := install_emulators(architecture):
        return f"run `{command}`"
    if in_image():
        return _IMAGE.format(f" for {architecture}" if architecture else "s")
    if this_system().id == "nixos":
        return _NIXOS + _reach(set_by, _NIXOS_DIRECTORY, f"add {_NIXOS_DIRECTORY}/qemu-{{name}} to")
    return _ELSEWHERE + _reach(set_by, "their directory", "name their paths in")


def _reach(set_by: str, directory: str, in_config: str) -> str:
    """Return how binfmtd finds emulators in ``directory``: by the config, by a drop-in's variable, or in /usr/bin."""
    if set_by.startswith("["):
        return f"{in_config} {set_by}"
    return f"write {directory} in {set_by.partition(' or ')[0]}" if set_by else "link the emulators into /usr/bin"


def _is_packaged(path: str) -> bool:
    """Return True if a distribution could install an emulator at this path."""
    directory, name = os.path.split(path)
    return directory in _PACKAGED and name.startswith("qemu-")


def other_emulators(architecture: str, paths: Iterable[str]) -> str:
    """Return in words, to follow a colon, how to get another version of the emulators at these paths."""
    packaged = any(map(_is_packaged, paths))
    command = install_emulators(architecture) if packaged else ""
    return f"run `{command}`" if command else "put such a version there, or correct [emulators] paths"


def missing_program(program: str, package: str) -> str:
    """Return an error's text for a program that is not on $PATH, with the remedy.

    ``package`` has it; Debian, Fedora, openSUSE, Arch and Alpine give the package this one name.
    """
    if in_image():
        return f"this image contains no {program}: run this command on the host, or in an image with {program}"
    command = install_program(this_system(), package)
    return f"{program} is missing: " + (f"run `{command}`" if command else f"install the package {package}")


def install_module(module: str) -> str:
    """Return the command that installs a Python module where this Python looks for it."""
    own = sys.prefix != sys.base_prefix  # a virtual environment, which does not use the system's packages
    command = "" if own else install(this_system(), module)
    return command or f"{sys.executable} -m pip install {module}"
