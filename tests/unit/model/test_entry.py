"""The observed state: what is derived from it, and what stays the same object."""

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


def test_entries_but_for_some() -> None:
    """The entries without some names are newest first; the same question has the same answer."""
    assert STATE.other_than(frozenset()) == {"b": False, "a": True}
    assert list(STATE.other_than(frozenset())) == ["b", "a"]
    found = STATE.other_than(frozenset({"a"}))
    assert found == {"b": False}
    assert STATE.other_than(frozenset({"a"})) is found
