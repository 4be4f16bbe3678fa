"""Other programs undo repairs: the daemon comes to rest, in order, and writes no more than it must."""

import errno
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.simulated import Through, handler
from support.simulated_daemon import SimulatedDaemon

from binfmtd.daemon.entries.backoff import REPAIRS
from binfmtd.daemon.entries.debounce import LONGEST
from binfmtd.daemon.trigger import Trigger
from binfmtd.model.config import StandInPolicy
from binfmtd.model.desired import FileIdentity
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Extension, Magic
from binfmtd.model.pause import Pauses
from binfmtd.model.stand_in import stand_in_name

SETTLE = 0.02
Start = Callable[[Iterable[Handler]], SimulatedDaemon]

LOW, HIGH = handler("low", Magic(b"A")), handler("high", Magic(b"AB"))
JAR = handler("jar", Extension("jar"), 1)
SOME = [handler(f"m{letter}", Magic(letter.encode())) for letter in "012"]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    return lambda handlers: SimulatedDaemon(handlers, tmp_path, SETTLE)


def contend(daemon: SimulatedDaemon, name: str, rounds: int = 2 * REPAIRS) -> None:
    """Remove an entry this many times, whenever it is back; the last removal has just been handled."""
    for _ in range(rounds):
        while name not in daemon.names():
            daemon.wait(0.2)
        daemon.removes(name)
        daemon.react()
    assert name in daemon.schedule.contended()


@pytest.mark.parametrize(
    ("handlers", "first", "second"),
    [([LOW, HIGH], "high", "low"), ([LOW, HIGH], "low", "high"), ([*SOME, JAR], "m0", "m1")],
)
def test_two_of_a_company_out_of_phase(start: Start, handlers: list[Handler], first: str, second: str) -> None:
    """Both members of a group are written when the later one is quiet: they do not make each other wait again."""
    daemon = start(handlers)
    daemon.removes(first)
    daemon.wait(SETTLE / 4)
    daemon.removes(second)
    daemon.wait(2 * SETTLE)
    assert sorted(daemon.names()) == sorted(each.name for each in handlers)
    assert daemon.names()[0] == handlers[-1].name
    daemon.wait(10.0)
    assert len(daemon.passes) <= 3


def test_what_is_above_one_that_is_backed_off_from(start: Start) -> None:
    """An entry above one that is backed off from is in order, and is not moved for what is not written."""
    daemon = start([LOW, HIGH])
    contend(daemon, "low")
    before = daemon.written("high")
    passes = len(daemon.passes)
    daemon.wait(20.0)  # of the 30 seconds
    assert (daemon.written("high") - before, len(daemon.passes) - passes <= 3) == (0, True)
    assert daemon.reporter.contentions == ["low"]


