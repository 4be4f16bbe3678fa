"""Each rule for temporary stand-ins, on the kernel; docs/reliability.md lists the tests of the other rules."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.cli import Cli
from support.daemon import StartDaemon
from support.exec_loop import ExecLoop
from support.instance import Instance
from support.programs import exits_with, install
from support.waiting import IN_CLOSE_WRITE, IN_MODIFY, DirectoryWatch, Event, check_in_time, wait_until

from binfmtd.model.stand_in import is_stand_in, stand_in_name

OURS = 1
THEIRS = 2
HELPER = stand_in_name("one")
SETTLE_SECONDS = 0.5  # that a stand-in stands at least
NEARLY_A_SECOND = 0.9  # with `settle` = 1s: the second after which the proper entry is due begins with the drift


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


def stand_in_comes(
    instance: Instance,
    seconds: float,
    begin: Callable[[], object],
    check: Callable[[], object] = lambda: None,
    again: Callable[[], object] | None = None,
) -> None:
    """Wait for the stand-in after ``begin``, and call ``check`` while it stands, which is so many seconds at least."""
    before = again or partial(settled, instance, "one")
    check_in_time(seconds, begin, lambda: HELPER in instance.all_names(), check, before, "a stand-in")


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
    inode = 0

    def begin() -> None:
        nonlocal inode
        inode = instance.inode("one")
        with daemon.stopped():  # else the stand-in may come between the two writes of a drift
            drift(instance, files)

    def check() -> None:
        assert status(instance, files) == OURS
        assert (instance.all_inodes().get("one") == inode) is (drift is out_of_order)
        assert instance.all_names()[:1] == [HELPER], "it serves, and not the proper entry"

    check_in_time(
        SETTLE_SECONDS,
        begin,
        lambda: instance.all_names()[:1] == [HELPER],
        check,
        again=lambda: settled(instance, "one", "low"),
        what="a stand-in, on top",
    )
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
    inode = 0

    def begin() -> None:
        nonlocal inode
        inode = instance.inode("one")
        if removed:
            (files / "ours").unlink()
        install(files / "ours", exits_with(OURS) + b"\0")

    def check() -> None:
        assert instance.all_names() == [HELPER, "one"]
        assert instance.inode("one") == inode

    stand_in_comes(instance, NEARLY_A_SECOND, begin, check)
    settled(instance, "one")
    assert instance.inode("one") != inode


def test_what_comes_after_another_upgrade_waits(instance: Instance, start_daemon: StartDaemon, files: Path) -> None:
    """After a second upgrade the next registration is the proper entry, and waits until the files are quiet.

    A package manager replaces one emulator after the other.
    """
    start_daemon(config(files, settle="1s"))
    inode = 0
    with DirectoryWatch(instance.directory, IN_MODIFY | IN_CLOSE_WRITE) as watch:

        def begin() -> None:
            nonlocal inode
            inode = instance.inode("one")
            install(files / "ours", exits_with(OURS) + b"\0")

        def upgrade_again() -> None:
            watch.pending()
            install(files / "ours", exits_with(OURS) + b"\0\0")
            assert instance.all_names() == [HELPER, "one"]
            assert instance.inode("one") == inode

        stand_in_comes(instance, NEARLY_A_SECOND, begin, upgrade_again)
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
    inode = instance.inode("one")

    def begin() -> None:
        if removed:
            instance.remove("one")
        else:
            install(files / "ours", exits_with(THEIRS))

    def remove_interpreter() -> None:
        (files / "ours").unlink()
        assert HELPER in instance.all_names()
        assert instance.all_inodes().get("one") == (None if removed else inode)

    def again() -> None:
        nonlocal inode
        install(files / "ours", exits_with(OURS))
        wait_until(lambda: status(instance, files) == OURS, what="the interpreter as it was")
        settled(instance, "one")
        inode = instance.inode("one")

    stand_in_comes(instance, SETTLE_SECONDS, begin, remove_interpreter, again)
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

    def begin() -> None:
        instance.register(b":theirs:M::theirs::/usr/bin/true:")
        instance.remove("one")

    def check() -> None:
        assert "theirs" in instance.all_names()

    stand_in_comes(instance, SETTLE_SECONDS, begin, check)
    settled(instance, "one")


def test_a_foreign_entry_does_not_stay_on_top_of_it(instance: Instance, start_daemon: StartDaemon, files: Path) -> None:
    """With `shadowed = "outrank"` the stand-in is put on top again at once; the proper entry follows."""
    start_daemon('shadowed = "outrank"\n' + config(files))

    def again() -> None:
        if "theirs" in instance.all_names():
            instance.remove("theirs")
        settled(instance, "one")

    def register_theirs() -> None:
        instance.register(b":theirs:M::\\x00onetwo::%s:F" % os.fsencode(files / "theirs"))
        assert "one" not in instance.all_names()

    def check() -> None:
        assert status(instance, files) == OURS
        assert instance.all_names()[:2] == [HELPER, "theirs"]

    check_in_time(
        SETTLE_SECONDS,
        lambda: stand_in_comes(instance, SETTLE_SECONDS, lambda: instance.remove("one"), register_theirs, again),
        lambda: instance.all_names()[:2] == [HELPER, "theirs"],
        check,
        again,
        what="the stand-in on top",
    )
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
    again = partial(settled, instance, "one", "two")
    stand_in_comes(instance, 0.2, lambda: instance.remove("one"), again=again)
    settled(instance, "one", "two")
    if priority:
        assert instance.all_names() == ["two", "one"]


def test_a_name_too_long(instance: Instance, start_daemon: StartDaemon, files: Path) -> None:
    """A handler whose name leaves no room for the prefix has a stand-in nevertheless."""
    name = "long" * 63
    start_daemon(config(files).replace("handlers.one", f"handlers.{name}"))
    check_in_time(
        SETTLE_SECONDS,
        lambda: instance.remove(name),
        lambda: any(map(is_stand_in, instance.all_names())),
        again=lambda: settled(instance, name),
        what="a stand-in",
    )
    assert status(instance, files) == OURS
    settled(instance, name)


def test_the_names_are_not_to_be_had(cli: Cli, files: Path) -> None:
    """A handler may not have the name of a stand-in."""
    result = cli("check", config=config(files).replace("handlers.one", f'handlers."{HELPER}"'))
    assert result.status == 78
    assert HELPER in result.message


def leave_a_stand_in(instance: Instance, start_daemon: StartDaemon, config: str) -> None:
    """Kill a daemon while its stand-in serves alone; its `settle` has to be a second."""
    daemon = start_daemon(config)

    def kill() -> None:
        daemon.kill()
        assert instance.all_names() == [HELPER]

    def again() -> None:
        nonlocal daemon
        if daemon.process.poll() is not None:
            daemon = start_daemon(config)
        settled(instance, "one")

    stand_in_comes(instance, NEARLY_A_SECOND, lambda: instance.remove("one"), kill, again)


def test_what_is_left_of_a_killed_daemon_serves(instance: Instance, start_daemon: StartDaemon, files: Path) -> None:
    """A killed daemon's stand-in of a declared handler stays until the proper entry stands; no execution fails."""
    leave_a_stand_in(instance, start_daemon, config(files, settle="1s"))
    with ExecLoop(instance, files / "program") as loop:
        start_daemon(config(files))
        settled(instance, "one")
        assert {outcome for outcome, _ in loop.stop()} == {OURS}


