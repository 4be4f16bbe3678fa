"""Each rule for temporary stand-ins, on the kernel; docs/reliability.md lists the tests of the other rules."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.cli import Cli
from support.daemon import StartDaemon
from support.exec_loop import ExecLoop
from support.instance import Instance
from support.programs import exits_with, install
from support.waiting import IN_CLOSE_WRITE, IN_MODIFY, DirectoryWatch, Event, wait_until

from binfmtd.model.stand_in import is_stand_in, stand_in_name

OURS = 1
THEIRS = 2
HELPER = stand_in_name("one")


def config(directory: Path, more: str = "", settle: str = "500ms") -> str:
    return f"""
stand_ins = "temporary"
architectures = []
settle = "{settle}"
[handlers.one]
magic = '\\x00one'
interpreter = "{directory / "ours"}"
flags = "F"
{more}"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a directory with a program that the handler ``one`` takes, its interpreter, and another one."""
    directory = tmp_path / "files"
    directory.mkdir(mode=0o755)
    install(directory / "ours", exits_with(OURS))
    install(directory / "theirs", exits_with(THEIRS))
    install(directory / "program", b"\0onetwo")
    return directory


def is_registration(event: Event) -> bool:
    return event.name == "register" and bool(event.mask & IN_MODIFY)


def status(instance: Instance, files: Path, program: str = "program") -> int:
    return instance.run([str(files / program)], errors="replace").returncode


def settled(instance: Instance, *names: str) -> None:
    wait_until(lambda: sorted(instance.all_names()) == sorted(names), what=f"{names} and nothing else")


def missing(instance: Instance, _: Path) -> None:
    instance.remove("one")


def changed(instance: Instance, files: Path) -> None:
    instance.remove("one")
    instance.register(b":one:M::\\x00one::%s:F" % os.fsencode(files / "theirs"))


def stale(instance: Instance, _: Path) -> None:
    """Register an equal entry again: which file the kernel opened for F is then unknown."""
    line = b":one:M::\\x00one::%s:F" % instance.read("one").splitlines()[1].split()[1].encode()
    instance.remove("one")
    instance.register(line)


def out_of_order(instance: Instance, files: Path) -> None:
    instance.remove("low")
    instance.register(b":low:M::\\x00::%s:" % os.fsencode(files / "theirs"))


LOW = """
[handlers.low]
magic = '\\x00'
interpreter = "{interpreter}"
priority = -1
"""


@pytest.mark.parametrize("drift", [missing, changed, stale, out_of_order], ids=lambda each: each.__name__)
def test_who_gets_one(
    instance: Instance, start_daemon: StartDaemon, files: Path, drift: Callable[[Instance, Path], None]
) -> None:
    """A drifting entry gets a stand-in on top at once, so ours serves; the proper entry follows when it is quiet."""
    daemon = start_daemon(config(files, LOW.format(interpreter=files / "theirs")))
    inode = instance.inode("one")
    daemon.process.send_signal(signal.SIGSTOP)  # else the stand-in may come between the two writes of a drift
    drift(instance, files)
    daemon.process.send_signal(signal.SIGCONT)
    wait_until(lambda: instance.all_names()[:1] == [HELPER], what="a stand-in, on top")
    assert status(instance, files) == OURS
    assert HELPER in instance.all_names(), "it was too short a while for this test"
    assert (instance.all_inodes().get("one") == inode) is (drift is out_of_order)
    settled(instance, "one", "low")
    assert instance.all_names() == ["one", "low"]
    assert instance.inode("one") != inode
    assert status(instance, files) == OURS
    daemon.wait_converged()


