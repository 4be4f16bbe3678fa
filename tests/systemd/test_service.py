"""The service under real systemd: its life, and what happens to it on a build host."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from support.booted import CONFIG, DROP_INS, ENTRY, MOUNT_POINT, UNIT, Booted
from support.cli import CHECKOUT
from support.slices import PRINT_SLICE, SLICE, kernel_has_slices
from support.storm import Storm
from support.waiting import SLOWNESS, wait_until

from binfmtd.catalog.architectures import CATALOG
from binfmtd.formats.register_line import encode_line
from binfmtd.model.handler import Flags, Registration

pytestmark = pytest.mark.systemd

ONE_HANDLER = 'architectures = ["riscv64"]\n'
WATCHDOG_SECONDS = 10 * SLOWNESS  # a daemon that runs may be late with a ping by half of it
DEADLINE_SECONDS = 30
INTERPRETER = "/usr/bin/qemu-riscv64"
UPGRADED = 52
PROBE = "binfmtd-probe.service"
# Fills the socket to the journal that a process has as its standard error, without making it non-blocking.
FILL_STDERR = """
import ctypes, os, socket, sys
PIDFD_GETFD = 438
descriptor = ctypes.CDLL(None).syscall(PIDFD_GETFD, os.pidfd_open(int(sys.argv[1])), 2, 0)
stream = socket.socket(fileno=descriptor)
try:
    while True:
        stream.send(b"x" * 4096, socket.MSG_DONTWAIT)
except BlockingIOError:
    print("full")
"""


def test_starts(service: Booted) -> None:
    """The unit is ready when every handler is registered, its status text counts them, and it has no capability."""
    assert service.show("ActiveState") == "active"
    assert service.show("Type") == "notify"
    assert service.show("StatusText") == "1 handler in order"
    assert service.answer() == 51
    pid = service.show("MainPID")
    status = service.run("cat", f"/proc/{pid}/status").stdout
    assert [line.split()[1] for line in status.splitlines() if line.startswith("Cap")] == ["0" * 16] * 5


@pytest.fixture
def ordinary(service: Booted) -> Iterator[Booted]:
    """Yield the machine with the service started anew, with ordinary scheduling.

    With SCHED_IDLE, which `chrt -i` before these tests would give to it, the kernel has no slices for it, and does not
    let it change its policy.
    """
    with service.ordinary_scheduling():
        service.systemctl("restart", UNIT)
        yield service


def test_short_slices(ordinary: Booted) -> None:
    """The unit's sandbox allows the daemon to set short slices of CPU time."""
    if not kernel_has_slices():
        pytest.skip("this kernel has no slices of single threads: they came with Linux 6.12")
    assert ordinary.run("python3", "-c", PRINT_SLICE, ordinary.show("MainPID")).stdout == f"{SLICE}\n"


def test_real_time(ordinary: Booted) -> None:
    """The unit allows the loop real-time priority.  In the test's user namespace the kernel refuses it; that is logged.

    A sandbox that forbids the system call would have the same effect, so it is called there with another policy.
    """
    assert (ordinary.show("LimitRTPRIO"), ordinary.show("RestrictRealtime")) == ("1", "no")
    (line,) = wait_until(
        lambda: ordinary.journal("real_time_refused")[-1:], DEADLINE_SECONDS, "the log line of the refusal"
    )
    assert "RTPRIO" in line["MESSAGE"]
    batch = "/usr/bin/python3 -c 'import os; os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))'"
    ordinary.write(f"{DROP_INS}/batch.conf", f"[Service]\nExecStartPost={batch}\n")
    ordinary.systemctl("daemon-reload")
    ordinary.systemctl("restart", UNIT)


def test_starts_with_the_system(service: Booted) -> None:
    """After `systemctl enable` multi-user.target starts it, after systemd-binfmt and before the services that build."""
    service.systemctl("enable", UNIT)
    assert UNIT in service.systemctl("show", "--property=Wants", "multi-user.target").stdout
    assert "systemd-binfmt.service" in service.show("After")
    assert {"docker.service", "containerd.service", "buildkit.service"} <= set(service.show("Before").split())


