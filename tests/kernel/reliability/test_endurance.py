"""Endless repairs, storms of signals and wrong clocks neither leak anything nor stop the daemon."""

import ast
import os
import signal
from functools import partial
from pathlib import Path

import pytest
from support import Times
from support.daemon import Daemon, StartDaemon
from support.instance import Instance
from support.programs import exits_with, install
from support.waiting import wait_until

import binfmtd
from binfmtd.catalog.architectures import CATALOG

ARCHITECTURES = [name for name in CATALOG if name not in ("i386", "x86_64")]  # native programs get no handler
ALL = f"""
architectures = {ARCHITECTURES!r}
[emulators]
paths = ["{{interpreter}}"]
flags = "F"
"""
ONE = r"""
architectures = []
[handlers.{name}]
magic = '\x00one'
interpreter = "/usr/bin/true"
"""
KIBIBYTES_OF_GROWTH = 1024  # in 100,000 repairs: a leak of one small object in each would be ten times that


def resident_kibibytes(daemon: Daemon) -> int:
    with open(f"/proc/{daemon.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def descriptors(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def stands_again(instance: Instance, gone: set[int]) -> bool:
    """Return True if exactly the proper entries stand, all registered anew; an inode number is never used twice."""
    found = instance.inodes()
    return found.keys() == {f"qemu-{name}" for name in ARCHITECTURES} and gone.isdisjoint(found.values())


def have_repaired(instance: Instance, interpreter: Path, rounds: int) -> None:
    """Have all entries repaired so often, by changes that are no contention: upgrades, now and then a flush."""
    for number in range(rounds):
        gone = set(instance.inodes().values())
        if number % 50:
            install(interpreter, exits_with(number % 100))
        else:
            instance.remove("status")
        wait_until(partial(stands_again, instance, gone), what="all entries")


def test_a_soak(instance: Instance, start_daemon: StartDaemon, times: Times, tmp_path: Path) -> None:
    """Neither memory nor the number of descriptors grows in 100,000 repairs."""
    (tmp_path / "bin").mkdir(mode=0o755)
    interpreter = install(tmp_path / "bin" / "interpreter", exits_with(0))
    daemon = start_daemon(ALL.format(interpreter=interpreter), ("--log-level", "debug"))
    daemon.wait_for_log("modules_loaded", 60)  # a thread loads them when the daemon is ready
    rounds = times(100_000) // len(ARCHITECTURES) + 1
    have_repaired(instance, interpreter, rounds // 10 + 10)  # now everything exists that is made only once
    daemon.wait_converged()
    foreign_entries, files = resident_kibibytes(daemon), descriptors(daemon)
    have_repaired(instance, interpreter, rounds)
    status = daemon.wait_converged()
    grown = resident_kibibytes(daemon) - foreign_entries
    print(f"{status['repairs']} repairs: {foreign_entries} KiB, and {grown} more at the end; {files} descriptors")
    assert status["repairs"] >= rounds * len(ARCHITECTURES)
    assert grown <= KIBIBYTES_OF_GROWTH
    wait_until(lambda: descriptors(daemon) <= files, what="no more descriptors than before")


def configure(daemon: Daemon, name: str) -> None:
    """Replace the config: a reload is under way, and an empty config means all architectures."""
    beside = daemon.config.with_suffix(".new")
    beside.write_text(ONE.format(name=name))
    beside.rename(daemon.config)


def test_a_storm_of_hangups(instance: Instance, start_daemon: StartDaemon) -> None:
    """After 10,000 SIGHUPs during config changes and flushes the last config is in force, without an error."""
    daemon = start_daemon(ONE.format(name="first"))
    for number in range(10_000):
        if number % 1000 == 0:
            configure(daemon, f"number-{number}")
            instance.remove("status")
        daemon.reload()
    configure(daemon, "last")
    daemon.reload()
    wait_until(lambda: instance.names() == ["last"], what="the last config")
    daemon.wait_converged()
    assert not daemon.logs(level="error")
    assert all(line["event"] for line in daemon.logs()), "a traceback"
    assert daemon.terminate() == 0


@pytest.mark.parametrize("number", [signal.SIGCHLD, signal.SIGPIPE, signal.SIGWINCH, signal.SIGCONT])
def test_signals_that_mean_nothing(instance: Instance, start_daemon: StartDaemon, number: int) -> None:
    """A signal that interrupts system calls (EINTR) prevents no repair."""
    daemon = start_daemon(ONE.format(name="one"))
    for _ in range(5):
        instance.remove("one")
        for _ in range(200):
            daemon.process.send_signal(number)
        wait_until(lambda: "one" in instance.names(), what="the repair")
    daemon.wait_converged()
    assert daemon.terminate() == 0


@pytest.mark.parametrize("when", [0, 2**32, -(2**31)])
def test_a_clock_that_was_wrong(instance: Instance, start_daemon: StartDaemon, when: int) -> None:
    """A config whose mtime is in 1970, in 2106 or before the epoch is loaded like any other."""
    daemon = start_daemon(ONE.format(name="one"))
    daemon.config.write_text(ONE.format(name="two"))
    os.utime(daemon.config, (when, when))
    daemon.reload()
    wait_until(lambda: instance.names() == ["two"], what="the reload")
    daemon.wait_converged()


def test_only_monotonic_time_decides() -> None:
    """Only timestamps, ages and the time since a config change use the wall clock; all else uses monotonic time."""
    asked = set()
    package = Path(binfmtd.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            wall = isinstance(node, ast.Attribute) and node.attr in ("time", "time_ns", "now", "utcnow", "today")
            imported = (
                isinstance(node, ast.ImportFrom) and node.module == "time" and "time" in {a.name for a in node.names}
            )
            if wall or imported:
                asked.add(str(path.relative_to(package)))
    wanted = {
        "daemon/metrics/http_answer.py",  # ages on the page
        "daemon/reporting/reporter.py",
        "daemon/reporting/status_file.py",
        "cli/commands/probe.py",
        "cli/commands/status.py",  # ages
        "cli/store/adding.py",  # when a version was added
        "cli/status_view.py",
        "cli/status_watch.py",
        "config/source.py",
        "host/systemd.py",
    }
    assert asked == wanted
