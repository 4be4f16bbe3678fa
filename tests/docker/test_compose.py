"""config/compose.yaml with Docker Compose, on a copy of the files that a clone has."""

from pathlib import Path

import pytest
from support.engine import Engine

pytestmark = pytest.mark.docker


@pytest.fixture
def directory(engine: Engine, checkout: Path) -> Path:
    """Return the directory of compose.yaml; binfmtd takes its namespace for that of a host."""
    engine.hide_namespace_in_compose(checkout / "config")
    return checkout / "config"


def test_once(engine: Engine, directory: Path) -> None:
    """The service ``binfmt`` registers the architectures that it names, and exits with 0."""
    engine.checked("compose", "--profile", "once", "up", "--exit-code-from", "binfmt", "binfmt", directory=directory)
    assert set(engine.instance.names()) == {"qemu-arm", "qemu-aarch64", "qemu-ppc64le"}
    assert engine.inspect("binfmtd-binfmt-1", "{{.State.ExitCode}} {{.HostConfig.RestartPolicy.Name}}") == "0 no"


def test_daemon(engine: Engine, directory: Path, arm64: Path) -> None:
    """``up --wait`` returns when the daemon is healthy; it outlives dockerd's restart, and ``down`` ends it."""
    engine.checked("compose", "up", "--detach", "--wait", directory=directory)
    assert len(engine.checked("ps", "--all", "--quiet").stdout.split()) == 1
    with engine.executing(arm64):
        reloaded = engine.docker("compose", "exec", "-T", "binfmtd", "binfmtd", "reload", directory=directory)
        assert reloaded.status == 0, reloaded.stderr
        engine.stop()
        engine.start()
        engine.wait_healthy("binfmtd-binfmtd-1")
        engine.checked("compose", "down", directory=directory)
    assert engine.checked("ps", "--all", "--quiet").stdout == ""


def test_a_service_waits_for_it(engine: Engine, directory: Path, tmp_path: Path) -> None:
    """``depends_on: service_healthy`` starts a foreign service when every handler serves."""
    override = tmp_path / "foreign.yaml"
    override.write_text(
        "services:\n"
        "  foreign:\n"
        "    image: root-arm64\n"
        "    platform: linux/arm64\n"
        "    network_mode: none\n"
        "    command: [uname, -m]\n"
        "    depends_on: {binfmtd: {condition: service_healthy}}\n"
    )
    files = [f"--file={name}" for name in ("compose.yaml", "compose.override.yaml", str(override))]
    engine.checked("compose", *files, "up", "--detach", directory=directory)
    engine.checked("wait", "binfmtd-foreign-1")
    assert engine.checked("logs", "binfmtd-foreign-1").stdout == "aarch64\n"
    engine.checked("compose", *files, "down", directory=directory)
