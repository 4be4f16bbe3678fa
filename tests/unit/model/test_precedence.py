"""Rank and order: which entries have to move, and that no other entry moves."""

from collections.abc import Iterable
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.simulated import handler

from binfmtd.model.desired import DesiredState
from binfmtd.model.match import Extension, Magic, Match
from binfmtd.model.precedence import order_matters, out_of_order, overlaps

A, AB, AC, B, JAR, PY = Magic(b"A"), Magic(b"AB"), Magic(b"AC"), Magic(b"B"), Extension("jar"), Extension("py")
KINDS: tuple[Match, ...] = (A, AB, AC, B, JAR)


@pytest.mark.parametrize(
    ("low", "high", "priority", "expected"),
    [
        (A, AB, 0, True),
        (AB, AC, 0, False),
        (A, B, 1, False),
        (JAR, JAR, 0, True),
        (JAR, PY, 1, False),
        (A, JAR, 0, False),
        (A, JAR, 1, True),
        (JAR, A, 1, True),
    ],
)
def test_whose_order_matters(low: Match, high: Match, priority: int, expected: bool) -> None:
    """The order of two handlers matters if they share a file; a magic and an extension need different priorities."""
    assert order_matters(handler("low", low), handler("high", high, priority)) is expected


def test_a_magic_and_an_extension_are_never_of_one_kind() -> None:
    """A magic and an extension share files only by chance, so neither withholds the other's stand-in."""
    assert not overlaps(A, JAR)
    assert not overlaps(JAR, A)
    assert overlaps(A, AB)
    assert overlaps(JAR, JAR)


Situation = tuple[DesiredState, dict[str, int], frozenset[str], frozenset[str]]


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """Draw up to five handlers in rank order, some present in any order, some written, some outranked."""
    matches = draw(st.lists(st.sampled_from(KINDS), max_size=5))
    priorities = sorted(draw(st.lists(st.sampled_from([0, 0, 1]), min_size=len(matches), max_size=len(matches))))
    desired = DesiredState(
        tuple(handler(f"h{n}", match, priorities[n]) for n, match in enumerate(matches)),
    )
    names = [each.name for each in desired.handlers]
    order = draw(st.permutations(names))
    present = order[: draw(st.integers(0, len(order)))]
    some = st.frozensets(st.sampled_from(names)) if names else st.just(frozenset[str]())
    # What is missing is written or, served elsewhere, left out.
    return desired, {name: n for n, name in enumerate(present)}, draw(some), draw(some) & frozenset(present)


def right_order(
    desired: DesiredState, position: dict[str, int], written: Iterable[str], shadowed: frozenset[str]
) -> bool:
    """Return True if each pair is in order once ``written`` are registered again in ascending rank."""
    again = [h.name for h in desired.handlers if h.name in written]
    newest_first = [
        *reversed(again),
        *(name for name in sorted(position, key=position.__getitem__) if name not in again),
    ]
    place = {name: n for n, name in enumerate(newest_first)}
    return shadowed <= set(again) and all(
        place[high.name] < place[low]
        for low, highs in desired.higher.items()
        for high in highs
        if low in place and high.name in place
    )


@settings(max_examples=250)
@given(situation=situations())
def test_as_few_as_possible_are_moved(situation: Situation) -> None:
    """The entries that are moved bring the right order, and no smaller set would: all subsets are tried."""
    desired, position, rewritten, shadowed = situation
    moved = out_of_order(desired.handlers, desired.higher, position, position, rewritten, shadowed)
    assert right_order(desired, position, moved | rewritten, shadowed)
    movable = sorted(position.keys() - rewritten)
    assert moved <= set(movable)
    for size in range(len(moved)):
        for fewer in combinations(movable, size):
            assert not right_order(desired, position, rewritten | set(fewer), shadowed), fewer


def test_the_higher_ones_follow_a_lower_one_that_is_written() -> None:
    """An entry that is registered again lies on top, so each that must be above it follows, and so on upwards."""
    desired = DesiredState((handler("a", A), handler("ab", AB), handler("ab2", AB), handler("b", B)))
    position = {"ab2": 0, "ab": 1, "b": 2}
    assert out_of_order(desired.handlers, desired.higher, position, position, {"a"}, set()) == {"ab", "ab2"}
