"""Quiet, longest wait and backoff together; and the repairs that count."""

import time
from collections.abc import Collection
from pathlib import Path

import pytest
from support.simulated import handler
from support.simulated_daemon import RecordingReporter

from binfmtd.daemon.assessment import Assessment, ReconcileResult
from binfmtd.daemon.entries.backoff import REPAIRS, REPAIRS_OF_ALL
from binfmtd.daemon.entries.entry_state import StateTable
from binfmtd.daemon.entries.fast_repair import FastRepairResult
from binfmtd.daemon.repairs.repair_schedule import CONTENDED_SHARE, STAND_IN_SECONDS, STAND_IN_SHARE, RepairSchedule
from binfmtd.daemon.throttle import EventThrottle
from binfmtd.daemon.watches.events import PendingEvents
from binfmtd.errors import Again, WriteRefusedError
from binfmtd.kernel.write_gate import WritePermission
from binfmtd.model.desired import DesiredState, FileIdentity
from binfmtd.model.drift import Act, Action, Drift, Plan, PlanContext
from binfmtd.model.entry import ObservedState
from binfmtd.model.handler import Handler
from binfmtd.model.match import Magic
from binfmtd.model.plan import INSTANCE
from binfmtd.model.stand_in import stand_in_name

A = handler("a", Magic(b"A"))
REGISTER = Action(Act.REGISTER, "a", Drift.MISSING, "the entry is missing", A)
ENABLE = Action(Act.ENABLE, "a", Drift.DISABLED, "it is disabled")
DRAGGED = Action(
    Act.REPLACE, "a", Drift.OUT_OF_ORDER, "an entry that belongs below it is registered again", A, for_order_only=True
)
RENEW = Action(Act.REPLACE, "a", Drift.STALE_INTERPRETER, "another file", A)
SETTLE = 0.02


