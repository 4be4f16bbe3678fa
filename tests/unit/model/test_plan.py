"""The plan for given states: a table for each drift."""

from collections.abc import Iterable

import pytest

from binfmtd.model.config import Policy, Shadowed, StandInPolicy, Unmanaged
from binfmtd.model.desired import DesiredState, FileIdentity, Unavailable, UnavailableReason
from binfmtd.model.drift import Act, Drift, PlanContext, Record
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Extension, Magic
from binfmtd.model.pause import Pauses
from binfmtd.model.plan import plan, removal_plan

FILE = FileIdentity(1, 2, 3, 4, 5)
SAYS = Registration(Magic(b"A"), "/i", Flags.NONE)
PINS = SAYS._replace(flags=Flags.F)
A = Handler("a", SAYS)
AB = Handler("ab", SAYS._replace(match=Magic(b"AB")))
WITH_F = Handler("a", PINS)

DEFAULT = Policy(stand_ins=StandInPolicy.TEMPORARY)
OUTRANK = DEFAULT._replace(shadowed=Shadowed.OUTRANK)
REMOVE = DEFAULT._replace(unmanaged=Unmanaged.REMOVE)

Row = tuple[Act, str, Drift]


def entry(name: str = "a", says: Registration | None = SAYS, inode: int = 7, *, enabled: bool = True) -> Entry:
    return Entry(name, inode, enabled, says)


def desired(*handlers: Handler, unavailable: Iterable[Unavailable] = (), policy: Policy = DEFAULT) -> DesiredState:
    return DesiredState(handlers, tuple(unavailable), policy, {"/i": FILE})


def unavailable(standing: UnavailableReason) -> Unavailable:
    return Unavailable("a", Magic(b"held"), standing, "because", None, ("/i",), Flags.NONE, 0)


def rows(wanted: DesiredState, entries: Iterable[Entry], around: PlanContext | None = None) -> list[Row]:
    found = plan(wanted, ObservedState(tuple(entries)), around or PlanContext()).actions
    return [(action.act, action.entry, action.drift) for action in found]


def reason(wanted: DesiredState, *entries: Entry, around: PlanContext | None = None) -> str:
    (action,) = plan(wanted, ObservedState(entries), around or PlanContext()).actions
    return action.reason


REGISTER = (Act.REGISTER, "a", Drift.MISSING)
CHANGED = (Act.REPLACE, "a", Drift.CHANGED)
UNWANTED = (Act.REMOVE, "a", Drift.UNWANTED)


def test_missing() -> None:
    """A declared entry that is missing is registered; its stand-in is no substitute, and is not removed yet."""
    assert rows(desired(A), []) == [REGISTER]
    assert rows(desired(A), [entry(".binfmtd~a")]) == [REGISTER]
    assert rows(desired(A._replace(enabled=False)), []) == []


def test_in_sync() -> None:
    """An entry that does what was declared is left alone, whichever program registered it, however it is written."""
    assert rows(desired(A), [entry()]) == []
    assert rows(desired(A), [entry(says=SAYS._replace(match=Magic(b"A?", b"\xff\0")))]) == []


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (SAYS._replace(interpreter="/j"), "interpreter is /j, should be /i"),
        (SAYS._replace(flags=Flags.P), "flags are P, should be none"),
        (SAYS._replace(match=Magic(b"B")), "magic is 42, should be 41"),
        (SAYS._replace(match=Magic(b"A", offset=1)), "offset is 1, should be 0"),
        (SAYS._replace(match=Magic(b"A", b"\xdf")), "mask is df, should be none"),
        (SAYS._replace(match=Extension("jar")), "extension is jar, should be magic 41"),
        (
            SAYS._replace(interpreter="/j", flags=Flags.P),
            "interpreter is /j, should be /i; flags are P, should be none",
        ),
        (None, "it contains something that this version of binfmtd cannot parse"),
    ],
)
def test_changed(says: Registration | None, why: str) -> None:
    """An entry with another interpreter, flags or match is replaced, and the reason has each difference."""
    assert rows(desired(A), [entry(says=says)]) == [CHANGED]
    assert reason(desired(A), entry(says=says)) == why
    assert rows(desired(A), [entry(says=says, enabled=False)]) == [CHANGED]


