"""Replacements of systemd's four binfmt.d directories, in the mount namespace of a test's instance only."""

from pathlib import Path

import pytest

from binfmtd.files.binfmt_d import DIRECTORIES
from support.instance import Instance

SYSTEMD_BINFMT = Path("/usr/lib/systemd/systemd-binfmt")


def needs_systemd_binfmt() -> None:
    """Skip where there is no systemd-binfmt to compare with."""
    if not SYSTEMD_BINFMT.exists():
        pytest.skip(f"{SYSTEMD_BINFMT} is not here: install systemd")


def put_binfmt_d(instance: Instance, tree: Path) -> dict[str, Path]:
    """Put four empty directories in place of systemd's, and return systemd's path -> the directory.

    They are made in ``tree``.  If the host lacks one of systemd's directories, an overlay over the parent adds it:
    nothing is made on the host.
    """
    found = {}
    for directory in DIRECTORIES:
        ours = tree / directory.strip("/").replace("/", "-") / "binfmt.d"
        ours.mkdir(parents=True)
        found[directory] = ours
        parent = Path(directory).parent
        done = instance.shell(
            f"if [ -d {directory} ]; then mount --bind '{ours}' {directory}\n"
            f"else mount -t overlay overlay -o 'lowerdir={ours.parent}:{parent}' {parent}\n"
            f"     mount --bind '{ours}' {directory}; fi"
        )
        assert done.returncode == 0, done.stderr
    return found