def test_a_replacement_that_was_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry of another program, which may have an old emulator open, is not adopted while ours does not answer."""

    def late(_: Through, lines: Iterable[bytes], *__: object) -> list[OSError | None]:
        return [OSError(errno.ETIMEDOUT, "it does not answer") for _ in lines]

    one = handler("one", Magic(b"1"), flags=Flags.F)
    daemon = start([one])
    daemon.removes("one")
    daemon.registers("one", one.registration)
    theirs = daemon.kernel.entries[0]
    with monkeypatch.context() as patch:
        patch.setattr(Through, "register", late)
        daemon.wait(4 * SETTLE)
    assert daemon.kernel.entries == [theirs]
    daemon.wait(1.0)
    (ours,) = daemon.kernel.entries
    assert ours.inode != theirs.inode


def test_a_stand_in_that_is_enabled_again(tmp_path: Path) -> None:
    """A stand-in with an old emulator open is still known as such when another program has disabled it."""
    one = handler("one", Magic(b"1"), flags=Flags.F)
    daemon = SimulatedDaemon([one], tmp_path, SETTLE, stand_ins=StandInPolicy.PERMANENT)
    name, records = stand_in_name("one"), daemon.reconciler.ledger.records
    records[name] = records[name]._replace(opened_file=FileIdentity(1, 1, 1, 1, 1))
    before = records[name]
    daemon.kernel.switch(name, enabled=False)
    daemon.touches(name)
    daemon.react()
    stand_in = daemon.kernel.entry(name)
    assert stand_in is not None
    assert stand_in.enabled
    assert records[name] == before


def test_the_stand_in_of_one_that_is_backed_off_from(start: Start) -> None:
    """The files of a name that is backed off from have a handler all the time, whatever happens to other names."""
    daemon = start([*SOME, JAR])
    contend(daemon, "m0")
    daemon.seen.clear()
    daemon.removes("m1")
    daemon.wait(1.0)
    assert "m1" in daemon.names()
    assert all("m0" in names or stand_in_name("m0") in names for names in daemon.seen)


def test_one_that_was_backed_off_from_and_stands(start: Start) -> None:
    """An entry after a backoff moves with another as any entry does: that is no repair, and makes no longer pause."""
    daemon = start([LOW, HIGH])
    contend(daemon, "high", REPAIRS + 4)
    while "high" not in daemon.names():
        daemon.wait(0.05)
    daemon.wait(0.1)
    repairs = daemon.reporter.repairs.count("high")
    daemon.removes("low")
    daemon.wait(1.5 * SETTLE)
    assert daemon.names() == ["high", "low"]
    daemon.wait(30.0)
    assert daemon.reporter.repairs.count("high") == repairs


def test_who_registers_again_while_another_is_forced(start: Start) -> None:
    """When one name's longest wait is over, the owner of another that registers again gets no EEXIST."""
    daemon = start([LOW, HIGH])
    daemon.removes("low")
    daemon.react()
    forced = daemon.now + LONGEST
    while daemon.now < forced - 0.005:
        daemon.stirs()
        daemon.wait(0.004)
    assert "low" not in daemon.names()
    daemon.removes("high")
    daemon.wait(0.007)
    assert daemon.names() == [stand_in_name("high"), "low"]
    daemon.registers("high", HIGH.registration)
    daemon.wait(1.0)
    assert daemon.names() == ["high", "low"]


def test_a_stand_in_that_was_not_needed(start: Start) -> None:
    """A stand-in is forgotten with the drift that the entry's owner has ended: the next drift counts once."""
    daemon = start([LOW])
    for _ in range(3):
        daemon.removes("low")
        daemon.react()
        daemon.registers("low", LOW.registration)
        daemon.wait(1.0)
    assert (daemon.names(), daemon.reporter.repairs) == (["low"], [])
    daemon.removes("low")
    daemon.wait(1.0)
    assert daemon.reporter.repairs == ["low"]


@pytest.mark.parametrize("by_name", [True, False])
def test_what_was_removed_by_name_during_a_storm(tmp_path: Path, by_name: bool) -> None:
    """An entry that its owner registered again after its own flush, and then removed by name, is not restored."""
    daemon = SimulatedDaemon([LOW], tmp_path, SETTLE, restore=("theirs",))
    daemon.registers("theirs", HIGH.registration)
    daemon.wait(1.0)
    daemon.throttle.charge_look(10.0, daemon.now)
    daemon.flushes()
    if by_name:
        daemon.registers("theirs", HIGH.registration)
        daemon.removes("theirs")
    daemon.reconcile(Trigger.QUIET, force=lambda _: True)
    daemon.wait(10.0)
    assert ("theirs" in daemon.names()) is not by_name