def test_changed_against_flags() -> None:
    """The reason names lacking flags, too."""
    assert (
        reason(desired(A._replace(registration=SAYS._replace(flags=Flags.P))), entry()) == "flags are none, should be P"
    )


def test_disabled() -> None:
    """A disabled entry is enabled in one write; one declared as disabled is disabled, and never replaced."""
    off = A._replace(enabled=False)
    assert rows(desired(A), [entry(enabled=False)]) == [(Act.ENABLE, "a", Drift.DISABLED)]
    assert rows(desired(off), [entry()]) == [(Act.DISABLE, "a", Drift.CHANGED)]
    assert rows(desired(off), [entry(enabled=False)]) == []
    assert rows(desired(off), [entry(says=None)]) == [(Act.DISABLE, "a", Drift.CHANGED)]


def test_switched_off() -> None:
    """The whole instance is switched on again, after an entry that stops every exec is disabled."""
    off = ObservedState((entry("x"),), switched_on=False)
    found = plan(desired(), off, PlanContext(exec_breaking=frozenset({"x"}))).actions
    assert [(action.act, action.entry, action.drift) for action in found] == [
        (Act.DISABLE, "x", Drift.UNWANTED),
        (Act.ENABLE, "status", Drift.SWITCHED_OFF),
    ]


@pytest.mark.parametrize(
    ("record", "stale"),
    [
        (Record(PINS, 7, FILE), False),
        (Record(PINS, 7, FILE._replace(mtime_ns=9)), True),  # the interpreter was written or replaced
        (Record(PINS, 6, FILE), True),  # another program registered it again
        (Record(PINS, 7, None), True),  # it changed while we registered
        (Record(PINS, None, FILE), True),
        (None, True),
    ],
)
def test_stale_interpreter(record: Record | None, stale: bool) -> None:
    """With F an entry is replaced unless a record shows that the file it runs is the one at the path."""
    around = PlanContext({} if record is None else {"a": record})
    expected = [(Act.REPLACE, "a", Drift.STALE_INTERPRETER)] if stale else []
    assert rows(desired(WITH_F), [entry(says=PINS)], around) == expected
    assert rows(desired(A), [entry()], around) == []  # without F the path is looked up at each exec


def test_the_reason_of_stale() -> None:
    """The reason is that the path has another file now, or that the ledger does not record which one was opened."""
    changed = PlanContext({"a": Record(PINS, 7, FILE._replace(inode=9))})
    assert reason(desired(WITH_F), entry(says=PINS), around=changed) == "/i has changed since flag F opened it"
    for around in (PlanContext(), PlanContext({"a": Record(PINS, 7)}), PlanContext({"a": Record(PINS, 6, FILE)})):
        stale = reason(desired(WITH_F), entry(says=PINS), around=around)
        assert "the ledger does not record which file flag F opened" in stale


def test_out_of_order() -> None:
    """Of two handlers that share a file the higher is registered again if the lower one's entry is newer."""
    upper = entry("ab", AB.registration)
    assert rows(desired(A, AB), [upper, entry()]) == []
    assert rows(desired(A, AB), [entry(), upper]) == [(Act.REPLACE, "ab", Drift.OUT_OF_ORDER)]
    assert reason(desired(A, AB), entry(), upper) == "an entry that belongs below it is newer"


def test_what_must_stay_above_is_registered_again() -> None:
    """If a missing lower entry is registered, the higher one follows in the same plan, to stay on top."""
    assert rows(desired(A, AB), [entry("ab", AB.registration)]) == [
        REGISTER,
        (Act.REPLACE, "ab", Drift.OUT_OF_ORDER),
    ]


ABC = Handler("abc", SAYS._replace(match=Magic(b"ABC")))
PAUSED = PlanContext(pauses=Pauses({"ab": float("inf")}))
REFUSED = PlanContext(refused=frozenset({"ab"}))


