"""The loop while a pass scans 300 foreign entries, which takes at least 30 ms: nothing urgent waits for its end.

The scan begins at ``SCAN``, when a refused registration has been quiet for ``settle`` seconds.
"""

from itertools import pairwise
from math import inf
from typing import Any

import pytest
from support.simulated import declared
from support.simulated_loop import SimulatedLoop
from support.simulated_time import START
from support.simulated_wait import SLICE, WAKING

from binfmtd.daemon.loop import PASS_SECONDS, WRITE_SECONDS
from binfmtd.daemon.repairs.interpreter_looks import InterpreterLooks
from binfmtd.daemon.repairs.repair_schedule import RepairSchedule
from binfmtd.daemon.repairs.sealing import Sealing
from binfmtd.daemon.throttle import EventThrottle
from binfmtd.daemon.watches.instance_watch import UNWATCHED_SECONDS
from binfmtd.daemon.watches.mount_watcher import LEAST_REST
from binfmtd.kernel.instance import Instance, Observer
from binfmtd.kernel.steps import Steps
from binfmtd.model.config import Config, Policy
from binfmtd.model.entry import ObservedState
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Extension, Magic
from binfmtd.model.stand_in import stand_in_name

SETTLE = 0.02
SOON = 0.005
ENTRIES = 300
SCAN = 1.0 + SETTLE
SCAN_SECONDS = ENTRIES * SLICE  # at least
WITHIN = SCAN + 0.01
A, B = (Handler(name, Registration(Magic(name.encode()), "/i/" + name, Flags.NONE)) for name in "ab")


@pytest.fixture
def loop() -> SimulatedLoop:
    """Return a loop that scans all entries from ``SCAN`` on."""
    loop = SimulatedLoop(Config(declared([A, B]), Policy(settle=SETTLE)))
    for number in range(ENTRIES):
        loop.kernel.register(f"foreign{number}", Registration(Extension(f"x{number}"), "/i/x", Flags.NONE))
    loop.at(1.0, loop.touches, "a")
    return loop


def turns_in_the_scan(loop: SimulatedLoop) -> list[float]:
    """Return when each turn began that continued the pass, in seconds after the start."""
    return [turn.began - START for turn in loop.poller.turns if turn.deadline == -inf and turn.began - START >= SCAN]


def test_no_turn_is_long(loop: SimulatedLoop) -> None:
    """A turn continues a pass for 1 ms, and one slice more at most."""
    loop.run(5.0)
    turns = turns_in_the_scan(loop)
    assert turns[-1] - turns[0] >= 0.9 * SCAN_SECONDS
    assert max(b - a for a, b in pairwise(turns)) <= PASS_SECONDS + SLICE + WAKING


@pytest.mark.parametrize("foreign", range(0, 30, 3))
def test_a_write_after_a_scan(loop: SimulatedLoop, foreign: int) -> None:
    """The step that writes begins a turn of its own, wherever the scan of some more entries ends within one."""
    for number in range(foreign):
        loop.kernel.register(f"more{number}", Registration(Extension(f"y{number}"), "/i/x", Flags.NONE))
    loop.at(WITHIN, loop.removes, "a")
    loop.run(5.0)
    repaired = loop.when("kernel", "register", "a")[1]
    began = max(turn for turn in turns_in_the_scan(loop) if turn <= repaired)
    assert repaired - began <= WRITE_SECONDS + SLICE + WAKING


@pytest.mark.parametrize("place", [0.0, 0.5, 0.95])
def test_a_removal(loop: SimulatedLoop, place: float) -> None:
    """A stand-in is registered after one slice, and the proper entry when its name is quiet."""
    removed = SCAN + place * SCAN_SECONDS
    loop.at(removed, loop.removes, stand_in_name("a"))
    loop.at(removed, loop.removes, "a")
    loop.run(5.0)
    assert loop.when("kernel", "register", stand_in_name("a"))[1] <= removed + SLICE + 4 * WAKING
    repaired = loop.when("kernel", "register", "a")[1]
    assert removed + SETTLE <= repaired <= removed + SETTLE + 2 * SCAN_SECONDS
    assert {"a", "b", stand_in_name("a"), stand_in_name("b")} <= set(loop.names())


def test_a_flush(loop: SimulatedLoop) -> None:
    """After a flush within the scan all handlers serve again at once, and the status is right in the end."""
    loop.at(WITHIN, loop.flushes)
    loop.run(5.0)
    for name in "ab":
        assert loop.when("kernel", "register", stand_in_name(name))[1] <= WITHIN + SLICE + 6 * WAKING
    assert loop.happened("status")[-1] == "converged"
    assert set(loop.names()) == {"a", "b", stand_in_name("a"), stand_in_name("b")}


