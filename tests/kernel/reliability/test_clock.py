"""The wall clock jumps by years, forth and back: nothing that the daemon does depends on it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import Cli
from support.daemon import Daemon
from support.instance import Instance
from support.waiting import wait_until

StartDaemon = Callable[..., Daemon]

CONFIG = r"""
architectures = []
[handlers.one]
magic = '\x00one'
interpreter = "/usr/bin/true"
flags = "F"
"""
JUMPS = ("+3650d", "-3650d", "+2h", "+7300d", "+0d")


def libfaketime() -> str:
    for path in sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")):
        return str(path)
    pytest.skip("libfaketime is not there (Debian: apt-get install faketime)")


STALLED = 60  # seconds: under libfaketime a thread of Python may wait for seconds after a jump


def set_clock(file: Path, offset: str) -> None:
    """Set the fake clock in one step, because the file may be read at any time."""
    new = file.with_suffix(".new")
    new.write_text(offset)
    new.rename(file)


def repaired(instance: Instance) -> None:
    instance.remove("one")
    wait_until(lambda: instance.names() == ["one"], what="the repair")


def test_the_clock_on_the_wall_jumps(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """After each jump the daemon reloads its config, ends a pause after the given time, and repairs."""
    clock = tmp_path / "clock"
    set_clock(clock, "+0d")
    faked = {
        "LD_PRELOAD": libfaketime(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    daemon = start_daemon(CONFIG, environment=faked)
    cli = Cli(instance, tmp_path)
    cli.state_directory = daemon.state_directory
    for jump in JUMPS:
        set_clock(clock, jump)
        so_far = len(daemon.logs("config_reloaded"))
        daemon.reload()
        wait_until(lambda n=so_far: len(daemon.logs("config_reloaded")) > n, STALLED, "the reload")  # type: ignore[misc]
        so_far = len(daemon.logs("pause_ended"))
        assert cli("pause", "one", "--for", "2s").status == 0
        wait_until(lambda n=so_far: len(daemon.logs("pause_ended")) > n, STALLED, "the pause's end")  # type: ignore[misc]
        repaired(instance)
    assert daemon.wait_converged()["paused"] == []
    years = {line["timestamp"][:4] for line in daemon.logs()}
    assert len(years) > 3, "the clock did not jump"
    assert daemon.terminate() == 0