@pytest.mark.parametrize(("around", "why"), [(PAUSED, "is paused"), (REFUSED, "could not be registered")])
def test_nothing_comes_to_lie_above_what_must_not_move(around: PlanContext, why: str) -> None:
    """An entry that belongs below one that must not move waits, as it would take its files; nothing is moved for it."""
    upper = entry("ab", AB.registration)
    for entries in ([upper], [upper, entry("abc", ABC.registration)], [entry(".binfmtd~ab", AB.registration)]):
        found = plan(desired(A, AB, ABC), ObservedState(tuple(entries)), around)
        assert found.blocked == {"a": f"it belongs below ab, which {why}"}
        assert "a" not in {action.entry for action in found.actions}
    assert rows(desired(A, AB), [entry(".binfmtd~a"), upper], around) == [], "its stand-in goes on serving"
    turned = [entry(), upper]
    assert rows(desired(A, AB), turned, around) == []
    theirs = entry(says=SAYS._replace(interpreter="/theirs"))
    assert rows(desired(A, AB), [theirs, upper], around) == [CHANGED], "it lies above it as it is"
    assert rows(desired(A, AB), [upper, theirs], around) == []


def test_an_entry_that_takes_no_files_blocks_no_other() -> None:
    """A disabled or missing entry blocks no other one, and moves none, as it is not written itself."""
    for entries in ([], [entry("ab", AB.registration, enabled=False)]):
        assert rows(desired(A, AB), entries, PAUSED) == [REGISTER]
    top = entry("abc", ABC.registration)
    assert rows(desired(A, AB, ABC), [top, entry()], PAUSED) == []


def test_an_action_for_the_order_only_is_marked() -> None:
    """An action is marked as for the order only if its entry is as declared, and only moves with another one."""
    upper = entry("ab", AB.registration)
    for entries, for_order_only in (([upper], True), ([entry(), upper], False)):
        action = plan(desired(A, AB), ObservedState(tuple(entries)), PlanContext()).actions[-1]
        assert (action.entry, action.for_order_only) == ("ab", for_order_only)


@pytest.mark.parametrize(
    ("policy", "around", "expected"),
    [
        (DEFAULT, PlanContext(), []),
        (OUTRANK, PlanContext(), [(Act.REPLACE, "a", Drift.OUT_OF_ORDER)]),
        (OUTRANK._replace(unmanaged=Unmanaged.REMOVE), PlanContext(), [(Act.REMOVE, "x", Drift.UNWANTED)]),
        (OUTRANK, PlanContext(exec_breaking=frozenset({"x"})), [(Act.DISABLE, "x", Drift.UNWANTED)]),
    ],
)
def test_shadowed(policy: Policy, around: PlanContext, expected: list[Row]) -> None:
    """A newer foreign entry wins or is outranked, as configured; one that goes anyway is no reason to move."""
    assert rows(desired(A, policy=policy), [entry("x"), entry()], around) == expected
    assert rows(desired(A, policy=policy._replace(unmanaged=Unmanaged.KEEP)), [entry(), entry("x")]) == []


def test_shadowed_is_reported_by_name() -> None:
    """The plan names the foreign entry above each handler, and those that may stay there."""
    found = plan(desired(A), ObservedState((entry("x"), entry(), entry("y"))), PlanContext())
    assert found.shadowed == {"a": "x"}
    assert found.yielding_to == {"a": ("x", "y")}
    outranking = desired(A, policy=OUTRANK)
    assert plan(outranking, ObservedState((entry("x"), entry())), PlanContext()).yielding_to == {}
    assert reason(outranking, entry("x"), entry()) == "the newer entry x takes its files"


def test_served_elsewhere() -> None:
    """An architecture from "all" is left to a working foreign entry; a handler asked for by name is registered."""
    from_all = A._replace(yields=True)
    found = plan(desired(from_all), ObservedState((entry("x"),)), PlanContext())
    assert (found.actions, found.served_elsewhere) == ((), {"a": "x"})
    assert rows(desired(A), [entry("x")]) == [REGISTER]
    assert rows(desired(from_all), [entry("x")], PlanContext(broken=frozenset({"x"}))) == [REGISTER]
    assert rows(desired(from_all), [entry("x", enabled=False)]) == [REGISTER]
    assert rows(desired(from_all), [entry("x"), entry()]) == []  # the entry exists, so it stays