class World:
    """A schedule with a clock that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        states = StateTable()
        self.reporter = RecordingReporter(states, directory)
        self.throttle = EventThrottle(states.contended)
        self.schedule = RepairSchedule(states, SETTLE, self.throttle, self.reporter)
        self.desired = DesiredState((A,))

    def touch(self, *names: str, flushed: bool = False, bridged: bool = False) -> None:
        """Record that another program touched these, and they are missing; ``bridged``: stand-ins serve."""
        reaction = FastRepairResult()
        reaction.drifts = dict.fromkeys(names, Drift.MISSING)
        reaction.bridged = list(names) if bridged else []
        self.schedule.record_fast_repair(
            PendingEvents(set(names), any_entry=flushed, flushed=flushed), reaction, self.now, self.now
        )

    def reconcile(
        self,
        *done: Action,
        left: tuple[Action, ...] = (),
        at_once: bool = False,
        flushed: bool = False,
        takes: float = 0.0,
        kept: Collection[str] = (),
        failed: Collection[Action] = (),
        others: Collection[str] = (),
    ) -> None:
        """Record a pass that did this, and left that; ``kept``: permanent stand-ins that it wrote.

        ``failed``: what the kernel has refused, but may accept at the next try.  ``others``: stand-ins that another
        daemon had registered.
        """
        assessment = Assessment(ObservedState(), self.desired, PlanContext(), Plan(left))
        result = ReconcileResult(assessment)
        result.done += done
        result.kept |= set(kept)
        result.others_stand_ins |= set(others)
        result.failed += [(action, WriteRefusedError("timed out", 110, Again.NOW)) for action in failed]
        self.now += takes
        self.schedule.record_reconcile(result, at_once=at_once, flushed=flushed)

    def repair(self, times: int, *, flushed: bool = False, bridged: bool = False) -> None:
        """Have another program touch the entry this many times, and each time a pass that repairs it."""
        for _ in range(times):
            self.touch("a", flushed=flushed, bridged=bridged)
            self.now += SETTLE
            self.reconcile(REGISTER)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    """Return a world after its first pass, so that everything is in order."""
    world = World(monkeypatch, tmp_path)
    world.reconcile(REGISTER, at_once=True)
    return world


def test_what_a_pass_leaves_is_not_due_at_once(world: World) -> None:
    """A name that a pass left is due again later, so that passes do not follow one another.

    Another program touched it at the last moment, and while the throttle is closed that event is not read.
    """
    world.touch("a")
    world.now += SETTLE
    assert world.schedule.permission("a") is WritePermission.IF_UNTOUCHED
    world.reconcile(left=(REGISTER,))
    assert world.schedule.deadline() == world.now + SETTLE


def test_due_when_quiet(world: World) -> None:
    """A drift waits for `settle`, counted from the last event."""
    world.touch("a")
    assert world.schedule.permission("a") is WritePermission.WAIT
    world.now += 0.015
    world.touch("a")
    world.now += 0.015
    assert world.schedule.permission("a") is WritePermission.WAIT
    world.now += 0.006
    assert world.schedule.permission("a") is WritePermission.IF_UNTOUCHED
    assert world.schedule.anything_due(world.now)


def test_quiet_begins_when_all_events_were_read(world: World) -> None:
    """Events that arrive during a repair may be as late as its end, so quiet counts from there.

    The longest wait counts from the begin of the repair.
    """
    reaction = FastRepairResult()
    reaction.drifts = {"a": Drift.MISSING}
    for events in (PendingEvents(["a"]), PendingEvents(any_entry=True, flushed=True)):
        world.schedule.record_fast_repair(events, reaction, world.now, world.now + 0.05)
        assert world.schedule.deadline() == world.now + 0.05 + SETTLE
    world.now += 1.0
    assert world.schedule.permission("a") is WritePermission.NOW


def test_due_at_the_latest_after_a_second(world: World) -> None:
    """A drift is due after a second at the latest, however many events come."""
    for _ in range(101):
        world.touch("a")
        world.now += 0.01
    assert world.schedule.permission("a") is WritePermission.NOW


@pytest.mark.parametrize(("unread", "due"), [(0.5, 0.5), (3.0, 1.0)])
def test_no_pass_is_due_while_no_events_are_read(world: World, unread: float, due: float) -> None:
    """A pass could write nothing before the events are read, except a name whose second is over."""
    began = world.now
    world.touch("a")
    world.now += SETTLE
    world.reconcile(left=(REGISTER,))
    world.throttle.read_at = began + unread
    assert world.schedule.deadline() == began + due


def test_nothing_open_means_no_deadline(world: World) -> None:
    """Without an open drift there is no deadline; a repair ends the drift."""
    assert world.schedule.deadline() == float("inf")
    world.touch("a")
    assert world.schedule.deadline() == world.now + SETTLE
    world.reconcile(REGISTER)
    assert world.schedule.is_settled()


def test_what_is_a_repair(world: World) -> None:
    """Only a name that was in order can be repaired: neither a first registration nor a change by a reload counts."""
    assert world.reporter.repairs == []
    world.touch("a")
    world.reconcile(REGISTER)
    assert world.reporter.repairs == ["a"]
    world.schedule.use(SETTLE)
    world.reconcile(REGISTER, at_once=True)
    assert world.reporter.repairs == ["a"]


def test_what_had_drifted_before_a_reload(world: World) -> None:
    """A drift that is older than a reload counts as a repair."""
    world.touch("a")
    world.schedule.use(SETTLE)
    world.reconcile(left=(REGISTER,), at_once=True)
    world.reconcile(REGISTER)
    assert world.reporter.repairs == ["a"]
    for _ in range(REPAIRS):
        world.touch("a")
        world.reconcile(REGISTER, at_once=True)
    assert world.reporter.contentions == ["a"]


def test_what_only_moves_with_another_is_not_repaired(world: World) -> None:
    """An entry that only moves with another is not repaired, and leads to no backoff, however often it moves."""
    for _ in range(2 * REPAIRS):
        world.reconcile(DRAGGED)
    assert (world.reporter.repairs, world.reporter.contentions) == ([], [])


def test_a_stand_in_is_no_repair(world: World) -> None:
    """However often a stand-in is registered again, the drift counts once, with the proper entry's registration."""
    for _ in range(2 * REPAIRS):
        world.touch("a", bridged=True)
    assert (world.reporter.repairs, world.reporter.contentions) == ([], [])
    world.reconcile(REGISTER)
    assert world.reporter.repairs == ["a"]