def test_repairs(service: Booted) -> None:
    """The sandboxed daemon registers a removed entry again; status text and journal report it, with priorities."""
    before = len(service.journal("repaired"))
    assert service.run("sh", "-c", f"echo -1 >{MOUNT_POINT}/{ENTRY}").status == 0
    wait_until(lambda: service.show("StatusText") == "1 handler in order, 1 repair", DEADLINE_SECONDS, "the repair")
    assert service.answer() == 51
    (line,) = wait_until(lambda: service.journal("repaired")[before:], DEADLINE_SECONDS, "the log line of the repair")
    assert f"{ENTRY} removed by another process, its stand-in served, registered again after " in line["MESSAGE"]
    assert line["PRIORITY"] == "4"
    passed = service.journal("pass_finished")[-1]
    assert (passed["PRIORITY"], passed["SYSLOG_IDENTIFIER"]) == ("6", "binfmtd")


def test_reload(service: Booted) -> None:
    """`systemctl reload` returns when a good config is in force."""
    pid = service.show("MainPID")
    service.write(CONFIG, 'architectures = []\n[handlers.x]\nextension = "x"\ninterpreter = "/usr/bin/true"\n')
    service.systemctl("reload", UNIT)
    assert "x" in service.entries()
    assert ENTRY not in service.entries()
    assert service.show("MainPID") == pid


def test_reload_of_a_bad_config(service: Booted) -> None:
    """A reload of an invalid config fails, the journal has the reason, and the old config stays in force."""
    before = len(service.journal("config_rejected"))
    service.write(CONFIG, "architecturez = []\n")
    reload = service.run("systemctl", "reload", UNIT)
    assert reload.status != 0
    assert "failed" in reload.stderr
    (rejected,) = wait_until(
        lambda: service.journal("config_rejected")[before:], DEADLINE_SECONDS, "the log line of the rejection"
    )
    assert "architecturez" in rejected["MESSAGE"]
    assert rejected["PRIORITY"] == "3"
    assert service.show("ActiveState") == "active"
    assert service.show("StatusText").startswith("1 handler in order; the config files are invalid now")
    assert service.answer() == 51


def test_another_state_directory(service: Booted) -> None:
    """With the two lines of docs/systemd.md the daemon and `systemctl reload` use another state directory."""
    lines = ("Environment=BINFMTD_STATE_DIR=/run/other", "RuntimeDirectory=other")
    assert all(f"`{line}`" in (CHECKOUT / "docs/systemd.md").read_text() for line in lines)
    service.write(f"{DROP_INS}/state.conf", "\n".join(["[Service]", *lines, ""]))
    service.write(CONFIG, f'{ONE_HANDLER}on_stop = "remove"\n')
    service.systemctl("daemon-reload")
    service.systemctl("restart", UNIT)
    service.systemctl("reload", UNIT)
    assert service.run("binfmtd", "status", "--check", "--state-dir", "/run/other").status == 0
    assert service.run("test", "-e", "/run/other/ledger.json").status == 0
    service.systemctl("stop", UNIT)
    assert ENTRY not in service.entries()


def test_what_others_can_change_is_refused(service: Booted) -> None:
    """The service refuses files that other users can write to, as `check` does, though its own view is read-only."""
    interpreter, line = "/usr/local/bin/open", f"{ONE_HANDLER}[handlers.x]\nextension = 'x'\n"
    service.write(interpreter, "#!/bin/sh\n")
    service.run("chmod", "777", interpreter)
    service.write(CONFIG, f"{line}interpreter = '{interpreter}'\n")
    service.systemctl("restart", UNIT)
    assert "x" not in service.entries()
    assert "refused" in service.run("binfmtd", "status").stdout
    assert "is writable by other users" in service.run("binfmtd", "check").stderr
    service.write(CONFIG, f"{line}interpreter = '/usr/bin/true'\n")
    service.run("chmod", "666", CONFIG)
    try:
        assert "is writable by other users" in service.run("binfmtd", "check").stderr
        assert service.run("systemctl", "reload", UNIT).status != 0
        service.run("systemctl", "restart", UNIT)
        assert "x" not in service.entries()
        assert service.show("ExecMainStatus") == "78"
    finally:
        service.run("chmod", "644", CONFIG)
        service.systemctl("reset-failed", UNIT)


