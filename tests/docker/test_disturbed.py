"""Whole builds by a real Docker Engine beside disturbances: the promise of docs/reliability.md, in small.

`make bench PARTS=docker_builds` has the figures for twenty builds of each.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.cli import Result
from support.engine import Engine
from support.instance import MOUNT_POINT

pytestmark = pytest.mark.docker

NAME = "qemu-aarch64"
EVERY = 0.3  # seconds
DOCKERFILE = """
FROM root-arm64
RUN i=0; while [ $i -lt 1000 ]; do /bin/true || exit 1; i=$((i + 1)); done
"""
UNINSTALL = "docker run --rm --privileged --network none binfmt --uninstall qemu-aarch64"
INSTALL = "docker run --rm --privileged --network none binfmt --install arm64"
BY_NAME = {
    "removed": f"echo -1 >{NAME}",
    "disabled": f"echo 0 >{NAME}",
    "removed and registered": f"cat {NAME} >/dev/null; echo -1 >{NAME}; {INSTALL}",
    "uninstalled and installed by a container": f"{UNINSTALL}; {INSTALL}",
}
OTHERS = {
    "flushed": "echo -1 >status",
    "switched off": "echo 0 >status",
    "unmounted": f"cd /; umount {MOUNT_POINT}",
}
DAEMON = ("run", "-d", "--privileged", "--network", "none", "--name", "binfmtd")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a directory whose build executes thousands of foreign programs, and fails with the first that fails."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "Dockerfile").write_text(DOCKERFILE)
    return tmp_path / "project"


@contextmanager
def disturbed(engine: Engine, commands: list[str]) -> Iterator[Callable[[], int]]:
    """Run these shell commands in turn in the directory of binfmt_misc, as root of the engine's machine.

    Yield a function that returns their number so far.
    """
    ended = threading.Event()
    done: list[Result] = []

    def disturb() -> None:
        while not ended.wait(EVERY):
            done.append(engine.run("sh", "-c", commands[len(done) % len(commands)], directory=Path(MOUNT_POINT)))

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield lambda: len(done)
    finally:
        ended.set()
        thread.join()


def build(engine: Engine, project: Path) -> bool:
    """Build once; return True if that works."""
    options = ("--no-cache", "--network", "none", "--platform", "linux/arm64")
    done = engine.docker("build", *options, ".", directory=project)
    assert done.status == 0 or "exec format error" in done.stderr or "exit code" in done.stderr, done.stderr
    return done.status == 0


def test_without_a_daemon(engine: Engine, project: Path) -> None:
    """The disturbances do break a build: else the other tests would show nothing."""
    engine.checked("run", "--rm", "--privileged", "binfmtd", "--arch", "arm64")
    with disturbed(engine, list(BY_NAME.values())):
        assert not all(build(engine, project) for _ in range(3)), "a disturbance may begin late, or a build end early"


def test_by_name(engine: Engine, project: Path) -> None:
    """By default whatever works by name breaks no build."""
    engine.checked(*DAEMON, "binfmtd", "run")
    engine.wait_healthy("binfmtd")
    with disturbed(engine, list(BY_NAME.values())) as number:
        while number() < 3 * len(BY_NAME):
            assert build(engine, project)


def test_sealed(engine: Engine, project: Path) -> None:
    """On a sealed instance nothing does."""
    directory = engine.root / "etc" / "binfmtd"
    directory.mkdir()
    (directory / "binfmtd.toml").write_text('architectures = ["arm64"]\nsealed = true\n')
    engine.checked(*DAEMON, "-v", "/etc/binfmtd:/etc/binfmtd:ro", "binfmtd", "run")
    engine.wait_healthy("binfmtd")
    with disturbed(engine, [*BY_NAME.values(), *OTHERS.values()]) as number:
        while number() < 2 * (len(BY_NAME) + len(OTHERS)):
            assert build(engine, project)
