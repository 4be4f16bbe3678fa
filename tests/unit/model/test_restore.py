"""Foreign entries: when they are remembered, count as lost, and come back."""

from collections.abc import Collection

from hypothesis import given, settings
from hypothesis import strategies as st
from support.simulated import SimulatedKernel, carry_out
from support.worlds import FLAGS, MATCHES, OTHERS, World, worlds

from binfmtd.model.config import Policy, Shadowed, Unmanaged
from binfmtd.model.desired import DesiredState, Unavailable, UnavailableReason
from binfmtd.model.drift import Act, Plan, PlanContext, Record, Remembered
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Magic
from binfmtd.model.plan import plan
from binfmtd.model.restore import remember

ROUNDS = 3  # a pass has four, the first included (daemon/entries/reconciler.py)
SAYS = Registration(Magic(b"A"), "/i", Flags.NONE)
OURS = Handler("ours", SAYS)
POLICY = Policy(restore=("W*", "x"))
WAS = Remembered(SAYS, enabled=True, inode=1)


def desired(*handlers: Handler, unavailable: tuple[Unavailable, ...] = (), policy: Policy = POLICY) -> DesiredState:
    return DesiredState(handlers, unavailable, policy)


def entry(name: str, inode: int, says: Registration | None = SAYS, *, enabled: bool = True) -> Entry:
    return Entry(name, inode, enabled, says)


def remembered(
    known: dict[str, Remembered],
    *entries: Entry,
    before: Collection[int] = (),
    wanted: DesiredState | None = None,
    around: PlanContext | None = None,
) -> dict[str, Remembered]:
    around = around or PlanContext()
    return remember(known, ObservedState(entries), wanted or desired(OURS), around, before)


def test_what_restore_names_is_remembered_oldest_first() -> None:
    """Foreign entries that restore names are remembered, but none that is ours, opaque or stops every exec."""
    entries = [
        entry("W2", 6, enabled=False),
        entry("other", 5),
        entry("Wbricks", 4),
        entry("Wopaque", 3, None),
        entry("W1", 2),
    ]
    around = PlanContext(exec_breaking=frozenset({"Wbricks"}))
    found = remembered({}, *entries, around=around)
    assert list(found.items()) == [("W1", WAS._replace(inode=2)), ("W2", Remembered(SAYS, enabled=False, inode=6))]
    mine = PlanContext(records={"W1": Record(SAYS, 2)})
    assert "W1" not in remembered({}, *entries, around=mine)


def test_whether_it_wins_is_remembered() -> None:
    """It is remembered if an entry is above a handler that shares a file with it; no other handler counts."""
    other = Handler("other", SAYS._replace(match=Magic(b"B")))
    wanted = desired(OURS, other)
    assert remembered({}, entry("W", 2), entry("ours", 1), wanted=wanted)["W"].above
    assert not remembered({}, entry("ours", 2), entry("W", 1), wanted=wanted)["W"].above
    assert not remembered({}, entry("W", 2), entry("other", 1), wanted=wanted)["W"].above


def test_with_a_flush_it_is_lost() -> None:
    """If no entry of the last pass exists any more, a missing one is lost in a flush, until it exists again."""
    lost = {"W": WAS._replace(lost=True)}
    assert remembered({"W": WAS}, entry("ours", 8), before=(1, 2)) == lost
    assert remembered(lost, entry("ours", 8), before=(8,)) == lost
    assert remembered({"W": WAS}) == lost


def test_removed_by_name_it_is_forgotten() -> None:
    """If an entry of the last pass still exists, one that is gone was removed by name, and is forgotten."""
    assert remembered({"W": WAS}, entry("ours", 2), before=(1, 2)) == {}


def test_what_is_no_business_of_ours_is_forgotten() -> None:
    """A lost entry that restore no longer names, or that the config now declares, does not come back."""
    lost = {"W": WAS._replace(lost=True)}
    assert remembered(lost, wanted=desired(OURS, policy=Policy(restore=()))) == {}
    assert remembered(lost, wanted=desired(OURS._replace(name="W"))) == {}
    waits = Unavailable("W", Magic(b"held"), UnavailableReason.WAITING, "", None, ("/i",), Flags.NONE, 0)
    assert remembered(lost, wanted=desired(unavailable=(waits,))) == {}


def test_registered_again_differently() -> None:
    """An entry that exists again is remembered as it is now, even if another program registered it differently."""
    other = SAYS._replace(interpreter="/j")
    found = remembered({"W": WAS._replace(above=True, lost=True)}, entry("ours", 9), entry("W", 8, other))
    assert found == {"W": Remembered(other, enabled=True, inode=8)}


