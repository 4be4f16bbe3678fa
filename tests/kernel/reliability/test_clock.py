"""The wall clock jumps by years, forth and back: nothing that the daemon does depends on it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cli import Cli
from support.daemon import Daemon
from support.instance import Instance, made_for_tests
from support.waiting import wait_until

StartDaemon = Callable[..., Daemon]
Times = Callable[[int], int]

CONFIG = r"""
architectures = []
[handlers.one]
magic = '\x00one'
interpreter = "/usr/bin/true"
flags = "F"
"""
DAY = 86400.0  # seconds
JUMPS = (3650, -3650, 2 / 24, 7300, 0)  # days from now


STALLED = 60  # seconds: under libfaketime a thread of Python may wait for seconds after a jump

Clock = Callable[[float], None]  # sets the clock that the daemon sees, to so many days from now


def libfaketime() -> str:
    for path in sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")):
        return str(path)
    pytest.skip("libfaketime is not there (Debian: apt-get install faketime)")


@pytest.fixture
def environment(tmp_path: Path, times: Times) -> dict[str, str]:
    """Return the variables with which a daemon sees a clock of its own; none on a machine whose clock may be set."""
    if made_for_tests():
        return {}
    if times(100) < 100:
        pytest.skip("only in make reliability: on a busy machine libfaketime may stop a thread of Python for ever")
    return {
        "LD_PRELOAD": libfaketime(),
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "clock"),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


@pytest.fixture
def set_clock(environment: dict[str, str], tmp_path: Path) -> Iterator[Clock]:
    """Return a function that sets the clock: the real one, or the one in the file that libfaketime reads."""
    wall, monotonic = time.time(), time.monotonic()

    def set_real(days: float) -> None:
        time.clock_settime(time.CLOCK_REALTIME, wall + time.monotonic() - monotonic + days * DAY)

    def set_faked(days: float) -> None:
        new = tmp_path / "clock.new"
        new.write_text(f"{days * DAY:+.0f}")
        new.rename(tmp_path / "clock")  # in one step, because the file may be read at any time

    set_to = set_faked if environment else set_real
    set_to(0)
    yield set_to
    set_to(0)


def repaired(instance: Instance) -> None:
    instance.remove("one")
    wait_until(lambda: instance.names() == ["one"], what="the repair")


def test_the_clock_on_the_wall_jumps(
    instance: Instance, start_daemon: StartDaemon, tmp_path: Path, environment: dict[str, str], set_clock: Clock
) -> None:
    """After each jump the daemon reloads its config, ends a pause after the given time, and repairs."""
    daemon = start_daemon(CONFIG, environment=environment)
    cli = Cli(instance, tmp_path)
    cli.state_directory = daemon.state_directory
    for jump in JUMPS:
        set_clock(jump)
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