@pytest.mark.parametrize("how", ["paused", "refused"])
def test_what_is_not_there_stops_no_other_from_coming_back(tmp_path: Path, how: str) -> None:
    """A lost entry waits only for a handler that it was above, and not if the kernel refuses that handler."""
    daemon = SimulatedDaemon([LOW, JAR], tmp_path, SETTLE, restore=("their*",))
    daemon.registers("theirs-above", LOW.registration._replace(interpreter="/theirs"))
    daemon.registers("theirs", Registration(Magic(b"Q"), "/theirs", Flags.NONE))
    daemon.registers("theirs-too", Registration(Magic(b"AX"), "/theirs", Flags.NONE))
    daemon.wait(1.0)
    if how == "paused":
        daemon.reconciler.pauses = Pauses().with_(["low"], float("inf"))
        daemon.reconcile(Trigger.PAUSE)
    else:
        daemon.refuses = {"low", stand_in_name("low")}
    daemon.flushes()
    daemon.wait(10.0)
    others = {"theirs-above", "theirs-too"} if how == "refused" else set()
    assert set(daemon.names()) == {"jar", "theirs"} | others
    daemon.reconciler.pauses = Pauses()
    daemon.reconcile(Trigger.PAUSE)
    daemon.wait(10.0)
    ours = [] if how == "refused" else ["low"]
    assert [name for name in daemon.names() if name not in ("jar", "theirs")] == ["theirs-too", "theirs-above", *ours]


def test_another_program_disables_a_stand_in(start: Start) -> None:
    """A stand-in that another program disables is enabled at once, as it would be registered again."""
    daemon = start([LOW])
    daemon.removes("low")
    daemon.react()
    for _ in range(3):
        daemon.kernel.switch(stand_in_name("low"), enabled=False)
        daemon.touches(stand_in_name("low"))
        daemon.react()
        assert [(entry.name, entry.enabled) for entry in daemon.kernel.entries] == [(stand_in_name("low"), True)]
    daemon.wait(1.0)
    assert daemon.names() == ["low"]


DEEDS = st.sampled_from(["remove", "remove", "remove", "register", "remove its stand-in", "replace", "touch"])
STEPS = st.tuples(st.sampled_from([0.0, 0.005, 0.03, 0.3, 1.2]), DEEDS, st.integers(0, 4))
MANY = [handler(letters, Magic(letters.encode())) for letters in ("A", "AB", "ABC")]
MANY.append(handler("D", Magic(b"D"), flags=Flags.F))


def does(daemon: SimulatedDaemon, deed: str, chosen: Handler) -> None:
    name, registration = chosen.name, chosen.registration
    if deed == "register" and name not in daemon.names():
        daemon.registers(name, registration)
    elif deed == "remove its stand-in":
        daemon.removes(stand_in_name(name))
    elif deed == "touch":
        daemon.touches(name)
    elif deed in ("remove", "replace"):
        daemon.removes(name)
        if deed == "replace":
            daemon.registers(name, registration._replace(interpreter="/theirs"))


@settings(max_examples=75, deadline=None)
@given(steps=st.lists(STEPS, min_size=5, max_size=60), extension=st.booleans())
def test_whatever_they_do(steps: list[tuple[float, str, int]], extension: bool, tmp_path_factory: object) -> None:
    """When other programs stop, all is in order; no pass writes an entry twice, and passes end."""
    handlers = [*MANY, JAR] if extension else MANY
    assert isinstance(tmp_path_factory, pytest.TempPathFactory)
    daemon = SimulatedDaemon(handlers, tmp_path_factory.getbasetemp(), SETTLE)
    for pause, deed, number in steps:
        daemon.wait(pause)
        does(daemon, deed, handlers[number % len(handlers)])
        daemon.react()
    took = daemon.now
    daemon.wait(40.0)
    place = {name: number for number, name in enumerate(daemon.names())}
    assert sorted(place) == sorted(each.name for each in handlers)
    assert place["ABC"] < place["AB"] < place["A"]
    assert len(daemon.passes) <= 20 + 4 * len(steps), took
    for done in daemon.passes:
        assert max(Counter(action.entry for action in done).values(), default=0) <= 1
