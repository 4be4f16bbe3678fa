"""The execution of a plan on a simulated kernel: the entries that programs meet between any two writes."""

import errno
from collections.abc import Collection, Iterable
from random import Random
from typing import cast

from hypothesis import given, note, settings
from hypothesis import strategies as st
from support.simulated import SimulatedKernel, Through
from support.worlds import World, worlds

from binfmtd.kernel.executor import Outcome, PlanExecutor
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.write_gate import WriteGate, WritePermission
from binfmtd.kernel.writer import Writer
from binfmtd.model.config import Policy, StandInPolicy
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Act, PlanContext
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Magic
from binfmtd.model.ownership import equal
from binfmtd.model.plan import plan
from binfmtd.model.precedence import overlaps
from binfmtd.model.stand_in import is_stand_in, stand_in_name


def unchanged(_: str) -> bool:
    return True


class Gate(WriteGate):
    """Gives each name the same permission, or each its own; ``touched``: at the last moment each is touched."""

    def __init__(self, due: WritePermission | dict[str, WritePermission], *, touched: bool = False) -> None:
        self._due = due
        self._touched = touched

    def permission(self, name: str) -> WritePermission:
        return self._due[name] if isinstance(self._due, dict) else self._due

    def touched_since_read(self, _: str) -> bool:
        return self._touched


class RandomGate(WriteGate):
    """Gives any permission, and touches one name in ten."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def permission(self, _: str) -> WritePermission:
        return self._random.choice(list(WritePermission))

    def touched_since_read(self, _: str) -> bool:
        return self._random.random() < 0.1


def converged(
    world: World, kernel: SimulatedKernel, due: WritePermission = WritePermission.NOW
) -> tuple[Through, Outcome]:
    desired = world.desired()
    through = Through(kernel)
    planned = plan(desired, kernel.observed(), world.context(kernel.observed(), world.records))
    instance, writer = cast(Instance, through), cast(Writer, through)
    outcome = PlanExecutor(planned, desired, instance, writer, Gate(due), unchanged).run()
    return through, outcome


def alone(handler: Handler, desired: DesiredState, observed: ObservedState) -> bool:
    """Return True if no other handler, and no entry of another name, of the same kind could take its files."""
    match = handler.registration.match
    others = [other.registration.match for other in desired.handlers if other is not handler]
    names = (handler.name, stand_in_name(handler.name))
    entries = [e.registration for e in observed.entries if e.registration is not None and e.name not in names]
    return not any(overlaps(match, other) for other in [*others, *(found.match for found in entries)])


def served(handler: Handler, observed: ObservedState) -> bool:
    """Return True if the newest enabled entry for the handler's files equals the handler."""
    match = handler.registration.match
    for entry in observed.entries:
        if entry.enabled and entry.registration is not None and overlaps(entry.registration.match, match):
            return equal(entry.registration, handler.registration)
    return False


@settings(max_examples=100)
@given(world=worlds())
def test_all_that_is_due_is_done(world: World) -> None:
    """The executor carries out the whole plan: nothing is refused or left, and the next plan is empty."""
    kernel = world.kernel()
    _, outcome = converged(world, kernel)
    note(f"{outcome}")
    assert (outcome.failed, outcome.left) == ([], [])
    after = kernel.observed()
    records = {**world.records, **outcome.records}
    assert plan(world.desired(), after, world.context(after, records)).actions == ()


@settings(max_examples=100)
@given(world=worlds(), random=st.randoms(use_true_random=False))
def test_nothing_is_registered_that_is_not_desired(world: World, random: Random) -> None:
    """Only desired handlers are registered: these are the intents by which a killed daemon's entries are recognised."""
    desired, kernel = world.desired(), world.kernel()
    planned = plan(desired, kernel.observed(), world.context(kernel.observed(), world.records))
    restored = {action.entry for action in planned.actions if action.act is Act.RESTORE}
    through = Through(kernel)
    known = {entry.inode for entry in kernel.observed().entries}
    PlanExecutor(
        planned,
        desired,
        cast(Instance, through),
        cast(Writer, through),
        RandomGate(random),
        lambda _: random.random() < 0.9,
    ).run()
    for entry in kernel.observed().entries:
        if entry.inode not in known and entry.name not in restored and not is_stand_in(entry.name):
            assert equal(entry.registration, desired.by_name[entry.name].registration)


@settings(max_examples=200)
@given(world=worlds(), due=st.sampled_from([WritePermission.WAIT, WritePermission.NOW]))
def test_what_shares_no_file_is_never_without_a_handler(world: World, due: WritePermission) -> None:
    """Once the right entry serves, no write leaves its files to no entry or to a wrong one."""
    desired = world.desired()
    through, _ = converged(world, world.kernel(), due)
    for handler in desired.handlers:
        if handler.enabled and alone(handler, desired, world.observed):
            states = [served(handler, observed) for observed in through.seen]
            note(f"{handler.name}: {states}")
            assert states == sorted(states)
            assert states[-1] or stand_in_name(handler.name) in world.observed.by_name


