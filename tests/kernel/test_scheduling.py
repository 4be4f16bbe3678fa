"""Real-time scheduling of the daemon's loop: if it is allowed, if it is not, and what ends it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from support.daemon import Daemon, StartDaemon
from support.instance import Instance
from support.slices import SLICE, kernel_has_slices, ordinary_scheduling
from support.waiting import wait_until

from binfmtd.host.scheduling import LONGEST_REAL_TIME

CONFIG = """
architectures = []
[handlers.one]
magic = 'one'
interpreter = "/usr/bin/true"
"""
REAL_TIME = ("--real-time",)
FIFO = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
# Prints policy, niceness and slice: of this thread, of another thread of ours, of a process, and of this thread again,
# in a block without real-time priority and after it.
POLICIES = """
import os, subprocess, sys, threading
sys.path.insert(0, "tests")
from support.slices import slice_of
from binfmtd.host.scheduling import begin_thread, ordinary_time, use_real_time, use_short_slices
def show():
    policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
    print(policy, os.getpriority(os.PRIO_PROCESS, 0), slice_of(threading.get_native_id()), flush=True)
def ours():
    begin_thread()
    show()
os.setpriority(os.PRIO_PROCESS, 0, -3)
use_short_slices()
show()
use_real_time()
show()
thread = threading.Thread(target=ours)
thread.start()
thread.join()
subprocess.run([sys.executable, "-c", "import os; print(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))"])
with ordinary_time():
    show()
show()
"""
# Takes CPU time without a wait until it is scheduled ordinarily; prints how many seconds that took.
HOGS = """
import os, time
from binfmtd.daemon.signals import Signals
from binfmtd.host.scheduling import use_real_time
signals = Signals()
use_real_time()
signals.expect_real_time_to_end()
began = time.thread_time()
while os.sched_getscheduler(0) & os.SCHED_FIFO:
    pass
assert signals.real_time_ended
print(time.thread_time() - began)
"""


@pytest.fixture(autouse=True)
def _ordinary() -> Iterator[None]:
    with ordinary_scheduling(0):
        yield


@pytest.fixture
def allowed() -> None:
    """Skip if this process may not have real-time priority."""
    with suppress(PermissionError):
        before = os.sched_getscheduler(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, before, os.sched_param(0))
        return
    pytest.skip("real-time scheduling takes root, or RLIMIT_RTPRIO")


def python(script: str) -> list[str]:
    """Run the script, and return the lines that it prints."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def privileged_daemon(instance: Instance, tmp_path: Path, allowed: None) -> Iterator[Daemon]:  # noqa: ARG001
    """Yield a daemon that may have real-time priority, and has it."""
    with closing(Daemon(instance, tmp_path, CONFIG, REAL_TIME, privileged=True)) as daemon:
        daemon.wait_ready()
        daemon.wait_for_log("real_time")
        yield daemon


def policies(daemon: Daemon) -> list[int]:
    """Return the policies of the daemon's threads, the loop's first."""
    threads = [daemon.pid, *(int(name) for name in os.listdir(f"/proc/{daemon.pid}/task") if int(name) != daemon.pid)]
    found = []
    for thread in threads:
        with suppress(ProcessLookupError):  # it has ended
            found.append(os.sched_getscheduler(thread))
    return found


@pytest.mark.usefixtures("allowed")
def test_only_the_calling_thread() -> None:
    """Only the calling thread gets real-time priority; our other threads have the process's niceness and slice."""
    own = SLICE if kernel_has_slices() else 0
    other, fifo = f"{os.SCHED_OTHER} -3 {own}", f"{os.SCHED_FIFO} -3"
    before, real_time, thread, process, block, after = python(POLICIES)
    assert (before, thread, block) == (other, other, other)
    assert process == f"{os.SCHED_OTHER} 0"
    assert [line.rpartition(" ")[0] for line in (real_time, after)] == [fifo, fifo]


@pytest.mark.usefixtures("allowed")
def test_without_real_time_the_signal_ends_the_process() -> None:
    """Without real-time priority SIGXCPU, which the kernel sends for RLIMIT_CPU as well, keeps its default action."""
    script = """
import signal
from binfmtd.daemon.signals import Signals
Signals().expect_real_time_to_end()
signal.raise_signal(signal.SIGXCPU)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, cwd="/", env=os.environ)
    assert done.returncode == -signal.SIGXCPU


@pytest.mark.usefixtures("allowed")
def test_a_thread_that_never_waits_loses_it() -> None:
    """A thread that never waits loses real-time priority after a moment, so a fault does not block a core."""
    (seconds,) = python(HOGS)
    assert LONGEST_REAL_TIME / 2 <= float(seconds) <= LONGEST_REAL_TIME * 2


def test_the_loop_alone(privileged_daemon: Daemon, instance: Instance) -> None:
    """Only the loop has real-time priority, not the daemon's other threads, and not during a pass."""
    wait_until(lambda: policies(privileged_daemon)[0] == FIFO, what="the loop, when it waits")  # but not in a pass
    _, *others = policies(privileged_daemon)
    assert others
    assert all(policy & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER for policy in others)
    instance.remove("one")
    wait_until(lambda: "one" in instance.names(), what="the repair")
    wait_until(lambda: policies(privileged_daemon)[0] == FIFO, what="real-time priority after the pass")


def test_after_sigxcpu(privileged_daemon: Daemon, instance: Instance) -> None:
    """After SIGXCPU, as the kernel sends it to a thread that never waits, the daemon has ordinary priority."""
    wait_until(lambda: policies(privileged_daemon)[0] == FIFO, what="the loop, when it waits")
    os.kill(privileged_daemon.pid, signal.SIGXCPU)
    assert "RLIMIT_RTTIME" in privileged_daemon.wait_for_log("real_time_ended")["reason"]
    assert policies(privileged_daemon)[0] & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER
    instance.remove("one")
    wait_until(lambda: "one" in instance.names(), what="the repair")


def test_not_allowed(start_daemon: StartDaemon, instance: Instance) -> None:
    """Without the permission the daemon runs with ordinary priority, and the log has the remedy."""
    if instance.lent:
        pytest.skip("root of this machine may have real-time priority; elsewhere the daemon is in a user namespace")
    daemon = start_daemon(CONFIG, REAL_TIME)
    reason = daemon.wait_for_log("real_time_refused")["reason"]
    assert reason.startswith("Operation not permitted: allow it with LimitRTPRIO=1 (systemd)")
    assert policies(daemon)[0] == os.SCHED_OTHER
    instance.remove("one")
    wait_until(lambda: "one" in instance.names(), what="the repair")


def test_without_the_option(start_daemon: StartDaemon) -> None:
    """Without the option nothing is tried, and nothing is logged."""
    daemon = start_daemon(CONFIG)
    assert policies(daemon)[0] == os.SCHED_OTHER
    assert [line for line in daemon.logs() if line["event"].startswith("real_time")] == []