def test_what_falls_due_during_a_pass_is_not_put_off(world: World) -> None:
    """A name that falls due during a pass, which did not consider it, is not put off."""
    world.touch("a")
    due_at = world.schedule.deadline()
    world.reconcile(left=(REGISTER,), takes=2 * SETTLE)
    assert world.schedule.deadline() == due_at


def test_what_a_pass_only_bridges_is_repaired_later(world: World) -> None:
    """A drift counts once, however many passes are made before its proper entry is registered."""
    for _ in range(3):
        world.reconcile(left=(RENEW,))
    assert world.reporter.repairs == []
    world.reconcile(RENEW)
    assert world.reporter.repairs == ["a"]


def test_a_first_registration_that_fails_is_no_repair(world: World) -> None:
    """An entry that was never registered is not repaired, however often its registration is tried."""
    b = A._replace(name="b")
    world.desired = DesiredState((A, b))
    register = REGISTER._replace(entry="b", handler=b)
    for _ in range(3):
        world.reconcile(left=(register,), failed=(register,))
    world.reconcile(register)
    assert "b" not in world.reporter.repairs


def test_contention(world: World) -> None:
    """Ten repairs in ten seconds begin a backoff: a stand-in is still registered at once, the proper entry later."""
    world.repair(REPAIRS)
    assert world.reporter.contentions == ["a"]
    assert world.schedule.contended() == {"a"}
    assert world.schedule.may_add_stand_in("a")
    assert not world.schedule.may_switch("a")
    world.touch("a", bridged=True)
    assert world.schedule.may_add_stand_in("a"), "taken away again, too"
    world.now += SETTLE
    assert world.schedule.permission("a") is WritePermission.BACKOFF
    assert not world.schedule.allow(ENABLE)
    world.now += 60
    assert world.schedule.allow(ENABLE)
    assert world.schedule.permission("a") is WritePermission.NOW


def test_a_stand_in_that_another_daemon_registers_differently(world: World) -> None:
    """While binfmtd backs off from a name it leaves a stand-in that differs; a missing one comes back at once."""
    assert world.schedule.may_keep("a", Drift.CHANGED)
    test_contention(world)
    world.touch("a", bridged=True)
    world.reconcile(REGISTER)
    assert world.schedule.may_keep("a", Drift.MISSING)
    assert world.schedule.may_keep("b", Drift.CHANGED), "no other program replaces the stand-in of this handler"
    assert not world.schedule.may_keep("a", Drift.CHANGED)
    assert world.now < world.schedule.restore_at() < float("inf"), "it is looked for when the back-off has ended"
    assert world.schedule.take_withheld() == set(), "not before"
    world.now = world.schedule.restore_at()
    assert world.schedule.take_withheld() == {"a"}
    assert world.schedule.restore_at() == float("inf")
    assert world.schedule.may_keep("a", Drift.CHANGED)


def test_stand_ins_that_two_daemons_exchange(world: World) -> None:
    """An exchange of stand-ins counts towards the backoff of the proper entry, once a pass.

    What our own config changes does not count.
    """
    kept = {stand_in_name("a")}
    for _ in range(REPAIRS):
        assert world.schedule.may_keep("a", Drift.CHANGED, at_once=True)
        assert world.schedule.may_keep("a", Drift.MISSING)
        world.reconcile(kept=kept)
        assert world.schedule.may_keep("a", Drift.CHANGED)
        world.reconcile()  # it was not written
    assert world.reporter.contentions == []
    for _ in range(REPAIRS - 1):
        assert world.schedule.may_keep("a", Drift.CHANGED)
        assert world.schedule.may_keep("a", Drift.CHANGED), "in the second round of the same pass"
        world.reconcile(REGISTER, kept=kept)
    assert world.reporter.contentions == []
    assert world.schedule.may_keep("a", Drift.CHANGED)
    world.reconcile(kept=kept)
    assert world.reporter.contentions == ["a"]
    assert not world.schedule.may_keep("a", Drift.CHANGED)
    assert world.schedule.may_keep("a", Drift.CHANGED, at_once=True)


