"""Asking emulators for their versions."""

import errno
import os
from pathlib import Path

import pytest

from binfmtd.kernel.emulator import versions


def test_versions(tmp_path: Path) -> None:
    """One that tells it, and one that cannot be run: the reason is the kernel's."""
    good = tmp_path / "qemu-good"
    good.write_text("#!/bin/sh\necho qemu-good version 10.0.13\n")
    good.chmod(0o755)
    bad = tmp_path / "qemu-bad"
    bad.write_text("nothing to run")
    bad.chmod(0o755)
    assert versions([str(good), str(bad)]) == {str(good): (10, 0, 13), str(bad): os.strerror(errno.ENOEXEC)}


def test_what_we_lack_is_not_the_emulators_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without descriptors nothing can be said of any emulator."""

    def pipe2(_: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pipe2", pipe2)
    with pytest.raises(OSError, match="Too many open files"):
        versions(["/usr/bin/true"])


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN])
def test_a_process_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """As little is it the emulator's fault if there is none for a new process."""

    def popen(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("subprocess.Popen", popen)
    with pytest.raises(OSError, match=os.strerror(number)):
        versions(["/usr/bin/true"])
