"""config/compose.yaml, carried out by podman-compose."""

import sys
from collections.abc import Callable

import pytest
from support.cli import CHECKOUT, Result
from support.containers import Container, Machine

pytest.importorskip("podman_compose", reason="podman-compose is not here: `make test-containers` installs it")
pytestmark = pytest.mark.container

Compose = Callable[..., Result]
OVERRIDE = """
services:
  binfmt: &ours
    image: {image}
    volumes: ["{volume}"]
  binfmtd: *ours
"""


@pytest.fixture
def compose(machine: Machine, image: str) -> Compose:
    """Return a function that runs podman-compose on the machine, with the tests' image in place of the file's."""
    override = machine.directory / "override.yaml"
    override.write_text(OVERRIDE.format(image=image, volume=machine.as_first_namespace[1]))
    files = [f"--file={CHECKOUT}/config/compose.yaml", f"--file={override}"]

    def run(*arguments: str) -> Result:
        done = machine.run(sys.executable, "-m", "podman_compose", "--in-pod=false", *files, *arguments)
        assert done.status == 0, done.stderr
        return done

    return run


def test_once(machine: Machine, compose: Compose) -> None:
    """The service ``binfmt`` registers the three architectures that it names, exits with 0 and is not restarted."""
    compose("--profile=once", "up", "--no-build", "--exit-code-from=binfmt", "binfmt")
    assert set(machine.names()) == {"qemu-arm", "qemu-aarch64", "qemu-ppc64le"}
    container = Container(machine, "binfmtd_binfmt_1")
    assert container.state == "exited"
    assert container.inspect("HostConfig", "RestartPolicy")["Name"] in ("", "no")


def test_daemon(machine: Machine, compose: Compose) -> None:
    """``up`` alone starts the daemon and no other service; the daemon becomes healthy, and ``down`` ends it."""
    compose("up", "--no-build", "--detach")
    assert len(machine.containers) == 1
    daemon = Container(machine, "binfmtd_binfmtd_1")
    daemon.wait_healthy()
    assert "qemu-aarch64" in machine.names()
    assert daemon.inspect("HostConfig", "RestartPolicy")["Name"] == "always"
    compose("down")
    assert machine.containers == []
