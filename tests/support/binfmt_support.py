"""Debian's update-binfmts: the installed program, or one unpacked from its package without installing it."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from binfmtd.model.match import Magic

PACKAGE = "binfmtd"  # owns the formats: update-binfmts does not replace those of another package


class UnavailableError(Exception):
    """update-binfmts is not installed and cannot be downloaded; the message has the reason."""


def update_binfmts(directory: Path) -> tuple[str, dict[str, str]]:
    """Return the real program and its environment; raises UnavailableError."""
    if (installed := shutil.which("update-binfmts")) is not None:
        return installed, {}
    download = "apt-get download binfmt-support libpipeline1 && for each in *.deb; do dpkg-deb -x $each .; done"
    done = subprocess.run(["sh", "-euc", download], cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnavailableError(f"no update-binfmts: {done.stderr.strip()}")
    (library,) = directory.glob("usr/lib/*/libpipeline.so.1")
    return str(directory / "usr/sbin/update-binfmts"), {"LD_LIBRARY_PATH": str(library.parent)}


def admin_directory(directory: Path, handlers: Mapping[str, tuple[Magic, str]]) -> Path:
    """Make update-binfmts' database: each name with its match and interpreter, with fix-binary."""
    directory.mkdir()
    for name, (match, interpreter) in handlers.items():
        lines = [PACKAGE, "magic", "0", *escaped(match), interpreter, "", "", "", "yes"]
        (directory / name).write_text("\n".join(lines) + "\n")
    return directory


def escaped(match: Magic) -> list[str]:
    """Return magic and mask as update-binfmts takes them."""
    return ["".join(f"\\x{byte:02x}" for byte in part or b"") for part in (match.magic, match.mask)]
