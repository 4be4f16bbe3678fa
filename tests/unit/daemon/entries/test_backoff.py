"""Backing off from a name whose repairs another process keeps undoing; each test sets the times."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.daemon.entries.backoff import (
    LONGEST_PAUSE,
    QUIET,
    REPAIRS,
    REPAIRS_OF_ALL,
    WINDOW,
    WINDOW_OF_ALL,
)
from binfmtd.daemon.entries.entry_state import StateTable
from binfmtd.model.plan import INSTANCE


def repaired(times: int, step: float, name: str = "a") -> tuple[StateTable, list[bool]]:
    states = StateTable()
    return states, [states.count_repair(name, 100.0 + n * step) for n in range(times)]


def test_the_tenth_repair_within_ten_seconds_begins_it() -> None:
    """The tenth repair begins a backoff, not the ninth, and only the tenth returns True; the next waits 0.1 s."""
    states, began = repaired(10, 1.0)
    assert began == [False] * 9 + [True]
    assert states.contended() == {"a"}
    assert states.allowed_at("a") == 109.0 + 0.1
    assert repaired(9, 0.001)[0].contended() == frozenset()
    assert repaired(9, 0.001)[0].allowed_at("a") == float("-inf")


def test_slow_repairs_never_begin_it() -> None:
    """Ten repairs in more than ten seconds begin no backoff, however long that goes on."""
    states, began = repaired(100, WINDOW / (REPAIRS - 1) + 0.01)
    assert not any(began)
    assert states.contended() == frozenset()


def test_pauses_double_up_to_thirty_seconds() -> None:
    """Pauses are 0.1, 0.2, 0.4 s and so on; a repair that comes when it may begins no second backoff."""
    states, _ = repaired(10, 0.0)
    pauses = []
    now = 100.0
    for _ in range(12):
        pauses.append(states.allowed_at("a") - now)
        now = states.allowed_at("a")
        assert states.end_backoffs(now) == []  # no end as long as repairs follow, even at the longest pause
        assert not states.count_repair("a", now)
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0])


def test_other_names_are_not_slowed() -> None:
    """Each name has its own history."""
    states, _ = repaired(10, 0.0)
    states.count_repair("b", 100.0)
    assert states.contended() == {"a"}
    assert states.allowed_at("b") == states.allowed_at("never seen") == float("-inf")


def test_sixty_seconds_without_a_repair_end_it() -> None:
    """After 60 s without a repair a name has no history; only names that were backed off from are returned."""
    states, _ = repaired(10, 0.0)
    states.count_repair("b", 100.0)
    assert states.next_calm_at() == 100.0 + QUIET
    assert states.end_backoffs(100.0 + QUIET - 0.001) == []
    assert states.end_backoffs(100.0 + QUIET) == ["a"]
    assert states.end_backoffs(1000.0) == []
    assert states.next_calm_at() == float("inf")
    assert states.contended() == frozenset()
    assert states.allowed_at("a") == float("-inf")
    assert not states.count_repair("a", 161.0)


def test_the_whole_instance() -> None:
    """A burst of flushes, as by package managers, begins no backoff; at that rate without end it holds all names."""
    states, began = repaired(REPAIRS_OF_ALL, 0.02, INSTANCE)
    assert began == [False] * (REPAIRS_OF_ALL - 1) + [True]
    assert states.allowed_at("any") == states.allowed_at(INSTANCE) == pytest.approx(100 + 599 * 0.02 + 0.1)
    _, began = repaired(2 * REPAIRS_OF_ALL, WINDOW_OF_ALL / (REPAIRS_OF_ALL - 1) + 0.01, INSTANCE)
    assert not any(began)


@given(gaps=st.lists(st.floats(0, 40), max_size=40))
def test_once_contended_repairs_are_rare(gaps: list[float]) -> None:
    """A caller that keeps to `allowed_at` makes few repairs a minute, and pauses never shrink."""
    states, _ = repaired(10, 0.0)
    now, at = 100.0, []
    for gap in gaps:
        now = max(now + gap, states.allowed_at("a"))
        states.count_repair("a", now)
        at.append(now)
    assert all(
        later - earlier >= min(0.2 * 2**n, LONGEST_PAUSE) * 0.999 for n, (earlier, later) in enumerate(pairwise(at))
    )
