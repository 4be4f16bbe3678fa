"""WSL 2: all distributions share one instance, and in each of them a read-only file covers `status`.

WSL's init mounts a file of /run/wsl, which has the text "enabled", over `status` (pull request 40621 of microsoft/WSL).
So no distribution can remove all entries when it shuts down.  A distribution of an older WSL has no such file.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cli import CHECKOUT, Cli
from support.daemon import CONFIG, Daemon
from support.instance import MOUNT_POINT, Instance
from support.programs import exits_with, install
from support.waiting import wait_until

pytestmark = pytest.mark.hosts

COVER = """
printf '%s\\n' "$2" >"$1"
mount --bind "$1" "$3/status"
[ "$4" = rw ] || mount -o remount,bind,ro "$3/status"
"""
PRESET = CHECKOUT / "config" / "presets" / "wsl.toml"
WINDOWS_PROGRAM = b"MZ\x90\x00" + bytes(60)
INIT = 77
StartDaemon = Callable[[str], Daemon]


class Distributions:
    """Two distributions: binfmtd's, where ``status`` may be covered, and another one, where it is not."""

    def __init__(self, instance: Instance, directory: Path) -> None:
        self.instance = instance
        self._directory = directory
        self._other = instance.popen(
            ["unshare", "--mount", "--propagation=private", "sh", "-c", "echo ready; read -r _"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._other.stdout is not None
        assert self._other.stdout.readline() == "ready\n"

    def cover_status(self, text: str = "enabled", *, mode: str = "ro") -> Path:
        """Mount a file with this text over `status`; return the file."""
        lock = self._directory / "status-lock"
        done = self.instance.run(["sh", "-euc", COVER, "sh", str(lock), text, MOUNT_POINT, mode])
        assert done.returncode == 0, done.stderr
        return lock

    def write_from_the_other(self, text: str) -> None:
        """Write to `status` from the other distribution, as systemd-binfmt does there when it shuts down."""
        enter = ["nsenter", "-U", "--preserve-credentials", "-m", "-t", str(self._other.pid), "--"]
        subprocess.run([*enter, "sh", "-c", f"echo {text} >{MOUNT_POINT}/status"], check=True)


@pytest.fixture
def wsl(tmp_path: Path) -> Iterator[Distributions]:
    with Instance(everybody=True) as instance:
        yield Distributions(instance, tmp_path)


@pytest.fixture
def start(wsl: Distributions, tmp_path: Path) -> Iterator[StartDaemon]:
    started: list[Daemon] = []

    def start(config: str) -> Daemon:
        daemon = Daemon(wsl.instance, tmp_path / "daemon", config)
        started.append(daemon)
        daemon.wait_ready()
        return daemon

    yield start
    for daemon in started:
        daemon.close()


def test_a_covered_status(wsl: Distributions, start: StartDaemon) -> None:
    """With a read-only file over `status` the daemon registers, and repairs what another distribution flushes."""
    wsl.cover_status()
    assert wsl.instance.shell(f"! echo -1 >{MOUNT_POINT}/status").returncode == 0, "EROFS, as in WSL"
    daemon = start(CONFIG)
    for repairs in range(1, 4):
        before = wsl.instance.inode("one")
        wsl.write_from_the_other("-1")
        daemon.wait_status(lambda status: status["repairs"] == repairs, f"{repairs} repairs")  # noqa: B023  waited for
        assert wsl.instance.inode("one") != before
    assert daemon.wait_converged()["problem"] is None
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log_text()


def test_doctor_names_the_cover(wsl: Distributions, tmp_path: Path) -> None:
    """Doctor says that it cannot see if binfmt_misc is switched off, since the kernel's `status` is covered."""
    cli = Cli(wsl.instance, tmp_path)
    assert cli("apply", config=CONFIG).status == 0
    checks = [found["check"] for found in cli("doctor", "--json").json["not_seen"]]
    assert "status_covered" not in checks
    wsl.cover_status()
    wsl.write_from_the_other("0")
    document = cli("doctor", "--json").json
    (unseen,) = [found for found in document["not_seen"] if found["check"] == "status_covered"]
    assert "`binfmtd probe` tests which programs run" in unseen["text"]


def test_the_text_of_the_cover_means_nothing(wsl: Distributions, start: StartDaemon) -> None:
    """The daemon takes no other file's text for the state of binfmt_misc, and does not write to that file."""
    lock = wsl.cover_status("disabled", mode="rw")
    daemon = start(CONFIG)
    assert daemon.wait_converged()["repairs"] == 0
    assert lock.read_text() == "disabled\n"
    assert daemon.logs("repaired") == []


@pytest.fixture
def init(tmp_path: Path) -> Path:
    """Install WSL's /init, here a program with a certain exit status."""
    return install(tmp_path / "init", exits_with(INIT))


def run_windows_program(wsl: Distributions, directory: Path) -> int:
    program = install(directory / "program.exe", WINDOWS_PROGRAM)
    return wsl.instance.run(["sh", "-c", str(program)]).returncode


def test_an_entry_that_was_flushed_before_the_start(
    wsl: Distributions, start: StartDaemon, init: Path, tmp_path: Path
) -> None:
    """`restore` remembers only what the daemon has seen: an entry that was flushed before stays away."""
    line = f":WSLInterop:M::MZ::{init}:PF".encode()
    wsl.instance.register(line)
    wsl.write_from_the_other("-1")
    daemon = start(CONFIG)
    wsl.write_from_the_other("-1")
    daemon.wait_status(lambda status: status["repairs"] == 1, "the repair")
    assert wsl.instance.names() == ["one"]
    assert run_windows_program(wsl, tmp_path) == 126


def test_the_preset(wsl: Distributions, start: StartDaemon, init: Path, tmp_path: Path) -> None:
    """config/presets/wsl.toml declares the entry, so it is registered at the start, and again after each flush."""
    wsl.cover_status()
    preset = PRESET.read_text()
    assert '"/init"' in preset
    daemon = start("architectures = []\n" + preset.replace('"/init"', f'"{init}"'))
    assert wsl.instance.names() == ["WSLInterop"]
    assert run_windows_program(wsl, tmp_path) == INIT
    before = wsl.instance.inode("WSLInterop")
    wsl.write_from_the_other("-1")
    wait_until(lambda: wsl.instance.names() == ["WSLInterop"], what="WSLInterop after the flush")
    daemon.wait_status(lambda status: status["repairs"] == 1, "the repair")
    assert wsl.instance.inode("WSLInterop") != before
    assert run_windows_program(wsl, tmp_path) == INIT


def test_the_preset_elsewhere(start: StartDaemon) -> None:
    """Where no /init exists the preset's handler waits, and other handlers are registered."""
    if os.path.lexists("/init"):
        pytest.skip("this machine has a file /init, as WSL has")
    daemon = start(CONFIG + PRESET.read_text())
    assert daemon.states() == {"one": "registered", "WSLInterop": "waiting"}
