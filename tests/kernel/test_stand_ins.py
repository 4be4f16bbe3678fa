"""Temporary stand-ins: the two steps of a repair, and processes that undo it again and again."""

import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest
from support.cli import Cli
from support.daemon import Daemon, StartDaemon
from support.instance import Instance
from support.programs import install
from support.waiting import IN_CLOSE_WRITE, IN_MODIFY, DirectoryWatch, deadline_in, wait_until

from binfmtd.model.stand_in import stand_in_name

CONFIG = r"""
stand_ins = "temporary"
architectures = []
[handlers.low]
magic = '\x00one'
interpreter = "/usr/bin/false"
[handlers.high]
magic = '\x00onetwo'
interpreter = "/usr/bin/true"
priority = 1
[handlers.other]
magic = '\x00other'
interpreter = "/usr/bin/true"
"""


def order(instance: Instance) -> list[str]:
    """Return the entries that could take the same file, in the order in which the kernel tries them."""
    return [name for name in instance.all_names() if "other" not in name]


def test_the_higher_priority_is_newer(instance: Instance, start_daemon: StartDaemon) -> None:
    """Of two entries that take the same file the one with the higher priority is newer, after every repair."""
    daemon = start_daemon(CONFIG)
    assert order(instance) == ["high", "low"]
    for name in ("low", "high", "low"):
        instance.remove(name)
        daemon_has_settled(instance, daemon)
        assert order(instance) == ["high", "low"]
    repairs = {"low": 2, "high": 1, "other": 0}
    what = f"the repairs {repairs}: what only moves with another is none"
    daemon.wait_status(lambda status: {row["name"]: row["repairs"] for row in status["handlers"]} == repairs, what)


def daemon_has_settled(instance: Instance, daemon: Daemon) -> None:
    """Wait for all three proper entries, without stand-ins."""
    wait_until(lambda: sorted(instance.all_names()) == ["high", "low", "other"], what="three proper entries")
    daemon.wait_converged()


def test_no_stand_in_above_a_higher_one(instance: Instance, start_daemon: StartDaemon) -> None:
    """A lower handler gets no stand-in above a higher one, since the newest entry wins."""
    start_daemon("settle = '200ms'\n" + CONFIG)
    with DirectoryWatch(instance.directory, IN_MODIFY | IN_CLOSE_WRITE) as watch:
        instance.remove("low")
        instance.remove("other")
        watch.wait_for(lambda event: event.name == "register" and event.mask & IN_MODIFY, what="a stand-in")
        names = instance.all_names()
        assert stand_in_name("other") in names
        assert stand_in_name("low") not in names
    wait_until(lambda: order(instance) == ["high", "low"], what="both in order")


def test_out_of_order(instance: Instance, start_daemon: StartDaemon) -> None:
    """A reversed order is repaired by registering one entry again."""
    daemon = start_daemon(CONFIG)
    daemon.process.send_signal(19)
    instance.remove("low")
    instance.register(rb":low:M::\x00one::/usr/bin/false:")
    low = instance.inode("low")
    assert order(instance) == ["low", "high"]
    daemon.process.send_signal(18)
    wait_until(lambda: order(instance) == ["high", "low"], what="the right order")
    daemon.wait_for_log("repaired", entry="high", drift="out_of_order")
    daemon.wait_converged()
    assert instance.inode("low") == low


def test_left_over_stand_ins_go(instance: Instance, start_daemon: StartDaemon) -> None:
    """A stand-in that a killed daemon left is removed if its handler is no longer declared, or needs none."""
    former = start_daemon(CONFIG + "[handlers.gone]\nmagic = 'gone'\ninterpreter = '/usr/bin/true'\n")
    former.process.kill()
    former.process.wait()
    instance.register(rb":.binfmtd~gone:M::gone::/usr/bin/true:")
    instance.register(rb":.binfmtd~other:M::\x00other::/usr/bin/false:")
    daemon = start_daemon(CONFIG)
    daemon_has_settled(instance, daemon)
    assert ".binfmtd~gone" not in instance.all_names()