def test_a_stopped_journal(service: Booted) -> None:
    """If nothing reads the log any more, repairs, a reload and a stop still work."""
    service.systemctl("kill", "--signal=STOP", "systemd-journald.service")
    try:
        assert service.run("python3", "-c", FILL_STDERR, service.show("MainPID")).stdout == "full\n"
        assert service.run("sh", "-c", f"echo -1 >{MOUNT_POINT}/{ENTRY}").status == 0
        wait_until(lambda: service.answer() == 51 and ENTRY in service.entries(), DEADLINE_SECONDS, "the repair")
        service.write(CONFIG, f"{ONE_HANDLER}[handlers.x]\nextension = 'x'\ninterpreter = '/usr/bin/true'\n")
        service.systemctl("reload", UNIT)
        assert {ENTRY, "x"} <= set(service.entries())
        service.systemctl("stop", UNIT)
        assert service.show("Result") == "success"
    finally:
        service.systemctl("kill", "--signal=CONT", "systemd-journald.service")


def test_restart(service: Booted) -> None:
    """No execution fails while the service restarts, and the new daemon recognises the entries as its own."""
    inode = service.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout
    with Storm(service, expected=51) as storm:
        service.systemctl("restart", UNIT)
        assert storm.end() > 0
    assert service.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout == inode


def test_watchdog(service: Booted) -> None:
    """systemd kills and restarts a daemon that hangs; a daemon that runs sends its pings."""
    service.write(f"{DROP_INS}/watchdog.conf", f"[Service]\nWatchdogSec={WATCHDOG_SECONDS}s\n")
    service.systemctl("daemon-reload")
    service.systemctl("restart", UNIT)
    pid = service.show("MainPID")
    started = service.show("WatchdogTimestampMonotonic")
    wait_until(
        lambda: service.show("WatchdogTimestampMonotonic") != started, WATCHDOG_SECONDS + DEADLINE_SECONDS, "a ping"
    )
    assert service.show("MainPID") == pid
    assert service.run("sh", "-c", f"kill -STOP {pid}").status == 0
    wait_until(lambda: service.show("NRestarts") == "1", WATCHDOG_SECONDS + DEADLINE_SECONDS, "the restart")
    wait_until(lambda: service.show("ActiveState") == "active", DEADLINE_SECONDS, "the new daemon")
    assert service.show("MainPID") not in ("0", pid)
    assert service.answer() == 51


def test_stops_at_once(service: Booted) -> None:
    """Stopping takes less than a second by systemd's own clock; on a slow machine, less than 50 starts of Python."""
    timed = service.run("sh", "-c", "t=$(date +%s%N); /usr/bin/python3 -I -c pass; echo $(($(date +%s%N) - t))")
    before = len(service.journal())
    service.systemctl("stop", UNIT)
    stopping, stopped = (_last_said(service, word) for word in ("Stopping", "Stopped"))
    assert 0 < stopped - stopping < max(1, 50 * int(timed.stdout) / 1e9)
    assert not [line for line in service.journal()[before:] if "SIGKILL" in line["MESSAGE"]]
    assert ENTRY in service.entries(), "the entries stay"