@pytest.mark.parametrize("removed", [False, True])
def test_an_upgraded_interpreter_serves_at_once(
    instance: Instance, start_daemon: StartDaemon, files: Path, removed: bool
) -> None:
    """An upgraded interpreter serves at once, by a stand-in above the proper entry, also if it was removed before.

    The proper entry stays until the files are quiet.
    """
    start_daemon(config(files, settle="1s"))
    inode = instance.inode("one")
    with DirectoryWatch(instance.directory, IN_MODIFY | IN_CLOSE_WRITE) as watch:
        if removed:
            (files / "ours").unlink()
        install(files / "ours", exits_with(OURS) + b"\0")
        watch.wait_for(lambda event: is_registration(event) and HELPER in instance.all_names(), what="a stand-in")
        assert instance.all_names() == [HELPER, "one"]
        assert instance.inode("one") == inode
    settled(instance, "one")
    assert instance.inode("one") != inode


def test_what_comes_after_another_upgrade_waits(instance: Instance, start_daemon: StartDaemon, files: Path) -> None:
    """After a second upgrade the next registration is the proper entry, and waits until the files are quiet.

    A package manager replaces one emulator after the other.
    """
    start_daemon(config(files, settle="1s"))
    inode = instance.inode("one")
    with DirectoryWatch(instance.directory, IN_MODIFY | IN_CLOSE_WRITE) as watch:
        install(files / "ours", exits_with(OURS) + b"\0")
        watch.wait_for(lambda event: is_registration(event) and HELPER in instance.all_names(), what="a stand-in")
        install(files / "ours", exits_with(OURS) + b"\0\0")
        watch.pending()
        watch.wait_for(is_registration, what="a registration when it is quiet")
        assert instance.inode("one") != inode
    settled(instance, "one")


@pytest.mark.parametrize("removed", [False, True])
def test_an_interpreter_that_goes_before_the_proper_entry_stands(
    instance: Instance, start_daemon: StartDaemon, files: Path, *, removed: bool
) -> None:
    """A stand-in with F serves on if its interpreter is removed before the proper entry is registered.

    The proper entry still has an older file open, or is missing.
    """
    daemon = start_daemon(config(files))
    with DirectoryWatch(instance.directory, IN_MODIFY | IN_CLOSE_WRITE) as watch:
        if removed:
            instance.remove("one")
        else:
            install(files / "ours", exits_with(THEIRS))
        watch.wait_for(lambda event: is_registration(event) and HELPER in instance.all_names(), what="a stand-in")
        (files / "ours").unlink()
    daemon.wait_status(lambda s: "no executable file" in (s["handlers"][0]["reason"] or ""), "that it is missing")
    assert status(instance, files) == (OURS if removed else THEIRS)
    install(files / "ours", exits_with(OURS + THEIRS))
    wait_until(lambda: status(instance, files) == OURS + THEIRS, what="the new one")
    settled(instance, "one")


@pytest.mark.parametrize("file", ["one", "status"])
def test_who_needs_none(instance: Instance, start_daemon: StartDaemon, files: Path, file: str) -> None:
    """A disabled entry and a switched-off instance are repaired by one write, at once; nothing is registered."""
    start_daemon(config(files, settle="1s"))
    inode = instance.inode("one")
    with DirectoryWatch(instance.directory, IN_MODIFY | IN_CLOSE_WRITE) as watch:
        instance.write(file, b"0")
        wait_until(lambda: instance.read(file).startswith("enabled"), what="enabled again")
        assert not [event for event in watch.pending() if event.name == "register"]
    assert instance.all_inodes() == {"one": inode}


def test_unwanted_waits_for_quiet(instance: Instance, start_daemon: StartDaemon, files: Path) -> None:
    """An unwanted entry is removed only when it is quiet, not while the program that registered it may still use it."""
    start_daemon('unmanaged = "remove"\n' + config(files))
    with DirectoryWatch(instance.directory, IN_MODIFY | IN_CLOSE_WRITE) as watch:
        instance.register(b":theirs:M::theirs::/usr/bin/true:")
        instance.remove("one")
        watch.wait_for(lambda event: is_registration(event) and HELPER in instance.all_names(), what="a stand-in")
        assert "theirs" in instance.all_names()
    settled(instance, "one")


