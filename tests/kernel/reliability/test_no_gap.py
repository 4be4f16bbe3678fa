"""While entries are replaced, no execution fails, and none reaches a wrong interpreter.

Two processes execute foreign programs in a loop, and every single outcome counts.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import Times
from support.daemon import StartDaemon
from support.exec_loop import ExecLoop, Outcome
from support.instance import COMMAND_SECONDS, Instance
from support.programs import FOREIGN, NATIVE, exits_with, foreign_program, install
from support.waiting import wait_until

from binfmtd.catalog.architectures import CATALOG

STATUSES = range(1, 101)
ARCHITECTURES = [each for each in CATALOG if each not in NATIVE]  # native programs get no handler
EXECUTED = (FOREIGN, "ppc64le")
ENTRIES = [f"qemu-{name}" for name in EXECUTED]


class Loops:
    """A process for each program that executes it again and again; ``outcomes`` are known at the end."""

    def __init__(self, loops: list[ExecLoop]) -> None:
        self._loops = loops
        self.outcomes: list[list[Outcome]] = []

    def execute_again(self) -> None:
        """Wait until each has executed its program once more: a busy machine may hold it up for many changes."""
        for loop in self._loops:
            loop.execute_again()

    def stop(self) -> None:
        self.outcomes = [loop.stop() for loop in self._loops]


@contextmanager
def executing(instance: Instance, programs: list[Path]) -> Iterator[Loops]:
    """Execute each of the programs in a loop until the end of the block."""
    with ExitStack() as stack:
        loops = Loops([stack.enter_context(ExecLoop(instance, program)) for program in programs])
        yield loops
        loops.stop()


def statuses(outcomes: list[Outcome]) -> list[int | str]:
    return [outcome for outcome, _ in outcomes]


@pytest.fixture
def programs(tmp_path: Path) -> list[Path]:
    """Return a foreign program for each of the two loops."""
    return [foreign_program(tmp_path / name, CATALOG[name]) for name in EXECUTED]


def test_a_reload_that_changes_half_of_them(
    instance: Instance, start_daemon: StartDaemon, times: Times, bin_directory: Path, programs: list[Path]
) -> None:
    """No execution fails in 1,000 replacements, by reloads that change flags or interpreters of every second entry."""
    first, second = (install(bin_directory / str(status), exits_with(status)) for status in (1, 2))
    emulators = f'[emulators]\npaths = ["{first}"]\nflags = "F"\n'
    ways = ('flags = "POCF"\n', f'interpreter = "{second}"\n')
    names = '", "'.join(ARCHITECTURES)
    base = f'architectures = ["{names}"]\n{emulators}'

    def changed(number: int) -> str:
        """Return a config that changes the flags or interpreter of every second one, even and odd in turn."""
        which = ARCHITECTURES[number % 2 :: 2]
        return base + "".join(f"[emulators.{name}]\n{ways[(number + place) % 2]}" for place, name in enumerate(which))

    daemon = start_daemon(base)
    replaced = number = 0
    inodes = {name: instance.inode(name) for name in instance.names()}
    with executing(instance, programs) as loops:
        while replaced < times(1000):
            number += 1
            daemon.config.write_text(changed(number))
            daemon.reload()
            daemon.wait_status(partial(converged_with, number + 1), f"generation {number + 1} in force")
            before, inodes = inodes, {name: instance.inode(name) for name in instance.names()}
            new = sum(before[name] != inode for name, inode in inodes.items())
            assert new >= len(ARCHITECTURES) // 2, f"only {new} were replaced"
            replaced += new
            loops.execute_again()
    for outcomes in loops.outcomes:
        assert set(statuses(outcomes)) <= {1, 2}, outcomes
        assert sum(count for _, count in outcomes) > number
    assert not daemon.logs("registration_failed")


def test_a_switch_of_the_version(
    instance: Instance, start_daemon: StartDaemon, times: Times, tmp_path: Path, programs: list[Path]
) -> None:
    """No execution fails in 1,000 switches between two versions in the store; each switch takes effect."""
    store = tmp_path / "store"
    for status in (1, 2):
        (store / f"version-{status}").mkdir(mode=0o755, parents=True)
        for name in EXECUTED:
            install(store / f"version-{status}" / f"qemu-{name}", exits_with(status))
    names = '", "'.join(EXECUTED)

    def config(status: int) -> str:
        return f'architectures = ["{names}"]\n[emulators]\nstore = "{store}"\nversion = "version-{status}"\n'

    daemon = start_daemon(config(1))
    with executing(instance, programs) as loops:
        for number in range(times(1000)):
            status = 2 - number % 2
            daemon.config.write_text(config(status))
            daemon.reload()
            daemon.wait_status(partial(converged_with, number + 2), f"generation {number + 2} in force")
            assert {instance.run([str(program)]).returncode for program in programs} == {status}
            loops.execute_again()
    for outcomes in loops.outcomes:
        assert set(statuses(outcomes)) == {1, 2}, outcomes
    assert not daemon.logs("registration_failed")


def test_a_match_and_an_order_that_change(
    instance: Instance, start_daemon: StartDaemon, times: Times, bin_directory: Path
) -> None:
    """No execution fails in 1,000 reloads that change a match which takes the program, or the order of two handlers."""
    one, two = (install(bin_directory / str(status), exits_with(status)) for status in (1, 2))
    same = install(bin_directory / "same", b"\0onetwo")
    either = install(bin_directory / "either", b"\0threefour")
    matches = ("magic = '\\x00one'", "magic = '\\x00onet'", "magic = '\\x00ONE'\nmask = '\\xff\\xdf\\xdf\\xdf'")

    def config(number: int) -> str:
        return f"""