@pytest.mark.parametrize(
    ("entries", "around", "policy", "expected"),
    [
        ([entry("x")], PlanContext(), DEFAULT, []),
        ([entry("x", None)], PlanContext(), DEFAULT, []),
        ([entry("x")], PlanContext({"x": Record(SAYS, 7)}), DEFAULT, [(Act.REMOVE, "x", Drift.UNWANTED)]),
        ([entry("x")], PlanContext({"x": Record(SAYS, 6)}), DEFAULT, []),
        ([entry("x")], PlanContext(), REMOVE, [(Act.REMOVE, "x", Drift.UNWANTED)]),
        ([entry("x")], PlanContext(), Policy(unmanaged=Unmanaged.REMOVE, keep=("x*",)), []),
        ([entry(".binfmtd~x")], PlanContext(), DEFAULT, [(Act.REMOVE, ".binfmtd~x", Drift.UNWANTED)]),
    ],
)
def test_unwanted(entries: list[Entry], around: PlanContext, policy: Policy, expected: list[Row]) -> None:
    """Our entries that are no longer declared, and stand-ins without a handler, go; foreign ones by the config."""
    assert rows(desired(policy=policy), entries, around) == expected


def test_stand_ins_of_another_daemon_stay() -> None:
    """Another daemon's stand-ins stay, also when this daemon removes everything that is its own."""
    around = PlanContext(others_stand_ins=frozenset({".binfmtd~theirs"}))
    entries = (entry(".binfmtd~theirs"), entry(".binfmtd~left"))
    assert [row[1] for row in rows(desired(), list(entries), around)] == [".binfmtd~left"]
    found = removal_plan(desired(), ObservedState(entries), around)
    assert [action.entry for action in found.actions] == [".binfmtd~left"]


def test_a_stand_in_goes_when_its_entry_stands() -> None:
    """A stand-in is removed when its proper entry is as declared, and not while that is to be written."""
    assert rows(desired(A), [entry(".binfmtd~a"), entry()]) == [(Act.REMOVE, ".binfmtd~a", Drift.UNWANTED)]
    assert rows(desired(A), [entry(".binfmtd~a"), entry(says=None)]) == [CHANGED]


@pytest.mark.parametrize(
    ("standing", "says", "stays"),
    [
        (UnavailableReason.WAITING, PINS, True),
        (UnavailableReason.WAITING, SAYS, False),
        (UnavailableReason.WAITING, PINS._replace(interpreter="/other"), False),  # of another config
        (UnavailableReason.WAITING, None, False),
        (UnavailableReason.ABSENT, PINS, False),
        (UnavailableReason.LOST, PINS, True),
        (UnavailableReason.LOST, SAYS, False),
        (UnavailableReason.REFUSED, PINS, False),
    ],
)
@pytest.mark.parametrize("others", [[], [entry(says=PINS)]])
def test_a_stand_in_whose_interpreter_vanished(
    standing: UnavailableReason, says: Registration | None, others: list[Entry], *, stays: bool
) -> None:
    """A stand-in with F serves on without its interpreter, above an entry that may have opened an older file."""
    helper = entry(".binfmtd~a", says=says)
    around = PlanContext({"a": Record(PINS, 7)})
    removed = [] if stays else [(Act.REMOVE, ".binfmtd~a", Drift.UNWANTED)]
    assert rows(desired(unavailable=[unavailable(standing)]), [helper, *others], around) == removed


