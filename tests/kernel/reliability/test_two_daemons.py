"""Two daemons on one instance, of a host and of a pod: equal configs come to rest, different ones cost little."""

import select
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from support import Times
from support.cpu import MINUTE, MOST, shares_of_a_core
from support.daemon import StartDaemon
from support.exec_loop import ExecLoop
from support.instance import Instance
from support.programs import exits_with, foreign_program, install
from support.waiting import DirectoryWatch, wait_until

from binfmtd.catalog.architectures import CATALOG
from binfmtd.model.stand_in import is_stand_in, stand_in_name

NAMES = [f"handler{number}" for number in range(20)]
ALIKE = "".join(f"[handlers.{name}]\nmagic = '\\x00{name}'\ninterpreter = '/usr/bin/true'\n" for name in NAMES)
EXECUTED = "riscv64"
SETTLED_SECONDS = 30


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """Return an interpreter that can be upgraded."""
    (tmp_path / "bin").mkdir(mode=0o755)
    return install(tmp_path / "bin" / "interpreter", exits_with(1))


@pytest.mark.parametrize("flags", ["", "F"])
def test_they_agree(
    instance: Instance, start_daemon: StartDaemon, times: Times, interpreter: Path, tmp_path: Path, flags: str
) -> None:
    """After every change both daemons come to rest and write no more, and no program lacks its handler meanwhile."""
    names = [name for name in CATALOG if name not in ("i386", "x86_64")]
    architectures = '", "'.join(names)
    config = f'architectures = ["{architectures}"]\n[emulators]\npaths = ["{interpreter}"]\nflags = "{flags}"\n'
    first = start_daemon(config, directory="first")
    program = foreign_program(tmp_path / "program", CATALOG[EXECUTED])
    with DirectoryWatch(instance.directory) as watch, ExecLoop(instance, program) as loop:

        def at_rest(after: str, gone: Iterable[int] = ()) -> None:
            """Wait until these inode numbers are gone, and then until no process has written for a while."""

            def all_there() -> bool:
                return len(set(instance.inodes().values()).difference(gone)) == len(names)

            wait_until(all_there, SETTLED_SECONDS, f"all of them after {after}")
            deadline = time.monotonic() + SETTLED_SECONDS
            while select.select([watch], [], [], times(MINUTE))[0]:
                assert time.monotonic() < deadline, f"after {after} they go on: {watch.pending()}"
                watch.pending()

        daemons = [first, start_daemon(config, directory="second")]
        at_rest("the start of the second")

        def removed() -> int:
            number = instance.inode(f"qemu-{names[0]}")
            instance.remove(f"qemu-{names[0]}")
            return number

        number = wait_until(removed, what="a removal, although one daemon may only now replace the entry")
        at_rest("a removal", [number])
        old = instance.inodes().values()
        install(interpreter, exits_with(2))
        at_rest("an upgrade", old if flags else ())
        wait_until(lambda: instance.run([str(program)]).returncode == 2, what="the new interpreter")
        outcomes = [status for status, _ in loop.stop()]
        old = instance.inodes().values()
        instance.remove("status")
        at_rest("a flush", old)
    assert outcomes == [1, 2]
    for daemon in daemons:
        assert not daemon.logs("contention_started")
        assert not daemon.logs(level="error")


def other(interpreter: str, more: str = "") -> str:
    return f"[handlers.other]\nmagic = '\\x00other'\ninterpreter = '{interpreter}'\n{more}"


WANT = {
    "interpreter": (ALIKE + other("/usr/bin/true"), ALIKE + other("/usr/bin/false")),
    "flags": (ALIKE + other("/usr/bin/true", "flags = 'F'\n"), ALIKE + other("/usr/bin/true")),
    "disabled": (ALIKE + other("/usr/bin/true"), ALIKE + other("/usr/bin/true", "enabled = false\n")),
    "unmanaged": (ALIKE + other("/usr/bin/true"), 'unmanaged = "remove"\n' + ALIKE),
}


@pytest.mark.parametrize("about", WANT)
def test_they_disagree(instance: Instance, start_daemon: StartDaemon, times: Times, about: str) -> None:
    """Configs that differ in one entry are contention for both daemons: it costs little, and equal entries stand.

    Once one daemon has ended, the other one's entry stands.
    """
    minute = times(MINUTE)
    if minute < MINUTE and about != "interpreter":
        pytest.skip("only in make reliability")
    configs = [config if "unmanaged" in config else "architectures = []\n" + config for config in WANT[about]]
    first = start_daemon(configs[0], directory="0")
    # A fight may delay its READY=1 by five seconds.
    second = start_daemon(configs[1], directory="1", ready=False)
    for daemon in (first, second):
        daemon.wait_for_log("contention_started", 30, entry="other")
    shares = shares_of_a_core(minute, first.pid, second.pid)
    print(f"about {about}: {shares[0]:.2%} and {shares[1]:.2%} of a core for {minute} s")
    for daemon in (first, second):
        daemon.wait_status(lambda status: status["contended"] == ["other"], "contention")
        assert len(daemon.logs("contention_started")) == 1
    instance.remove(NAMES[0])
    wait_until(lambda: NAMES[0] in instance.names(), what="what they agree about")
    if minute == MINUTE:
        assert max(shares) < MOST
        second.terminate()
        first.wait_for_log("contention_ended", 2 * MINUTE, entry="other")
        first.wait_converged()
        assert "interpreter /usr/bin/true" in instance.read("other")
    assert not first.logs(level="error")


def test_the_stand_ins_of_the_other(instance: Instance, start_daemon: StartDaemon) -> None:
    """A stand-in for a handler that this daemon never had is left to the other daemon, also when this one stops."""
    start_daemon("architectures = []\non_stop = 'remove'\n" + other("/usr/bin/true"), directory="host")
    wait_until(lambda: stand_in_name("other") in instance.all_names())
    hosts = instance.inode(stand_in_name("other"))
    pod = start_daemon("architectures = []\non_stop = 'remove'\n" + ALIKE, directory="pod")
    helper = ".binfmtd~theirs"
    instance.register(b":%b:M::\\x00theirs::/usr/bin/true:" % helper.encode())
    number = instance.inode(helper)
    instance.remove(NAMES[0])  # makes it scan everything
    wait_until(lambda: {NAMES[0], stand_in_name(NAMES[0])} < set(instance.all_names()))
    pod.wait_status(lambda status: status["repairs"] == 1 and status["state"] == "converged")
    assert not pod.logs("contention_started")
    assert pod.terminate() == 0
    assert sorted(instance.all_names()) == [stand_in_name("other"), helper, "other"]
    assert instance.inode(helper) == number
    assert instance.inode(stand_in_name("other")) == hosts, "it was there at every moment"
    assert is_stand_in(helper)