architectures = []
[handlers.same]
interpreter = "{one}"
{matches[number % 3]}
[handlers.three]
interpreter = "{one}"
magic = '\\x00three'
priority = {number % 2}
[handlers.four]
interpreter = "{two}"
magic = 'four'
offset = 6
priority = {1 - number % 2}
"""

    daemon = start_daemon(config(0))
    with executing(instance, [same, either]) as loops:
        for number in range(1, times(1000) + 1):
            daemon.config.write_text(config(number))
            daemon.reload()
            daemon.wait_status(partial(converged_with, number + 1), f"generation {number + 1} in force")
            assert ends_with(instance, either, 1 if number % 2 else 2)
            loops.execute_again()
    found_same, found_either = loops.outcomes
    assert {status for status, _ in found_same} == {1}, found_same
    assert {status for status, _ in found_either} == {1, 2}
    assert len(found_either) > number, "the order did not change each time"


def converged_with(generation: int, status: dict[str, Any]) -> bool:
    return bool(status["config"]["generation"] == generation and status["state"] == "converged")


def rename_over(directory: Path, content: bytes) -> None:
    """Replace the interpreter as dpkg does."""
    install(directory / "interpreter", content)


def switch_a_link(directory: Path, content: bytes) -> None:
    """Replace the interpreter as update-alternatives does: rename a link to another file over the old link."""
    link = directory / "chain" / "link"
    versions = sorted(directory.glob("version-*"), key=lambda path: int(path.name[8:]))
    new = install(directory / f"version-{int(versions[-1].name[8:]) + 1}", content)
    (directory / "new").symlink_to(new)
    os.rename(directory / "new", link)
    for version in versions[:-1]:
        version.unlink()


def switch_a_directory(directory: Path, content: bytes) -> None:
    """Make a link to a directory on the path point to another directory, as with /opt/tool/current."""
    old = os.readlink(directory / "current")
    new = directory / f"release-{int(old.rpartition('-')[2]) + 1}"
    new.mkdir(mode=0o755)
    install(new / "interpreter", content)
    (directory / "new").symlink_to(new)
    os.rename(directory / "new", directory / "current")


def lay_out(directory: Path, upgrade: Callable[[Path, bytes], None], content: bytes) -> Path:
    """Create the files for this kind of upgrade, and return the path to configure."""
    if upgrade is switch_a_link:
        (directory / "chain").mkdir(mode=0o755)
        install(directory / "version-0", content)
        (directory / "chain" / "link").symlink_to(directory / "version-0")
        (directory / "interpreter").symlink_to("chain/link")
        return directory / "interpreter"
    if upgrade is switch_a_directory:
        (directory / "release-0").mkdir(mode=0o755)
        install(directory / "release-0" / "interpreter", content)
        (directory / "current").symlink_to(directory / "release-0")
        return directory / "current" / "interpreter"
    return install(directory / "interpreter", content)


@pytest.mark.parametrize("flags", ["F", ""])
@pytest.mark.parametrize("upgrade", [rename_over, switch_a_link, switch_a_directory], ids=lambda each: each.__name__)
def test_an_upgraded_interpreter(
    instance: Instance,
    start_daemon: StartDaemon,
    times: Times,
    bin_directory: Path,
    programs: list[Path],
    upgrade: Callable[[Path, bytes], None],
    flags: str,
) -> None:
    """After each of 1,000 upgrades the new file serves, the old one never again, and no execution fails."""
    path = lay_out(bin_directory, upgrade, exits_with(STATUSES[0]))
    names = '", "'.join(EXECUTED)
    daemon = start_daemon(f'architectures = ["{names}"]\n[emulators]\npaths = ["{path}"]\nflags = "{flags}"\n')
    rounds = times(1000) // 6 + 1
    before = [instance.inode(name) for name in ENTRIES]
    with executing(instance, programs) as loops:
        for number in range(1, rounds + 1):
            upgrade(bin_directory, exits_with(STATUSES[number % 100]))
            loops.execute_again()  # without F, the kernel may be on its way to a file that the next upgrade removes
            if flags:
                before = [instance.wait_registered_anew(*entry) for entry in zip(ENTRIES, before, strict=True)]
        daemon.wait_converged()
        expected = STATUSES[rounds % 100]
        for program in programs:
            wait_until(partial(ends_with, instance, program, expected), what="the new one")
    for outcomes in loops.outcomes:
        follow_each_other(statuses(outcomes), rounds)


def ends_with(instance: Instance, program: Path, expected: int) -> bool:
    return instance.run([str(program)], errors="replace").returncode == expected


def follow_each_other(met: list[int | str], rounds: int) -> None:
    """Assert that the statuses are in the order of the versions, some of which served too briefly to be met."""
    version = 0
    for status in met:
        assert isinstance(status, int), met
        while STATUSES[version % 100] != status:
            version += 1
            assert version <= rounds, f"{status} came after a newer one: {met}"


@pytest.mark.parametrize("flags", ["F", ""])
def test_removed_and_created_again(
    instance: Instance, start_daemon: StartDaemon, times: Times, bin_directory: Path, programs: list[Path], flags: str
) -> None:
    """After an interpreter is removed and created again, the new file serves; with F the old one does until then."""
    path = install(bin_directory / "interpreter", exits_with(STATUSES[0]))
    names = '", "'.join(EXECUTED)
    daemon = start_daemon(f'architectures = ["{names}"]\n[emulators]\npaths = ["{path}"]\nflags = "{flags}"\n')
    rounds = times(200)
    with executing(instance, programs) as loops:
        for number in range(1, rounds + 1):
            path.unlink()
            if number % 2:
                daemon.wait_status(lambda s: any(row["reason"] for row in s["handlers"]), "that it is missing")
            path.write_bytes(exits_with(STATUSES[number % 100]))
            path.chmod(0o755)
            expected = STATUSES[number % 100]
            for program in programs:
                wait_until(partial(ends_with, instance, program, expected), what="the new one")
        daemon.wait_converged()
    for outcomes in loops.outcomes:
        if flags:
            follow_each_other(statuses(outcomes), rounds)


def test_no_name_that_vanishes_is_a_helper(
    instance: Instance, start_daemon: StartDaemon, times: Times, bin_directory: Path
) -> None:
    """`cat qemu-*` fails only for entries that another process has just removed."""
    path = install(bin_directory / "interpreter", exits_with(1))
    names = '", "'.join(ARCHITECTURES)
    daemon = start_daemon(f'architectures = ["{names}"]\nsettle = "20ms"\n[emulators]\npaths = ["{path}"]\n')
    removed = [f"qemu-{name}" for name in ARCHITECTURES[::2]]
    errors, end = bin_directory / "errors", bin_directory / "end"
    with errors.open("w") as output:
        reader = 'cd "$1"; echo begins; while [ ! -e "$2" ]; do cat qemu-* 2>&1 >/dev/null; done'
        command = ["sh", "-c", reader, "sh", instance.mount_point, str(end)]
        process = instance.popen(command, stdout=output, stdin=subprocess.DEVNULL)
        wait_until(lambda: errors.read_text().startswith("begins\n"), what="a shell in the instance")
        for number in range(times(9 * len(removed))):  # a tenth time in ten seconds would be contention
            name = removed[number % len(removed)]
            inode = instance.inode(name)
            instance.remove(name)
            instance.wait_registered_anew(name, inode)
        end.touch()
        process.wait(COMMAND_SECONDS)  # and so the last cat has written its last message
    daemon.wait_converged()
    allowed = {"begins", *(f"cat: {name}: No such file or directory" for name in removed)}
    assert not set(errors.read_text().splitlines()) - allowed