TEMPORARY = Policy(stand_ins=StandInPolicy.TEMPORARY)
A = Handler("a", Registration(Magic(b"A"), "/i", Flags.NONE))
AB = Handler("ab", Registration(Magic(b"AB"), "/i", Flags.NONE))
OLD = Registration(Magic(b"A"), "/old", Flags.NONE)


def carried_out(
    handlers: Iterable[Handler],
    entries: Iterable[tuple[str, Registration]],
    due: WritePermission | dict[str, WritePermission] = WritePermission.NOW,
    *,
    disturbed: bool = False,
    refuse: Collection[str] = (),
) -> tuple[list[list[str]], Outcome]:
    """Execute a plan; return the names after each write, newest first, and the outcome."""
    desired = DesiredState(tuple(handlers), policy=TEMPORARY)
    found = [Entry(name, number, enabled=True, registration=says) for number, (name, says) in enumerate(entries)]
    through = Through(SimulatedKernel(found), refuse)
    planned = plan(desired, ObservedState(tuple(found)), PlanContext())
    instance, writer = cast(Instance, through), cast(Writer, through)
    outcome = PlanExecutor(planned, desired, instance, writer, Gate(due, touched=disturbed), unchanged).run()
    return [[entry.name for entry in seen.entries] for seen in through.seen[1:]], outcome


def test_replacing_leaves_no_gap() -> None:
    """While an entry is replaced its stand-in serves: it is registered first and removed last."""
    seen, outcome = carried_out([A], [("a", OLD)])
    assert seen == [[".binfmtd~a", "a"], [".binfmtd~a"], ["a", ".binfmtd~a"], ["a"]]
    assert outcome.records["a"].registration == A.registration


def test_before_its_turn_a_name_gets_a_stand_in_only() -> None:
    """A name that is not due gets a stand-in at once, if its entry is missing or wrong; the rest is left."""
    for entries in ([], [("a", OLD)]):
        seen, outcome = carried_out([A], entries, WritePermission.WAIT)
        assert seen == [[".binfmtd~a", *(name for name, _ in entries)]]
        assert outcome.bridged == ["a"]
        assert [action.entry for action in outcome.left] == ["a"]
        assert not outcome.done


def test_a_name_touched_at_the_last_moment_waits() -> None:
    """A proper name that another program touches at the last moment is not written, unless its longest wait is over."""
    seen, outcome = carried_out([A], [], WritePermission.IF_UNTOUCHED, disturbed=True)
    assert (seen, [action.entry for action in outcome.left]) == ([[".binfmtd~a"]], ["a"])
    assert carried_out([A], [], WritePermission.IF_UNTOUCHED)[0] == [["a"]]
    assert carried_out([A], [], WritePermission.NOW, disturbed=True)[0] == [["a"]]
    unwanted = [(".binfmtd~gone", OLD)]
    assert carried_out([], unwanted, WritePermission.IF_UNTOUCHED, disturbed=True)[0] == []
    assert carried_out([], unwanted, WritePermission.WAIT)[0] == []
    assert carried_out([], unwanted, WritePermission.IF_UNTOUCHED)[0] == [[]]


def test_a_stand_in_of_an_earlier_daemon_that_serves_something_else_is_renewed() -> None:
    """An earlier daemon's stand-in that serves something else is renewed before its entry is replaced.

    It would leave the files without a handler meanwhile.
    """
    seen, _ = carried_out([A], [("a", OLD), (".binfmtd~a", Registration(Magic(b"D"), "/i", Flags.NONE))])
    assert seen == [["a"], [".binfmtd~a", "a"], [".binfmtd~a"], ["a", ".binfmtd~a"], ["a"]]


def test_a_company_is_written_back_to_back_in_ascending_rank() -> None:
    """A group is written back to back, lowest rank first; meanwhile a stand-in of the higher member serves.

    The lower one gets no stand-in, since that would lie above the higher one.
    """
    seen, _ = carried_out([A, AB], [("ab", AB.registration)])
    assert seen == [
        [".binfmtd~ab", "ab"],
        [".binfmtd~ab"],
        ["a", ".binfmtd~ab"],
        ["ab", "a", ".binfmtd~ab"],
        ["ab", "a"],
    ]


