"""Fast repairs and the events that arrive while one looks: a flush goes on, other programs register again."""

from collections.abc import Callable, Collection
from typing import cast

import pytest
from support.simulated import Gate, SimulatedKernel, Through, handler

from binfmtd.daemon.assessment import Assessment
from binfmtd.daemon.entries.entry_state import Event, StateTable
from binfmtd.daemon.entries.fast_repair import FastRepair, FastRepairResult
from binfmtd.daemon.watches.events import PendingEvents
from binfmtd.errors import Again, WriteRefusedError
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.writer import Writer
from binfmtd.model.config import Policy, Shadowed, StandInPolicy
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Drift, PlanContext
from binfmtd.model.entry import ObservedState
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Extension, Magic
from binfmtd.model.plan import INSTANCE, plan
from binfmtd.model.stand_in import stand_in_name

# Both of A and B take what begins with AB; C takes nothing that they do.
A, B, C = handler("a", Magic(b"A")), handler("b", Magic(b"AB")), handler("c", Magic(b"C"))
HANDLERS = (A, B, C)
TEMPORARY = Policy(stand_ins=StandInPolicy.TEMPORARY)


class World:
    """Three handlers in order on a simulated kernel, and a FastRepair made after a look at them."""

    def __init__(self) -> None:
        self.kernel = SimulatedKernel()
        for each in HANDLERS:
            self.kernel.register(each.name, each.registration)
        self.desired = DesiredState(HANDLERS, policy=TEMPORARY)
        self.listened = 0
        self.refuse: list[str] = []
        self.seen: list[ObservedState] = []  # before the last reaction, and after each write
        self.see()

    def see(self, may: Callable[[str], bool] = lambda _: True, failed: Collection[str] = ()) -> None:
        """Look at everything, as a pass does; ``may`` returns False for names that are backed off from."""
        observed = self.kernel.observed()
        assessment = Assessment(observed, self.desired, PlanContext(), plan(self.desired, observed, PlanContext()))
        states = StateTable()
        for name in failed:
            states.apply(name, Event.REFUSED, error=WriteRefusedError("refused", 8, Again.RELOAD))
        self.hot = FastRepair(assessment, states, Gate(may), lambda _: True)

    def react(self, events: PendingEvents, meanwhile: Callable[[], PendingEvents] = PendingEvents) -> FastRepairResult:
        """Have FastRepair handle events; ``meanwhile`` is called after its first look."""

        def listen() -> PendingEvents:
            self.listened += 1
            return meanwhile()

        through = Through(self.kernel, self.refuse)
        self.seen = through.seen
        if events.flushed and events.entries:  # as the watch does before it examines the events
            self.hot.rush(cast(Writer, through))
        return self.hot.react(events, listen, cast(Instance, through), cast(Writer, through))

    def flush(self) -> None:
        """Remove all entries that are left."""
        for entry in self.kernel.observed().entries:
            self.kernel.remove(entry.name)

    def names(self) -> list[str]:
        return [entry.name for entry in self.kernel.observed().entries]


@pytest.fixture
def world() -> World:
    return World()


def written(name: str, *, any_entry: bool = False) -> PendingEvents:
    """Return the event of another program's write to this entry's file; ``any_entry``: and to ``register``."""
    events = PendingEvents([name], any_entry=any_entry)
    events.entries_written.add(name)
    return events


STATUS = PendingEvents(any_entry=True, flushed=True)


@pytest.mark.parametrize("more", [STATUS, PendingEvents(["a", "b"])], ids=["with status", "without"])
def test_a_flush_that_goes_on_is_answered_as_a_whole(world: World, more: PendingEvents) -> None:
    """After the first removal of a flush all handlers get a stand-in at once, in order, and it counts as a flush."""
    world.kernel.remove("c")
    events = PendingEvents(["c"])

    def rest() -> PendingEvents:
        world.flush()
        return more

    reaction = world.react(events, rest)
    assert world.names() == [stand_in_name(name) for name in ("c", "b", "a")]
    assert reaction.drifts == dict.fromkeys("abc", Drift.MISSING)
    assert events.flushed


def test_a_removal_without_a_write_is_no_flush(world: World) -> None:
    """A removal without a write to the file is no flush as long as another handler has its entry."""
    world.kernel.remove("c")
    events = PendingEvents(["c"])
    assert list(world.react(events).drifts) == ["c"]
    assert not events.flushed