def test_its_place_is_kept_while_it_moves() -> None:
    """An entry that is above ours for a moment, because it came back later, still belongs below."""
    lost = {"W": WAS._replace(lost=True)}
    assert not remembered(lost, entry("W", 9), entry("ours", 8))["W"].above
    back = {"W": WAS._replace(inode=9)}
    assert not remembered(back, entry("W", 9), entry("ours", 8), before=(8, 9))["W"].above
    above = {"W": WAS._replace(above=True)}
    assert not remembered(above, entry("ours", 9), entry("W", 1), before=(1,))["W"].above, "ours was registered anew"


def test_under_remove_it_is_spared() -> None:
    """Under "remove" an entry that restore names is not removed."""
    wanted = desired(policy=POLICY._replace(unmanaged=Unmanaged.REMOVE))
    actions = plan(wanted, ObservedState((entry("W", 1), entry("y", 2))), PlanContext()).actions
    assert [(action.act, action.entry) for action in actions] == [(Act.REMOVE, "y")]


def test_what_served_in_our_place_will_do_so_again() -> None:
    """A handler from "all" that left its files to a foreign entry does not register while that comes back."""
    ours = OURS._replace(yields=True)
    around = PlanContext(remembered={"W": WAS._replace(lost=True)})
    found = plan(desired(ours), ObservedState(), around)
    assert found.served_elsewhere == {"ours": "W"}
    assert [(action.act, action.entry) for action in found.actions] == [(Act.RESTORE, "W")]


def test_what_belongs_above_waits_until_ours_is_above_what_belongs_below() -> None:
    """Of two lost entries one comes back below ours; ours is moved above it, and then the other comes back on top."""
    lost = {"W1": WAS._replace(lost=True), "W2": WAS._replace(above=True, lost=True)}
    ours = entry("ours", 5)
    around = PlanContext(records={"ours": Record(SAYS, 5)}, remembered=lost)
    first = plan(desired(OURS), ObservedState((ours,)), around)
    assert [action.entry for action in first.actions if action.act is Act.RESTORE] == ["W1"]
    again = around._replace(remembered=lost | {"W1": WAS._replace(inode=6)}, records={"ours": Record(SAYS, 7)})
    then = plan(desired(OURS), ObservedState((entry("ours", 7), entry("W1", 6))), again)
    assert [(action.act, action.entry) for action in then.actions] == [(Act.RESTORE, "W2")]
    refused = around._replace(refused=frozenset({"W1"}))
    found = plan(desired(OURS), ObservedState((ours,)), refused)
    assert "W2" in [action.entry for action in found.actions]  # it does not wait for what the kernel refuses


LOST = st.builds(
    Remembered,
    registration=st.builds(Registration, st.sampled_from(MATCHES), st.just("/i"), st.sampled_from(FLAGS)),
    enabled=st.booleans(),
    inode=st.just(1),
    above=st.just(False),  # noqa: FBT003  a value, not a switch
    lost=st.just(True),  # noqa: FBT003  a value, not a switch
)


def pass_once(
    wanted: DesiredState,
    world: World,
    kernel: SimulatedKernel,
    records: dict[str, Record],
    known: dict[str, Remembered],
) -> tuple[Plan, dict[str, Remembered]]:
    observed = kernel.observed()
    around = world.context(observed, records)
    known = remember(known, observed, wanted, around, [each.inode for each in observed.entries])
    planned = plan(wanted, observed, around._replace(remembered=known))
    carry_out(planned, kernel, wanted, records)
    return planned, known


@settings(max_examples=150)
@given(world=worlds(), lost=st.dictionaries(st.sampled_from(OTHERS), LOST, min_size=1), below=st.integers(0, 5))
def test_what_is_lost_comes_back_as_it_was(world: World, lost: dict[str, Remembered], below: int) -> None:
    """A lost entry comes back with its text and state, on the same side of ours, and then nothing is left to do."""
    lost = {name: was._replace(above=place >= below) for place, (name, was) in enumerate(lost.items())}
    policy = world.config.policy._replace(restore=tuple(lost))
    world = world._replace(config=world.config._replace(policy=policy), blamed=world.blamed - lost.keys())
    wanted, kernel, records = world.desired(), world.kernel(), dict(world.records)
    lost = {name: was for name, was in lost.items() if kernel.entry(name) is None}
    planned, known = pass_once(wanted, world, kernel, records, lost)
    for _ in range(ROUNDS):
        planned, known = pass_once(wanted, world, kernel, records, known)
    assert planned.actions == ()
    after = kernel.observed()
    for name, was in lost.items():
        found = after.by_name[name]
        assert (found.registration, found.enabled) == (was.registration, was.enabled)
        if not was.enabled:
            continue
        ours = [h.name for h in wanted.overlapping(was.registration.match) if h.name in after.position]
        theirs_first = [after.position[name] < after.position[each] for each in ours]
        if not was.above or policy.shadowed is Shadowed.OUTRANK:
            assert not any(theirs_first)
        elif name not in planned.served_elsewhere.values():
            assert all(theirs_first)
