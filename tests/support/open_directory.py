"""A directory that all users may read.

pytest's own is for its user alone, and each new pytest of that user, also of another checkout, closes the directory
around all of them again (getbasetemp in _pytest/tmpdir.py): a test that opens it fails when another pytest starts.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def open_directory() -> Iterator[Path]:
    """Yield a new directory that all users may read; it is removed at the end."""
    # A process that was killed may still be ending, and making a file there.
    with tempfile.TemporaryDirectory(prefix="open-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory
