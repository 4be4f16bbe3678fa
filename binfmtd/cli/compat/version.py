"""``binfmt --version``: scripts look for ``qemu/`` in it."""

import os
import platform
import re
import subprocess

from binfmtd import __version__
from binfmtd.cli.compat.emulators import paths
from binfmtd.cli.compat.platforms import ORDER

_SECONDS = 5.0


def version() -> str:
    """One line: ours, that of the emulators, and in the place of Go's that of what runs us."""
    return f"binfmt/{__version__} qemu/{_qemu()} go/python{platform.python_version()}"


def _qemu() -> str:
    """What the first emulator that is there says of itself, as in QEMU's tags; ``unknown`` if there is none."""
    for name in ORDER:
        for path in paths(name):
            if not os.access(path, os.X_OK):
                continue
            try:
                said = subprocess.run([path, "--version"], capture_output=True, timeout=_SECONDS, check=False).stdout
            except (OSError, subprocess.TimeoutExpired):
                continue
            if found := re.search(rb"version ([0-9][\w.+~-]*)", said):
                return f"v{found[1].decode('ascii', 'replace')}"
    return "unknown"
