"""Bystanders are left out of a plan, and the plan stays the same."""

from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.worlds import World, worlds

from binfmtd.daemon.entries.entry_index import EntryIndex
from binfmtd.kernel.steps import in_one_go
from binfmtd.model.config import Policy, Unmanaged
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Record
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Extension, Magic
from binfmtd.model.plan import plan
from binfmtd.model.restore import remember
from binfmtd.model.stand_in import stand_in_name

PROGRAM = b"\x7fELF" + bytes(252)
OURS = Handler("ours", Registration(Magic(b"AB"), "/i", Flags.NONE))


def entry(name: str, match: Magic | Extension | None, inode: int = 1) -> Entry:
    return Entry(name, inode, enabled=True, registration=match and Registration(match, "/other", Flags.NONE))


def desired(**policy: Any) -> DesiredState:
    return DesiredState((OURS,), (), Policy()._replace(**policy))


def relevant_of(
    index: EntryIndex, observed: ObservedState, wanted: DesiredState, records: Mapping[str, Record]
) -> ObservedState:
    return in_one_go(index.without_bystanders(observed, wanted, records))


BYSTANDER, OPAQUE = entry("bystander", Magic(b"C")), entry("opaque", None)
RELEVANT = (
    entry(OURS.name, Extension("x")),
    entry(stand_in_name("another"), Extension("x")),
    entry("overlaps", Magic(b"ABC")),
    entry("takes programs", Magic(b"\x7fELF")),
)


def test_what_a_plan_looks_at() -> None:
    """Left out are entries that share no file with a handler and take no program; the listing stays whole."""
    observed = ObservedState((BYSTANDER, *RELEVANT, OPAQUE))
    found = relevant_of(EntryIndex([PROGRAM]), observed, desired(), {})
    assert (found.relevant, found.entries, found.by_name) == (RELEVANT, observed.entries, observed.by_name)


def test_what_the_config_removes_or_restores_is_looked_at() -> None:
    """Under `unmanaged = "remove"` each foreign entry is relevant, and under `restore` those that it names."""
    observed, index = ObservedState((BYSTANDER, OPAQUE)), EntryIndex([PROGRAM])
    keep, remove, restore = desired(), desired(unmanaged=Unmanaged.REMOVE), desired(restore=("by*",))
    for wanted, relevant in ((keep, ()), (remove, observed.entries), (restore, (BYSTANDER,)), (keep, ())):
        for _ in range(2):  # the second time nothing has changed
            assert relevant_of(index, observed, wanted, {}).relevant == relevant


def test_what_we_registered_ourselves_is_looked_at() -> None:
    """A record makes an entry relevant, also one that was a bystander before, and it may become one again."""
    observed, index = ObservedState((BYSTANDER,)), EntryIndex([PROGRAM])
    assert BYSTANDER.registration is not None
    records = {"bystander": Record(BYSTANDER.registration, BYSTANDER.inode)}
    wanted = desired()
    for known, relevant in (({}, ()), (records, (BYSTANDER,)), ({}, ())):
        assert relevant_of(index, observed, wanted, known).relevant == relevant


def test_an_entry_that_has_changed_is_judged_again() -> None:
    """A bystander that another program registers for files of ours is relevant, and then may be a bystander again."""
    index, wanted, other = EntryIndex([PROGRAM]), desired(), entry("bystander", Magic(b"ABC"), 2)
    for each, relevant in ((BYSTANDER, ()), (other, (other,)), (BYSTANDER, ())):
        assert relevant_of(index, ObservedState((each,)), wanted, {}).relevant == relevant


def test_nothing_new_is_the_same_object() -> None:
    """Without a change the same object is returned, so its entries by name and their places are kept."""
    observed, index, wanted = ObservedState((BYSTANDER, *RELEVANT)), EntryIndex([PROGRAM]), desired()
    first = relevant_of(index, observed, wanted, {})
    assert relevant_of(index, observed, wanted, {}) is first


@settings(max_examples=300)
@given(before=worlds(), world=worlds(), changes=st.booleans())
def test_the_plan_is_the_same(before: World, world: World, changes: bool) -> None:
    """The plan with bystanders equals that without them, also if the index has them from an earlier look."""
    index, wanted = EntryIndex([PROGRAM]), world.desired()
    if changes:
        relevant_of(index, before.observed, wanted, before.records)
    found = relevant_of(index, world.observed, wanted, world.records)
    around = world.context(world.observed, world.records)
    assert plan(wanted, found, around) == plan(wanted, world.observed, around)
    known = [remember({}, each, wanted, around, ()) for each in (found, world.observed)]
    assert known[0] == known[1]
