"""The main job: a daemon repairs every drift on a real instance."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.binfmt_d import SYSTEMD_BINFMT, needs_systemd_binfmt, put_binfmt_d
from support.daemon import Daemon, StartDaemon
from support.instance import Instance
from support.programs import FOREIGN, foreign_program
from support.waiting import IN_CLOSE_WRITE, IN_MODIFY, IN_MOVED_TO, SLOWNESS, DirectoryWatch, deadline_in, wait_until

from binfmtd.catalog.architectures import CATALOG

CONFIG = r"""
architectures = []
[handlers.one]
magic = '\x00one'
interpreter = "/usr/bin/true"
flags = "F"
[handlers.two]
magic = '\x00two'
mask = '\xff\xff\xff\xfe'
offset = 2
interpreter = "/usr/bin/true"
[handlers.three]
extension = "three"
interpreter = "/usr/bin/true"
[handlers.off]
magic = '\x00off'
interpreter = "/usr/bin/true"
enabled = false
"""
ONE = "enabled\ninterpreter /usr/bin/true\nflags: F\noffset 0\nmagic 006f6e65\n"
TWO = "enabled\ninterpreter /usr/bin/true\nflags: \noffset 2\nmagic 0074776f\nmask fffffffe\n"
THREE = "enabled\ninterpreter /usr/bin/true\nflags: \nextension .three\n"


def in_order(instance: Instance) -> bool:
    """Return True if exactly the three proper entries stand as declared."""
    return sorted(instance.names()) == ["one", "three", "two"] and all(
        instance.read(name) == text for name, text in (("one", ONE), ("two", TWO), ("three", THREE))
    )


def repaired(instance: Instance, daemon: Daemon) -> None:
    """Wait for order in the kernel, and for the status to be converged."""
    wait_until(lambda: in_order(instance), what=f"order instead of {instance.names()}")
    daemon.wait_converged()


def test_registers_what_is_declared(instance: Instance, start_daemon: StartDaemon) -> None:
    """At READY=1 the proper entries stand as declared, and a handler with enabled = false is not registered."""
    daemon = start_daemon(CONFIG)
    assert in_order(instance)
    assert daemon.states() == {"one": "registered", "two": "registered", "three": "registered", "off": "disabled"}
    summary = daemon.logs("pass_finished", trigger="start")
    assert len(summary) == 1
    assert summary[0]["registered"] == 3


@pytest.mark.parametrize("name", ["one", "two", "three"])
@pytest.mark.parametrize("truncate", [True, False])
def test_removed_entry_comes_back(instance: Instance, start_daemon: StartDaemon, name: str, truncate: bool) -> None:
    """A removed entry is registered again, also if the remover truncates the file first, as a shell's > does."""
    daemon = start_daemon(CONFIG)
    before = instance.inode(name)
    instance.write(name, b"-1", truncate=truncate)
    instance.wait_registered_anew(name, before)
    repaired(instance, daemon)
    assert daemon.wait_for_log("repaired", entry=name)["drift"] == "missing"


def test_a_stand_in_serves_at_once(instance: Instance, start_daemon: StartDaemon) -> None:
    """A temporary stand-in with the same match and interpreter serves until the name is quiet."""
    start_daemon("stand_ins = 'temporary'\nsettle = '300ms'\n" + CONFIG)
    with DirectoryWatch(instance.directory, IN_MODIFY | IN_CLOSE_WRITE) as watch:
        instance.remove("two")
        watch.wait_for(lambda event: event.name == "register" and event.mask & IN_MODIFY, what="a registration")
        assert instance.all_names()[0] == ".binfmtd~two"
        assert "two" not in instance.all_names()
        assert instance.read(".binfmtd~two") == TWO


def test_flushed_instance(instance: Instance, start_daemon: StartDaemon) -> None:
    """After a flush (-1 to status, as systemd-binfmt does at each start) all entries come back without contention."""
    daemon = start_daemon(CONFIG)
    for _ in range(12):  # more often than what counts as contention for a single name
        instance.remove("status")
        repaired(instance, daemon)
    assert not daemon.logs("contention_started")