def test_what_is_known_to_be_gone_proves_no_flush(world: World) -> None:
    """Entries that were removed by name before, and have stand-ins, are no sign of a flush at the next event."""
    for name in "abc":
        world.kernel.remove(name)
        world.react(written(name))
    events = PendingEvents(any_entry=True)
    assert set(world.react(events).drifts) == {"a", "b", "c"}
    assert not events.flushed
    world.flush()
    assert len(world.react(events).bridged) == 3
    assert events.flushed


def test_what_is_backed_off_from_proves_no_flush(world: World) -> None:
    """Missing entries that are backed off from are no sign of a flush, even if no stand-in is left."""
    world.see(lambda _: False)
    for name in "abc":
        world.kernel.remove(name)
        world.react(written(name))
    events = PendingEvents(any_entry=True)
    world.react(events)
    assert not events.flushed


def test_what_is_kept_disabled_outlasts_no_flush(world: World) -> None:
    """While an entry of ours that is kept disabled exists, what else is gone was removed by name."""
    world.desired = DesiredState((A, B._replace(enabled=False)), policy=TEMPORARY)
    world.see()
    world.kernel.remove("a")
    events = PendingEvents(any_entry=True)
    assert list(world.react(events).drifts) == ["a"]
    assert not events.flushed


def test_a_removal_that_was_written_is_answered_at_once(world: World) -> None:
    """After a removal with a write to the file no more events are waited for."""
    world.kernel.remove("c")
    world.react(written("c"))
    assert world.names()[0] == stand_in_name("c")
    assert world.listened == 0


def test_what_is_back_meanwhile_has_not_drifted(world: World) -> None:
    """An entry that its owner registers again meanwhile gets no stand-in, and is no drift."""
    world.kernel.remove("c")

    def back() -> PendingEvents:
        world.kernel.register("c", C.registration)
        return PendingEvents(any_entry=True)

    reaction = world.react(PendingEvents(["c"]), back)
    assert (reaction.drifts, reaction.bridged) == ({}, [])


def test_what_was_enabled_and_is_removed_meanwhile(world: World) -> None:
    """An entry that is enabled and then removed is missing, although the second event has the name of the first."""
    world.kernel.switch("a", enabled=False)
    world.kernel.remove("c")
    events = written("a")
    events.entries.add("c")

    def gone() -> PendingEvents:
        assert world.kernel.observed().by_name["a"].enabled
        world.kernel.remove("a")
        return written("a")

    reaction = world.react(events, gone)
    assert reaction.fixed == {"a": Drift.DISABLED}
    assert reaction.drifts["a"] is Drift.MISSING
    # B is above it and there, so what takes B's files must not come on top.
    assert reaction.bridged == ["c"]


def test_out_of_order_is_found_again(world: World) -> None:
    """If a lower entry is registered anew while another goes, the higher one still gets its stand-in."""
    world.kernel.remove("c")

    def lower_anew() -> PendingEvents:
        world.kernel.remove("a")
        world.kernel.register("a", A.registration)
        return PendingEvents(any_entry=True)

    events = PendingEvents(["c"], any_entry=True)
    world.kernel.remove("a")
    world.kernel.register("a", A.registration)
    reaction = world.react(events, lower_anew)
    assert reaction.drifts["b"] is Drift.OUT_OF_ORDER
    assert set(reaction.bridged) == {"b", "c"}


THEIRS = C.registration._replace(interpreter="/theirs")


def test_a_newer_entry_above_the_stand_in(world: World) -> None:
    """If another program registers something else under the name, the stand-in is put on top again, without a gap."""
    world.kernel.remove("c")
    world.react(written("c"))
    world.kernel.register("c", THEIRS)
    reaction = world.react(PendingEvents(any_entry=True))
    assert world.names()[:2] == [stand_in_name("c"), "c"]
    assert (reaction.drifts, reaction.bridged) == ({"c": Drift.CHANGED}, ["c"])
    serving = [next(e for e in state.entries if e.registration in (C.registration, THEIRS)) for state in world.seen]
    assert [entry.registration for entry in serving] == [THEIRS, *[C.registration] * 4]
    reaction = world.react(PendingEvents(any_entry=True))
    assert (reaction.bridged, world.seen[1:]) == ([], [])