def test_a_foreign_entry_does_not_stay_on_top_of_it(instance: Instance, start_daemon: StartDaemon, files: Path) -> None:
    """With `shadowed = "outrank"` the stand-in is put on top again at once; the proper entry follows."""
    start_daemon('shadowed = "outrank"\n' + config(files))
    instance.remove("one")
    wait_until(lambda: HELPER in instance.all_names(), what="a stand-in")
    instance.register(b":theirs:M::\\x00onetwo::%s:F" % os.fsencode(files / "theirs"))
    wait_until(lambda: instance.all_names()[:2] == [HELPER, "theirs"], what="the stand-in on top")
    assert status(instance, files) == OURS
    wait_until(lambda: instance.all_names() == ["one", "theirs"], what="ours on top")
    assert status(instance, files) == OURS


RIVAL = """
[handlers.two]
extension = "one"
interpreter = "{interpreter}"
priority = {priority}
"""


@pytest.mark.parametrize("priority", [0, 1])
def test_extension_and_magic(instance: Instance, start_daemon: StartDaemon, files: Path, priority: int) -> None:
    """An extension and a magic overlap only by chance: no stand-in is withheld, and priorities decide the order."""
    start_daemon(config(files, RIVAL.format(interpreter=files / "theirs", priority=priority), settle="200ms"))
    instance.remove("one")
    wait_until(lambda: HELPER in instance.all_names(), what="a stand-in")
    settled(instance, "one", "two")
    if priority:
        assert instance.all_names() == ["two", "one"]


def test_a_name_too_long(instance: Instance, start_daemon: StartDaemon, files: Path) -> None:
    """A handler whose name leaves no room for the prefix has a stand-in nevertheless."""
    name = "long" * 63
    start_daemon(config(files).replace("handlers.one", f"handlers.{name}"))
    instance.remove(name)
    wait_until(lambda: any(map(is_stand_in, instance.all_names())), what="a stand-in")
    assert status(instance, files) == OURS
    settled(instance, name)


def test_the_names_are_not_to_be_had(cli: Cli, files: Path) -> None:
    """A handler may not have the name of a stand-in."""
    result = cli("check", config=config(files).replace("handlers.one", f'handlers."{HELPER}"'))
    assert result.status == 78
    assert HELPER in result.message


def test_what_is_left_of_a_killed_daemon_serves(instance: Instance, start_daemon: StartDaemon, files: Path) -> None:
    """A killed daemon's stand-in of a declared handler stays until the proper entry stands; no execution fails."""
    daemon = start_daemon(config(files, settle="1s"))
    instance.remove("one")
    wait_until(lambda: instance.all_names() == [HELPER], what="a stand-in")
    daemon.kill()
    with ExecLoop(instance, files / "program") as loop:
        start_daemon(config(files))
        settled(instance, "one")
        assert {outcome for outcome, _ in loop.stop()} == {OURS}


def test_apply_leaves_none(instance: Instance, start_daemon: StartDaemon, cli: Cli, files: Path) -> None:
    """`apply` ends every drift before it exits, also one that a killed daemon left, and leaves no stand-in."""
    daemon = start_daemon(config(files, settle="1s"))
    instance.remove("one")
    wait_until(lambda: instance.all_names() == [HELPER], what="a stand-in")
    daemon.kill()
    result = cli("apply", config=config(files, settle="1s"))
    assert (result.status, instance.all_names()) == (0, ["one"])


def test_stand_ins_are_not_foreign(instance: Instance, start_daemon: StartDaemon, cli: Cli, files: Path) -> None:
    """Neither `foreign` in the status nor `import --kernel` contains a stand-in."""
    daemon = start_daemon(config(files, settle="1s"))
    instance.register(b":foreign:M::foreign::/usr/bin/true:")
    instance.remove("one")
    wait_until(lambda: HELPER in instance.all_names(), what="a stand-in")
    seen = partial(daemon.wait_status, lambda s: s["handlers"][0]["state"] == "stand_in", "state stand_in")()
    assert HELPER not in str(seen["foreign"])
    imported = cli("import", "--kernel")
    assert imported.status == 0
    assert "foreign" in imported.stdout
    assert HELPER not in imported.stdout
