"""A program that keeps undoing repairs costs the daemon next to no CPU time, and delays no other repair."""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from support import Times
from support.adversary import DEEDS, OTHER, Adversary
from support.cpu import MINUTE, MOST, shares_of_a_core
from support.daemon import StartDaemon
from support.instance import Instance
from support.programs import install
from support.waiting import wait_until

from binfmtd.model.stand_in import stand_in_name

BEGIN_SECONDS = 60  # for 600 repairs of the instance, on a busy machine
NAMES = [f"handler{number:02}" for number in range(32)]
CONFIG = (
    "architectures = []\n"
    + "".join(f"[handlers.{name}]\nmagic = '\\x00{name}'\ninterpreter = '/usr/bin/true'\n" for name in NAMES)
    + OTHER
)
POLICIES = {"register_unwanted": 'unmanaged = "remove"\n', "shadow": 'shadowed = "outrank"\n'}
CONTENDED = {"register_unwanted": "theirs"} | dict.fromkeys(
    ("switch_off", "flush", "switch_off_blindly", "flush_blindly"), "status"
)
STORMS = ["touch", "come_and_go", "replace_blindly"]
FIGHTS = [name for name in DEEDS if name not in STORMS]
ALWAYS = {"remove", "switch_off", "touch"}  # the rest take long, and run only in `make reliability`
ENDED = {"remove", "flush"}  # these tests wait for the end of the contention


@pytest.fixture
def minute(times: Times, deed: str) -> int:
    """Return how many seconds this run measures: 60, or fewer outside `make reliability`.

    Skips the deeds that only `make reliability` runs.
    """
    seconds = times(MINUTE)
    if seconds < MINUTE and deed not in ALWAYS:
        pytest.skip("only in make reliability")
    return seconds


@pytest.mark.parametrize("deed", FIGHTS)
def test_a_fight(instance: Instance, start_daemon: StartDaemon, minute: int, deed: str) -> None:
    """The daemon backs off, logs one line when that begins and one when it ends, and the status names the entry."""
    daemon = start_daemon(POLICIES.get(deed, "") + CONFIG, ("--log-level", "debug"))
    about = CONTENDED.get(deed, "other")
    with Adversary(instance, deed) as adversary:
        daemon.wait_for_log("contention_started", BEGIN_SECONDS, entry=about)
        (share,) = shares_of_a_core(minute, daemon.pid)
        status = daemon.wait_status(lambda status: status["contended"] == [about], "contention")
        if about == "other":  # its stand-in serves, or the adversary's entry
            states = {row["name"]: row["state"] for row in status["handlers"]}
            assert states["other"] in ("stand_in", "contended", "registered")
        if about != "status":
            took = repaired_at_once(instance, NAMES[0])
            print(f"{deed}: another entry was repaired after {took * 1000:.1f} ms")
        done = adversary.stop()
    print(f"{deed}: {done} times; the daemon used {share:.2%} of a core for {minute} s")
    if minute == MINUTE:
        assert share < MOST
        if deed in ENDED:
            daemon.wait_for_log("contention_ended", 2 * MINUTE, entry=about)
            daemon.wait_converged()
            assert len(daemon.logs("contention_ended")) == 1
            assert daemon.status()["contended"] == []
    assert len(daemon.logs("contention_started")) == 1
    for line in daemon.logs("done", action="register"):  # an entry that is undone during a pass waits for the next pass
        assert len(set(line.get("entries", ()))) == len(line.get("entries", ()))


def repaired_at_once(instance: Instance, name: str) -> float:
    """Remove an entry without contention, and return the seconds until it or its stand-in serves again."""
    began = time.monotonic()
    instance.remove(name)
    wait_until(lambda: {name, stand_in_name(name)} & set(instance.all_names()), what="a repair of another entry")
    return time.monotonic() - began


@pytest.mark.parametrize("deed", STORMS)
def test_a_storm(instance: Instance, start_daemon: StartDaemon, minute: int, deed: str) -> None:
    """Endless writes that need no repair soon throttle the reading of events; other entries are still repaired."""
    daemon = start_daemon(CONFIG)
    with Adversary(instance, deed) as adversary:
        wait_until(lambda: shares_of_a_core(0.5, daemon.pid)[0] < 0.3, 30, "a daemon that listens less often")
        if deed == "replace_blindly":  # each write defers the repair by one second at most: ten take ten seconds
            daemon.wait_for_log("contention_started", BEGIN_SECONDS)
        (share,) = shares_of_a_core(minute, daemon.pid)
        took = sorted(repaired_at_once(instance, name) * 1000 for name in NAMES[:5])
        done = adversary.stop()
    print(f"{deed}: {done} times; the daemon used {share:.2%} of a core for {minute} s")
    print(f"{deed}: another entry was repaired after {took[2]:.0f} ms (median of 5), {took[4]:.0f} ms at worst")
    if minute == MINUTE:
        assert share < MOST
    if deed != "replace_blindly":
        daemon.wait_converged()


def test_flushes_in_a_storm(instance: Instance, start_daemon: StartDaemon, times: Times) -> None:
    """Flushes during a storm are no contention, although inotify is not read during their repair: each counts once."""
    daemon = start_daemon(CONFIG)
    with Adversary(instance, "touch") as adversary:
        wait_until(lambda: shares_of_a_core(0.5, daemon.pid)[0] < 0.3, 30, "a daemon that listens less often")
        for _ in range(times(20)):
            before = instance.inodes()
            instance.remove("status")
            wait_until(partial(_anew, instance, before), 30, "all of them")
        adversary.stop()
    assert not daemon.logs("contention_started")


def _anew(instance: Instance, before: dict[str, int]) -> bool:
    """Return True if each proper entry has been registered again since ``before``."""
    inodes = instance.inodes()
    return all(inodes.get(name, before[name]) != before[name] for name in NAMES)


def test_a_busy_directory(instance: Instance, start_daemon: StartDaemon, times: Times, tmp_path: Path) -> None:
    """A program that endlessly creates and removes files beside an interpreter costs next to no CPU time either."""
    (tmp_path / "bin").mkdir()
    install(tmp_path / "bin" / "emulator", Path("/usr/bin/true").read_bytes())
    daemon = start_daemon(CONFIG + f"[handlers.here]\nmagic = '\\x00here'\ninterpreter = '{tmp_path}/bin/emulator'\n")
    script = "import os\nwhile True:\n os.close(os.open('x', os.O_CREAT | os.O_WRONLY))\n os.unlink('x')"
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path / "bin") as busy:
        try:
            wait_until(lambda: shares_of_a_core(0.5, daemon.pid)[0] < 0.1, 60, "a daemon that listens less often")
            (share,) = shares_of_a_core(minute := times(MINUTE), daemon.pid)
            took = sorted(repaired_at_once(instance, name) * 1000 for name in NAMES[:5])
        finally:
            busy.kill()
    print(f"the daemon used {share:.2%} of a core for {minute} s")
    print(f"another entry was repaired after {took[2]:.0f} ms (median of 5), {took[4]:.0f} ms at worst")
    if minute == MINUTE:
        assert share < MOST
    daemon.wait_converged()