def test_what_may_lie_above_a_stand_in(world: World) -> None:
    """An equal entry, a foreign one that the config only reports, and one for other files may lie above a stand-in."""
    world.kernel.remove("c")
    world.react(written("c"))
    for name, registration in (("c", C.registration), ("foreign", THEIRS), ("other", A.registration)):
        world.kernel.register(name, registration)
        assert world.react(PendingEvents(any_entry=True)).bridged == []
    assert stand_in_name("c") in world.names()


def test_what_is_foreign_and_outranked(world: World) -> None:
    """With `shadowed = "outrank"` a foreign entry may not stay above a stand-in either."""
    world.desired = DesiredState(HANDLERS, policy=TEMPORARY._replace(shadowed=Shadowed.OUTRANK))
    world.see()
    world.kernel.remove("c")
    world.react(written("c"))
    world.kernel.register("foreign", THEIRS)
    assert world.react(PendingEvents(any_entry=True)).bridged == ["c"]
    assert world.names()[:2] == [stand_in_name("c"), "foreign"]


def test_stand_ins_are_renewed_in_order(world: World) -> None:
    """Of two renewed stand-ins that share files the higher handler's comes to lie above."""
    world.kernel.remove("a")
    world.kernel.remove("b")
    assert world.react(PendingEvents(any_entry=True)).bridged == ["a", "b"]
    for name, registration in (("a", A.registration), ("b", B.registration)):
        world.kernel.register(name, registration._replace(interpreter="/theirs"))
    assert world.react(PendingEvents(any_entry=True)).bridged == ["a", "b"]
    assert world.names()[:2] == [stand_in_name("b"), stand_in_name("a")]


def test_a_stand_in_is_not_renewed_above_a_proper_entry_of_higher_rank(world: World) -> None:
    """A stand-in is not put above a proper entry of higher rank, whose files it would take."""
    world.kernel.remove("b")
    world.kernel.remove("a")
    world.react(written("a"))
    world.kernel.register("b", B.registration)
    world.kernel.register("a", A.registration._replace(interpreter="/theirs"))
    assert world.react(PendingEvents(any_entry=True)).bridged == ["b"]


def test_who_is_backed_off_from_is_not_renewed(world: World) -> None:
    """The stand-in of a name that is backed off from is not renewed, so two programs do not keep the daemon busy."""
    world.kernel.remove("c")
    world.react(written("c"))
    world.see(lambda _: False)
    world.kernel.register("c", THEIRS)
    assert world.react(PendingEvents(any_entry=True)).bridged == []


def test_a_stand_in_that_cannot_be_renewed(world: World) -> None:
    """If the kernel refuses a stand-in in the middle of its renewal, the helper that serves stays."""
    world.kernel.remove("c")
    world.react(written("c"))
    world.kernel.register("c", THEIRS)
    world.refuse = [stand_in_name("c")]
    reaction = world.react(PendingEvents(any_entry=True))
    assert (reaction.bridged, list(reaction.refused)) == ([], ["c"])
    assert world.names()[0] == stand_in_name(stand_in_name("c"))


def test_switched_off_while_it_looks(world: World) -> None:
    """If the instance is switched off while it looks, the second look switches it on."""
    world.kernel.remove("c")

    def off() -> PendingEvents:
        world.kernel.switched_on = False
        return STATUS

    reaction = world.react(PendingEvents(["c"]), off)
    assert world.kernel.switched_on
    assert reaction.fixed == {INSTANCE: Drift.SWITCHED_OFF}
    assert reaction.bridged == ["c"]


@pytest.fixture
def permanent() -> World:
    """Return a world where C, which shares no file, has its permanent stand-in."""
    world = World()
    world.desired = DesiredState(HANDLERS)
    world.kernel.register(stand_in_name("c"), C.registration)
    world.see()
    return world


def test_the_permanent_stand_in_serves(permanent: World) -> None:
    """If only the proper entry is removed by name, its permanent stand-in serves, and nothing is written."""
    permanent.kernel.remove("c")
    reaction = permanent.react(written("c"))
    assert (reaction.drifts, reaction.bridged, reaction.standing) == ({"c": Drift.MISSING}, [], ["c"])
    assert len(permanent.seen) == 1, "no write"