@pytest.mark.parametrize(
    ("standing", "says", "recorded", "expected"),
    [
        (UnavailableReason.WAITING, SAYS, False, [UNWANTED]),
        (UnavailableReason.WAITING, SAYS, True, [UNWANTED]),
        (UnavailableReason.WAITING, PINS, True, []),  # the file that F opened still serves
        (UnavailableReason.WAITING, SAYS._replace(interpreter="/other"), False, []),
        (UnavailableReason.WAITING, None, False, []),
        (UnavailableReason.ABSENT, SAYS, False, []),  # another program's
        (UnavailableReason.ABSENT, SAYS, True, [UNWANTED]),
        (UnavailableReason.ABSENT, PINS, True, []),
        (UnavailableReason.LOST, SAYS, False, []),
        (UnavailableReason.LOST, SAYS, True, [UNWANTED]),
        (UnavailableReason.LOST, PINS, True, []),
        (UnavailableReason.REFUSED, SAYS, False, []),
        (UnavailableReason.REFUSED, SAYS, True, []),
    ],
)
def test_an_interpreter_that_vanished(
    standing: UnavailableReason, says: Registration | None, recorded: bool, expected: list[Row]
) -> None:
    """Without F our entry is removed when its interpreter is gone, since every exec would fail; with F it serves on."""
    around = PlanContext({"a": Record(says, 7)} if recorded and says is not None else {})
    assert rows(desired(unavailable=[unavailable(standing)]), [entry(says=says)], around) == expected


@pytest.mark.parametrize(("says", "expected"), [(SAYS, [UNWANTED]), (PINS, []), (None, [])])
def test_an_interpreter_that_another_user_can_change(says: Registration | None, expected: list[Row]) -> None:
    """Without F the kernel would execute what another user puts at the path; with F the file that it opened serves."""
    refused = unavailable(UnavailableReason.REFUSED)._replace(untrusted=True)
    assert rows(desired(unavailable=[refused]), [entry(says=says)], PlanContext()) == expected


@pytest.mark.parametrize(
    ("standing", "expected"),
    [(UnavailableReason.ABSENT, [UNWANTED]), (UnavailableReason.WAITING, []), (UnavailableReason.REFUSED, [])],
)
def test_remove_takes_what_only_all_would_have_declared(standing: UnavailableReason, expected: list[Row]) -> None:
    """Under "remove" an entry goes that has the name of an absent architecture; a declared name is not foreign."""
    wanted = desired(unavailable=[unavailable(standing)], policy=REMOVE)
    assert rows(wanted, [entry(says=SAYS._replace(interpreter="/other"))]) == expected


def test_a_bricking_entry_is_disabled_even_if_it_is_kept() -> None:
    """An entry that stops every exec is disabled even if the config keeps it, and removed if it does not."""
    around = PlanContext(exec_breaking=frozenset({"x"}))
    disable = (Act.DISABLE, "x", Drift.UNWANTED)
    assert rows(desired(), [entry("x")], around) == [disable]
    assert rows(desired(), [entry("x", enabled=False)], around) == []
    assert rows(desired(), [], around) == []
    assert rows(desired(policy=REMOVE), [entry("x")], around) == [
        disable,
        (Act.REMOVE, "x", Drift.UNWANTED),
    ]


def test_the_plan_at_the_end_takes_what_is_ours() -> None:
    """The last plan removes what is ours, but no entry that another program registered under our names.

    Ours are entries as declared, those in the ledger, and stand-ins.
    """
    entries = (
        entry(),
        entry("ab", says=None),
        entry("recorded"),
        entry("foreign"),
        entry(".binfmtd~a"),
        entry("off", enabled=False),
    )
    off = A._replace(name="off", enabled=False)
    found = removal_plan(desired(A, AB, off), ObservedState(entries), PlanContext({"recorded": Record(SAYS, 7)}))
    assert [action.entry for action in found.actions] == ["a", "recorded", ".binfmtd~a"]
    assert {action.act for action in found.actions} == {Act.REMOVE}


def test_in_a_container_an_interpreter_that_is_gone_is_not_seen() -> None:
    """In a container an entry without F stays: its path is resolved in the root of the process that calls exec."""
    waiting = unavailable(UnavailableReason.WAITING)
    assert rows(desired(unavailable=[waiting]), [entry()]) == [(Act.REMOVE, "a", Drift.UNWANTED)]
    assert rows(desired(unavailable=[waiting._replace(judged=False)]), [entry()]) == []
