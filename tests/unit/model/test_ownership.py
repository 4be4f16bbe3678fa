"""The owner of an entry, and the handlers whose files it takes."""

import pytest

from binfmtd.model.config import Policy, Unmanaged
from binfmtd.model.desired import DesiredState, Unavailable, UnavailableReason
from binfmtd.model.drift import PlanContext, Record
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Extension, Magic
from binfmtd.model.ownership import (
    equal,
    foreign,
    is_kept,
    overlapping_foreign,
    provider,
    registered_by_us,
    stand_in_serves,
)
from binfmtd.model.stand_in import stand_in_name

SAYS = Registration(Magic(b"A"), "/i", Flags.F)
ENTRY = Entry("a", 7, enabled=True, registration=SAYS)
DESIRED = DesiredState((Handler("a", SAYS),))
REMOVING = Policy(unmanaged=Unmanaged.REMOVE, keep=("WSLInterop*", "p?t"))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (SAYS, True),
        (SAYS._replace(match=Magic(b"A?", b"\xff\0")), True),
        (SAYS._replace(match=Magic(b"B")), False),
        (SAYS._replace(interpreter="/j"), False),
        (SAYS._replace(flags=Flags.NONE), False),
        (None, False),
    ],
)
def test_equal_is_by_value(found: Registration | None, expected: bool) -> None:
    """An entry that does the same is equal, however its match is written; an opaque one never is."""
    assert equal(found, SAYS) is expected


@pytest.mark.parametrize(
    ("record", "ours"),
    [
        (None, False),
        (Record(SAYS, 7), True),
        (Record(SAYS._replace(interpreter="/j"), 7), True),  # the number alone decides
        (Record(SAYS, 6), False),  # an earlier entry of that name
        (Record(SAYS), True),  # killed between intent and record
        (Record(SAYS._replace(interpreter="/j")), False),
    ],
)
def test_a_record_is_for_one_registration(record: Record | None, ours: bool) -> None:
    """A record is for one registration, by its inode number or, if only the intent is known, by its value."""
    assert registered_by_us(ENTRY, record) is ours


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        (None, True),
        (UnavailableReason.ABSENT, True),
        (UnavailableReason.LOST, True),
        (UnavailableReason.WAITING, False),
        (UnavailableReason.REFUSED, False),
    ],
)
def test_which_entries_are_foreign(standing: UnavailableReason | None, expected: bool) -> None:
    """A declared name is ours even while it waits; one that "all" would have brought is not."""
    entry = ENTRY._replace(name="b")
    unavailable = (
        () if standing is None else (Unavailable("b", Magic(b"held"), standing, "", None, ("/i",), Flags.F, 0),)
    )
    desired = DESIRED._replace(unavailable=unavailable)
    assert foreign(entry, desired, PlanContext()) is expected
    assert not foreign(entry, desired, PlanContext({"b": Record(SAYS, 7)}))


def test_declared_names_and_stand_ins_are_never_foreign() -> None:
    """Declared names and stand-ins are never foreign, whatever their entries contain."""
    assert not foreign(ENTRY._replace(registration=None), DESIRED, PlanContext())
    assert not foreign(ENTRY._replace(name=".binfmtd~gone"), DESIRED, PlanContext())


@pytest.mark.parametrize(
    ("name", "policy", "expected"),
    [
        ("x", Policy(), True),
        ("x", REMOVING, False),
        ("WSLInterop-late", REMOVING, True),
        ("pat", REMOVING, True),
        ("PAT", REMOVING, False),
    ],
)
def test_what_is_spared(name: str, policy: Policy, expected: bool) -> None:
    """Under "keep" every foreign entry stays; under "remove" those that a glob of `keep` matches, case-sensitively."""
    assert is_kept(ENTRY._replace(name=name), DESIRED._replace(policy=policy)) is expected


def theirs(name: str, magic: bytes = b"A", **changes: object) -> Entry:
    return ENTRY._replace(name=name, registration=SAYS._replace(match=Magic(magic)), **changes)  # type: ignore[arg-type]


def test_rivals_are_newest_first_and_take_some_of_the_same_files() -> None:
    """Rivals are enabled, foreign, parsed entries that share a file with a handler of their kind, newest first."""
    entries = (
        theirs("newer", b"AB"),
        theirs("a"),
        theirs("off", enabled=False),
        ENTRY._replace(name="opaque", registration=None),
        ENTRY._replace(name="jar", registration=SAYS._replace(match=Extension("jar"))),
        theirs("apart", b"B"),
        theirs("ours, by the ledger"),
        theirs("older"),
    )
    context = PlanContext({"ours, by the ledger": Record(SAYS, 7)})
    found = overlapping_foreign(DESIRED, ObservedState(entries), context)
    assert {name: [e.name for e in each] for name, each in found.items()} == {"a": ["newer", "older"]}


def test_an_entry_that_is_about_to_go_is_no_other() -> None:
    """An entry that the plan removes or disables is no other."""
    observed = ObservedState((theirs("x"), theirs("WSLInterop")))
    assert [e.name for e in overlapping_foreign(DESIRED._replace(policy=REMOVING), observed, PlanContext())["a"]] == [
        "WSLInterop"
    ]
    assert [
        e.name for e in overlapping_foreign(DESIRED, observed, PlanContext(exec_breaking=frozenset({"x"})))["a"]
    ] == ["WSLInterop"]


@pytest.mark.parametrize(
    ("candidates", "broken", "expected"),
    [
        ([], "", None),
        ([theirs("x")], "", "x"),
        ([theirs("x")], "x", None),
        ([theirs("narrow", b"AB"), theirs("x")], "", "x"),
        ([theirs("x"), theirs("older")], "", "x"),
        ([theirs("x"), theirs("works")], "x", None),  # the newest takes the files, and fails
    ],
)
def test_who_serves_in_a_handlers_place(candidates: list[Entry], broken: str, expected: str | None) -> None:
    """The newest entry that takes the plain file serves in the handler's place, if it works; no older one can."""
    found = provider(DESIRED.handlers[0], candidates, PlanContext(broken=frozenset({broken})))
    assert (None if found is None else found.name) == expected


def test_which_stand_in_serves() -> None:
    """A stand-in serves if it is enabled, and as its handler is declared."""
    handler = Handler("a", Registration(Magic(b"A"), "/i", Flags.NONE))
    stand_in = Entry(stand_in_name("a"), 1, enabled=True, registration=handler.registration)
    other = stand_in._replace(registration=handler.registration._replace(interpreter="/j"))
    for entries, serves in (
        ((stand_in,), True),
        ((), False),
        ((stand_in._replace(enabled=False),), False),
        ((other,), False),
    ):
        assert stand_in_serves(handler, ObservedState(entries)) is serves