def test_stopped_while_it_starts(service: Booted) -> None:
    """A unit that is stopped while a command of ours runs before the daemon has not failed."""
    service.write(f"{DROP_INS}/slow.conf", "[Service]\nExecStartPre=/usr/bin/binfmtd wait s390x --timeout 1h\n")
    service.systemctl("daemon-reload")
    service.systemctl("stop", UNIT)
    service.systemctl("start", "--no-block", UNIT)

    def waits() -> bool:
        """Return True if that command runs and has a handler for SIGTERM."""
        status = service.run("cat", f"/proc/{service.show('ControlPID')}/status").stdout
        command = service.run("cat", f"/proc/{service.show('ControlPID')}/cmdline").stdout
        caught = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:")]
        return "\0wait\0" in command and bool(caught and caught[0] & 1 << (signal.SIGTERM - 1))

    wait_until(waits, DEADLINE_SECONDS, "the command before the daemon")
    service.systemctl("stop", UNIT)
    assert (service.show("ActiveState"), service.show("Result")) == ("inactive", "success")


def test_stopped_before_a_command_handles_sigterm(service: Booted) -> None:
    """A unit has not failed if SIGTERM kills a command before the daemon, such as a Python that has just started."""
    service.write(f"{DROP_INS}/slow.conf", "[Service]\nExecStartPre=/bin/sleep 1h\n")
    service.systemctl("daemon-reload")
    service.systemctl("stop", UNIT)
    service.systemctl("start", "--no-block", UNIT)

    def sleeps() -> bool:
        return service.run("cat", f"/proc/{service.show('ControlPID')}/comm").stdout == "sleep\n"

    wait_until(sleeps, DEADLINE_SECONDS, "the command before the daemon")
    service.systemctl("stop", UNIT)
    assert (service.show("ActiveState"), service.show("Result")) == ("inactive", "success")


def test_a_signal_before_python_has_started(service: Booted) -> None:
    """The kernel keeps a SIGHUP that comes before Python has started; the daemon then reads its config again."""
    start = service.show("ExecStart").partition("argv[]=")[2].partition(" ;")[0]
    early = start.replace("/usr/bin/binfmtd run", "/bin/sh -c 'kill -HUP $$$$; exec /usr/bin/binfmtd run'")
    assert early != start
    service.write(f"{DROP_INS}/early.conf", f"[Service]\nExecStart=\nExecStart={early}\n")
    service.systemctl("daemon-reload")
    before = len(service.journal("config_reloaded"))
    service.run("systemctl", "restart", UNIT)  # it fails where the daemon ends before it is ready
    wait_until(lambda: service.journal("config_reloaded")[before:], DEADLINE_SECONDS, "the reload")
    # The log line comes between RELOADING=1 and READY=1.
    wait_until(lambda: service.show("ActiveState") == "active", DEADLINE_SECONDS, "the end of the reload")


def _last_said(service: Booted, word: str) -> float:
    """Return when systemd has sent its last message with this word, in seconds: journald may have taken it in later."""
    said = [line for line in service.journal() if line["MESSAGE"].startswith(f"{word} {UNIT}")][-1]
    return int(said.get("_SOURCE_REALTIME_TIMESTAMP", said["__REALTIME_TIMESTAMP"])) / 1e6


def test_systemd_binfmt_restarts(service: Booted) -> None:
    """A restart of systemd-binfmt, which flushes all, succeeds; the entries come back, and the journal names it."""
    before = len(service.journal("repaired"))
    inode = service.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout
    assert service.restart_systemd_binfmt().status == 0

    def registered_again() -> bool:
        now = service.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}")
        return now.status == 0 and now.stdout != inode

    wait_until(registered_again, DEADLINE_SECONDS, "the entry")
    assert service.answer() == 51
    words = f"{ENTRY} removed together with all other entries by systemd-binfmt.service, repaired in "

    def named() -> bool:  # a slow systemd leaves time for a repair between the flush at its end and that at its start
        return any(words in line["MESSAGE"] for line in service.journal("repaired")[before:])

    wait_until(named, DEADLINE_SECONDS, "the log line of the repair")