def test_apply_leaves_none(instance: Instance, start_daemon: StartDaemon, cli: Cli, files: Path) -> None:
    """`apply` ends every drift before it exits, also one that a killed daemon left, and leaves no stand-in."""
    leave_a_stand_in(instance, start_daemon, config(files, settle="1s"))
    result = cli("apply", config=config(files, settle="1s"))
    assert (result.status, instance.all_names()) == (0, ["one"])


def test_stand_ins_are_not_foreign(instance: Instance, start_daemon: StartDaemon, cli: Cli, files: Path) -> None:
    """Neither `foreign` in the status nor `import --kernel` contains a stand-in."""
    daemon = start_daemon(config(files, settle="1s"))
    instance.register(b":foreign:M::foreign::/usr/bin/true:")
    seen: dict[str, Any] = {}

    def looked() -> bool:
        """Return True if the status shows the stand-in, or if it is too late for that: a thread writes the status."""
        seen.update(daemon.status())
        return bool(seen["handlers"][0]["state"] == "stand_in") or "one" in instance.all_names()

    def check() -> None:
        assert seen["handlers"][0]["state"] == "stand_in"

    again = partial(settled, instance, "one", "foreign")
    check_in_time(NEARLY_A_SECOND, lambda: instance.remove("one"), looked, check, again, "state stand_in")
    assert HELPER not in str(seen["foreign"])
    imported = cli("import", "--kernel")
    assert imported.status == 0
    assert "foreign" in imported.stdout
    assert HELPER not in imported.stdout
