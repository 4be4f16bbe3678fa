"""For tests with real systemd: a booted Debian, and the daemon as its service."""

import os
import shutil
from collections.abc import Iterator

import pytest
from support.booted import CONFIG, DROP_INS, ENTRY, UNIT, Booted
from support.instance import Instance, UnavailableError

NEEDED = ("systemd-nspawn", "mmdebstrap", "dpkg-deb", "make")
FIRST_ANSWER = 51
ONE_HANDLER = 'architectures = ["riscv64"]\n'


def _unavailable(reason: str) -> None:
    """Skip; in CI fail, or nothing would be tested."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def booting() -> type[Booted]:
    """Return the class that boots a machine; skip on a host where it cannot."""
    if missing := [program for program in NEEDED if shutil.which(program) is None]:
        _unavailable(f"not here: {', '.join(missing)}; `make test-systemd` installs them")
    if os.geteuid() != 0:
        _unavailable("systemd-nspawn takes root: run this as root")
    try:
        Instance(everybody=True).close()
    except UnavailableError as error:
        _unavailable(str(error))
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
    machine.systemctl("daemon-reload")
    machine.systemctl("restart", UNIT)
    assert ENTRY in machine.entries(), "READY=1 comes when every handler is registered"
    return machine
