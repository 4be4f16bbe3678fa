"""For tests with containers: the images, and machines to run them on, each with a binfmt_misc of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import images
from support.containers import Machine, StartMachine
from support.required import require

NEEDED = ("podman", "crun", "mmdebstrap")


@pytest.fixture(scope="session")
def _podman() -> None:
    require("test-containers", NEEDED, "images and machines have all users")


@pytest.fixture(scope="session")
def image(_podman: None) -> str:
    """Return the name of the default image: the target ``binfmtd``, with all emulators."""
    return images.build("binfmtd")


@pytest.fixture(scope="session")
def slim_image(_podman: None) -> str:
    """Return the name of the image without emulators."""
    return images.build("slim")


@pytest.fixture(scope="session")
def binfmt_image(_podman: None) -> str:
    """Return the name of the image that stands in for tonistiigi/binfmt."""
    return images.build("binfmt")


@pytest.fixture
def start_machine(_podman: None, tmp_path: Path) -> Iterator[StartMachine]:
    """Yield a function that starts a machine, with the options of ``Machine``; it ends with the test."""
    started: list[Machine] = []

    def start(**options: Any) -> Machine:
        machine = Machine(tmp_path / f"machine-{len(started)}", images.storage(), **options)
        started.append(machine)
        return machine

    yield start
    for machine in started:
        machine.close()


@pytest.fixture
def machine(start_machine: StartMachine) -> Machine:
    """Return a machine that has binfmt_misc mounted, with nothing in it."""
    return start_machine()


@pytest.fixture
def bare_machine(start_machine: StartMachine) -> Machine:
    """Return a machine that has no binfmt_misc mounted anywhere."""
    return start_machine(mounted=False)