def test_a_flush_whose_events_arrive_one_by_one(instance: Instance, start_daemon: StartDaemon) -> None:
    """When a flush removes many entries one after the other, the first status has a stand-in for each."""
    # An emulated machine pays for fewer from the budget of CPU time for stand-ins.
    number, flushes = (
        (200, 8) if SLOWNESS == 1 else (max(3, round(200 / SLOWNESS)), 2)
    )  # 8 is fewer than contention takes
    names = {f"many{each}" for each in range(number)}
    handlers = (f"[handlers.{name}]\nmagic = '\\x00{name}'\ninterpreter = \"/usr/bin/true\"\n" for name in names)
    settle = f"settle = '{min(200 * SLOWNESS, 1000):.0f}ms'\narchitectures = []\n"
    daemon = start_daemon(settle + "".join(handlers))
    with DirectoryWatch(daemon.state_directory, IN_MOVED_TO) as watch:
        for _ in range(flushes):
            instance.remove("status")
            status: dict[str, Any] = {"state": "converged"}
            while status["state"] == "converged":  # the old status
                watch.wait_for(lambda event: event.name == "status.json", what="a status")
                status = daemon.status()
            assert {row["state"] for row in status["handlers"]} == {"stand_in"}
            wait_until(lambda: set(instance.names()) == names, what="proper entries")
            daemon.wait_converged()


def test_a_drift_during_a_pass_is_in_the_status(instance: Instance, start_daemon: StartDaemon) -> None:
    """An entry removed after a pass has read it gets its stand-in at once, and the status is not converged."""
    for number in range(round(5000 / SLOWNESS)):  # so that a pass takes long, but less than the second of `settle`
        instance.register(rb":foreign%d:M::\x01f%05d::/usr/bin/true:" % (number, number))
    daemon = start_daemon("settle = '1s'\n" + CONFIG)

    def looking() -> bool:
        """Return True if the daemon has the instance open, as in a pass."""
        links = []
        for descriptor in os.scandir(f"/proc/{daemon.pid}/fd"):
            with suppress(OSError):
                links.append(os.readlink(descriptor.path))
        return instance.mount_point in links

    met, deadline = 0, deadline_in(30)
    while met < 3:
        daemon.process.send_signal(signal.SIGHUP)
        while not looking():  # without a pause: a pass takes some milliseconds
            assert time.monotonic() < deadline, "no pass that was met in its midst"
        instance.remove("one")
        met += looking()
        daemon.wait_status(lambda status: status["state"] != "converged", "a state that says so")
        wait_until(lambda: "one" in instance.names(), what="the proper entry")
        daemon.wait_converged()
    repaired = daemon.wait_for_log("repaired")
    assert repaired["summary"].startswith("one removed by another process, its stand-in served")


def test_disabled_entry(instance: Instance, start_daemon: StartDaemon) -> None:
    """A disabled entry is enabled, without a new registration."""
    daemon = start_daemon(CONFIG)
    before = instance.inode("one")
    instance.write("one", b"0")
    repaired(instance, daemon)
    assert instance.inode("one") == before


def test_instance_switched_off(instance: Instance, start_daemon: StartDaemon) -> None:
    """A switched-off instance (0 to status) is switched on."""
    daemon = start_daemon(CONFIG)
    instance.write("status", b"0")
    wait_until(lambda: instance.read("status") == "enabled\n", what="an enabled instance")
    assert daemon.wait_for_log("repaired", entry="status")["drift"] == "switched_off"


@pytest.mark.parametrize(
    "line",
    [
        rb":one:M::\x00one::/usr/bin/false:F",
        rb":one:M::\x00eno::/usr/bin/true:F",
        rb":one:M::\x00one:\xff\xff\xff\xf0:/usr/bin/true:F",
        rb":one:M:3:\x00one::/usr/bin/true:F",
        rb":one:M::\x00one::/usr/bin/true:",
        rb":one:M::\x00one::/usr/bin/true:CF",
        rb":one:E::one::/usr/bin/true:F",
    ],
    ids=["interpreter", "magic", "mask", "offset", "no F", "C", "extension"],
)
def test_replaced_entry(instance: Instance, start_daemon: StartDaemon, line: bytes) -> None:
    """An entry that another program registers differently under a declared name becomes again as declared."""
    daemon = start_daemon('settle = "200ms"\n' + CONFIG)  # long enough on a busy machine
    instance.remove("one")
    try:
        instance.register(line)
    except FileExistsError:
        pytest.fail("the daemon was in the way: it registered the proper name at once")
    assert daemon.wait_for_log("repaired", entry="one")["drift"] == "changed"
    repaired(instance, daemon)