def test_a_permanent_stand_in_that_is_removed(permanent: World) -> None:
    """A permanent stand-in that is removed is registered again at once; its handler has not drifted."""
    permanent.kernel.remove(stand_in_name("c"))
    reaction = permanent.react(written(stand_in_name("c")))
    assert (reaction.drifts, reaction.kept) == ({}, ["c"])
    assert stand_in_name("c") in permanent.names()


def test_a_permanent_stand_in_that_is_disabled(permanent: World) -> None:
    """A permanent stand-in that is disabled is enabled at once."""
    permanent.kernel.switch(stand_in_name("c"), enabled=False)
    reaction = permanent.react(written(stand_in_name("c")))
    assert (reaction.drifts, reaction.kept) == ({}, ["c"])
    entry = permanent.kernel.entry(stand_in_name("c"))
    assert entry is not None
    assert entry.enabled


@pytest.mark.parametrize("serves", [True, False])
def test_what_is_backed_off_from_and_disabled(permanent: World, serves: bool) -> None:
    """While the daemon backs off from an entry that another program disables, its stand-in counts if it serves."""
    permanent.see(lambda _: False)
    permanent.kernel.switch(stand_in_name("c"), enabled=serves)
    permanent.kernel.switch("c", enabled=False)
    reaction = permanent.react(written("c"))
    assert (reaction.drifts, reaction.standing) == ({"c": Drift.DISABLED}, ["c"] if serves else [])


def test_a_permanent_stand_in_that_stands_costs_no_budget(permanent: World) -> None:
    """If another program registers something, a stand-in that exists costs no budget, so it is not withheld."""
    asked: list[str] = []

    def may(name: str) -> bool:
        asked.append(name)
        return False

    permanent.see(may)
    assert permanent.react(PendingEvents(any_entry=True)).kept == []
    assert asked == []


def test_a_permanent_stand_in_that_was_refused(permanent: World) -> None:
    """A permanent stand-in that the kernel refused is not tried again at each event."""
    permanent.kernel.remove(stand_in_name("c"))
    permanent.see(failed=[stand_in_name("c")])
    assert permanent.react(PendingEvents(any_entry=True)).kept == []
    assert stand_in_name("c") not in permanent.names()


def test_a_stand_in_below_one_of_another_kind() -> None:
    """A stand-in that is removed comes back below the one of higher priority; both are reported, for the ledger."""
    jar = Handler("jar", Registration(Extension("jar"), "/i", Flags.NONE), 1)
    world = World()
    world.desired = DesiredState((C, jar))
    for each in (C, jar):
        world.kernel.register(stand_in_name(each.name), each.registration)
    world.kernel.register("jar", jar.registration)
    world.see()
    world.kernel.remove(stand_in_name("c"))
    reaction = world.react(written(stand_in_name("c")))
    assert reaction.kept == ["c", "jar"]
    assert world.names()[:2] == [stand_in_name("jar"), stand_in_name("c")]


def test_both_are_removed(permanent: World) -> None:
    """If the proper entry and its stand-in are removed, one stand-in is registered; the entry waits for quiet."""
    permanent.kernel.remove("c")
    permanent.kernel.remove(stand_in_name("c"))
    events = written("c")
    events.add(written(stand_in_name("c")))
    reaction = permanent.react(events)
    assert (reaction.drifts, reaction.bridged, reaction.kept) == ({"c": Drift.MISSING}, ["c"], [])
    assert permanent.names().count(stand_in_name("c")) == 1


def flushed(*names: str) -> PendingEvents:
    """Return the events of a flush: each entry that was removed, and `status`."""
    events = PendingEvents(names, any_entry=True)
    events.flushed = True
    return events


def test_a_flush_registers_before_it_looks(permanent: World) -> None:
    """After a flush stand-ins that share no file are registered from prepared lines before any entry is read.

    The remaining ones come after a look, by their rank.
    """
    permanent.flush()
    reaction = permanent.react(flushed("a", "b", "c", stand_in_name("c")))
    assert [entry.name for entry in permanent.seen[1].entries] == [stand_in_name("c")]
    assert permanent.names() == [stand_in_name(name) for name in ("b", "a", "c")]
    assert reaction.drifts == dict.fromkeys("abc", Drift.MISSING)
    assert sorted(reaction.bridged) == ["a", "b", "c"]


