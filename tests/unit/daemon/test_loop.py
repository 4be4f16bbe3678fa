"""The real loop on a simulated kernel and clock: what it writes, what it logs, and when."""

import errno
import os
from itertools import pairwise
from math import inf

import pytest
from support.simulated import declared
from support.simulated_loop import SimulatedLoop
from support.simulated_parts import SimulatedFacts
from support.simulated_time import START
from support.simulated_wait import INOTIFY, WAKING

from binfmtd.daemon.entries.backoff import REPAIRS
from binfmtd.daemon.interpreters.probe_runner import ProbeRunner
from binfmtd.daemon.repairs import sealing
from binfmtd.daemon.state_files.boot_file import BootFile
from binfmtd.daemon.throttle import LONGEST_PAUSE
from binfmtd.daemon.watches.events import PendingEvents
from binfmtd.errors import ConfigError, SealError
from binfmtd.kernel.mount import Mounted
from binfmtd.model.config import Config, OnStop, Policy, StandInPolicy
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Magic
from binfmtd.model.stand_in import stand_in_name

SETTLE = 0.02
SOON = 0.005  # seconds: some writes, and what the loop takes to wake
A, B = (Handler(name, Registration(Magic(name.encode()), "/i/" + name, Flags.NONE)) for name in "ab")
POLICY = Policy(settle=SETTLE)


def config(*handlers: Handler, policy: Policy = POLICY) -> Config:
    return Config(declared(handlers), policy)


@pytest.fixture
def loop() -> SimulatedLoop:
    """Return a loop with two handlers, which have permanent stand-ins."""
    return SimulatedLoop(config(A, B))


def test_the_start(loop: SimulatedLoop) -> None:
    """The first pass registers every handler and its stand-in, and then READY=1 is sent."""
    loop.run(1.0)
    assert loop.happened("kernel") == ["register"] * 4
    assert loop.happened("systemd") == ["READY=1", "STOPPING=1"]
    assert set(loop.names()) == {"a", "b", stand_in_name("a"), stand_in_name("b")}
    (ready,) = loop.when("systemd", "READY=1")
    assert ready > max(loop.when("kernel", "register"))


def test_a_removal_by_name(loop: SimulatedLoop) -> None:
    """An entry that another program removed is registered again when its name was quiet for ``settle`` seconds."""
    loop.at(1.0, loop.removes, "a")
    loop.run(5.0)
    (_, repaired) = loop.when("kernel", "register", "a")
    assert 1.0 + SETTLE <= repaired <= 1.0 + SETTLE + SOON
    assert loop.happened("log", "a") == ["debug drift_found", "debug done", "warning repaired"]


def test_a_removal_without_a_stand_in() -> None:
    """A temporary stand-in is registered at once, before anything is logged, and removed after the repair."""
    loop = SimulatedLoop(config(A, policy=POLICY._replace(stand_ins=StandInPolicy.TEMPORARY)))
    loop.at(1.0, loop.removes, "a")
    loop.run(5.0)
    stand_in = stand_in_name("a")
    (bridged,) = loop.when("kernel", "register", stand_in)
    assert bridged <= 1.0 + 2 * WAKING
    after = [(each.who, each.names) for each in loop.trace if each.at >= 1.0 and each.who in ("kernel", "log")]
    assert after[0] == ("kernel", stand_in)
    assert loop.happened("kernel", stand_in)[-2:] == ["register", "remove"]


@pytest.mark.parametrize("reports_removals", [True, False])
def test_a_flush(reports_removals: bool) -> None:
    """After a flush all stand-ins are registered at once, and all proper entries when it is quiet."""
    loop = SimulatedLoop(config(A, B), reports_removals=reports_removals)
    loop.at(1.0, loop.flushes)
    loop.run(5.0)
    for name in "ab":
        assert 1.0 < loop.when("kernel", "register", stand_in_name(name))[1] <= 1.0 + SOON
        assert 1.0 + SETTLE <= loop.when("kernel", "register", name)[1] <= 1.0 + SETTLE + SOON
    assert loop.happened("log", "a b") == ["debug done", "debug drift_found", "debug done", "warning repaired"]


def test_a_switched_off_instance(loop: SimulatedLoop) -> None:
    """An instance that was switched off is switched on again at once, by the urgent repair."""
    loop.at(1.0, loop.switches_off)
    loop.run(5.0)
    (enabled,) = loop.when("kernel", "enable", "status")
    assert enabled <= 1.0 + SOON