def test_a_flush_is_no_contention(world: World) -> None:
    """Neither the repair after a flush nor the stand-ins that it removed count towards the backoff of a name."""
    for _ in range(3 * REPAIRS):
        world.touch("a", flushed=True, bridged=True)
        world.touch("a", flushed=True, bridged=True)
        world.now += SETTLE
        world.reconcile(REGISTER)
    assert world.reporter.contentions == []


def test_our_own_changes_are_no_contention(world: World) -> None:
    """An interpreter that is often upgraded, or comes and goes, leads to no backoff: no program undid a repair."""
    for number in range(3 * REPAIRS):
        world.desired = DesiredState((A,), file_identities={"/i": FileIdentity(1, number, 1, 1, 1)})
        world.reconcile(left=(RENEW,))
        world.now += SETTLE
        world.reconcile(RENEW)
        world.desired = DesiredState()
        world.reconcile(Action(Act.REMOVE, "a", Drift.UNWANTED, "its interpreter is gone"))
    assert world.reporter.contentions == []


def test_changes_of_an_interpreter_are_no_flush(world: World) -> None:
    """If an interpreter is replaced again and again while its entry is missing, that is no flush of the instance."""
    for number in range(2 * REPAIRS_OF_ALL):
        world.touch("a")
        world.desired = DesiredState((A,), file_identities={"/i": FileIdentity(1, number, 1, 1, 1)})
        world.now += SETTLE
        world.reconcile(left=(REGISTER,))
        world.now += SETTLE
        world.reconcile(failed=(REGISTER,), left=(REGISTER,))
    assert world.reporter.contentions == []


def test_passes_without_a_handler_are_no_flush(world: World) -> None:
    """While no handler has an interpreter, passes count no flush, so the first one is registered without delay."""
    world.desired = DesiredState()
    for _ in range(2 * REPAIRS_OF_ALL):
        world.now += SETTLE
        world.reconcile()
    assert world.reporter.contentions == []
    assert world.schedule.may_switch("a")


def test_flushes_without_end(world: World) -> None:
    """Flushes without end begin one backoff, that of the instance, and then every name waits."""
    world.repair(REPAIRS_OF_ALL, flushed=True, bridged=True)
    assert world.reporter.contentions == [INSTANCE]
    world.touch("a", flushed=True, bridged=True)
    world.now += SETTLE
    assert not world.schedule.may_switch("any")
    assert world.schedule.may_add_stand_in("a")
    assert world.schedule.permission("a") is WritePermission.BACKOFF


def test_flushes_whose_stand_ins_are_withheld(world: World) -> None:
    """A flush counts for the instance also if no stand-in was registered, since the budget was spent."""
    world.repair(REPAIRS_OF_ALL, flushed=True)
    assert world.reporter.contentions == [INSTANCE]


def test_flushes_whose_events_are_not_read(world: World) -> None:
    """Passes that register entries again that a flush has removed count, but not after a flush that has counted."""
    world.touch("a", flushed=True)
    for _ in range(REPAIRS_OF_ALL):
        world.now += SETTLE
        world.reconcile(REGISTER, left=(REGISTER,), flushed=True)
    assert world.reporter.contentions == [INSTANCE]


