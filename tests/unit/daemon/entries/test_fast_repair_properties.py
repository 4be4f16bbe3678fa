"""Properties of every fast repair, whatever is declared and whichever entries another program touches."""

from typing import cast

from hypothesis import assume, given, note, settings
from hypothesis import strategies as st
from support.simulated import Gate, SimulatedKernel, Through, carry_out
from support.worlds import World, worlds

from binfmtd.daemon.assessment import Assessment
from binfmtd.daemon.entries.entry_state import StateTable
from binfmtd.daemon.entries.fast_repair import FastRepair
from binfmtd.daemon.watches.events import PendingEvents
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.writer import Writer
from binfmtd.model.drift import Drift
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Magic
from binfmtd.model.ownership import equal
from binfmtd.model.plan import plan
from binfmtd.model.precedence import overlaps
from binfmtd.model.stand_in import stand_in_name


def serves(kernel: SimulatedKernel, handler: Handler) -> bool:
    """Return True if the handler's proper entry or its stand-in is enabled and as declared."""
    entries = (kernel.entry(handler.name), kernel.entry(stand_in_name(handler.name)))
    return any(
        entry is not None and entry.enabled and equal(entry.registration, handler.registration) for entry in entries
    )


def converged(world: World, kernel: SimulatedKernel) -> Assessment:
    """Execute plans until nothing is left to do; return the last look."""
    desired, records = world.desired(), dict(world.records)
    while True:
        observed = kernel.observed()
        context = world.context(observed, records)
        assessment = Assessment(observed, desired, context, plan(desired, observed, context))
        if not (assessment.plan.actions or assessment.plan.stand_ins):
            return assessment
        carry_out(assessment.plan, kernel, desired, records)


@settings(max_examples=300)
@given(
    world=worlds(),
    which=st.lists(st.integers(0, 11), min_size=1, max_size=3),
    registers=st.booleans(),
    with_events=st.booleans(),
)
def test_no_fast_repair_puts_a_stand_in_above_a_higher_handler(
    world: World, which: list[int], registers: bool, with_events: bool
) -> None:
    """A handler gets no new stand-in above an entry of higher rank that serves.

    The exception is a handler that nothing serves, below one whose match is of the other kind: a file hardly ever has
    both the bytes of a magic and the name of an extension.
    """
    desired, kernel = world.desired(), world.kernel()
    assessment = converged(world, kernel)
    observed = assessment.observed
    repair = FastRepair(assessment, StateTable(), Gate(), lambda _: True)
    ours = [name for h in desired.handlers for name in (h.name, stand_in_name(h.name)) if name in observed.by_name]
    assume(ours)
    removed = {ours[place % len(ours)] for place in which}
    for name in removed:
        kernel.remove(name)
    served = {handler.name for handler in desired.handlers if serves(kernel, handler)}
    events = PendingEvents(removed if with_events else (), any_entry=registers or not with_events)
    events.entries_written |= events.entries
    note(f"{removed} {kernel.observed().entries}")
    through = Through(kernel)
    repair.react(events, PendingEvents, cast(Instance, through), cast(Writer, through))
    after = kernel.observed()
    note(f"{after.entries}")
    for low, higher in desired.higher.items():
        stand_in = after.by_name.get(stand_in_name(low))
        if stand_in is None or observed.by_name.get(stand_in.name) == stand_in:
            continue
        for high in higher:
            both_kinds = not overlaps(desired.by_name[low].registration.match, high.registration.match)
            if high.name not in served or (both_kinds and low not in served):
                continue
            entries = [after.by_name.get(name) for name in (high.name, stand_in_name(high.name))]
            places = [after.position[entry.name] for entry in entries if entry is not None and entry.enabled]
            assert min(places) < after.position[stand_in.name], f"{low} above {high.name}"


CHANGES = ("remove", "disable", "enable", "replace", "register again")


@settings(max_examples=300)
@given(world=worlds(), which=st.integers(0, 11), how=st.sampled_from(CHANGES))
def test_plan_and_fast_repair_agree(world: World, which: int, how: str) -> None:
    """The fast repair finds the same kind of drift as the plan of the next pass."""
    desired, kernel = world.desired(), world.kernel()
    assessment = converged(world, kernel)
    names = [h.name for h in desired.handlers if kernel.entry(h.name) and h.name not in assessment.plan.blocked]
    assume(names)
    handler = desired.by_name[names[which % len(names)]]
    entry = kernel.entry(handler.name)
    assert entry is not None
    if how in ("disable", "enable"):
        kernel.switch(handler.name, enabled=how == "enable")
    else:
        kernel.remove(handler.name)
    if how == "replace":
        kernel.register(handler.name, Registration(Magic(b"other"), "/other", Flags.F))
    elif how == "register again":
        kernel.register(handler.name, handler.registration)
    observed = kernel.observed()
    context = world.context(observed, dict(assessment.context.records))
    after = plan(desired, observed, context)
    assume(handler.name not in after.served_elsewhere)  # once it is missing, a foreign entry may serve instead
    planned = {action.entry: action.drift for action in after.actions}
    repair = FastRepair(assessment, StateTable(), Gate(), lambda _: True)
    events = PendingEvents([handler.name])
    events.entries_written |= events.entries
    through = Through(kernel)
    found = repair.react(events, PendingEvents, cast(Instance, through), cast(Writer, through))
    order_only = planned.get(handler.name) is Drift.OUT_OF_ORDER
    assert (found.drifts | found.fixed).get(handler.name) is (None if order_only else planned.get(handler.name))
