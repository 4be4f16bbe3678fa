"""Real-time scheduling of the daemon's loop: where it is allowed, where it is not, and what ends it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from support.daemon import Daemon
from support.instance import Instance
from support.waiting import wait_until

from binfmtd.kernel.scheduling import LONGEST_REAL_TIME

StartDaemon = Callable[..., Daemon]

CONFIG = """
architectures = []
[handlers.one]
magic = 'one'
interpreter = "/usr/bin/true"
"""
REAL_TIME = ("--real-time",)
FIFO = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
# Prints the policies of the thread that asks, of a thread and of a process that it starts.
POLICIES = """
import os, subprocess, sys, threading
from binfmtd.kernel.scheduling import use_real_time
use_real_time()
print(os.sched_getscheduler(0), flush=True)
thread = threading.Thread(target=lambda: print(os.sched_getscheduler(0), flush=True))
thread.start()
thread.join()
subprocess.run([sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"], check=True)
"""
# Takes CPU time without a wait until it is scheduled ordinarily; prints how many seconds that took.
HOGS = """
import os, time
from binfmtd.daemon.signals import Signals
from binfmtd.kernel.scheduling import use_real_time
signals = Signals()
use_real_time()
while os.sched_getscheduler(0) & os.SCHED_FIFO:
    pass
assert signals.real_time_ended
print(time.thread_time())
"""


@pytest.fixture
def allowed() -> None:
    """Skip where this process may not have what is tested."""
    with suppress(PermissionError):
        before = os.sched_getscheduler(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, before, os.sched_param(0))
        return
    pytest.skip("real-time scheduling takes root, or RLIMIT_RTPRIO")


def python(script: str) -> list[str]:
    """Run it, and return the lines that it prints."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


class InTheMountNamespace:
    """An instance in whose user namespace nothing is started: root keeps the privileges that it has outside."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command where the instance is mounted."""
        return subprocess.Popen(["nsenter", f"--mount=/proc/{self._instance.pid}/ns/mnt", *command], **options)


@pytest.fixture
def privileged_daemon(instance: Instance, tmp_path: Path, allowed: None) -> Iterator[Daemon]:  # noqa: ARG001
    """Yield a daemon that may have real-time priority, and has."""
    starts = cast("Instance", InTheMountNamespace(instance))
    with closing(Daemon(starts, tmp_path, CONFIG, REAL_TIME)) as daemon:
        daemon.wait_ready()
        daemon.wait_for_log("real_time")
        yield daemon


def policies(daemon: Daemon) -> list[int]:
    """Return those of its threads, the loop's first."""
    threads = [daemon.pid, *(int(name) for name in os.listdir(f"/proc/{daemon.pid}/task") if int(name) != daemon.pid)]
    found = []
    for thread in threads:
        with suppress(ProcessLookupError):  # it has ended
            found.append(os.sched_getscheduler(thread))
    return found


@pytest.mark.usefixtures("allowed")
def test_only_the_thread_that_asks() -> None:
    """What it starts is scheduled ordinarily."""
    assert python(POLICIES) == [str(FIFO), str(os.SCHED_OTHER), str(os.SCHED_OTHER)]


@pytest.mark.usefixtures("allowed")
def test_a_thread_that_never_waits_loses_it() -> None:
    """A fault keeps a core from all others for a moment only."""
    (seconds,) = python(HOGS)
    assert float(seconds) >= LONGEST_REAL_TIME / 2


def test_the_loop_alone(privileged_daemon: Daemon, instance: Instance) -> None:
    """The daemon's other threads have no such priority; and it repairs."""
    loop, *others = policies(privileged_daemon)
    assert loop == FIFO
    assert all(policy & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER for policy in others)
    instance.remove("one")
    wait_until(lambda: "one" in instance.names(), what="the repair")
    assert policies(privileged_daemon)[0] == FIFO


def test_after_sigxcpu(privileged_daemon: Daemon, instance: Instance) -> None:
    """The kernel sends it to a thread that never waits: the daemon goes on with ordinary priority, and logs that."""
    os.kill(privileged_daemon.pid, signal.SIGXCPU)
    assert "0.5 s" in privileged_daemon.wait_for_log("real_time_ended")["reason"]
    assert policies(privileged_daemon)[0] & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER
    instance.remove("one")
    wait_until(lambda: "one" in instance.names(), what="the repair")


def test_not_allowed(start_daemon: StartDaemon, instance: Instance) -> None:
    """The daemon does without, and the log says how to allow it."""
    daemon = start_daemon(CONFIG, REAL_TIME)
    reason = daemon.wait_for_log("real_time_refused")["reason"]
    assert reason.startswith("Operation not permitted: allow it with LimitRTPRIO=1 (systemd)")
    assert policies(daemon)[0] == os.SCHED_OTHER
    instance.remove("one")
    wait_until(lambda: "one" in instance.names(), what="the repair")


def test_not_asked_for(start_daemon: StartDaemon) -> None:
    """Without the option nothing is tried, and nothing said."""
    daemon = start_daemon(CONFIG)
    assert policies(daemon)[0] == os.SCHED_OTHER
    assert [line for line in daemon.logs() if line["event"].startswith("real_time")] == []
