"""The contents of os-release(5), and from them the commands that install packages under their names there.

Names of packages: those of Debian 13 and 12, Ubuntu, Fedora, openSUSE, Arch and Alpine.  There is no command for RHEL
and its rebuilds, which have no QEMU emulators for other architectures.  There is none for NixOS either, where a
command installs nothing that lasts.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

EMULATORS = "qemu-user"  # QEMU's emulators for one architecture or all, under the name that Debian 13 gives them

_ASSIGNMENT = re.compile(r"""([A-Z0-9_]+)=(["']?)(.*)\2""")
_WITHOUT_EMULATORS = frozenset({"rhel", "centos", "almalinux", "rocky", "ol"})


class _Manager(NamedTuple):
    install: str
    reinstall: str
    upgrade: str
    python: str  # the pattern for the package of a Python module
    odd: Mapping[str, str]  # packages that have another name here


_MANAGERS = {
    "debian": _Manager(
        "apt-get install",
        "apt-get install --reinstall",
        "apt-get full-upgrade",
        "python3-{dashed}",
        {},
    ),
    "fedora": _Manager(
        "dnf install",
        "dnf reinstall",
        "dnf upgrade",
        "python3-{name}",
        {EMULATORS: "qemu-user-static", "pyinotify": "python3-inotify"},
    ),
    "suse": _Manager(
        "zypper install",
        "zypper install --force",
        "zypper update",
        "python3-{name}",
        {EMULATORS: "qemu-linux-user"},
    ),
    "arch": _Manager("pacman -S", "pacman -S", "pacman -Syu", "python-{name}", {EMULATORS: "qemu-user-static"}),
    "alpine": _Manager("apk add", "apk fix", "apk upgrade", "py3-{dashed}", {EMULATORS: "qemu-{architecture}"}),
}


class System(NamedTuple):
    """A distribution: its ID, the IDs that it is like (the nearest first), and its version."""

    id: str = ""
    like: tuple[str, ...] = ()
    version: tuple[int, ...] = ()

    @property
    def family(self) -> str:
        """The distribution whose package manager it uses; empty if that is unknown."""
        return next((name for name in self._names() if name in _MANAGERS), "")

    def _names(self) -> Iterator[str]:
        for name in (self.id, *self.like):
            yield "suse" if name.startswith("opensuse") else name


def parse_os_release(text: str) -> System:
    """Read the file; unknown keys, and lines that are no assignments, are ignored."""
    values = {match[1]: match[3] for line in text.splitlines() if (match := _ASSIGNMENT.fullmatch(line.strip()))}
    version = re.match(r"[\d.]+", values.get("VERSION_ID", ""))
    numbers = tuple(int(part) for part in version[0].split(".") if part) if version else ()
    return System(values.get("ID", ""), tuple(values.get("ID_LIKE", "").split()), numbers)


def install(system: System, package: str, architecture: str = "aarch64", *, again: bool = False) -> str:
    """Return the command, to be run as root, that installs emulators or a Python module; empty if none is known.

    ``architecture`` is for distributions that have a package for each; ``again``: the installed package is damaged.
    """
    manager = _MANAGERS.get(system.family)
    if manager is None or (package == EMULATORS and system.id in _WITHOUT_EMULATORS):
        return ""
    if package in manager.odd:
        name = manager.odd[package].format(architecture=architecture)
    elif package == EMULATORS:
        name = package if _static_by_default(system) else f"{package}-static"
    else:
        name = manager.python.format(name=package, dashed=package.replace("_", "-"))
    return f"{manager.reinstall if again else manager.install} {name}"


def install_program(system: System, package: str) -> str:
    """Return the command that installs a program's package, which has one name everywhere; empty if none is known."""
    manager = _MANAGERS.get(system.family)
    return f"{manager.install} {package}" if manager else ""


def upgrade(system: System) -> str:
    """Return the command that installs a newer kernel; empty if none is known."""
    manager = _MANAGERS.get(system.family)
    return manager.upgrade if manager else ""


def _static_by_default(system: System) -> bool:
    """Return True if qemu-user has static emulators and not dynamic ones, as from Debian 13 and Ubuntu 25.04 on."""
    first = {"debian": (13,), "ubuntu": (25, 4)}.get(system.id)
    return first is not None and (system.version >= first or not system.version)  # Debian's testing has no version
