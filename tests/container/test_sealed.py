"""``sealed = true`` in a container: what docs/containers.md says that it takes is enough."""

from typing import Any

import pytest
from support.containers import Container, Machine
from support.instance import MOUNT_POINT

pytestmark = pytest.mark.container

BOUND_IN = ("--cap-drop=all", "--volume", f"{MOUNT_POINT}:/binfmt_misc")


def start(machine: Machine, image: str, *options: str) -> Container:
    """Start the daemon with ``sealed = true`` and these options, and wait until it is healthy."""
    directory = machine.directory / "config"
    directory.mkdir()
    (directory / "binfmtd.toml").write_text("architectures = ['arm64']\nsealed = true\n")
    volume = ["--volume", f"{directory}:/etc/binfmtd:ro"]
    started = machine.podman("run", "--detach", "--network=none", *options, *volume, image, "run")
    assert started.status == 0, started.stderr
    container = Container(machine, started.stdout.strip())
    container.wait_healthy()
    return container


def seal(container: Container) -> dict[str, Any]:
    status: dict[str, Any] = container.execute("binfmtd", "status", "--json").json
    found: dict[str, Any] = status["seal"]
    return found


def removing(machine: Machine) -> str:
    """Remove the entry, as root of the machine: what the shell says to that."""
    return machine.run("sh", "-c", f"echo -1 >{MOUNT_POINT}/qemu-aarch64").stderr


def test_with_one_capability(machine: Machine, image: str) -> None:
    """Bound in, with CAP_SYS_ADMIN and no other; a stop leaves it sealed, and another container goes on."""
    daemon = start(machine, image, *BOUND_IN, "--cap-add=SYS_ADMIN")
    assert seal(daemon)["state"] == "sealed"
    assert "Read-only file system" in removing(machine)
    assert daemon.podman("restart").status == 0
    daemon.wait_healthy()
    assert seal(daemon)["state"] == "sealed"
    assert daemon.stop() == 0
    assert "Read-only file system" in removing(machine)


def test_privileged(machine: Machine, image: str) -> None:
    """Privileged, the container mounts it for itself, and seals it for the host."""
    daemon = start(machine, image, "--privileged", *machine.as_first_namespace)
    assert seal(daemon)["state"] == "sealed"
    assert "Read-only file system" in removing(machine)


def test_without_the_capability(machine: Machine, image: str) -> None:
    """It says so and what to add, is healthy, and repairs."""
    daemon = start(machine, image, *BOUND_IN)
    assert seal(daemon)["state"] == "impossible"
    assert "--cap-add SYS_ADMIN" in seal(daemon)["reason"]
    assert removing(machine) == ""
    daemon.wait_healthy()
