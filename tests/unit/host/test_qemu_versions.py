"""Versions of emulators, as they print them."""

import errno
import os
from pathlib import Path

import pytest
from support.programs import install

from binfmtd.host.qemu_versions import is_qemu, versions


def test_versions(tmp_path: Path) -> None:
    """A version is the one that the emulator prints; one that prints none, cannot be run or is killed has a reason."""
    for name, script in (
        ("qemu-good", "echo qemu-good version 10.0.13 '(Debian)'"),
        ("qemu-silent", "exit 0"),
        ("qemu-killed", "kill -9 $$"),
        ("qemu-asked", 'test -z "$QEMU_CPU" && test "$*" = --version && echo qemu-asked version 1.2'),
    ):
        install(tmp_path / name, f"#!/bin/sh\n{script}\n".encode())
    install(tmp_path / "qemu-bad", b"nothing to run")
    (tmp_path / "arm").symlink_to("qemu-good")
    (tmp_path / "qemu-text").write_text("text")
    found = versions([*map(str, tmp_path.iterdir())])
    assert {Path(path).name: version for path, version in found.items()} == {
        "qemu-good": (10, 0, 13),
        "arm": (10, 0, 13),
        "qemu-asked": (1, 2),
        "qemu-silent": "it exited with status 0 and printed no version",
        "qemu-killed": "it was killed by signal 9",
        "qemu-bad": os.strerror(errno.ENOEXEC),
        "qemu-text": "Permission denied",
    }
    assert is_qemu(str(tmp_path / "arm"))
    assert not is_qemu("/usr/bin/wasmtime")


def test_few_emulators_run_at_once(tmp_path: Path) -> None:
    """At most two emulators run at once: each maps megabytes, and a pod of 128 MiB has no room for many."""
    (tmp_path / "running").mkdir()
    count = f"touch {tmp_path}/running/$0; ls {tmp_path}/running | wc -l >>{tmp_path}/counts; rm {tmp_path}/running/$0"
    for number in range(32):
        name = f"qemu-{number}"
        install(tmp_path / name, f"#!/bin/sh\n{count.replace('$0', name)}\necho {name} version 1.2\n".encode())
    found = versions([str(path) for path in tmp_path.glob("qemu-*")])
    assert set(found.values()) == {(1, 2)}
    assert max(map(int, (tmp_path / "counts").read_text().split())) <= 2


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