def test_a_reload(loop: SimulatedLoop) -> None:
    """RELOADING=1 is sent within the scan; the new config is put in force after it, and READY=1 follows its pass."""
    loop.at(WITHIN, loop.reloads, Config(declared([A]), Policy(settle=SETTLE)))
    loop.run(5.0)
    (reloading,), (reloaded,) = loop.when("systemd", "RELOADING=1"), loop.when("log", "info config_reloaded")
    assert reloading <= WITHIN + PASS_SECONDS + SLICE + WAKING
    assert reloaded >= SCAN + SCAN_SECONDS
    (removed,), ready = loop.when("kernel", "remove", "b"), loop.when("systemd", "READY=1")[-1]
    assert reloaded < removed < ready < reloaded + 2 * SCAN_SECONDS
    assert "b" not in loop.names()


def test_a_pause(loop: SimulatedLoop) -> None:
    """A pause is put in force after the scan, and a removal before that is repaired first."""
    loop.at(WITHIN, loop.removes, "a")
    loop.at(WITHIN + 0.001, loop.pauses, ["a"], inf)
    loop.at(2.0, loop.removes, "a")
    loop.run(5.0)
    (paused,) = loop.when("log", "warning pause_started", "a")
    repaired = loop.when("kernel", "register", "a")[1:]
    assert len(repaired) == 1
    assert SCAN + SCAN_SECONDS <= repaired[0] < paused


def test_lost_events(loop: SimulatedLoop) -> None:
    """The pass that reads all entries, since events were lost, comes after the scan that is under way."""
    loop.at(WITHIN, loop.overflows)
    loop.run(5.0)
    turns = turns_in_the_scan(loop)
    assert turns[-1] - turns[0] >= 1.8 * SCAN_SECONDS


def test_another_instance(loop: SimulatedLoop) -> None:
    """An instance that is mounted within the scan gets its handlers after it."""
    loop.at(WITHIN, loop.mounts_another)
    loop.run(5.0)
    assert set(loop.names()) == {"a", "b", stand_in_name("a"), stand_in_name("b")}
    assert loop.when("kernel", "register", "a")[1] <= SCAN + 3 * SCAN_SECONDS + SETTLE


def test_the_end(loop: SimulatedLoop) -> None:
    """SIGTERM within the scan ends the daemon with its work done."""
    loop.at(WITHIN - 0.001, loop.removes, "a")
    loop.run(WITHIN)
    assert {"a", "b"} <= set(loop.names())
    assert loop.happened("log")[-1] == "info stopped"


def test_passes_without_end(loop: SimulatedLoop) -> None:
    """Lost events may call for one pass after another; a pause that is due comes in between, and the status goes on."""
    for number in range(200):
        loop.at(1.0 + 0.015 * number, loop.overflows)
    loop.at(1.0, loop.pauses, ["a"], 1.0)
    loop.run(10.0)
    (ended,) = loop.when("log", "info pause_ended", "a")
    assert 2.0 <= ended <= 2.0 + 6 * SCAN_SECONDS, "two passes that read every entry"


def test_interpreters_without_end() -> None:
    """An interpreter that is exchanged all the time calls for one pass after another, and other deadlines are kept."""
    handler = A._replace(registration=A.registration._replace(flags=Flags.F))
    loop = SimulatedLoop(Config(declared([handler, B]), Policy(settle=SETTLE)), delay=0.0005)
    for number in range(ENTRIES):
        loop.kernel.register(f"foreign{number}", Registration(Extension(f"x{number}"), "/i/x", Flags.NONE))
    for number in range(1500):
        loop.at(1.0 + 0.002 * number, loop.installs, "/i/a")
    loop.at(0.5, loop.pauses, ["b"], 1.0)
    loop.run(10.0)
    (ended,) = loop.when("log", "info pause_ended", "b")
    assert 1.5 <= ended <= 1.5 + 4 * SCAN_SECONDS
    assert "a" in loop.names()


@pytest.mark.parametrize("after", [0.001 * number for number in range(0, 300, 30)])
def test_two_reasons_for_a_pass_within_a_scan(loop: SimulatedLoop, after: float) -> None:
    """A pause and a new interpreter come within one scan: no pass after it is made in one go, whatever they begin."""
    loop.at(WITHIN, loop.pauses, ["a"], inf)
    loop.at(WITHIN + 0.001, loop.installs, "/i/b")
    removed = WITHIN + after
    loop.at(removed, loop.removes, stand_in_name("b"))
    loop.at(removed, loop.removes, "b")
    loop.run(5.0)
    assert min(at for at in loop.when("kernel", "register", stand_in_name("b")) if at > removed) <= removed + SOON