def test_who_flushes_is_met_in_the_midst_of_it(world: World) -> None:
    """During a backoff of the instance a missing entry does not count towards the backoff of its name."""
    for _ in range(REPAIRS_OF_ALL):
        world.touch("a", flushed=True, bridged=True)
        world.reconcile(REGISTER)
    for _ in range(REPAIRS + 1):
        world.touch("a")
        world.reconcile(REGISTER)
    assert world.reporter.contentions == [INSTANCE]


def test_a_flush_during_a_pass(world: World) -> None:
    """A drift that is open after a pass with a flush does not count towards the backoff of its name."""
    for _ in range(3 * REPAIRS):
        world.now += SETTLE
        world.reconcile(REGISTER, left=(REGISTER,), flushed=True)
    assert world.reporter.contentions == []


def test_flushes_without_an_event(world: World) -> None:
    """Flushes without an event lead to a backoff of the instance, with longer and longer pauses."""
    for _ in range(REPAIRS_OF_ALL):
        world.now += SETTLE
        world.reconcile(REGISTER, left=(REGISTER,), flushed=True)
        world.schedule.record_unseen_flush()
    assert world.reporter.contentions == [INSTANCE]
    assert world.schedule.permission("a") is WritePermission.BACKOFF


def test_what_is_restored_counts_for_the_instance(world: World) -> None:
    """A restored entry counts towards the backoff of the instance, since a flush removed it."""
    restore = Action(Act.RESTORE, "theirs", Drift.MISSING, "a flush removed it", A)
    for _ in range(REPAIRS_OF_ALL):
        world.now += SETTLE
        world.reconcile(restore)
    assert world.reporter.contentions == [INSTANCE]


def test_a_write_that_does_not_help_is_not_tried_for_ever(world: World) -> None:
    """A drift that is still open after its write counts, so that it is backed off from."""
    for _ in range(REPAIRS):
        world.now += SETTLE
        world.reconcile(REGISTER, left=(REGISTER,))
    assert world.reporter.contentions == ["a"]


def test_what_stops_every_exec_is_disabled_in_any_case(world: World) -> None:
    """An entry that stops every exec is disabled even during a backoff."""
    test_contention(world)
    world.touch("a", bridged=True)
    world.reconcile(REGISTER)
    assert not world.schedule.may_switch("a")
    assert world.schedule.allow(Action(Act.DISABLE, "a", Drift.UNWANTED, "every exec fails"))
    assert not world.schedule.allow(Action(Act.DISABLE, "a", Drift.CHANGED, "enabled = false"))


def test_the_budget_of_stand_ins(world: World) -> None:
    """When the budget is spent stand-ins wait, and no longer than it takes to refill what was spent too much."""
    assert world.schedule.restore_at() == float("inf")
    world.schedule.spent(STAND_IN_SECONDS + 0.001)
    assert not world.schedule.may_add_stand_in("a")
    assert world.schedule.restore_at() == pytest.approx(world.now + 0.001 / STAND_IN_SHARE)
    world.now += 0.001 / STAND_IN_SHARE + 0.001
    assert world.schedule.may_add_stand_in("a")
    assert world.schedule.take_withheld() == {"a"}
    assert world.schedule.restore_at() == float("inf")


def test_twenty_flushes_a_second(world: World) -> None:
    """Twenty flushes a second that cost a millisecond each are answered within 10 ms, without end."""
    for _ in range(2000):
        world.now += 0.05
        assert world.schedule.may_add_stand_in("a") or world.schedule.restore_at() - world.now <= 0.01
        world.schedule.spent(0.001)


def several(names: str) -> tuple[Handler, ...]:
    """Return handlers with these names, each of one letter."""
    return tuple(handler(name, Magic(name.encode())) for name in names)