def test_a_reload(loop: SimulatedLoop) -> None:
    """SIGHUP puts the changed config in force; READY=1 follows RELOADING=1 when that is done."""
    loop.at(1.0, loop.reloads, config(A._replace(registration=A.registration._replace(interpreter="/i/new"))))
    loop.run(5.0)
    assert loop.happened("systemd") == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
    entry = loop.kernel.entry("a")
    assert entry is not None
    assert entry.registration is not None
    assert (entry.registration.interpreter, loop.kernel.entry("b")) == ("/i/new", None)
    assert loop.when("log", "info config_reloaded")[0] < loop.when("kernel", "remove", "b")[0]


def test_a_reload_with_an_invalid_config(loop: SimulatedLoop) -> None:
    """An invalid config changes no entry; READY=1 ends the reload."""
    loop.at(1.0, loop.reloads, ConfigError("/config: it is invalid"))
    loop.run(5.0)
    assert loop.happened("kernel") == ["register"] * 4
    assert loop.happened("systemd") == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
    assert loop.when("log", "error config_rejected")


def test_a_reload_that_may_start_no_process(loop: SimulatedLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it cannot be tried what runs natively, the config is rejected like an invalid one, and the daemon goes on."""

    def fails(*_: object) -> frozenset[str]:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(SimulatedFacts, "native", fails, raising=False)
    new = config(A)
    loop.at(1.0, loop.reloads, new._replace(specs=tuple(spec._replace(unless_native=True) for spec in new.specs)))
    loop.run(5.0)
    assert loop.when("log", "error config_rejected")
    assert loop.happened("systemd") == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
    assert {"a", "b"} <= set(loop.names())


def test_a_config_that_is_written_before_it_is_watched() -> None:
    """A change between the reading of the config and the first watch on its files is loaded, and once."""
    policy = POLICY._replace(reload_on_change=True)
    loop = SimulatedLoop(config(A, B, policy=policy))
    loop.clock.spend(1.0, 0.0)
    loop.edits_unwatched(config(A, policy=policy))
    loop.clock.spend(1.0, 0.0)
    loop.run(5.0)
    assert set(loop.names()) == {"a", stand_in_name("a")}
    assert len(loop.when("log", "info config_reloaded")) == 1


@pytest.mark.parametrize(("seconds", "names", "rejected"), [(2.5, "ab", 1), (4.5, "a", 1), (7.0, "b", 2)])
def test_a_config_that_is_away_for_a_while(seconds: float, names: str, rejected: int) -> None:
    """Files that vanish are no other config, unless an administrator reloads; when they come back, they are loaded."""
    policy = POLICY._replace(reload_on_change=True)
    first = config(A, B, policy=policy)._replace(sources=("/etc/binfmtd.toml",))
    loop = SimulatedLoop(first)
    loop.at(1.0, loop.edits, config(B))
    loop.at(3.0, loop.edits, config(A, policy=policy)._replace(sources=first.sources))
    loop.at(5.0, loop.reloads, config(B))  # the removal of the files comes first, the signal then
    loop.run(seconds)
    assert set(loop.names()) == {*names, *map(stand_in_name, names)}
    assert len(loop.when("log", "error config_rejected")) == rejected


def test_a_pause(loop: SimulatedLoop) -> None:
    """A paused entry is not repaired until its pause ends by itself; then it is, at once."""
    loop.at(1.0, loop.pauses, ["a"], 10.0)
    loop.at(2.0, loop.removes, "a")
    loop.run(20.0)
    (_, repaired) = loop.when("kernel", "register", "a")
    assert 11.0 <= repaired <= 11.0 + SOON
    assert loop.when("log", "warning pause_started", "a")[0] < 1.0 + SOON


def test_a_resume(loop: SimulatedLoop) -> None:
    """``resume`` ends a pause without a limit, and what was paused is repaired at once."""
    loop.at(1.0, loop.pauses, [], float("inf"))
    loop.at(2.0, loop.removes, "a")
    loop.at(50.0, loop.resumes, [])
    loop.run(60.0)
    (_, repaired) = loop.when("kernel", "register", "a")
    assert 50.0 <= repaired <= 50.0 + SOON


def test_a_backoff(loop: SimulatedLoop) -> None:
    """After ten repairs the daemon backs off from a name, and ends that after 60 seconds without a repair."""
    for turn in range(REPAIRS + 5):
        loop.at(1.0 + 0.2 * turn, loop.removes, "a")
    loop.run(200.0)
    repairs = loop.when("kernel", "register", "a")[1:]
    (began,) = loop.when("log", "warning contention_started", "a")
    assert repairs[REPAIRS - 1] <= began < repairs[REPAIRS]
    gaps = [later - earlier for earlier, later in pairwise(repairs[REPAIRS - 1 :])]
    assert max(gaps) > 0.3
    (ended,) = loop.when("log", "info contention_ended", "a")
    assert repairs[-1] + 60.0 <= ended <= repairs[-1] + 60.0 + 1.1, "and the log line waits a second for others"
    assert loop.names().count("a") == 1


@pytest.mark.parametrize("covers", [True, False])
def test_another_instance(loop: SimulatedLoop, covers: bool) -> None:
    """When another instance is mounted, all handlers are registered there at once."""
    loop.at(1.0, loop.covers if covers else loop.mounts_another)
    loop.run(5.0)
    assert set(loop.names()) == {"a", "b", stand_in_name("a"), stand_in_name("b")}
    assert loop.when("kernel", "register", "a")[1] <= 1.0 + SOON
    assert bool(loop.when("log", "warning watch_lost")) is not covers


def test_no_instance_for_a_while(loop: SimulatedLoop) -> None:
    """Without an instance the daemon waits for the mount table, and logs the trouble and its end once."""
    loop.at(1.0, loop.unmounts)
    loop.at(30.0, loop.mounts_another)
    loop.run(40.0)
    assert len(loop.when("log", "error trouble")) == len(loop.when("log", "info trouble_over")) == 1
    assert 30.0 <= loop.when("kernel", "register", "a")[1] <= 30.0 + SOON
    assert not [turn for turn in loop.poller.turns if START + 3.0 < turn.ended < START + 30.0]


def test_an_instance_that_is_lost_before_a_repair() -> None:
    """While a thread searches for a lost instance, no pass is made, and the loss is logged once."""
    loop = SimulatedLoop(config(A), delay=0.5)
    loop.at(5.0, loop.removes, "a")
    loop.at(5.01, loop.mounts_another)
    loop.run(10.0)
    assert len(loop.when("log", "warning watch_lost")) == 1
    assert loop.poller.spun == 0
    assert 5.5 <= loop.when("kernel", "register", "a")[1] <= 6.1, "after the search, and a look at the interpreter"


def test_the_end() -> None:
    """SIGTERM with ``on_stop = "remove"`` removes all entries; with "keep" it settles what is open and leaves them."""
    loop = SimulatedLoop(config(A, B, policy=POLICY._replace(on_stop=OnStop.REMOVE)))
    loop.run(1.0)
    assert loop.names() == []
    loop = SimulatedLoop(config(A, B))
    loop.at(0.995, loop.removes, "a")
    loop.run(1.0)
    assert set(loop.names()) == {"a", "b", stand_in_name("a"), stand_in_name("b")}


def test_the_end_without_an_instance(loop: SimulatedLoop) -> None:
    """SIGTERM ends the daemon although no instance is mounted, after a last search for one."""
    loop.at(1.0, loop.unmounts)
    loop.run(2.0)
    assert loop.happened("systemd")[-1] == "STOPPING=1"
    assert loop.happened("log")[-1] == "info stopped"


def test_an_instance_that_is_mounted_again_just_before_the_end(loop: SimulatedLoop) -> None:
    """The last search finds an instance whose mount has not been noticed yet, and the handlers are registered there."""
    loop.at(1.0, loop.unmounts)
    loop.at(2.0, loop.mounts_another)
    loop.run(2.0)
    assert {"a", "b"} <= set(loop.names())


def test_a_state_directory_that_is_removed(loop: SimulatedLoop) -> None:
    """The next write makes the directory again; that is logged once, and pauses in it are put in force."""
    loop.at(1.0, loop.removes_state_dir)
    loop.at(2.0, loop.removes, "a")
    loop.at(3.0, loop.pauses, ["b"], float("inf"))
    loop.run(5.0)
    assert len(loop.when("log", "warning state_dir_made_again")) == 1
    assert loop.when("log", "warning pause_started", "b")


def test_a_ledger_that_can_be_written_again(loop: SimulatedLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status has a problem of the ledger from the write that fails to the one that succeeds, and no longer."""

    def sync(file: BootFile) -> bool:
        file.problem = "no room" if loop.clock.now < START + 2.0 else None
        return file.problem is None

    monkeypatch.setattr(BootFile, "sync", sync)
    for method in ("put", "put_again"):  # only a thread writes, as in the real daemon
        monkeypatch.setattr(BootFile, method, lambda *_: None)
    problems: list[str | None] = []
    loop.at(1.0, lambda: problems.append(loop.document["problem"]))
    loop.at(3.0, loop.touches, "b")
    loop.at(4.0, lambda: problems.append(loop.document["problem"]))
    loop.run(5.0)
    assert problems == ["no room", None]


def test_a_module_that_is_gone(loop: SimulatedLoop) -> None:
    """A module that cannot be imported is logged, and repairs go on."""
    loop.at(1.0, loop.removes_module)
    loop.at(1.5, loop.flushes)
    loop.run(5.0)
    assert loop.when("log", "warning restart_needed")
    assert loop.when("kernel", "register", stand_in_name("a"))[1] <= 1.5 + SOON


def test_another_instance_after_a_module_is_gone(loop: SimulatedLoop) -> None:
    """A change of the mount table while the loop rests, since a module is gone, is noticed after the rest."""
    loop.at(1.0, loop.removes_module)
    loop.at(1.5, loop.covers)
    loop.run(5.0)
    assert {"a", "b"} <= set(loop.names())


def test_an_instance_that_is_lost_when_a_module_is_gone(loop: SimulatedLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for another instance begins although the rest of the turn fails to import a module."""

    def fails(_: ProbeRunner) -> None:
        monkeypatch.undo()
        raise ImportError("No module named 'binfmtd.gone'")

    def lose() -> None:
        loop.removes("a")
        lost = PendingEvents()
        lost.watch_removed = True
        loop.watch.queue.append(lost)
        monkeypatch.setattr(ProbeRunner, "want", fails)

    loop.at(1.0, lose)
    loop.run(20.0)
    assert loop.when("log", "warning restart_needed")
    assert loop.when("log", "warning watch_lost")


class HeldSeal:
    """The Seal of an instance whose files no process has open."""

    closed = left_open = False

    def __init__(self, mounted: Mounted) -> None:
        self.identity = mounted.identity

    def free_mount(self, _: Mounted) -> None: ...

    def is_read_only(self) -> bool:
        return self.closed

    def close(self) -> bool:
        self.closed = True
        return True


def test_an_instance_that_cannot_be_held_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no descriptor is left to hold the instance, the loop waits for a second, and then seals it."""
    loop = SimulatedLoop(config(A, policy=POLICY._replace(sealed=True)))
    tries: list[float] = []

    def hold(mounted: Mounted) -> HeldSeal:
        tries.append(loop.clock.now - START)
        if len(tries) == 1:
            raise SealError("/binfmt_misc: cannot be sealed", errno.EMFILE)
        return HeldSeal(mounted)

    monkeypatch.setattr(sealing, "Seal", hold)
    loop.run(5.0)
    assert tries[1:] == [pytest.approx(1.0, abs=SOON)]
    assert loop.when("log", "error seal_failed")
    assert loop.when("log", "info sealed") == [pytest.approx(1.0, abs=SOON)]
    assert loop.poller.spun == 0


def test_endless_writes(loop: SimulatedLoop) -> None:
    """Events that call for nothing, and take much CPU time, are not read for three seconds at most."""
    loop.at(1.0, loop.writes_endlessly, "a", 10.0)
    loop.at(1.5, loop.touches, "a")
    loop.run(10.0)
    _, second = (turn.ended - START for turn in loop.poller.turns if INOTIFY in turn.woken)
    assert 1.0 + LONGEST_PAUSE <= second <= 1.0 + LONGEST_PAUSE + 2 * SETTLE


def test_every_deadline_is_kept(loop: SimulatedLoop) -> None:
    """A wait ends at its deadline, never later, unless an event ends it; after that no deadline is left that is due."""
    loop.at(1.0, loop.removes, "a")
    loop.at(1.01, loop.touches, "a")
    loop.at(1.5, loop.pauses, ["b"], 3.0)
    loop.at(2.0, loop.removes, "b")
    loop.at(7.0, loop.flushes)
    loop.run(1000.0)
    waits = [turn for turn in loop.poller.turns if turn.deadline != -inf]  # else a pass is under way
    for turn in waits:
        assert turn.deadline > turn.began, "the loop handles everything that is due before it waits"
        assert turn.ended <= turn.deadline + 2 * WAKING
        assert turn.woken or turn.ended >= turn.deadline
    assert len(waits) < 50
    assert len(loop.poller.turns) < 100


def test_interpreter_that_is_replaced() -> None:
    """An entry with flag F is registered anew when its interpreter's file is another one."""
    loop = SimulatedLoop(config(A._replace(registration=A.registration._replace(flags=Flags.F))))
    loop.at(1.0, loop.installs, "/i/a")
    loop.run(5.0)
    assert 1.0 < loop.when("kernel", "register", stand_in_name("a"))[1] <= 1.0 + SOON
    assert 1.0 + SETTLE <= loop.when("kernel", "register", "a")[1] <= 1.0 + 2 * SETTLE


def test_disks_that_are_slow() -> None:
    """A repair waits for no thread: with threads that take two seconds each, programs run again as soon as without."""
    loop = SimulatedLoop(config(A), delay=2.0)
    loop.at(20.0, loop.flushes)
    loop.run(60.0)
    assert loop.when("kernel", "register", stand_in_name("a"))[1] <= 20.0 + SOON
    assert loop.when("kernel", "register", "a")[1] <= 20.0 + SETTLE + SOON