def test_a_left_over_stand_in_without_interpreter_goes(
    instance: Instance, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """The stand-in of an uninstalled emulator with F goes when its handler is dropped while no daemon runs."""
    interpreter = tmp_path / "interpreter"
    shutil.copy("/usr/bin/true", interpreter)
    handler = f"[handlers.gone]\nmagic = 'gone'\ninterpreter = '{interpreter}'\nflags = 'F'\n"
    former = start_daemon("architectures = []\n" + handler)
    wait_until(lambda: stand_in_name("gone") in instance.all_names(), what="its stand-in")
    interpreter.unlink()
    instance.remove("gone")
    former.wait_for_log("handler_waiting", entry="gone")
    assert instance.all_names() == [stand_in_name("gone")]
    assert former.terminate() == 0
    daemon_has_settled(instance, start_daemon(CONFIG))


@pytest.mark.parametrize("command", ["run", "apply"])
def test_stand_ins_of_another_daemon_stay(
    instance: Instance, start_daemon: StartDaemon, cli: Cli, command: str
) -> None:
    """A stand-in that no ledger of ours has may be that of a daemon in another container: it stays, and is not shown.

    It serves there when a program removes the proper entry.
    """
    config = "architectures = []\n[handlers.theirs]\nmagic = 'T'\ninterpreter = '/usr/bin/true'\n"
    theirs = start_daemon(config, directory="theirs")
    wait_until(lambda: stand_in_name("theirs") in instance.all_names(), what="their stand-in")
    before = instance.all_inodes()
    if command == "run":
        daemon = start_daemon(CONFIG)
        daemon.wait_converged()
        assert [entry["name"] for entry in daemon.status()["foreign"]] == ["theirs"]
        assert daemon.terminate() == 0
    else:
        done = cli("apply", config=CONFIG)
        assert done.status == 0, done.stderr
        assert ".binfmtd" not in done.stdout + done.stderr
    assert before.items() <= instance.all_inodes().items()
    assert theirs.logs("repaired") == []


def test_someone_who_registers_again_is_not_in_our_way(instance: Instance, start_daemon: StartDaemon) -> None:
    """A program that removes and registers, as systemd-binfmt and update-binfmts do, never gets EEXIST."""
    daemon = start_daemon(CONFIG)
    for _ in range(100):
        instance.remove("other")
        instance.register(rb":other:M::\x00rehto::/usr/bin/true:")
    wait_until(lambda: "other" in instance.all_names() and "magic 006f74686572" in instance.read("other"), what="ours")
    daemon_has_settled(instance, daemon)


def test_something_newer_above_the_stand_in(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """If another program removes our entry and later registers its own under the name, the stand-in serves.

    It is put on top again at once; the other program's entry stays until `settle` is over.
    """
    program = install(tmp_path / "program", b"\x00other")
    daemon = start_daemon("settle = '1s'\n" + CONFIG)
    instance.remove("other")
    helper = stand_in_name("other")
    wait_until(lambda: helper in instance.all_names(), what="a stand-in")
    instance.register(rb":other:M::\x00other::/usr/bin/false:")

    def on_top() -> bool:
        names = instance.all_names()
        return {helper, "other"} <= set(names) and names.index(helper) < names.index("other")

    wait_until(on_top, what="the stand-in on top")
    assert instance.run([str(program)]).returncode == 0
    daemon_has_settled(instance, daemon)
    assert "true" in instance.read("other")
    assert not daemon.logs("contention_started")


def test_a_busy_writer_cannot_keep_the_proper_entry_away(instance: Instance, start_daemon: StartDaemon) -> None:
    """At the latest one second after the drift the proper entry is registered, however many writes there are."""
    start_daemon(CONFIG)
    instance.remove("other")
    deadline = deadline_in(10)
    noise = 0
    while "other" not in instance.all_names():
        instance.write("status", b"1")
        noise += 1
        assert time.monotonic() < deadline, f"not registered after {noise} writes"
    assert noise > 1, "it was not waited for"


def test_contention(instance: Instance, start_daemon: StartDaemon) -> None:
    """A process that removes an entry each time is answered ever more slowly, and logged once; the rest is not."""
    daemon = start_daemon(CONFIG)
    while not daemon.logs("contention_started"):
        wait_until(lambda: "other" in instance.all_names(), what="one more repair")
        instance.remove("other")
    for _ in range(3):
        wait_until(lambda: "other" in instance.all_names(), what="a repair after a pause")
        instance.remove("other")
    status = daemon.wait_status(lambda status: status["contended"] == ["other"], "contention")
    wait_until(lambda: daemon.states()["other"] == "stand_in", what="a stand-in that serves")
    assert status["state"] != "contended"
    wait_until(lambda: stand_in_name("other") in instance.all_names(), what="a stand-in that serves during the pause")
    with DirectoryWatch(instance.directory, IN_MODIFY) as watch:
        instance.remove("low")
        watch.wait_for(lambda event: event.name == "register", what="a repair of another entry during the pause")
    assert len(daemon.logs("contention_started")) == 1


def test_what_belongs_below_it_is_repaired_during_contention(instance: Instance, start_daemon: StartDaemon) -> None:
    """A lower handler is repaired during contention of a higher one, below the stand-in that serves meanwhile."""
    daemon = start_daemon(CONFIG)
    for _ in range(13):
        wait_until(lambda: "high" in instance.all_names(), what="one more repair")
        instance.remove("high")
    daemon.wait_for_log("contention_started", entry="high")
    helper = stand_in_name("high")
    wait_until(lambda: order(instance)[:1] == [helper], what="a stand-in that serves during the pause")
    instance.remove("low")
    wait_until(lambda: "low" in instance.all_names(), what="the lower one")
    assert order(instance)[-1] == "low"
    assert len(daemon.logs("contention_started")) == 1


def test_another_program_removes_stand_ins(instance: Instance, start_daemon: StartDaemon) -> None:
    """A removed stand-in is registered again at once; continued removals are contention as well."""
    daemon = start_daemon("settle = '1s'\n" + CONFIG)
    helper = stand_in_name("other")
    instance.remove("other")
    while not daemon.logs("contention_started"):
        wait_until(
            lambda: helper in instance.all_names() or "other" in instance.all_names(), what="something that serves"
        )
        for name in (helper, "other"):
            with suppress(FileNotFoundError):  # the daemon may have removed its stand-in a moment ago
                instance.remove(name)
    wait_until(lambda: "other" in instance.all_names(), what="the proper entry, in the end")
