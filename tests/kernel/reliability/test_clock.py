"""The wall clock jumps by years, forth and back: nothing that the daemon does depends on it."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cli import Cli
from support.daemon import CONFIG, StartDaemon
from support.instance import Instance, made_for_tests
from support.waiting import wait_until

DAY = 86400.0  # seconds
JUMPS = (3650, -3650, 2 / 24, 7300, 0)  # days from now


Clock = Callable[[float], None]  # sets the clock that the daemon sees, to so many days from now


@pytest.fixture
def offset(tmp_path: Path) -> Path | None:
    """Return the file with the seconds that the daemon's clock is ahead; None where the machine's clock may be set."""
    if made_for_tests():
        return None
    file = tmp_path / "offset"
    file.write_bytes(bytes(8))
    return file


@pytest.fixture
def environment(tmp_path: Path, offset: Path | None) -> dict[str, str]:
    """Return the variables with which a daemon sees a clock of its own."""
    if offset is None:
        return {}
    if shutil.which("cc") is None:
        pytest.skip("no C compiler is here to make the daemon's clock (Debian: apt-get install gcc)")
    library = str(tmp_path / "wall_clock.so")
    source = str(Path(__file__).with_name("wall_clock.c"))
    options = ("-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC")
    subprocess.run(["cc", *options, "-o", library, source], check=True)
    return {"LD_PRELOAD": library, "WALL_CLOCK_OFFSET": str(offset)}


@pytest.fixture
def set_clock(offset: Path | None) -> Iterator[Clock]:
    """Return a function that sets the clock: the real one, or the daemon's own."""
    wall, monotonic = time.time(), time.monotonic()

    def set_real(days: float) -> None:
        time.clock_settime(time.CLOCK_REALTIME, wall + time.monotonic() - monotonic + days * DAY)

    def set_own(days: float) -> None:
        assert offset is not None
        with offset.open("r+b") as file:  # in place: the daemon has mapped it
            file.write(int(days * DAY).to_bytes(8, sys.byteorder, signed=True))

    set_to = set_real if offset is None else set_own
    set_to(0)
    yield set_to
    set_to(0)


def repaired(instance: Instance) -> None:
    instance.remove("one")
    wait_until(lambda: instance.names() == ["one"], what="the repair")


def test_the_clock_on_the_wall_jumps(
    instance: Instance, start_daemon: StartDaemon, cli: Cli, environment: dict[str, str], set_clock: Clock
) -> None:
    """After each jump the daemon reloads its config, ends a pause after the given time, and repairs."""
    daemon = start_daemon(CONFIG, environment=environment)
    cli.state_directory = daemon.state_directory
    for jump in JUMPS:
        set_clock(jump)
        so_far = len(daemon.logs("config_reloaded"))
        daemon.reload()
        wait_until(lambda n=so_far: len(daemon.logs("config_reloaded")) > n, what="the reload")  # type: ignore[misc]
        so_far = len(daemon.logs("pause_ended"))
        assert cli("pause", "one", "--for", "2s").status == 0
        wait_until(lambda n=so_far: len(daemon.logs("pause_ended")) > n, what="the pause's end")  # type: ignore[misc]
        repaired(instance)
    daemon.wait_status(lambda status: status["state"] == "converged" and not status["paused"], "no pause")
    years = {line["timestamp"][:4] for line in daemon.logs()}
    assert len(years) > 3, "the clock did not jump"
    assert daemon.terminate() == 0
