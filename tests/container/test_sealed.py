"""``sealed = true`` in a container: the options of docs/containers.md are enough."""

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
    """Remove the entry as root of the machine, and return the shell's error message."""
    return machine.run("sh", "-c", f"echo -1 >{MOUNT_POINT}/qemu-aarch64").stderr


def test_with_one_capability(machine: Machine, image: str) -> None:
    """With a bind and CAP_SYS_ADMIN alone the daemon seals; a restart and a stop leave the instance sealed."""
    daemon = start(machine, image, *BOUND_IN, "--cap-add=SYS_ADMIN")
    assert seal(daemon)["state"] == "sealed"
    assert "Read-only file system" in removing(machine)
    assert daemon.podman("restart").status == 0
    daemon.wait_healthy()
    assert seal(daemon)["state"] == "sealed"
    assert daemon.stop() == 0
    assert "Read-only file system" in removing(machine)


def test_privileged(machine: Machine, image: str) -> None:
    """A privileged container mounts the instance for itself, and seals it for the host."""
    daemon = start(machine, image, "--privileged", *machine.as_first_namespace)
    assert seal(daemon)["state"] == "sealed"
    assert "Read-only file system" in removing(machine)


def test_without_the_capability(machine: Machine, image: str) -> None:
    """Without the capability the status names the option to add; the daemon is healthy, and repairs."""
    daemon = start(machine, image, *BOUND_IN)
    assert seal(daemon)["state"] == "impossible"
    assert "--cap-add SYS_ADMIN" in seal(daemon)["reason"]
    assert removing(machine) == ""
    daemon.wait_healthy()
