"""With permanent stand-ins no execution fails, whatever another program does to entries by name."""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Times
from support.cli import Cli
from support.daemon import StartDaemon
from support.exec_loop import ExecLoop
from support.instance import Instance
from support.pacing import BelowContention
from support.programs import exits_with, install
from support.waiting import IN_CREATE, IN_DELETE, IN_MODIFY, SLOWNESS, DirectoryWatch, wait_until

from binfmtd.model.stand_in import stand_in_name

Disturb = Callable[[Instance], None]

ONE, OTHER = stand_in_name("one"), stand_in_name("other")
LINE = b":one:M::\\x00one::/usr/bin/true:"
CONFIG = r"""
architectures = []
[handlers.one]
magic = '\x00one'
interpreter = "/usr/bin/true"
[handlers.other]
magic = '\x00other'
interpreter = "/usr/bin/true"
"""
SHARING = r"""
[handlers.low]
magic = '\x00s'
interpreter = "/usr/bin/true"
[handlers.high]
magic = '\x00share'
interpreter = "/usr/bin/true"
"""
JAR = r"""
[handlers.jar]
extension = "jar"
interpreter = "/usr/bin/false"
priority = 1
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return a file that handler "one" takes."""
    return install(tmp_path / "program", b"\0one")


def all_stand(instance: Instance) -> bool:
    return set(instance.all_names()) == {"one", "other", ONE, OTHER}