def test_a_pause_is_kept_at_once(loop: SimulatedLoop) -> None:
    """From the log line of a pause on, no urgent repair undoes what an administrator does."""

    def undo() -> None:
        loop.removes("a")
        loop.switches_off()

    logged = loop.add

    def add(who: str, what: str, names: str = "") -> None:
        logged(who, what, names)
        if (what, names) == ("warning pause_started", "status"):
            loop.at(loop.clock.now - START + 0.01, undo)

    loop.add = add  # type: ignore[method-assign]
    loop.at(WITHIN, loop.pauses, ["a", "status"], inf)
    loop.run(5.0)
    assert not loop.kernel.switched_on
    assert "a" not in loop.names()


def test_a_seal_that_is_broken_within_the_scan(loop: SimulatedLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may have written anything meanwhile, so the next scan reads every entry."""
    scans: list[tuple[float, set[str] | None]] = []
    broken = [False, True]
    scan = Observer.scan

    def recorded(self: Observer, instance: Instance, touched: set[str] | None) -> Steps[ObservedState]:
        scans.append((loop.clock.now - START, touched))
        return scan(self, instance, touched)

    monkeypatch.setattr(Observer, "scan", recorded)
    monkeypatch.setattr(Sealing, "check", lambda _: bool(broken) and loop.clock.now - START > WITHIN and broken.pop())
    loop.at(WITHIN, loop.touches, "foreign5")
    loop.run(5.0)
    assert [touched for at, touched in scans if WITHIN < at < 2.0][-1] is None


@pytest.mark.parametrize("within_the_pass", [True, False])
def test_a_module_that_is_gone(loop: SimulatedLoop, monkeypatch: pytest.MonkeyPatch, within_the_pass: bool) -> None:
    """A scan is closed when a module cannot be imported, and begins anew; what waits for it does not wait for ever."""
    owner, method = (RepairSchedule, "record_reconcile") if within_the_pass else (InterpreterLooks, "read")
    original = getattr(owner, method)

    def fails(*arguments: Any, **options: Any) -> None:
        if loop.clock.now - START > WITHIN:
            monkeypatch.undo()
            raise ImportError("No module named 'binfmtd.gone'")
        original(*arguments, **options)

    monkeypatch.setattr(owner, method, fails)
    loop.at(WITHIN, loop.overflows)
    loop.at(WITHIN + 0.001, loop.installs, "/i/a")
    loop.at(WITHIN + 0.001, loop.removes, "a")
    loop.run(20.0)
    assert loop.when("log", "warning restart_needed")
    assert {"a", "b", stand_in_name("a"), stand_in_name("b")} <= set(loop.names())
    assert loop.happened("status")[-1] == "converged"


def test_the_throttle_pays_for_the_whole_pass(loop: SimulatedLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that finds nothing is charged with all its steps, also the last one."""
    charged: list[float] = []
    record = RepairSchedule.record_reconcile

    def recorded(self: RepairSchedule, *arguments: Any, **options: Any) -> None:
        loop.clock.cpu += 0.01
        record(self, *arguments, **options)

    monkeypatch.setattr(RepairSchedule, "record_reconcile", recorded)
    monkeypatch.setattr(EventThrottle, "charge_pass", lambda _, cost, __: charged.append(cost))
    loop.run(5.0)
    assert charged == [pytest.approx(0.01)]  # in the simulation only this step takes CPU time within itself


def test_looks_without_inotify_leave_time_for_others(loop: SimulatedLoop) -> None:
    """The pause between two looks grows with the time that a pass over many entries takes."""
    for number in range(ENTRIES, 3 * ENTRIES):
        loop.kernel.register(f"foreign{number}", Registration(Extension(f"x{number}"), "/i/x", Flags.NONE))
    loop.watch.exhausted = "inotify: no watches left"
    loop.run(20.0)
    turns = [turn.began for turn in loop.poller.turns if turn.deadline == -inf]
    gaps = [b - a for a, b in pairwise(turns)]
    rests = [gap for gap in gaps if gap > UNWATCHED_SECONDS / 2]
    assert len(rests) > 3
    assert sum(gaps) - sum(rests) <= (len(rests) + 1) * min(rests) / LEAST_REST * 1.1
