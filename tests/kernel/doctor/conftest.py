"""Fixtures for the tests of `binfmtd doctor`: the doctor, interpreters, and a daemon."""

from pathlib import Path

import pytest
from support.daemon import Daemon
from support.doctor import EMULATOR, ONE, Doctor, StartDaemon
from support.instance import Instance
from support.programs import exits_with, install


@pytest.fixture
def doctor(instance: Instance, tmp_path: Path) -> Doctor:
    return Doctor(instance, tmp_path)


@pytest.fixture
def static(tmp_path: Path) -> Path:
    """Return an interpreter that is a static program."""
    return install(tmp_path / "static", exits_with(7))


@pytest.fixture
def emulator() -> Path:
    if not EMULATOR.exists():
        pytest.skip(f"{EMULATOR} is not installed: apt-get install qemu-user")
    return EMULATOR


@pytest.fixture
def kept(doctor: Doctor, start_daemon: StartDaemon, static: Path) -> tuple[Doctor, Daemon]:
    """Return a doctor and a daemon that has converged."""
    daemon = start_daemon(ONE.format(static))
    doctor.state_directory = daemon.state_directory
    return doctor, daemon
