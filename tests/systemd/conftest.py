"""For tests with real systemd: a booted Debian, and the daemon as its service."""

import shutil
from collections.abc import Iterator

import pytest
from support.booted import CONFIG, DROP_INS, ENTRY, UNIT, Booted
from support.required import require

NEEDED = ("systemd-nspawn", "mmdebstrap", "dpkg-deb", "make")
FIRST_ANSWER = 51
ONE_HANDLER = 'architectures = ["riscv64"]\n'


@pytest.fixture(scope="session")
def booting() -> type[Booted]:
    """Return the class that boots a machine; skip on a host where it cannot."""
    require("test-systemd", NEEDED, "systemd-nspawn boots a machine")
    return Booted


@pytest.fixture(scope="session")
def machine(booting: type[Booted], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """Yield a booted machine with an emulator for riscv64; binfmtd is installed, and not yet started."""
    with booting(tmp_path_factory.mktemp("machine")) as booted:
        booted.install_emulator(FIRST_ANSWER)
        yield booted


@pytest.fixture
def service(machine: Booted) -> Booted:
    """Return the machine with the service running as it was installed, with one handler, whatever a test did before."""
    shutil.rmtree(machine.root / DROP_INS.lstrip("/"), ignore_errors=True)
    machine.write(CONFIG, ONE_HANDLER)
    machine.run("rm", "--force", "/run/binfmtd/probed.json")
    machine.systemctl("daemon-reload")
    machine.systemctl("restart", UNIT)
    assert ENTRY in machine.entries(), "READY=1 comes when every handler is registered"
    return machine