def test_an_equal_registration_by_another_program(instance: Instance, start_daemon: StartDaemon) -> None:
    """An equal foreign registration with F, whose opened file cannot be determined, is replaced, once."""
    daemon = start_daemon(CONFIG)
    instance.remove("one")
    instance.register(rb":one:M::\x00one::/usr/bin/true:F")
    theirs = instance.inode("one")
    instance.wait_registered_anew("one", theirs)
    repaired(instance, daemon)
    ours = instance.inode("one")
    instance.write("three", b"0")  # another drift, so that another pass is made
    repaired(instance, daemon)
    assert instance.inode("one") == ours


def test_declared_disabled_is_kept_disabled(instance: Instance, start_daemon: StartDaemon) -> None:
    """An entry with enabled = false is disabled when it appears and when it is enabled, but not removed."""
    start_daemon(CONFIG)
    instance.register(rb":off:M::whatever::/usr/bin/true:")
    wait_until(lambda: instance.read("off").startswith("disabled"), what="a disabled entry")
    instance.write("off", b"1")
    wait_until(lambda: instance.read("off").startswith("disabled"), what="a disabled entry again")
    assert "magic 7768617465766572" in instance.read("off")


def test_several_drifts_in_a_row(instance: Instance, start_daemon: StartDaemon) -> None:
    """Drifts that occur during a repair are repaired as well."""
    daemon = start_daemon(CONFIG)
    for name in ("one", "two", "three"):
        instance.remove(name)
        instance.write("status", b"0")
        instance.register(b":%b:M::junk::/usr/bin/false:" % name.encode())
    instance.remove("status")
    repaired(instance, daemon)
    wait_until(lambda: instance.read("status") == "enabled\n", what="an enabled instance")


def test_events_are_not_what_counts(instance: Instance, start_daemon: StartDaemon) -> None:
    """A drift that occurs while the daemon is stopped (SIGSTOP) is repaired when it continues."""
    daemon = start_daemon(CONFIG)
    daemon.process.send_signal(19)
    instance.remove("one")
    instance.register(rb":one:M::\x00one::/usr/bin/false:F")
    instance.remove("two")
    instance.write("three", b"0")
    daemon.process.send_signal(18)
    repaired(instance, daemon)


def test_foreign_program_runs_again(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A foreign program runs, and runs again after its handler was removed."""
    if not os.path.exists(f"/usr/bin/qemu-{FOREIGN}"):
        pytest.skip("no emulator is installed: apt-get install qemu-user")
    program = foreign_program(tmp_path / "program", CATALOG[FOREIGN])
    start_daemon(f'architectures = ["{FOREIGN}"]')
    assert instance.run([str(program)]).returncode == 42
    with DirectoryWatch(instance.directory, IN_MODIFY) as watch:
        instance.remove(f"qemu-{FOREIGN}")
        watch.wait_for(lambda event: event.name == "register", what="a registration")
    assert instance.run([str(program)]).returncode == 42


def test_systemd_binfmt_beside_us(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """systemd-binfmt, which flushes and registers its rules, succeeds beside the daemon, and the daemon converges."""
    needs_systemd_binfmt()
    rules = put_binfmt_d(instance, tmp_path / "rules")["/usr/lib/binfmt.d"]
    (rules / "x.conf").write_bytes(
        rb":one:M::\x00one::/usr/bin/false:" + b"\n" + rb":alien:M::\x00alien::/usr/bin/true:" + b"\n"
    )
    daemon = start_daemon(CONFIG)
    for _ in range(10):
        result = instance.run([str(SYSTEMD_BINFMT)])
        assert result.returncode == 0, result.stderr
        wait_until(lambda: "alien" in instance.names() and set(instance.names()) >= {"one", "two", "three"})
    wait_until(lambda: instance.read("one") == ONE, what="our registration of a name that both have")
    daemon.wait_converged()
    assert sorted(instance.names()) == ["alien", "one", "three", "two"]