def test_debians_rule_of_the_same_name(service: Booted) -> None:
    """After each restart of systemd-binfmt the daemon replaces the entry of Debian's rule once, without contention."""
    rule, link = f"/usr/lib/binfmt.d/{ENTRY}.conf", "/usr/libexec/qemu-binfmt/riscv64-binfmt-P"
    line = encode_line(ENTRY, Registration(CATALOG["riscv64"].match, link, Flags.P | Flags.O | Flags.F), readable=True)
    service.run("mkdir", "-p", os.path.dirname(link))
    service.run("ln", "-sf", INTERPRETER, link)
    service.write(rule, f"{line.decode()}\n")

    def is_ours() -> bool:
        text = service.run("cat", f"{MOUNT_POINT}/{ENTRY}").stdout
        return f"interpreter {INTERPRETER}\nflags: POF\n" in text

    try:
        for _ in range(3):
            assert service.restart_systemd_binfmt().status == 0
            wait_until(is_ours, DEADLINE_SECONDS, "our entry")
        assert service.answer() == 51

        def states() -> list[str]:
            return [row["state"] for row in service.run("binfmtd", "status", "--json").json["handlers"]]

        wait_until(lambda: states() == ["registered"], DEADLINE_SECONDS, "the status after the last repair")
        foreign = service.run("binfmtd", "status", "--json").json["foreign"]
        assert ENTRY not in {row["name"] for row in foreign}
        assert not service.journal("contention_started")
        inode = service.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout
        service.systemctl("reload", UNIT)
        assert service.run("stat", "--format=%i", f"{MOUNT_POINT}/{ENTRY}").stdout == inode
    finally:
        service.run("rm", "-r", rule, os.path.dirname(link))


def test_upgrade_of_an_emulator(service: Booted) -> None:
    """dpkg exchanges the emulator's file, and the new one runs, though F holds the old one open."""
    service.install_emulator(UPGRADED)
    wait_until(lambda: service.answer() == UPGRADED, DEADLINE_SECONDS, "the new emulator")
    service.run("dpkg", "--install", "/root/emulator-51.deb")
    wait_until(lambda: service.answer() == 51, DEADLINE_SECONDS, "the old one again")


def test_unmounted_on_the_host(service: Booted) -> None:
    """The service's mount namespace keeps no copy: after an unmount nothing runs, and after a mount all does."""
    service.unmount()
    mounts = service.run("cat", f"/proc/{service.show('MainPID')}/mountinfo").stdout
    assert "binfmt_misc binfmt_misc" not in mounts
    assert service.answer() != 51
    assert service.run("mount", "-t", "binfmt_misc", "binfmt_misc", MOUNT_POINT).status == 0
    wait_until(lambda: ENTRY in service.entries(), DEADLINE_SECONDS, "the entry")
    assert service.answer() == 51


def test_native_architectures_are_tested_outside_of_the_sandbox(service: Booted) -> None:
    """native.json exists before the daemon starts, and has the result of a test outside of the sandbox."""
    kept = service.run("cat", "/run/binfmtd/native.json").stdout
    assert f'"{os.uname().machine}"' in kept
    service.systemctl("stop", UNIT)
    service.run("rm", "/run/binfmtd/native.json")
    service.run("binfmtd", "arch", "--record")
    assert service.run("cat", "/run/binfmtd/native.json").stdout == kept


def test_what_is_registered_is_tried(service: Booted) -> None:
    """`binfmtd-probe.path` starts a unit that probes whenever an entry was registered; the status has the result."""

    def probed() -> dict[str, Any]:
        document = json.loads(service.run("cat", "/run/binfmtd/status.json").stdout)
        rows = (document["probed"] or {"architectures": ()})["architectures"]
        return next((row for row in rows if row["name"] == "riscv64"), {})

    assert probed() == {}
    service.systemctl("start", "binfmtd-probe.path")
    try:
        service.install_emulator(UPGRADED)
        # A probe that comes before the entry is replaced finds its stand-in alone; another probe follows.
        wait_until(lambda: probed().get("entry") == ENTRY, 60, "what was found")
        assert probed()["runs"] is False  # this test's emulator exits with its own status
        assert service.run("systemctl", "show", "--property=Result", "--value", PROBE).stdout == "success\n"
    finally:
        service.systemctl("stop", "binfmtd-probe.path", PROBE)
        service.run("dpkg", "--install", "/root/emulator-51.deb")
