"""Versions of emulators: their names in the store, and the paths of their files.

The store is a directory of root.  A version is a directory in it, named by the administrator (``9.2.2``), with one file
``qemu-NAME`` for each architecture and a manifest.  A version never changes after it was added, so its path stands for
its content.
"""

import re

from binfmtd.errors import FormatError
from binfmtd.model.config import PLACEHOLDER

STORE = "/var/lib/binfmtd/emulators"
MANIFEST = "manifest.json"  # in the directory of a version
SYSTEM = "system"  # in the config: the paths where the distribution installs emulators
IN_STORE = "store:"  # in the config: precedes the name of a version in the store
LOST_FOUND = "lost+found"  # mke2fs makes it, if the store is a file system of its own
_TAKEN = {SYSTEM: "means the distribution's emulators", LOST_FOUND: "is a directory of the file system"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_OF_QEMU = re.compile(r"\d+\.\d+\.\d+")


def check_version(name: str) -> None:
    """Raise FormatError if a version in the store cannot have this name."""
    if name in _TAKEN:
        raise FormatError(f"{name!r} {_TAKEN[name]}: give the version another name")
    if _NAME.fullmatch(name) is None:
        allowed = "up to 64 letters, digits, and . _ + - after the first"
        raise FormatError(f"{name!r} cannot be the name of a version: use {allowed}, like 9.2.2")


def interpreter_pattern(store: str, version: str) -> str:
    """Return the path of a version's emulators, with the architecture's name as a placeholder."""
    return f"{store}/{version}/qemu-{PLACEHOLDER}"


def command_to_add(version: str) -> str:
    """Return the command that adds a version to the store, with an image that has it if the name is QEMU's version.

    Source of the image's tags: https://hub.docker.com/r/tonistiigi/binfmt
    """
    image = f"docker.io/tonistiigi/binfmt:qemu-v{version}" if _OF_QEMU.fullmatch(version) else "IMAGE"
    return f"binfmtd emulators pull {image} --name {version}"


def version_of(path: str, store: str) -> str | None:
    """Return the version to which a path in the store belongs; None for any other path, or without a store ("")."""
    if not store:
        return None
    inside = path.removeprefix(f"{store}/")
    return inside.partition("/")[0] if inside != path and "/" in inside else None
