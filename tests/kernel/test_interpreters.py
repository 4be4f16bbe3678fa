"""Handlers follow interpreters that appear, vanish and change."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import programs
from support.daemon import Daemon, StartDaemon
from support.instance import Instance
from support.waiting import wait_until

from binfmtd.catalog.architectures import CATALOG
from binfmtd.model.stand_in import stand_in_name
from binfmtd.report.status import unready

MAGIC = b"\x00one"


@pytest.fixture
def foreign_file(tmp_path: Path) -> Path:
    """Return an executable that only the handler can run."""
    return programs.install(tmp_path / "file", MAGIC)


def config(interpreter: Path, flags: str = "F") -> str:
    """Return a config with one handler."""
    return (
        f'architectures = []\n[handlers.one]\nmagic = \'\\x00one\'\ninterpreter = "{interpreter}"\nflags = "{flags}"\n'
    )


def install(directory: Path, name: str, program: str) -> Path:
    """Install a copy of a program as dpkg does."""
    return programs.install(directory / name, Path(program).read_bytes())


def state(daemon: Daemon) -> str:
    """Return the handler's state."""
    return str(daemon.status()["handlers"][0]["state"])


@pytest.mark.parametrize("flags", ["F", ""])
def test_appears(instance: Instance, start_daemon: StartDaemon, bin_directory: Path, flags: str) -> None:
    """A handler waits for its interpreter, and registers when that is installed."""
    daemon = start_daemon(config(bin_directory / "true", flags))
    assert instance.names() == []
    assert state(daemon) == "waiting"
    assert daemon.status()["state"] == "waiting"
    install(bin_directory, "true", "/usr/bin/true")
    wait_until(lambda: instance.names() == ["one"], what="the entry")
    daemon.wait_converged()


