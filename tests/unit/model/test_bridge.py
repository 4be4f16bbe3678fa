"""The handlers that may have a stand-in at once, and the groups in which entries are registered."""

import pytest
from support.simulated import handler

from binfmtd.model.bridge import may_stand_in, ordering_groups, overtaken
from binfmtd.model.config import Policy, Shadowed, Unmanaged
from binfmtd.model.desired import DesiredState, Unavailable, UnavailableReason
from binfmtd.model.drift import Act, Action, Drift
from binfmtd.model.entry import Entry
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Extension, Magic, Match

A = handler("a", Magic(b"A"))
AB = handler("ab", Magic(b"AB"))
ABC = handler("abc", Magic(b"ABC"))
B = handler("b", Magic(b"B"))
JAR = handler("jar", Extension("jar"), 1)
DESIRED = DesiredState((A, AB, ABC, B, JAR))


@pytest.mark.parametrize(
    ("asked", "present", "allowed"),
    [
        (A, [], True),
        (A, ["ab"], False),
        (A, [".binfmtd~ab"], False),
        (A, ["b"], True),
        (A, ["jar"], True),  # a magic and an extension never withhold it from each other, whatever their priorities
        (AB, ["a"], True),
        (AB, ["a", "abc"], False),
        (B, ["a", "ab", "abc", "jar"], True),
        (A, ["a"], True),
    ],
)
def test_no_stand_in_above_a_higher_one(asked: Handler, present: list[str], allowed: bool) -> None:
    """A handler gets no stand-in, which would be newest, that takes files of a higher entry or of its stand-in."""
    assert may_stand_in(asked, DESIRED, (), present.__contains__) is allowed


def other(match: Match) -> Registration:
    """Return a registration as another program makes it."""
    return Registration(match, "/theirs", Flags.NONE)


def entry(name: str, registration: Registration | None, *, enabled: bool = True) -> Entry:
    return Entry(name, 1, enabled, registration)


OUTRANK = Policy(shadowed=Shadowed.OUTRANK)
HELD = Unavailable("held", Magic(b"held"), UnavailableReason.WAITING, "", None, ("/h",), Flags.NONE, 0)


@pytest.mark.parametrize(
    ("above", "policy", "answer"),
    [
        (entry("ab", other(AB.registration.match)), Policy(), True),  # something else under its own name
        (entry("ab", AB.registration), Policy(), False),
        (entry("ab", other(AB.registration.match), enabled=False), Policy(), False),
        (entry("ab", None), OUTRANK, False),
        (entry("a", A.registration), Policy(), True),  # a handler of lower rank
        (entry("abc", ABC.registration), Policy(), False),
        (entry("abc", other(ABC.registration.match)), Policy(), True),
        (entry("b", other(B.registration.match)), Policy(), False),  # which takes none of its files
        (entry("foreign", other(A.registration.match)), Policy(), False),
        (entry("foreign", other(A.registration.match)), OUTRANK, True),
        (entry("foreign", AB.registration), OUTRANK, False),
        (entry("foreign", other(A.registration.match)), Policy(unmanaged=Unmanaged.REMOVE), True),
        (entry(".binfmtd~a", A.registration), OUTRANK, False),
        (entry("held", other(A.registration.match)), OUTRANK, False),
    ],
)
def test_what_takes_the_files_of_a_stand_in_below_it(above: Entry, policy: Policy, answer: bool) -> None:
    """A stand-in is overtaken by an entry that may not win: not by an equal one, nor by one that may lie there."""
    desired = DesiredState((A, AB, ABC, B, JAR), (HELD,), policy)
    assert overtaken(AB, desired, [above]) is answer
    assert not overtaken(AB, desired, [])


def test_no_stand_in_above_a_foreign_entry_that_may_win() -> None:
    """A handler gets no stand-in as long as a foreign entry that may win exists."""
    assert not may_stand_in(B, DESIRED, ["theirs"], ["theirs"].__contains__)
    assert may_stand_in(B, DESIRED, ["theirs"], [].__contains__)


def written(*handlers: Handler) -> list[Action]:
    return [Action(Act.REGISTER, each.name, Drift.MISSING, "", each) for each in handlers]


@pytest.mark.parametrize(
    ("handlers", "names"),
    [
        ([], []),
        ([B], [["b"]]),
        ([A, B], [["a"], ["b"]]),
        ([A, AB, ABC, B], [["a", "ab", "abc"], ["b"]]),
        ([A, ABC], [["a", "abc"]]),
        ([A, JAR], [["a", "jar"]]),  # of different priorities: which is the newer matters
    ],
)
def test_a_company_is_as_small_as_its_order_allows(handlers: list[Handler], names: list[list[str]]) -> None:
    """A group contains only handlers whose order matters, lowest rank first; most handlers are alone."""
    assert [[action.entry for action in group] for group in ordering_groups(written(*handlers), DESIRED)] == names


def test_a_company_holds_together_by_its_highest() -> None:
    """Two handlers that share no file are one group if a third one must lie above both."""
    low, other, high = handler("ab", Magic(b"AB")), handler("ac", Magic(b"AC")), handler("a", Magic(b"A"))
    desired = DesiredState((low, other, high))
    assert [[a.entry for a in group] for group in ordering_groups(written(low, other, high), desired)] == [
        ["ab", "ac", "a"]
    ]
