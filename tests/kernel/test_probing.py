"""The daemon publishes which programs run, from its own child or from `probe --write`, in status, log and labels."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from support.cli import BINFMTD, run
from support.daemon import StartDaemon
from support.instance import Instance
from support.programs import FOREIGN, install, waits
from support.waiting import wait_until

NAME = f"qemu-{FOREIGN}"
PLATFORM = "arm64" if FOREIGN == "aarch64" else FOREIGN
LABEL = f"feature.node.kubernetes.io/binfmt-{PLATFORM}=true"
LONG = 60  # seconds: the probe runs 33 programs


@pytest.fixture
def emulator(tmp_path: Path) -> Path:
    """Return the path of an emulator that a test may break."""
    directory = tmp_path / "emulators"
    directory.mkdir()
    return install(directory / NAME, Path("/usr/bin", NAME).read_bytes())


@pytest.fixture
def config(tmp_path: Path, emulator: Path) -> str:
    return f"""
architectures = ["{FOREIGN}"]
probe = "after-repair"
[labels]
file = "{tmp_path}/labels"
[emulators]
paths = ["{emulator.parent}/qemu-{{name}}"]
"""


def row(status: dict[str, Any]) -> dict[str, Any] | None:
    """Return the row of the foreign architecture in the status."""
    return next((row for row in status["probed"]["architectures"] if row["name"] == FOREIGN), None)


def runs(status: dict[str, Any]) -> bool | None:
    found = row(status)
    return None if found is None else found["runs"]


def labels(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if PLATFORM in line]


def break_it(emulator: Path) -> None:
    """Replace the emulator by a program that ends with another status."""
    beside = emulator.with_name("new")
    beside.symlink_to("/usr/bin/true")
    beside.replace(emulator)


def test_after_a_repair(start_daemon: StartDaemon, config: str, emulator: Path, tmp_path: Path) -> None:
    """A registered handler is probed; a broken emulator is found, logged, and loses its label."""
    daemon = start_daemon(config)
    status = daemon.wait_status(runs, "its programs run", LONG)
    found = row(status)
    assert found is not None
    assert (found["entry"], found["natively"], found["in_chroot"]) == (NAME, False, True)
    wait_until(lambda: labels(tmp_path / "labels") == [LABEL], what="the label")
    break_it(emulator)
    status = daemon.wait_status(lambda status: runs(status) is False, "its programs do not run", LONG)
    (handler,) = status["handlers"]
    assert (handler["state"], status["state"]) == ("failed", "degraded")
    assert handler["reason"] == "its programs do not run: its exit status is 0, should be 42"
    assert daemon.wait_for_log("programs_fail")["entry"] == NAME
    wait_until(lambda: labels(tmp_path / "labels") == [], what="the end of the label")


def test_what_others_found(start_daemon: StartDaemon, config: str, instance: Instance, tmp_path: Path) -> None:
    """With probe = "off" the daemon probes nothing, but reads the results of ``probe --write``."""
    daemon = start_daemon(config.replace('"after-repair"', '"off"'))
    assert daemon.status()["probed"] == {"at": None, "error": None, "architectures": []}
    assert labels(tmp_path / "labels") == []
    state = ("--state-dir", str(daemon.state_directory))
    assert run(instance.entering([*BINFMTD, "probe", "--write", *state])).status == 0
    daemon.wait_status(runs, "its programs run")
    wait_until(lambda: labels(tmp_path / "labels") == [LABEL], what="the label")


def test_a_child_that_cannot(start_daemon: StartDaemon, config: str, tmp_path: Path) -> None:
    """The child's error is logged once, no result is published, and handlers are served nevertheless."""
    (tmp_path / "python").mkdir()
    # A sitecustomize that affects no command but the child.
    (tmp_path / "python" / "sitecustomize.py").write_text(
        'import os, sys\nif "probe" in sys.orig_argv:\n'
        '    os.write(2, b"binfmtd: no probing today\\n")\n    os._exit(1)\n'
    )
    daemon = start_daemon(config, environment={"PYTHONPATH": str(tmp_path / "python")})
    assert daemon.wait_for_log("probe_failed", LONG)["reason"] == "no probing today"
    status = daemon.wait_status(lambda status: status["probed"]["error"], "an error")
    assert (status["probed"]["error"], status["state"]) == ("no probing today", "converged")


def test_a_child_ends_with_the_daemon(start_daemon: StartDaemon, config: str, tmp_path: Path) -> None:
    """A stop does not wait for the child, which ends with the daemon."""
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(
        "import os, pathlib, sys, time\n"
        f'if "probe" in sys.orig_argv:\n    pathlib.Path("{tmp_path}/pid").write_text(str(os.getpid()))\n'
        "    time.sleep(1000)\n"
    )
    daemon = start_daemon(config, environment={"PYTHONPATH": str(tmp_path / "python")})
    child = int(wait_until((tmp_path / "pid").exists, LONG, "the child") and read_when_whole(tmp_path / "pid"))
    assert os.path.exists(f"/proc/{child}")
    assert daemon.terminate() == 0
    assert not os.path.exists(f"/proc/{child}")


def test_a_child_that_is_at_work_cleans_up(start_daemon: StartDaemon, config: str, tmp_path: Path) -> None:
    """The child's temporary directory is removed when the daemon stops during a probe."""
    (tmp_path / "emulators" / NAME).write_bytes(waits(1))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    daemon = start_daemon(config, environment={"TMPDIR": str(temporary)})
    wait_until(lambda: list(temporary.glob("binfmtd-probe-*/*")), LONG, "a probe that goes on")
    assert daemon.terminate() == 0
    assert list(temporary.iterdir()) == []


def read_when_whole(path: Path) -> str:
    return wait_until(path.read_text, what="a number")


def test_labels_go_with_the_handlers(start_daemon: StartDaemon, config: str, tmp_path: Path) -> None:
    """If a stop removes the handlers, it removes the labels; otherwise both stay."""
    daemon = start_daemon(config)
    daemon.wait_status(runs, "its programs run", LONG)
    assert daemon.terminate() == 0
    assert labels(tmp_path / "labels") == [LABEL]
    daemon = start_daemon(f'on_stop = "remove"\n{config}')
    assert labels(tmp_path / "labels") == [LABEL]
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait_exit() == 0
    assert labels(tmp_path / "labels") == []


def test_labels_that_cannot_be_written(start_daemon: StartDaemon, config: str, tmp_path: Path) -> None:
    """Labels that cannot be written are logged once, and affect nothing else."""
    daemon = start_daemon(config.replace(f"{tmp_path}/labels", f"{tmp_path}/nowhere/labels"))
    daemon.wait_status(runs, "its programs run", LONG)
    assert len(daemon.logs("labels_unwritten")) == 1
