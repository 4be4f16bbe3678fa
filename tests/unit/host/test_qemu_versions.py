"""Versions of emulators, as they print them."""

import errno
import os
from pathlib import Path

import pytest

from binfmtd.host.qemu_versions import versions


def test_versions(tmp_path: Path) -> None:
    """An emulator that prints its version has it; one that cannot be run has the kernel's reason."""
    good = tmp_path / "qemu-good"
    good.write_text("#!/bin/sh\necho qemu-good version 10.0.13\n")
    good.chmod(0o755)
    bad = tmp_path / "qemu-bad"
    bad.write_text("nothing to run")
    bad.chmod(0o755)
    assert versions([str(good), str(bad)]) == {str(good): (10, 0, 13), str(bad): os.strerror(errno.ENOEXEC)}


def test_what_we_lack_is_not_the_emulators_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without descriptors the system's error is raised, and no emulator gets a result."""

    def pipe2(_: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pipe2", pipe2)
    with pytest.raises(OSError, match="Too many open files"):
        versions(["/usr/bin/true"])


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN])
def test_a_process_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """If no process can be made, the system's error is raised: that is no fault of the emulator."""

    def popen(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("subprocess.Popen", popen)
    with pytest.raises(OSError, match=os.strerror(number)):
        versions(["/usr/bin/true"])