def test_each_handler_has_two_entries(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """From READY=1 on each handler has two entries; commands show one of them, and `import` writes one."""
    daemon = start_daemon(CONFIG)
    assert all_stand(instance)
    cli.state_directory = daemon.state_directory
    assert "2 handlers in order" in cli("status").stdout
    for command in (("status", "--json"), ("plan",), ("import", "--kernel"), ("doctor",), ("explain", "/usr/bin/true")):
        result = cli(*command, config=CONFIG)
        assert ".binfmtd~" not in result.stdout + result.stderr, command
    assert cli("plan", config=CONFIG).stdout == "nothing to do: 2 handlers registered\n"


def register(instance: Instance) -> None:
    """Register the entry as another program does; this may fail if binfmtd was faster."""
    with contextlib.suppress(FileExistsError):
        instance.register(LINE)


def remove_if_there(instance: Instance, name: str = "one") -> None:
    with contextlib.suppress(FileNotFoundError):
        instance.remove(name)


def remove_and_register(seconds: float) -> Disturb:
    def disturb(instance: Instance) -> None:
        remove_if_there(instance)
        time.sleep(seconds)  # the time that the other program takes
        register(instance)

    return disturb


def disable(instance: Instance) -> None:
    instance.write("one", b"0")


def disable_the_stand_in(instance: Instance) -> None:
    instance.write(ONE, b"0")


def remove_the_stand_in(instance: Instance) -> None:
    """Remove the stand-in, as `tonistiigi/binfmt --uninstall arm64` does, which finds its name first."""
    instance.remove(ONE)


NEED_THE_ENTRY = (remove_if_there, disable)


@pytest.mark.parametrize(
    "disturb",
    [
        remove_if_there,
        disable,
        remove_and_register(0.0),
        remove_and_register(0.001),
        remove_and_register(0.05),
        remove_the_stand_in,
        disable_the_stand_in,
    ],
)
def test_no_execution_fails(
    instance: Instance, start_daemon: StartDaemon, program: Path, disturb: Disturb, times: Times
) -> None:
    """No execution fails while another process disturbs the program's entry again and again.

    Some disturbances need the proper entry, which is missing for up to 30 s once the daemon backs off.  They happen as
    often as possible without that: nine repairs in each ten seconds.
    """
    daemon = start_daemon(CONFIG)
    rounds = times(200)
    pace = BelowContention()
    with ExecLoop(instance, program) as loop:
        for _ in range(max(5, rounds)):
            if disturb in NEED_THE_ENTRY:
                pace.wait()
            disturb(instance)
            wait_until(lambda: all_stand(instance), what="both entries")
            daemon.wait_converged()
            pace.repaired()
        outcomes = loop.stop()
    assert [outcome for outcome, _ in outcomes] == [0]


def test_a_missing_stand_in_comes_back_at_once(instance: Instance, start_daemon: StartDaemon) -> None:
    """A missing stand-in is registered without waiting for quiet, and its handler does not count as drifting."""
    daemon = start_daemon("settle = '1s'\n" + CONFIG)
    instance.remove(ONE)
    wait_until(lambda: ONE in instance.all_names(), 0.9, "the stand-in")
    assert daemon.status()["state"] == "converged"
    assert daemon.status()["repairs"] == 0
    assert not daemon.logs("repaired")


@pytest.mark.parametrize("line", [b":%s:M::\\x00one::/usr/bin/false:", b":%s:M::other::/usr/bin/true:"])
def test_another_entry_of_its_name(instance: Instance, start_daemon: StartDaemon, program: Path, line: bytes) -> None:
    """A foreign entry under a stand-in's name is replaced."""
    start_daemon(CONFIG)
    with DirectoryWatch(instance.directory, IN_CREATE | IN_DELETE | IN_MODIFY):
        instance.remove(ONE)
        try:
            instance.register(line % ONE.encode())
        except FileExistsError:
            return  # binfmtd was faster
    wait_until(lambda: "true" in instance.read(ONE) and "006f6e65" in instance.read(ONE), what="our stand-in")
    assert instance.run([str(program)]).returncode == 0


def test_a_removal_in_spite_of_back_off(instance: Instance, start_daemon: StartDaemon, program: Path) -> None:
    """While the daemon backs off from an entry that is removed each time, no execution fails."""
    daemon = start_daemon(CONFIG)
    with ExecLoop(instance, program) as loop:
        for _ in range(13):
            wait_until(lambda: "one" in instance.all_names(), what="one more repair")
            instance.remove("one")
        daemon.wait_for_log("contention_started", entry="one")
        status = daemon.wait_status(
            lambda status: status["contended"] and status["handlers"][0]["state"] == "stand_in", "a stand-in serves"
        )
        assert status["state"] == "drifting"
        outcomes = loop.stop()
    assert [outcome for outcome, _ in outcomes] == [0]


def test_both_removed_again_and_again(instance: Instance, start_daemon: StartDaemon) -> None:
    """The stand-in returns however often both entries are removed; only the proper entry is subject to backoff."""
    daemon = start_daemon(CONFIG)
    for _ in range(60):
        wait_until(lambda: ONE in instance.all_names(), 1, "the stand-in")
        for name in ("one", ONE):
            remove_if_there(instance, name)
    wait_until(lambda: ONE in instance.all_names(), 1, "the stand-in")
    assert daemon.process.poll() is None


def test_an_upgraded_interpreter(instance: Instance, start_daemon: StartDaemon, program: Path, tmp_path: Path) -> None:
    """After an upgrade both entries, which with F have the old file open, are registered anew, the stand-in first."""
    (tmp_path / "bin").mkdir(mode=0o755)
    path = install(tmp_path / "bin" / "interpreter", exits_with(1))
    config = CONFIG.replace('"/usr/bin/true"', f'"{path}"\nflags = "F"', 1)
    daemon = start_daemon("settle = '1s'\n" + config)
    before = {name: instance.inode(name) for name in (ONE, "one")}
    with ExecLoop(instance, program) as loop:
        install(path, exits_with(2))
        instance.wait_registered_anew(ONE, before[ONE])
        assert instance.run([str(program)]).returncode == 2, "it serves before it is quiet"
        instance.wait_registered_anew("one", before["one"])
        daemon.wait_converged()
        outcomes = loop.stop()
    assert [outcome for outcome, _ in outcomes] == [1, 2]
    ledger = json.loads((daemon.state_directory / "ledger.json").read_text())["entries"]
    assert ledger[ONE]["pinned"] == ledger["one"]["pinned"] is not None


def test_apply_after_a_daemon(
    instance: Instance, start_daemon: StartDaemon, cli: Cli, program: Path, bin_directory: Path
) -> None:
    """After a daemon's end `apply` renews the entries of an upgraded emulator, but makes no missing stand-in."""
    path = install(bin_directory / "interpreter", exits_with(1))
    config = CONFIG.replace('"/usr/bin/true"', f'"{path}"\nflags = "F"', 1)
    daemon = start_daemon(config)
    daemon.terminate()
    install(path, exits_with(2))
    instance.remove(OTHER)
    cli.state_directory = daemon.state_directory
    assert cli("apply", config=config).status == 0
    assert set(instance.all_names()) == {"one", "other", ONE}
    instance.remove("one")
    assert instance.run([str(program)]).returncode == 2


def test_a_reload(instance: Instance, start_daemon: StartDaemon) -> None:
    """A reload can change `stand_ins`; an entry that is no longer declared is removed with its stand-in."""
    daemon = start_daemon(CONFIG)
    daemon.config.write_text('stand_ins = "temporary"\n' + CONFIG)
    daemon.reload()
    wait_until(lambda: sorted(instance.all_names()) == ["one", "other"], what="no stand-ins")
    daemon.config.write_text(CONFIG)
    daemon.reload()
    wait_until(lambda: all_stand(instance), what="stand-ins")
    daemon.config.write_text("architectures = []\n")
    daemon.reload()
    wait_until(lambda: instance.all_names() == [], what="nothing")


@pytest.mark.parametrize("left", ["keep", "remove"])
def test_a_stop(instance: Instance, start_daemon: StartDaemon, left: str) -> None:
    """With on_stop = "keep" stand-ins stay through a restart, with "remove" they go with their entries."""
    daemon = start_daemon(f"on_stop = '{left}'\n" + CONFIG)
    before = instance.all_inodes()
    assert daemon.terminate() == 0
    assert all_stand(instance) if left == "keep" else instance.all_names() == []
    if left == "keep":
        start_daemon(CONFIG)
        assert instance.all_inodes() == before, "the next daemon knows them as its own"


def test_two_daemons_that_agree(instance: Instance, start_daemon: StartDaemon) -> None:
    """Two daemons with equal configs accept each other's entries: neither replaces them again and again."""
    config = CONFIG.replace('interpreter = "/usr/bin/true"', 'interpreter = "/usr/bin/true"\nflags = "F"')
    first = start_daemon(config, directory="first")
    second = start_daemon(config, directory="second")
    wait_until(lambda: all_stand(instance), what="all")
    for _ in range(3):
        instance.remove("one")
        instance.remove(OTHER)
        wait_until(lambda: all_stand(instance), what="all")
        for daemon in (first, second):
            daemon.wait_converged()
    wait_until(lambda: _still(instance), what="a second in which nothing is registered")


def _still(instance: Instance, seconds: float = 0.5) -> bool:
    with DirectoryWatch(instance.directory, IN_CREATE | IN_DELETE | IN_MODIFY) as watch:
        time.sleep(seconds)  # nothing is to happen
        return watch.pending() == []


def test_two_daemons_that_disagree(instance: Instance, start_daemon: StartDaemon) -> None:
    """Two daemons with different configs back off from each other, also where stand-ins are concerned."""
    with DirectoryWatch(instance.directory, IN_MODIFY) as watch:
        first = start_daemon(CONFIG, directory="first")
        second = start_daemon(CONFIG.replace("true", "false"), directory="second")
        # On a slow processor the second makes fewer than ten repairs in ten seconds once the first has backed off.
        enough = 1 if SLOWNESS > 1 else 2
        wait_until(
            lambda: sum(bool(daemon.logs("contention_started")) for daemon in (first, second)) >= enough,
            20,
            what="the backoff",
        )
        wait_until(lambda: _still(instance, 3.0), 60, what="three seconds in which nothing is registered")
        removed = Counter(event.name for event in watch.pending())
    assert removed["one"] > 0
    assert removed[ONE] <= 3 * removed["one"], "an exchange belongs to a repair"


def test_a_daemon_with_temporary_stand_ins_beside_it(instance: Instance, start_daemon: StartDaemon) -> None:
    """A daemon with temporary stand-ins beside one with permanent ones backs off from removing these, and logs it."""
    first = start_daemon(CONFIG, directory="first")
    second = start_daemon('stand_ins = "temporary"\n' + CONFIG, directory="second")
    second.wait_for_log("contention_started", 20)
    wait_until(lambda: _still(instance), 30, what="half a second in which nothing is registered")
    assert not first.logs("contention_started")
    assert not any(".binfmtd~" in str(said) for said in (second.logs(), second.status()))


def test_a_left_over_helper_goes(instance: Instance, start_daemon: StartDaemon) -> None:
    """The helper that a daemon left when it was killed during the exchange of a stand-in is removed."""
    daemon = start_daemon(CONFIG)
    helper = stand_in_name(ONE)
    instance.register(b":%s:M::\\x00one::/usr/bin/true:" % helper.encode())
    wait_until(lambda: helper not in instance.all_names(), what="the end of the helper")
    daemon.wait_converged()


def test_handlers_that_share_files(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """Handlers that share files have temporary stand-ins, and `check` names them."""
    start_daemon(CONFIG + SHARING)
    assert {stand_in_name("low"), stand_in_name("high")}.isdisjoint(instance.all_names())
    assert {ONE, OTHER} < set(instance.all_names())
    assert instance.names().index("high") < instance.names().index("low")
    result = cli("check", config=CONFIG + SHARING)
    assert [line.split(":")[0] for line in result.messages] == ["high", "low"]
    assert "can take the same files as low, so its stand-in is temporary" in result.messages[0]


def test_a_higher_priority_of_another_kind(instance: Instance, start_daemon: StartDaemon) -> None:
    """If a magic and an extension may share a file, neither entry of the lower handler is above the higher one's."""
    daemon = start_daemon(CONFIG + JAR)
    jars = {"jar", stand_in_name("jar")}

    def in_order() -> bool:
        names = instance.all_names()
        return len(names) == 6 and set(names[:2]) == jars

    wait_until(in_order, what="both of the higher on top")
    for name in (ONE, "one", "jar", stand_in_name("jar")):
        instance.remove(name)
        wait_until(in_order, what="both of the higher on top")
        daemon.wait_converged()


def test_a_flush(instance: Instance, start_daemon: StartDaemon) -> None:
    """After a flush stand-ins are registered first, and the proper entries when it is quiet; then each has both."""
    daemon = start_daemon("settle = '300ms'\n" + CONFIG)
    with DirectoryWatch(instance.directory, IN_MODIFY) as watch:
        instance.remove("status")
        watch.wait_for(lambda event: event.name == "register", what="a registration")
    wait_until(lambda: {ONE, OTHER} <= set(instance.all_names()), what="both stand-ins")
    assert not {"one", "other"} & set(instance.all_names())
    wait_until(lambda: all_stand(instance), what="all")
    daemon.wait_converged()
