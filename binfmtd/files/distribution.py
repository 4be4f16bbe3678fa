"""How packages are installed on this system: by /etc/os-release, and by where this Python has its own from."""

import os
import sys
from collections.abc import Iterable
from functools import cache

from binfmtd.files.whereabouts import booted_with_systemd, in_container
from binfmtd.formats.os_release import EMULATORS, System, install, parse_os_release

_PACKAGED = frozenset({"/usr/bin", "/usr/libexec/qemu-binfmt"})  # where distributions have emulators
_FILES = ("/etc/os-release", "/usr/lib/os-release")  # os-release(5)
_IMAGE = (
    "this image has none: take one with emulators (the target binfmtd of our Containerfile), or bind the host's into "
    "/usr/bin"
)
_NIXOS = "add qemu-user to environment.systemPackages, and /run/current-system/sw/bin/qemu-{name} to [emulators] paths"
_ELSEWHERE = "install QEMU's user mode emulators, and name their place with [emulators] paths"


@cache
def this_system() -> System:
    """The distribution; read once."""
    for path in _FILES:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return parse_os_release(file.read())
        except OSError:
            continue
    return System()


@cache
def in_image() -> bool:
    """Whether this is a container of an image, where nobody installs anything; with systemd in it, it is as a host."""
    return in_container() and not booted_with_systemd()


def install_emulators(architecture: str | None = None, *, again: bool = False) -> str:
    """The command that installs emulators, at least that of this architecture; empty where we know none."""
    return "" if in_image() else install(this_system(), EMULATORS, architecture or "aarch64", again=again)


def emulators_remedy(architecture: str | None = None, paths: Iterable[str] = ()) -> str:
    """The same in words, to follow a colon; ``paths``: where an emulator was looked for, if that is known.

    No package puts one into a directory of an administrator's own.
    """
    looked_for = list(paths)
    if looked_for and all(os.path.dirname(path) not in _PACKAGED for path in looked_for):
        return "put the emulator there, or correct [emulators] paths"
    if command := install_emulators(architecture):
        return f"run `{command}`"
    if in_image():
        return _IMAGE
    return _NIXOS if this_system().id == "nixos" else _ELSEWHERE


def install_module(module: str) -> str:
    """The command that installs a Python module where this Python looks for it."""
    own = sys.prefix != sys.base_prefix  # a virtual environment: the system's packages are not seen in it
    command = "" if own else install(this_system(), module)
    return command or f"{sys.executable} -m pip install {module}"