def test_appears_with_its_directory(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """The nearest existing directory is watched, however much of the path is missing."""
    path = tmp_path / "a" / "b" / "c" / "true"
    start_daemon(config(path))
    path.parent.mkdir(parents=True)
    install(path.parent, "true", "/usr/bin/true")
    wait_until(lambda: instance.names() == ["one"], what="the entry")


def test_becomes_executable(instance: Instance, start_daemon: StartDaemon, bin_directory: Path) -> None:
    """A file without an x bit is no interpreter; chmod makes it one."""
    path = install(bin_directory, "true", "/usr/bin/true")
    path.chmod(0o644)
    daemon = start_daemon(config(path))
    assert state(daemon) == "waiting"
    path.chmod(0o755)
    wait_until(lambda: instance.names() == ["one"], what="the entry")


def test_upgraded_by_rename(
    instance: Instance, start_daemon: StartDaemon, bin_directory: Path, foreign_file: Path
) -> None:
    """After an upgrade the entry with F, which has the old file open, is registered anew, and the new file serves."""
    path = install(bin_directory, "interpreter", "/usr/bin/true")
    daemon = start_daemon(config(path))
    assert instance.run([str(foreign_file)]).returncode == 0
    install(bin_directory, "interpreter", "/usr/bin/false")
    wait_until(lambda: instance.run([str(foreign_file)]).returncode == 1, what="the new interpreter")
    assert daemon.wait_for_log("repaired", entry="one")["drift"] == "stale_interpreter"
    daemon.wait_converged()
    assert instance.names() == ["one"]


def test_drifting_while_a_stand_in_serves_the_new_one(
    instance: Instance, start_daemon: StartDaemon, bin_directory: Path
) -> None:
    """While a stand-in serves an upgraded interpreter, the status is drifting."""
    path = install(bin_directory, "interpreter", "/usr/bin/true")
    daemon = start_daemon('settle = "1s"\n' + config(path))
    install(bin_directory, "interpreter", "/usr/bin/false")
    daemon.wait_status(lambda status: status["state"] == "drifting", "state drifting")
    assert instance.all_names() == [stand_in_name("one"), "one"]
    assert state(daemon) == "stand_in"
    wait_until(lambda: instance.names() == ["one"], what="the proper entry")
    daemon.wait_converged()


def test_upgraded_while_no_daemon_ran(
    instance: Instance, start_daemon: StartDaemon, bin_directory: Path, foreign_file: Path
) -> None:
    """The ledger has the file that F opened, so a daemon that starts after an upgrade replaces the stale entry."""
    path = install(bin_directory, "interpreter", "/usr/bin/true")
    assert start_daemon(config(path)).terminate() == 0
    before = instance.inode("one")
    assert start_daemon(config(path)).terminate() == 0
    assert instance.inode("one") == before, "nothing has changed, so nothing is written"
    install(bin_directory, "interpreter", "/usr/bin/false")
    start_daemon(config(path))
    assert instance.run([str(foreign_file)]).returncode == 1


def test_upgraded_before_a_daemon_without_that_ledger(
    instance: Instance, start_daemon: StartDaemon, bin_directory: Path, foreign_file: Path
) -> None:
    """A container that takes another's place has no ledger of it: stale entries are replaced, and so are stand-ins."""
    path = install(bin_directory, "interpreter", "/usr/bin/true")
    start_daemon(config(path)).kill()
    before = instance.all_inodes()
    assert before.keys() == {"one", stand_in_name("one")}
    install(bin_directory, "interpreter", "/usr/bin/false")
    daemon = start_daemon(config(path), directory="its-successor")
    wait_until(lambda: not before.items() & instance.all_inodes().items(), what="the replacement of both entries")
    daemon.wait_converged()
    daemon.kill()
    instance.remove("one")
    assert instance.run([str(foreign_file)]).returncode == 1, "the stand-in has the new file open"


def test_a_link_in_the_chain_is_switched(
    instance: Instance, start_daemon: StartDaemon, bin_directory: Path, foreign_file: Path
) -> None:
    """A link in the middle of a chain that leads to another file, as with alternatives, changes the interpreter."""
    install(bin_directory, "old", "/usr/bin/true")
    install(bin_directory, "new", "/usr/bin/false")
    etc = bin_directory.parent / "alternatives"
    etc.mkdir(mode=0o755)
    (etc / "it").symlink_to(bin_directory / "old")
    (bin_directory / "it").symlink_to(etc / "it")
    start_daemon(config(bin_directory / "it"))
    assert instance.run([str(foreign_file)]).returncode == 0
    (etc / "it.new").symlink_to(bin_directory / "new")
    os.rename(etc / "it.new", etc / "it")
    wait_until(lambda: instance.run([str(foreign_file)]).returncode == 1, what="the new interpreter")


LEVELS = ["opt", "opt/qemu", "opt/qemu/bin"]


@pytest.fixture
def exchange(tmp_path: Path) -> Callable[[str], None]:
    """Return ``exchange(level)``, which replaces a directory above opt/qemu/bin/interpreter by two renames.

    The interpreter of the first tree is true, that of the second is false.
    """
    for tree, program in ((tmp_path, "true"), (tmp_path / "new", "false")):
        (tree / "opt/qemu/bin").mkdir(mode=0o755, parents=True)
        install(tree / "opt/qemu/bin", "interpreter", f"/usr/bin/{program}")

    def move(level: str) -> None:
        os.rename(tmp_path / level, tmp_path / "old")
        os.rename(tmp_path / "new" / level, tmp_path / level)

    return move


@pytest.mark.parametrize("level", LEVELS)
def test_a_directory_on_the_way_is_exchanged(
    instance: Instance,
    start_daemon: StartDaemon,
    tmp_path: Path,
    foreign_file: Path,
    exchange: Callable[[str], None],
    level: str,
) -> None:
    """After ``mv opt opt.old; mv opt.new opt``, at any level, the entry with F is replaced, and the new file serves."""
    daemon = start_daemon(config(tmp_path / "opt/qemu/bin/interpreter"))
    assert instance.run([str(foreign_file)]).returncode == 0
    exchange(level)
    wait_until(lambda: instance.run([str(foreign_file)]).returncode == 1, what="the new interpreter")
    assert daemon.wait_for_log("repaired", entry="one")["drift"] == "stale_interpreter"
    daemon.wait_converged()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("flags", ["F", ""])
def test_a_directory_on_the_way_is_away_for_a_while(
    instance: Instance, start_daemon: StartDaemon, tmp_path: Path, foreign_file: Path, level: str, flags: str
) -> None:
    """While a directory of the path is missing, the handler waits without F, and with F its opened file serves.

    Afterwards both use the file that is there then.
    """
    bin_directory = tmp_path / "opt/qemu/bin"
    bin_directory.mkdir(mode=0o755, parents=True)
    install(bin_directory, "interpreter", "/usr/bin/true")
    daemon = start_daemon(config(bin_directory / "interpreter", flags))
    os.rename(tmp_path / level, tmp_path / "away")
    if flags:
        row = daemon.wait_status(lambda status: status["handlers"][0]["reason"], "a reason")["handlers"][0]
        assert (row["state"], instance.names()) == ("registered", ["one"])
        assert "still runs the previous file" in row["reason"]
    else:
        daemon.wait_status(lambda status: status["state"] == "waiting", "state waiting")
        assert instance.names() == []
    bin_directory.mkdir(mode=0o755, parents=True)
    install(bin_directory, "interpreter", "/usr/bin/false")
    wait_until(lambda: instance.run([str(foreign_file)]).returncode == 1, what="the new interpreter")
    daemon.wait_converged()
    assert instance.names() == ["one"]


def test_a_directory_that_is_removed_while_it_is_open(
    instance: Instance, start_daemon: StartDaemon, bin_directory: Path
) -> None:
    """A removed directory that a process still has open raises no event of its own; its parent's events are used."""
    daemon = start_daemon(config(bin_directory / "true"))
    daemon.wait_status(lambda status: status["state"] == "waiting", "state waiting")
    shell = os.open(bin_directory, os.O_RDONLY)
    try:
        bin_directory.rmdir()
        bin_directory.mkdir(mode=0o755)
        install(bin_directory, "true", "/usr/bin/true")
        wait_until(lambda: instance.names() == ["one"], what="the entry")
    finally:
        os.close(shell)


def test_a_refusal_that_ends_without_an_event(
    instance: Instance, start_daemon: StartDaemon, bin_directory: Path, tmp_path: Path
) -> None:
    """A registration refused with ETXTBSY, while another process writes the file, is tried again, and logged once."""
    path = install(bin_directory, "true", "/usr/bin/true")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    os.link(path, elsewhere / "link")
    with (elsewhere / "link").open("ab"):
        daemon = start_daemon(config(path), ready=False)
        status = daemon.wait_status(lambda status: status["state"] == "degraded", "state degraded")
        assert (status["handlers"][0]["state"], instance.names()) == ("failed", [])
        assert "is open for writing in another process" in status["handlers"][0]["reason"]
        first = daemon.wait_for_log("pass_finished")
    wait_until(lambda: instance.names() == ["one"], 20, what="the entry")
    daemon.wait_converged()
    assert len(daemon.logs("registration_failed")) == 1
    assert [line["failed"] for line in daemon.logs("pass_finished")] == [first["failed"]]
    assert not daemon.logs("contention_started")


def test_vanishes_with_f(
    instance: Instance, start_daemon: StartDaemon, bin_directory: Path, foreign_file: Path
) -> None:
    """With F the entry of a removed interpreter stays, since the opened file still serves; the status shows this."""
    path = install(bin_directory, "interpreter", "/usr/bin/true")
    daemon = start_daemon(config(path))
    before = instance.inode("one")
    path.unlink()
    row = daemon.wait_status(lambda status: status["handlers"][0]["reason"], "a reason")["handlers"][0]
    assert row["state"] == "registered"
    assert "still runs the previous file" in row["reason"]
    assert instance.inode("one") == before
    assert instance.run([str(foreign_file)]).returncode == 0


def test_vanishes_without_f(instance: Instance, start_daemon: StartDaemon, bin_directory: Path) -> None:
    """Without F the entry of a removed interpreter, which leads nowhere, is removed, and the handler waits."""
    path = install(bin_directory, "interpreter", "/usr/bin/true")
    daemon = start_daemon(config(path, flags=""))
    path.unlink()
    wait_until(lambda: instance.names() == [], what="the end of the entry")
    daemon.wait_status(lambda status: status["state"] == "waiting", "state waiting")
    install(bin_directory, "interpreter", "/usr/bin/true")
    wait_until(lambda: instance.names() == ["one"], what="the entry")


def test_all_takes_up_a_new_emulator(instance: Instance, start_daemon: StartDaemon, bin_directory: Path) -> None:
    """Without any emulator the status has the remedy; each architecture registers when its emulator appears."""
    daemon = start_daemon(emulators(bin_directory))
    status = daemon.status()
    assert (status["handlers"], status["state"]) == ([], "waiting")
    assert "[emulators] paths" in status["lacking"]
    assert daemon.wait_for_log("emulators_missing")["reason"] == status["lacking"]
    wait_until(lambda: f"STATUS=0 handlers in order; {status['lacking']}" in daemon.notifications, what="the sentence")
    install(bin_directory, "qemu-riscv64", "/usr/bin/true")
    wait_until(lambda: instance.names() == ["qemu-riscv64"], what="the entry")
    assert daemon.wait_converged()["lacking"] is None
    assert len(daemon.logs("emulators_missing")) == 1


def emulators(directory: Path) -> str:
    """Return a config in which "all" searches this directory for emulators."""
    return f'[emulators]\npaths = ["{directory}/qemu-{{name}}"]\n'


def test_all_loses_its_emulators(instance: Instance, start_daemon: StartDaemon, bin_directory: Path) -> None:
    """If all emulators vanish, one line is logged at once; F serves on until the entries are removed, then all wait."""
    names = ["qemu-mips", "qemu-ppc64le", "qemu-riscv64"]
    paths = [install(bin_directory, name, "/usr/bin/true") for name in names]
    daemon = start_daemon(emulators(bin_directory))
    away = bin_directory.rename(bin_directory.with_name("away"))
    gone = daemon.wait_for_log("emulators_gone")
    assert (gone["level"], sorted(gone["entries"])) == ("warning", names)
    assert "[emulators] paths" in gone["reason"], "no package puts one into this directory"
    status = daemon.wait_status(lambda status: status["state"] == "waiting", "state waiting")
    assert daemon.states() == dict.fromkeys(names, "registered")
    assert "emulators that were installed before are missing" in status["lacking"]
    assert unready(status) == [], "programs run, and do not after a restart"
    instance.remove("status")
    daemon.wait_status(unready, "handlers that wait")
    assert (daemon.states(), instance.names()) == (dict.fromkeys(names, "waiting"), [])
    assert all("[emulators] paths" in row["reason"] for row in daemon.status()["handlers"])
    assert daemon.logs("emulators_missing") == [], "one line is enough"
    assert len(daemon.logs("emulators_gone")) == 1
    away.rename(bin_directory)
    wait_until(lambda: sorted(instance.names()) == names, what="the entries")
    daemon.wait_converged()
    paths[0].unlink()
    daemon.wait_for_log("emulators_gone", entry="qemu-mips")


def test_all_loses_some_emulators(instance: Instance, start_daemon: StartDaemon, bin_directory: Path) -> None:
    """Handlers whose emulators vanish wait, also without F; after a reload they are left out on purpose."""
    names = ["qemu-mips", "qemu-riscv64"]
    paths = [install(bin_directory, name, "/usr/bin/true") for name in names]
    daemon = start_daemon(emulators(bin_directory) + 'flags = "P"\n')
    paths[0].unlink()
    daemon.wait_status(lambda status: status["state"] == "waiting", "state waiting")
    assert daemon.states() == {"qemu-mips": "waiting", "qemu-riscv64": "registered"}
    assert instance.names() == ["qemu-riscv64"]
    daemon.reload()
    daemon.wait_for_log("config_reloaded")
    daemon.wait_converged()
    assert daemon.states() == {"qemu-riscv64": "registered"}


def test_all_loses_an_emulator_to_another(instance: Instance, start_daemon: StartDaemon, bin_directory: Path) -> None:
    """A foreign entry under the same name that has its emulator open (F) serves the architecture."""
    path = install(bin_directory, "qemu-mips", "/usr/bin/true")
    daemon = start_daemon(emulators(bin_directory) + 'flags = "P"\n')
    path.unlink()
    wait_until(lambda: instance.names() == [], what="the end of the entry")
    instance.add("qemu-mips", CATALOG["mips"].match, "/usr/bin/true")
    daemon.wait_status(lambda status: [row["state"] for row in status["handlers"]] == ["served_elsewhere"])
    daemon.wait_converged()
    assert daemon.status()["foreign"] == [{"name": "qemu-mips", "enabled": True}]


@pytest.mark.parametrize("which", ["file", "directory", "the directory above"])
def test_writable_by_others_is_refused(
    instance: Instance, start_daemon: StartDaemon, bin_directory: Path, which: str
) -> None:
    """An interpreter that other users could replace is refused, with the path; once that is corrected it registers."""
    (bin_directory / "qemu").mkdir(mode=0o755)
    path = install(bin_directory / "qemu", "true", "/usr/bin/true")
    culprit = {"file": path, "directory": path.parent, "the directory above": bin_directory}[which]
    culprit.chmod(0o777)
    daemon = start_daemon(config(path))
    assert instance.names() == []
    row = daemon.status()["handlers"][0]
    assert row["state"] == "refused"
    assert str(culprit) in row["reason"]
    assert daemon.status()["state"] == "degraded"
    culprit.chmod(0o755)
    wait_until(lambda: instance.names() == ["one"], what="the entry")


@pytest.mark.parametrize("flags", ["", "F"])
def test_writable_by_others_later(
    instance: Instance, start_daemon: StartDaemon, bin_directory: Path, flags: str
) -> None:
    """If others can replace an interpreter from now on, its entry goes, unless F has opened the file before."""
    path = install(bin_directory, "true", "/usr/bin/true")
    daemon = start_daemon(config(path, flags))
    assert instance.names() == ["one"]
    path.chmod(0o777)
    daemon.wait_status(lambda status: status["handlers"][0]["state"] == "refused", "the refusal")
    wait_until(lambda: instance.names() == (["one"] if flags else []), what="the entry that is left")
    if not flags:
        daemon.wait_for_log("entry_removed", entry="one", drift="unwanted")
    assert (daemon.logs("repaired"), daemon.status()["repairs"]) == ([], 0), "a removal is no repair"
    path.chmod(0o755)
    wait_until(lambda: instance.names() == ["one"], what="the entry")
    daemon.wait_converged()


def test_through_another_process_is_refused(instance: Instance, start_daemon: StartDaemon) -> None:
    """A path through another process's mount namespace, which cannot be followed, is refused, and not tried again."""
    script = "mount -t tmpfs t /mnt && cp /usr/bin/true /mnt/emulator && echo in && read -r _"
    pipe = subprocess.PIPE
    there = instance.popen(["unshare", "-m", "sh", "-c", script], stdin=pipe, stdout=pipe)
    assert there.stdout is not None
    assert there.stdout.readline() == b"in\n"
    link = f"/proc/{there.pid}/root"
    config = f"[handlers.one]\nmagic = '\\x00one'\ninterpreter = '{link}/mnt/emulator'\nflags = 'F'\n"
    daemon = start_daemon(f"architectures = []\n{config}")
    (row,) = daemon.status()["handlers"]
    assert (row["state"], instance.names()) == ("refused", [])
    assert link in row["reason"]
    there.communicate()  # in its own mount namespace: nothing else would end it if the instance is lent
