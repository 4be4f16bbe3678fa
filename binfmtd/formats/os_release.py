"""What os-release(5) says, and what follows from it: which command installs a package, and what the package is called.

Names of packages: those of Debian 13 and 12, Ubuntu, Fedora, openSUSE, Arch and Alpine.  RHEL and its rebuilds have no
emulators of QEMU for other architectures, and NixOS installs nothing by a command that would last, so they get none.
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
    python: str  # how the package of a Python module is called
    odd: Mapping[str, str]  # what is called otherwise


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
    """A distribution: its ID, those that it is like, the nearest first, and its version."""

    id: str = ""
    like: tuple[str, ...] = ()
    version: tuple[int, ...] = ()

    @property
    def family(self) -> str:
        """The distribution whose package manager it has; empty if that is none that we know."""
        return next((name for name in self._names() if name in _MANAGERS), "")

    def _names(self) -> Iterator[str]:
        for name in (self.id, *self.like):
            yield "suse" if name.startswith("opensuse") else name


def parse_os_release(text: str) -> System:
    """Read the file; lines that say nothing to us, or are no assignments, are passed over."""
    found = {match[1]: match[3] for line in text.splitlines() if (match := _ASSIGNMENT.fullmatch(line.strip()))}
    version = re.match(r"[\d.]+", found.get("VERSION_ID", ""))
    numbers = tuple(int(part) for part in version[0].split(".") if part) if version else ()
    return System(found.get("ID", ""), tuple(found.get("ID_LIKE", "").split()), numbers)


def install(system: System, package: str, architecture: str = "aarch64", *, again: bool = False) -> str:
    """The command, to be run as root, that installs emulators or a Python module; empty where we know none.

    ``architecture`` is for distributions that have a package for each; ``again``: what is installed is damaged.
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


def upgrade(system: System) -> str:
    """The command that brings a newer kernel; empty where we know none."""
    manager = _MANAGERS.get(system.family)
    return manager.upgrade if manager else ""


def _static_by_default(system: System) -> bool:
    """Whether qemu-user has the static emulators, as from Debian 13 and Ubuntu 25.04 on, and not the dynamic ones."""
    first = {"debian": (13,), "ubuntu": (25, 4)}.get(system.id)
    return first is not None and (system.version >= first or not system.version)  # Debian's testing has no version
