"""The line of ``binfmt --version``, in which scripts search for ``qemu/``."""

import os
import platform
import re
import subprocess

from binfmtd import __version__
from binfmtd.cli.compat.emulators import paths
from binfmtd.cli.compat.platforms import ORDER

_SECONDS = 5.0


def version() -> str:
    """Return one line with the versions of binfmtd, of QEMU and, in the place of Go's, of Python."""
    return f"binfmt/{__version__} qemu/{_qemu()} go/python{platform.python_version()}"


def _qemu() -> str:
    """Return the version of the first emulator that reports one within 5 s, as in QEMU's tags, or ``unknown``."""
    for name in ORDER:
        for path in paths(name):
            if not os.access(path, os.X_OK):
                continue
            try:
                output = subprocess.run([path, "--version"], capture_output=True, timeout=_SECONDS, check=False).stdout
            except (OSError, subprocess.TimeoutExpired):
                continue
            if match := re.search(rb"version ([0-9][\w.+~-]*)", output):
                return f"v{match[1].decode('ascii', 'replace')}"
    return "unknown"
