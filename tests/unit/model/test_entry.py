"""The observed state: what is derived from it, and what stays the same object."""

from hypothesis import given
from hypothesis import strategies as st

from binfmtd.model.entry import Entry, ObservedState

A, B = (Entry(name, number, enabled=name == "a", registration=None) for number, name in enumerate("ab", 1))
STATE = ObservedState((B, A))


def test_relevant_entries() -> None:
    """With relevant entries a plan looks at these alone; the entries by name are all of them, without a new table."""
    some = STATE.with_relevant((A,))
    assert (STATE.relevant, some.relevant, some.entries) == ((B, A), (A,), (B, A))
    assert some.by_name is STATE.by_name
    assert some.position == {"a": 0}


def test_switched() -> None:
    """An instance that is switched off has the same entries."""
    off = STATE.switched(enabled=False)
    assert (off.switched_on, off.entries) == (False, STATE.entries)
    assert off.by_name is STATE.by_name


def test_the_number_of_enabled_entries() -> None:
    """It is that of all entries, whatever a plan looks at, and whether the instance is switched on or not."""
    assert STATE.enabled == STATE.with_relevant((B,)).enabled == STATE.switched(enabled=False).enabled == 1


@st.composite
def writes(draw: st.DrawFn) -> tuple[ObservedState, list[Entry], dict[str, Entry | None]]:
    """Draw a state, entries that are registered afterwards, and what becomes of some of the older ones."""
    entry = st.builds(Entry, st.sampled_from("abcdef"), st.integers(1, 9), st.booleans(), st.none())
    each_once = st.lists(entry, unique_by=lambda each: each.name)
    entries = draw(each_once)
    newest = [each._replace(inode=each.inode + 100) for each in draw(each_once)]
    changed: dict[str, Entry | None] = {}
    for old in draw(st.lists(st.sampled_from(entries), unique=True)) if entries else ():
        changed[old.name] = draw(st.sampled_from([None, old._replace(enabled=not old.enabled)]))
    return ObservedState(tuple(entries)), newest, changed


@given(writes(), st.booleans(), st.booleans())
def test_after_writes(
    drawn: tuple[ObservedState, list[Entry], dict[str, Entry | None]], switched_on: bool, reduced: bool
) -> None:
    """Entries that are registered come first, older ones keep their places, and what is derived agrees with them."""
    before, newest, changed = drawn
    rest = [changed.get(e.name, e) for e in before.entries if e.name not in {new.name for new in newest}]
    expected = ObservedState((*newest, *(entry for entry in rest if entry is not None)), switched_on)
    relevant = {*changed, *(new.name for new in newest), "a"}

    def reduce(state: ObservedState) -> ObservedState:
        return state.with_relevant(tuple(e for e in state.entries if e.name in relevant)) if reduced else state

    found = reduce(before).after(newest, changed, switched_on=switched_on)
    assert (found.entries, found.switched_on) == (expected.entries, switched_on)
    assert (found.by_name, found.enabled) == (expected.by_name, expected.enabled)
    assert list(found.by_name) == [entry.name for entry in found.entries]
    assert found.relevant == reduce(expected).relevant
    assert found.position == reduce(expected).position
