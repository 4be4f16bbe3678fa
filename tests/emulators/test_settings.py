"""Settings inside of Debian's emulators: of QEMU 5.2, 7.2, 10.0 and 11.1, and of the emulators for arm64."""

from pathlib import Path

import pytest
from support import debian_qemu
from support.programs import install
from support.starts import program, start, with_settings

RELEASE = "9.8.7-of-the-settings"
AT_HWCAP = 16


@pytest.mark.parametrize("suite", debian_qemu.PACKAGES)
def test_of_each_suite(tmp_path: Path, suite: str) -> None:
    """An emulator of each suite takes its settings, and a program in it finds what it would find without them."""
    emulators = debian_qemu.unpacked(suite)
    (plain,) = (path for name in ("", "-static") if (path := emulators / f"qemu-aarch64{name}").is_file())
    settings = {"QEMU_UNAME": RELEASE, "QEMU_CPU": "cortex-a57"}
    emulator = with_settings(install(tmp_path / "emulator", plain.read_bytes()), settings)
    foreign = program(tmp_path, compiler="aarch64-linux-gnu-gcc")
    found = start([emulator, foreign, "argument"], {"HOME": "/"})
    assert found.all("release") == [RELEASE]
    assert found.compared() == start([plain, foreign, "argument"], {"HOME": "/"} | settings).compared()


def test_of_arm64(tmp_path: Path) -> None:
    """An emulator for arm64 hosts takes its settings: it runs in this machine's emulator, and runs a program itself."""
    outer = debian_qemu.unpacked("trixie") / "qemu-aarch64"
    plain = debian_qemu.unpacked("trixie", "arm64") / "qemu-x86_64"
    settings = {"QEMU_UNAME": RELEASE, "QEMU_CPU": "Nehalem"}
    emulator = with_settings(install(tmp_path / "emulator", plain.read_bytes()), settings)
    guest = program(tmp_path)
    found = start([outer, emulator, guest, "argument"], {"HOME": "/", "EMPTY": ""})
    assert found.all("release") == [RELEASE]
    assert found.variables == ["HOME=/", "EMPTY=", f"QEMU_UNAME={RELEASE}", "QEMU_CPU=Nehalem"]
    options = ["-r", RELEASE, "-cpu", "Nehalem"]  # as variables they would be the outer emulator's, too
    other = start([outer, plain, *options, guest, "argument"], {"HOME": "/", "EMPTY": ""})
    assert found.all("argument") == other.all("argument")
    assert found.auxiliary[AT_HWCAP] == other.auxiliary[AT_HWCAP]
    own = start([outer, emulator, guest], {"QEMU_UNAME": "1.2.3"})
    assert own.all("release") == ["1.2.3"]
