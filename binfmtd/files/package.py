"""The files of this package, which an upgrade may replace while the daemon runs."""

import os
import sys

import binfmtd


def _version() -> tuple[int, ...] | None:
    """Return what differs once another file has been installed; None where there is no file, as in the one file."""
    path = getattr(binfmtd, "__file__", None)
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


_AT_START = _version()


def check_version(module: str) -> None:
    """Check that ``module`` belongs to the version that runs, before it is imported.

    Raises ImportError if it is not loaded yet, and the package has been replaced since the start: the new module may
    not fit those that are loaded.
    """
    if module not in sys.modules and _version() != _AT_START:
        raise ImportError(f"{module} is of another version of binfmtd")
