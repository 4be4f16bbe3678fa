"""The remedy for a file, by the kernel's error."""

import errno
import os

import pytest

from binfmtd.files import distribution
from binfmtd.files.cure import cure


@pytest.mark.parametrize(
    ("number", "root", "image", "says"),
    [
        (errno.ENOSPC, True, False, "make room"),
        (errno.EDQUOT, False, False, "make room"),
        (errno.EACCES, False, False, "run this as root"),
        (errno.EACCES, True, False, "root is denied as well"),
        (errno.EROFS, True, False, "make it writable"),
        (errno.EROFS, True, True, "start the container with --tmpfs /run"),
        (errno.EFBIG, True, False, "ulimit -f"),
        (errno.EMFILE, True, False, "ulimit -n"),
        (errno.EIO, True, False, "check its path and its file system"),
    ],
)
def test_cure(monkeypatch: pytest.MonkeyPatch, number: int, root: bool, image: bool, says: str) -> None:
    """Each error of the kernel has its own remedy; it depends on being root and on being in an image."""
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    monkeypatch.setattr(distribution, "in_image", lambda: image)
    assert says in cure(OSError(number, os.strerror(number), "/run/binfmtd/lock"))
