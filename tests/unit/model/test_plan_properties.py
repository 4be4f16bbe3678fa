"""Properties of every plan, whatever is declared and whatever other programs did."""

from fnmatch import fnmatchcase

from hypothesis import given, note, settings
from hypothesis import strategies as st
from support.simulated import carry_out
from support.worlds import World, listed, worlds

from binfmtd.model.config import StandInPolicy, Unmanaged
from binfmtd.model.drift import Act, Drift, Plan
from binfmtd.model.match import overlap
from binfmtd.model.ownership import equal, foreign
from binfmtd.model.plan import plan, removal_plan
from binfmtd.model.stand_in import is_stand_in, stand_in_name

Steps = frozenset[tuple[Act, str, Drift]]


def steps(planned: Plan) -> Steps:
    return frozenset((action.act, action.entry, action.drift) for action in planned.actions)


@settings(max_examples=200)
@given(world=worlds())
def test_a_plan_that_is_carried_out_leaves_nothing_to_do(world: World) -> None:
    """A plan that is executed on its own state ends every drift: the next one is empty.

    A stand-in that is registered may come to lie above an entry of higher rank, which the next plan moves, and that
    may require one more.
    """
    kernel, records = world.kernel(), dict(world.records)
    planned = world.plan()
    permanent = world.config.policy.stand_ins is StandInPolicy.PERMANENT
    for _ in range(3 if permanent else 1):
        note(f"{planned.stand_ins} {planned.actions}")
        carry_out(planned, kernel, world.desired(), records)
        after = kernel.observed()
        planned = plan(world.desired(), after, world.context(after, records))
    assert (planned.actions, planned.stand_ins) == ((), ())


@settings(max_examples=125)
@given(world=worlds())
def test_what_is_in_sync_is_what_was_declared(world: World) -> None:
    """After a plan each entry is as declared, above each lower one that could take the same file."""
    kernel, records = world.kernel(), dict(world.records)
    desired = world.desired()
    planned = world.plan()
    for _ in range(3):
        carry_out(planned, kernel, desired, records)
        planned = plan(desired, kernel.observed(), world.context(kernel.observed(), records))
    after = kernel.observed()
    assert after.switched_on
    for handler in desired.handlers:
        entry = after.by_name.get(handler.name)
        if not handler.enabled:
            assert entry is None or not entry.enabled
        elif handler.name in planned.served_elsewhere:
            assert entry is None
            assert after.by_name[planned.served_elsewhere[handler.name]].enabled
        else:
            assert entry is not None
            assert entry.enabled
            assert entry.registration is not None
            assert entry.registration.interpreter == handler.registration.interpreter
            above = after.position[entry.name]
            lower = [low for low, highs in desired.higher.items() if handler in highs]
            names = [name for low in lower for name in (low, stand_in_name(low)) if name in after.position]
            assert all(above < after.position[name] for name in names)
            stand_in = after.by_name.get(stand_in_name(handler.name))
            if stand_in is not None:
                assert handler.name in desired.permanent
                assert stand_in.enabled
                assert equal(stand_in.registration, handler.registration)
                assert all(after.position[stand_in.name] < after.position[name] for name in names)
    stand_ins = {stand_in_name(name) for name in desired.permanent.keys() - planned.served_elsewhere.keys()}
    assert {name for name in after.by_name if is_stand_in(name)} <= stand_ins


@settings(max_examples=150)
@given(world=worlds())
def test_no_plan_touches_what_is_foreign(world: World) -> None:
    """Under "keep" a foreign entry is only ever disabled, if it stops every exec; "remove" spares what `keep` names."""
    desired = world.desired()
    context = world.context(world.observed, world.records)
    theirs = {entry.name for entry in world.observed.entries if foreign(entry, desired, context)}
    for action in plan(desired, world.observed, context).actions:
        if action.entry not in theirs:
            continue
        if action.act is Act.DISABLE:
            assert action.entry in context.exec_breaking
        else:
            assert action.act is Act.REMOVE
            assert desired.policy.unmanaged is Unmanaged.REMOVE
            assert not any(fnmatchcase(action.entry, glob) for glob in desired.policy.keep)
    for action in removal_plan(desired, world.observed, context).actions:
        assert action.entry not in theirs


@settings(max_examples=100)
@given(world=worlds())
def test_under_remove_nothing_undeclared_stays(world: World) -> None:
    """With `unmanaged = "remove"` every foreign entry goes, but for those that `keep` names."""
    policy = world.config.policy._replace(unmanaged=Unmanaged.REMOVE)
    world = world._replace(config=world.config._replace(policy=policy))
    context = world.context(world.observed, world.records)
    theirs = {e.name for e in world.observed.entries if foreign(e, world.desired(), context)}
    removed = {action.entry for action in world.plan().actions if action.act is Act.REMOVE}
    assert theirs - removed == {name for name in theirs if any(fnmatchcase(name, glob) for glob in policy.keep)}


@settings(max_examples=125)
@given(world=worlds(), swaps=st.lists(st.integers(0, 6), max_size=12))
def test_the_order_of_entries_that_share_no_file_does_not_matter(world: World, swaps: list[int]) -> None:
    """The plan does not depend on the order in which the kernel lists entries that share no file."""
    entries = list(world.observed.entries)
    for place in swaps:
        if place + 1 < len(entries):
            upper, lower = entries[place : place + 2]
            apart = upper.registration is None or lower.registration is None
            if apart or not overlap(upper.registration.match, lower.registration.match):  # type: ignore[union-attr]
                entries[place : place + 2] = lower, upper
    assert steps(listed(world, tuple(entries)).plan()) == steps(world.plan())


@settings(max_examples=125)
@given(world=worlds(), swaps=st.lists(st.integers(0, 3), max_size=8))
def test_the_order_of_declarations_that_share_no_file_does_not_matter(world: World, swaps: list[int]) -> None:
    """The plan does not depend on the order of declarations where that does not decide their rank."""
    declared = list(world.config.specs)
    for place in swaps:
        if place + 1 < len(declared):
            one, other = declared[place : place + 2]
            if one.priority != other.priority or not overlap(one.match, other.match):
                declared[place : place + 2] = other, one
    shuffled = world._replace(config=world.config._replace(specs=tuple(declared)))
    assert steps(shuffled.plan()) == steps(world.plan())


@settings(max_examples=75)
@given(world=worlds())
def test_a_plan_writes_each_name_once_and_the_lowest_rank_first(world: World) -> None:
    """Registrations come in order of rank, removals after them, and no name is written twice."""
    desired = world.desired()
    acts = [action.act for action in world.plan().actions]
    writes = [action.entry for action in world.plan().actions if action.handler is not None]
    ranked = [handler.name for handler in desired.handlers]
    assert writes == [name for name in ranked if name in writes]
    stages = {Act.ENABLE: 0, Act.DISABLE: 0, Act.REGISTER: 1, Act.REPLACE: 1, Act.REMOVE: 2}
    assert [stages[act] for act in acts] == sorted(stages[act] for act in acts)
