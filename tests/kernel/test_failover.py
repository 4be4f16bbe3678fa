"""Several interpreters of one architecture: the first that runs its programs serves."""

from pathlib import Path

import pytest
from support.daemon import StartDaemon
from support.instance import Instance
from support.programs import FOREIGN, foreign_program, install
from support.waiting import wait_until

from binfmtd.catalog.architectures import CATALOG

NAME = f"qemu-{FOREIGN}"
LONG = 60  # seconds: the probe runs 33 programs
RUNS = 42


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return emulator(tmp_path / "first")


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return emulator(tmp_path / "second")


@pytest.fixture
def config(first: Path, second: Path) -> str:
    return f"""
architectures = ["{FOREIGN}"]
probe = "after-repair"
[emulators.{FOREIGN}]
interpreters = ["{first}", "{second}"]
"""


def emulator(directory: Path) -> Path:
    directory.mkdir()
    return install(directory / NAME, Path("/usr/bin", NAME).read_bytes())


def wait_serves(instance: Instance, path: Path) -> None:
    def serves() -> bool:
        try:
            return f"interpreter {path}\n" in instance.read(NAME)
        except FileNotFoundError:  # it is being replaced, and its stand-in serves
            return False

    wait_until(serves, LONG, f"{path} in the entry")


def test_failover(
    instance: Instance, start_daemon: StartDaemon, config: str, first: Path, second: Path, tmp_path: Path
) -> None:
    """An interpreter that the probe sees fail is passed over until its file changes, also by the next daemon."""
    program = foreign_program(tmp_path / "program", CATALOG[FOREIGN])
    daemon = start_daemon(config)
    wait_serves(instance, first)
    install(first, Path("/usr/bin/true").read_bytes())
    wait_serves(instance, second)
    assert instance.run([str(program)]).returncode == RUNS
    line = daemon.wait_for_log("interpreter_passed_over", LONG)
    assert (line["entry"], line["interpreter"], line["used"]) == (NAME, str(first), str(second))
    status = daemon.wait_status(lambda status: status["state"] == "converged", "a converged state", LONG)
    (handler,) = status["handlers"]
    reason = f"{first} is not used: it does not run programs: its exit status is 0, should be 42"
    assert (handler["state"], handler["reason"]) == ("registered", reason)
    daemon.terminate()

    daemon = start_daemon(config)
    wait_serves(instance, second)
    assert not [line for line in daemon.logs("entry_replaced") if line.get("entry") == NAME]
    install(first, Path("/usr/bin", NAME).read_bytes())
    wait_serves(instance, first)
    assert instance.run([str(program)]).returncode == RUNS


def test_no_interpreter_runs_programs(
    instance: Instance, start_daemon: StartDaemon, config: str, first: Path, second: Path
) -> None:
    """If none of them runs programs, the first serves, and the status says that its programs fail."""
    for path in (first, second):
        install(path, Path("/usr/bin/true").read_bytes())
    daemon = start_daemon(config)
    daemon.wait_status(lambda status: status["state"] == "degraded", "a degraded state", LONG)
    wait_serves(instance, first)