@pytest.mark.parametrize(
    ("drift", "contentions"),
    [(Drift.CHANGED, []), (Drift.STALE_INTERPRETER, []), (Drift.DISABLED, ["d"])],
)
def test_registered_after_a_removal_of_all(world: World, drift: Drift, contentions: list[str]) -> None:
    """An entry that takes a place after a removal of all does not count for its name; one that is disabled does."""
    handlers = several("abcd")
    world.desired = DesiredState(handlers)
    register = [REGISTER._replace(entry=each.name, handler=each) for each in handlers]
    world.reconcile(*register, at_once=True)
    replace = Action(Act.ENABLE if drift is Drift.DISABLED else Act.REPLACE, "d", drift, "differs", handlers[3])
    for _ in range(2 * REPAIRS):
        world.touch("a", "b", "c", "d")
        world.now += SETTLE
        world.reconcile(*register[:3], replace)
    assert world.reporter.contentions == contentions


def test_many_removed_by_name_count_as_a_flush(world: World) -> None:
    """If a program removes every entry by name, no name is backed off from."""
    handlers = several("abcd")
    world.desired = DesiredState(handlers)
    register = [REGISTER._replace(entry=each.name, handler=each) for each in handlers]
    world.reconcile(*register, at_once=True)
    for _ in range(2 * REPAIRS):
        world.touch("a", "b", "c", "d")
        world.now += SETTLE
        world.reconcile(*register)
    assert world.reporter.contentions == []
    for _ in range(REPAIRS_OF_ALL):
        world.touch("a", "b", "c", "d")
        world.now += SETTLE
        world.reconcile(*register)
    assert world.reporter.contentions == [INSTANCE]


def test_the_instance_is_switched_on_in_spite_of_back_off(world: World) -> None:
    """A backoff does not keep the instance off, since nothing serves then; the budget limits what that costs."""
    world.repair(REPAIRS_OF_ALL + 9, flushed=True, bridged=True)
    assert not world.schedule.may_switch(INSTANCE)
    switch_on = Action(Act.ENABLE, INSTANCE, Drift.SWITCHED_OFF, "it is switched off")
    assert world.schedule.allow(switch_on)
    world.schedule.spent(100.0)
    assert not world.schedule.allow(switch_on)
    assert world.schedule.restore_at() <= world.now + STAND_IN_SECONDS / CONTENDED_SHARE, "the debt has a limit"


def test_flushes_that_stand_ins_answer_make_no_longer_pause(world: World) -> None:
    """Flushes that only stand-ins answer do not lengthen the pause: proper entries come back soon after the last."""
    for _ in range(REPAIRS_OF_ALL + 20):
        world.touch("a", flushed=True, bridged=True)
        world.now += 0.005
    assert world.schedule.contended() == {INSTANCE}
    world.now += 0.2
    assert world.schedule.may_switch("a")


def test_another_daemon_puts_back_the_stand_in_we_remove(world: World) -> None:
    """If another daemon puts back each stand-in that we remove, we back off from removing it."""
    remove = Action(Act.REMOVE, ".binfmtd~a", Drift.UNWANTED, "the stand-in is no longer needed")
    for _ in range(REPAIRS):
        world.now += SETTLE
        world.reconcile(remove, others=[".binfmtd~a"])
    assert world.reporter.contentions == [".binfmtd~a"]
    assert not world.schedule.allow(remove)


def test_our_own_stand_in_that_goes_again_and_again(world: World) -> None:
    """The removal of a stand-in that this daemon registered itself, since its interpreter is gone, is no contention."""
    for _ in range(2 * REPAIRS):
        world.now += SETTLE
        world.reconcile(Action(Act.REMOVE, ".binfmtd~a", Drift.UNWANTED, "its interpreter is gone"))
    assert world.reporter.contentions == []


def test_one_line_for_a_handler_and_its_stand_in(world: World) -> None:
    """Contention for an entry and for its stand-in is logged once, and its end when both are quiet."""
    remove = Action(Act.REMOVE, ".binfmtd~a", Drift.UNWANTED, "the stand-in is no longer needed")
    for _ in range(REPAIRS):
        world.now += SETTLE
        world.touch("a")
        world.now += SETTLE
        world.reconcile(REGISTER, remove, others=[".binfmtd~a"])
    assert world.schedule.contended() == {"a", ".binfmtd~a"}
    assert len(world.reporter.contentions) == 1
