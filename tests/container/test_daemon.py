"""The daemon as process 1 of a container."""

import signal

import pytest
from support.containers import Container, Machine
from support.instance import MOUNT_POINT
from support.waiting import wait_until

pytestmark = pytest.mark.container

BIND = f"--volume={MOUNT_POINT}:/binfmt_misc"


@pytest.fixture
def daemon(machine: Machine, image: str) -> Container:
    """Return a daemon that has converged; its config is ``machine.directory / "binfmtd.toml"``."""
    config = machine.directory / "binfmtd.toml"
    config.write_text('architectures = ["arm", "arm64"]\n')
    started = machine.start(BIND, f"--volume={config}:/etc/binfmtd/binfmtd.toml:ro", image, "run")
    started.wait_healthy()
    return started


def test_run(machine: Machine, daemon: Container) -> None:
    """``run`` registers what the config declares, writes its log as JSON, and stays."""
    assert set(machine.names()) == {"qemu-arm", "qemu-aarch64"}
    assert daemon.logs("pass_finished")
    assert daemon.state == "running"


def test_repair(machine: Machine, daemon: Container) -> None:
    """The daemon registers an entry again that the host removes."""
    identity = machine.instance.inode("qemu-arm")
    machine.instance.remove("qemu-arm")
    machine.instance.wait_registered_anew("qemu-arm", identity)
    assert daemon.state == "running"


def test_sighup_reloads(machine: Machine, daemon: Container) -> None:
    """SIGHUP to the container loads the config anew, and touches only what differs."""
    identity = machine.instance.inode("qemu-arm")
    # In place: a bind mount shows the file that was bound, not one that is put in its place.
    (machine.directory / "binfmtd.toml").write_text('architectures = ["arm", "riscv64"]\n')
    daemon.kill(signal.SIGHUP)
    daemon.wait_for_log("config_reloaded")
    wait_until(lambda: set(machine.names()) == {"qemu-arm", "qemu-riscv64"}, what="the new config in force")
    assert machine.instance.inode("qemu-arm") == identity
    assert daemon.state == "running"


def test_reload(machine: Machine, daemon: Container) -> None:
    """``podman exec binfmtd binfmtd reload`` returns when the new config is in force, or prints why it was rejected."""
    config = machine.directory / "binfmtd.toml"
    config.write_text('architectures = ["arm", "riscv64"]\n')
    assert daemon.execute("binfmtd", "reload").status == 0
    assert set(machine.names()) == {"qemu-arm", "qemu-riscv64"}
    config.write_text("architecturez = []\n")
    rejected = daemon.execute("binfmtd", "reload")
    assert rejected.status == 1
    assert "architecturez" in rejected.message


def test_sigterm_ends_it(machine: Machine, daemon: Container) -> None:
    """``podman stop`` ends it by SIGTERM, long before it would be killed, with 0; its entries stay."""
    assert daemon.stop() == 0
    assert set(machine.names()) == {"qemu-arm", "qemu-aarch64"}


def test_it_starts_again(machine: Machine, daemon: Container) -> None:
    """A killed container that is started again registers the missing entries."""
    daemon.kill(signal.SIGKILL)
    daemon.wait_exit()
    machine.instance.remove("status")
    assert daemon.podman("start").status == 0
    daemon.wait_healthy()
    assert set(machine.names()) == {"qemu-arm", "qemu-aarch64"}


def test_health(machine: Machine, daemon: Container) -> None:
    """The health check succeeds once the daemon has converged, and fails while a handler waits."""
    assert daemon.healthy
    config = machine.directory / "binfmtd.toml"
    config.write_text('architectures = ["arm"]\n[handlers.waits]\nextension = "x"\ninterpreter = "/nonexistent"\n')
    daemon.kill(signal.SIGHUP)
    daemon.wait_for_log("config_reloaded")
    wait_until(lambda: not daemon.healthy, what="unhealthy, since a handler waits")


def test_apply_beside_it(machine: Machine, image: str, daemon: Container) -> None:
    """``apply`` in a second container, with its own state directory, leaves a daemon with the same handlers healthy."""
    assert machine.container(BIND, image, "--arch", "arm,arm64").status == 0
    assert set(machine.names()) == {"qemu-arm", "qemu-aarch64"}
    assert daemon.healthy