def test_a_flush_that_left_the_stand_in(permanent: World) -> None:
    """If a flush has left a stand-in, EEXIST is no failure: it serves."""
    permanent.kernel.remove("c")
    reaction = permanent.react(flushed("c"))
    assert (reaction.bridged, reaction.standing, reaction.kept, reaction.refused) == ([], ["c"], [], {})


def test_one_removal_of_a_flush(permanent: World) -> None:
    """A removal without a write, while another entry is gone as well, is a flush: all get their stand-ins, C first."""
    permanent.flush()
    events = PendingEvents([stand_in_name("c")])
    reaction = permanent.react(events)
    assert events.flushed
    assert [entry.name for entry in permanent.seen[1].entries] == [stand_in_name("c")]
    assert set(permanent.names()) == {stand_in_name(name) for name in "abc"}
    assert reaction.drifts == dict.fromkeys("abc", Drift.MISSING)


@pytest.mark.parametrize(
    "events", [written(stand_in_name("c")), PendingEvents([stand_in_name("c")])], ids=["written", "not yet"]
)
def test_a_removal_by_name_is_no_flush(permanent: World, events: PendingEvents) -> None:
    """A removal is no flush as long as every other entry exists."""
    permanent.kernel.remove(stand_in_name("c"))
    reaction = permanent.react(events)
    assert not events.flushed
    assert (reaction.drifts, reaction.kept) == ({}, ["c"])


def test_a_withheld_stand_in_makes_no_flush(permanent: World) -> None:
    """A withheld stand-in is known to be missing, so it is no sign of a flush when another entry goes next."""
    permanent.see(lambda _: False)
    permanent.kernel.remove(stand_in_name("c"))
    permanent.react(written(stand_in_name("c")))
    assert stand_in_name("c") not in permanent.names()
    events = PendingEvents(["foreign"])
    permanent.react(events)
    assert not events.flushed


def test_a_helper_serves_before_it_looks(permanent: World) -> None:
    """A helper is put above an entry that another program registered again, and removed when the stand-in is above."""
    permanent.kernel.remove("c")
    permanent.kernel.register("c", C.registration._replace(interpreter="/theirs"))
    events = written("c", any_entry=True)
    through = Through(permanent.kernel)
    assert permanent.hot.help(events, cast(Instance, through), cast(Writer, through))
    helper = stand_in_name(stand_in_name("c"))
    assert permanent.names()[0] == helper
    reaction = permanent.react(events)
    assert (reaction.helped, reaction.bridged) == (True, ["c"])
    assert permanent.names()[0] == stand_in_name("c")
    assert helper not in permanent.names()


def test_a_helper_that_was_not_needed(permanent: World) -> None:
    """If the entry that was registered again is as declared, the stand-in below it stays, and the helper is removed."""
    permanent.kernel.remove("c")
    permanent.kernel.register("c", C.registration)
    events = written("c", any_entry=True)
    through = Through(permanent.kernel)
    assert permanent.hot.help(events, cast(Instance, through), cast(Writer, through))
    permanent.react(events)
    assert sorted(permanent.names()) == [stand_in_name("c"), "a", "b", "c"]


def test_nothing_was_registered_again(permanent: World) -> None:
    """If no entry was registered again, no helper is registered."""
    permanent.kernel.remove("c")
    through = Through(permanent.kernel)
    events = written("c", any_entry=True)
    assert not permanent.hot.help(events, cast(Instance, through), cast(Writer, through))
    assert len(through.seen) == 1, "no write"


def test_another_entry_in_the_place_of_the_proper_one(permanent: World) -> None:
    """If another entry takes the proper one's place, the stand-in is put above it, and a handler serves meanwhile."""
    permanent.kernel.remove("c")
    permanent.kernel.register("c", C.registration._replace(interpreter="/theirs"))
    events = written("c", any_entry=True)
    reaction = permanent.react(events)
    assert reaction.bridged == ["c"]
    assert permanent.names()[0] == stand_in_name("c")
    for observed in permanent.seen:
        assert any(e.enabled and e.registration == C.registration for e in observed.entries), "a handler all the time"


def test_what_shares_files_has_no_permanent_stand_in(permanent: World) -> None:
    """A handler that shares files has no permanent stand-in: the lower one's would take the files of the higher."""
    permanent.kernel.remove("a")
    reaction = permanent.react(written("a"))
    assert (reaction.drifts, reaction.bridged, reaction.kept) == ({"a": Drift.MISSING}, [], [])