def test_a_company_that_is_replaced_leaves_no_gap() -> None:
    """Each member of a group that is replaced has a stand-in, in ascending rank, so no file is without a handler.

    That includes the files that only the lower member takes.
    """
    seen, _ = carried_out([A, AB], [("ab", AB.registration), ("a", OLD)])
    assert seen == [
        [".binfmtd~a", "ab", "a"],
        [".binfmtd~ab", ".binfmtd~a", "ab", "a"],
        [".binfmtd~ab", ".binfmtd~a", "ab"],
        [".binfmtd~ab", ".binfmtd~a"],
        ["a", ".binfmtd~ab", ".binfmtd~a"],
        ["ab", "a", ".binfmtd~ab", ".binfmtd~a"],
        ["ab", "a", ".binfmtd~ab"],
        ["ab", "a"],
    ]


def test_what_the_kernel_refuses_as_a_stand_in_is_not_taken_away() -> None:
    """If the kernel refuses the stand-in, nothing is written, and the old entry still serves.

    It does so while the interpreter is being written.
    """
    seen, outcome = carried_out([A], [("a", OLD)], refuse=[".binfmtd~a"])
    assert (seen, outcome.done) == ([], [])
    ((action, error),) = outcome.failed
    assert (action.entry, error.errno) == ("a", errno.ETXTBSY)


def test_what_the_kernel_refuses_keeps_its_stand_in() -> None:
    """If the kernel refuses the proper entry, its stand-in stays and serves."""
    seen, outcome = carried_out([A], [("a", OLD)], refuse=["a"])
    assert seen[-1] == [".binfmtd~a"]
    assert [(action.entry, error.errno) for action, error in outcome.failed] == [("a", errno.ETXTBSY)]


def test_what_must_stay_below_it_is_not_written_either() -> None:
    """If a higher entry cannot be moved, a lower one that would get above it is not written, and keeps no stand-in."""
    seen, outcome = carried_out([A, AB], [("ab", AB.registration)], refuse=[".binfmtd~ab"])
    assert (seen, [action.entry for action in outcome.left]) == ([], ["a"])
    assert [(action.entry, error.errno) for action, error in outcome.failed] == [("ab", errno.ETXTBSY)]
    seen, outcome = carried_out([A, AB], [("ab", AB.registration), ("a", OLD)], refuse=[".binfmtd~ab"])
    assert (seen, outcome.bridged) == ([[".binfmtd~a", "ab", "a"], ["ab", "a"]], [])


def test_a_company_waits_for_each_of_its_members() -> None:
    """A group waits for each member, since another program may still be changing it.

    If one member cannot wait any longer, it is written without the members that wait.
    """
    missing, due = list[tuple[str, Registration]](), {"a": WritePermission.IF_UNTOUCHED, "ab": WritePermission.WAIT}
    assert carried_out([A, AB], missing, due)[0] == [[".binfmtd~a"], [".binfmtd~ab", ".binfmtd~a"]]
    due["a"] = WritePermission.NOW
    assert carried_out([A, AB], missing, due)[0] == [["a"]]
    assert carried_out([A, AB], [(".binfmtd~ab", AB.registration)], due)[0] == [[], ["a"], [".binfmtd~ab", "a"]]


def test_what_is_backed_off_from_stays_above_by_its_stand_in() -> None:
    """The stand-in of a name that is backed off from stays above a lower entry, which is repaired all the same.

    If the higher one does not exist at all, it waits.
    """
    due = {"a": WritePermission.IF_UNTOUCHED, "ab": WritePermission.BACKOFF}
    seen, outcome = carried_out([A, AB], [(".binfmtd~ab", AB.registration)], due)
    assert seen == [[], ["a"], [".binfmtd~ab", "a"]]
    assert ([action.entry for action in outcome.done], outcome.bridged) == (["a"], [])
    assert carried_out([A, AB], [], due)[0] == [["a"]]
    assert carried_out([A, AB], [("ab", OLD)], due)[0] == [["a", "ab"], [".binfmtd~ab", "a", "ab"]]
    below = {"a": WritePermission.BACKOFF, "ab": WritePermission.IF_UNTOUCHED}
    assert carried_out([A, AB], [(".binfmtd~a", A.registration)], below)[0] == [["ab", ".binfmtd~a"]]
    assert carried_out([A, AB], [("ab", AB.registration)], below)[0] == [], "nothing is written that it would move for"


def test_what_is_refused_at_the_last_moment_is_not_buried() -> None:
    """If the kernel refuses an entry whose stand-in serves, what was just written above that is removed again."""
    seen, outcome = carried_out([A, AB], [("ab", AB.registration)], refuse=["ab"])
    assert seen == [[".binfmtd~ab", "ab"], [".binfmtd~ab"], ["a", ".binfmtd~ab"], [".binfmtd~ab"]]
    assert ([action.entry for action in outcome.left], outcome.records) == (["a"], {})
    assert carried_out([A, AB], [], refuse=["ab"])[0] == [["a"]], "where it serves nothing, it blocks no other one"
