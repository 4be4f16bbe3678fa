"""The state table: its transitions as documented, and what they mean for open drifts."""

import re
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from binfmtd.daemon.entries import entry_state
from binfmtd.daemon.entries.debounce import LONGEST
from binfmtd.daemon.entries.entry_state import OPEN, TRANSITIONS, Event, Phase, StateTable
from binfmtd.errors import Again, WriteRefusedError

SETTLE = 0.020
REFUSED = WriteRefusedError("refused", 8, Again.RELOAD)


def documented() -> dict[tuple[Phase, Event], Phase]:
    """Return the table of the module's docstring."""
    ruler, rows = "=" * 10, str(entry_state.__doc__).splitlines()
    first, second, third = [number for number, row in enumerate(rows) if row.startswith(ruler)]
    assert rows[first + 1].split() == ["in", "on", "next"]
    found: dict[tuple[Phase, Event], Phase] = {}
    for row in rows[second + 1 : third]:
        parts = re.fullmatch(r"(.*?) +([A-Z_]+) +([A-Z]+)", row)
        assert parts is not None, row
        phases, event, after = parts.groups()
        any_but = re.fullmatch(r"any(?: but (\w+))?", phases)
        if any_but:
            left = [phase for phase in Phase if phase.name != any_but[1]]
        else:
            left = [Phase[name] for name in phases.split()]
        found |= {(phase, Event[event]): Phase[after] for phase in left}
    return found


def test_the_documented_table() -> None:
    """The table in the docstring is the table of the code."""
    assert documented() == TRANSITIONS


def test_each_phase_and_event_is_documented() -> None:
    """The docstring describes each phase; each event leads somewhere, or leaves every phase as it is."""
    assert all(f"* {phase.name}: " in str(entry_state.__doc__) for phase in Phase)
    leaving = {Event.TOUCHED, Event.DEFERRED, Event.FLUSHED, Event.EXEMPTED, Event.STAND_IN_REFUSED}
    assert {event for _, event in TRANSITIONS} == set(Event) - leaving


def drifted() -> StateTable:
    """Return a table with one open drift."""
    states = StateTable(SETTLE)
    states.apply("a", Event.DRIFTED, 100.0)
    return states


def test_another_name_is_on_its_own() -> None:
    """An event on another name does not delay this one, and opens no drift of that name."""
    states = drifted()
    states.apply("b", Event.TOUCHED, 100.010)
    assert states.due_at("a") == 100.0 + SETTLE
    assert states.open() == {"a"}


def test_what_ended_is_forgotten() -> None:
    """A later drift of the same name has its own second."""
    states = drifted()
    states.apply("a", Event.IN_ORDER, 101.0)
    assert not states.open()
    assert not states.is_overdue("a", 1000.0)
    states.apply("a", Event.DRIFTED, 200.0)
    assert states.due_at("a") == 200.0 + SETTLE
    assert not states.is_overdue("a", 200.5)
    assert states.is_overdue("a", 200.0 + LONGEST)


def test_a_renewed_drift_keeps_its_second() -> None:
    """A drift that is found once more began when it was found first."""
    states = drifted()
    states.apply("a", Event.DRIFTED, 100.9)
    assert states.is_overdue("a", 101.0)


def test_what_has_not_drifted_is_due_when_everything_is_quiet() -> None:
    """A name without an open drift (a removal, say) is due when all is quiet; at once if there never was an event."""
    states = StateTable(SETTLE)
    states.apply("x", Event.TOUCHED, 100.0)
    assert states.due_at("x") == float("-inf")
    states.touch_all(100.0)
    assert states.due_at("x") == 100.0 + SETTLE


def test_the_look_at_everything() -> None:
    """A planned look is due like a drift: when everything is quiet, after a second at the latest."""
    states = StateTable(SETTLE)
    assert states.calls_at() == float("inf")
    states.plan_look(100.0)
    states.plan_look(100.5)
    assert states.calls_at() == 100.5 + SETTLE
    states.touch_all(100.999)
    assert states.calls_at() == 100.0 + LONGEST
    states.looked()
    assert states.calls_at() == float("inf")


def test_a_refusal_lasts_until_something_changes() -> None:
    """A refused name is neither open nor due, whatever is found, until it may be tried again."""
    states = drifted()
    states.apply("a", Event.REFUSED, error=REFUSED)
    for event in (Event.DRIFTED, Event.IN_ORDER, Event.SERVED_ELSEWHERE, Event.UNDECLARED):
        states.apply("a", event, 101.0)
        assert (states.failed(), states.open()) == ({"a": REFUSED}, frozenset())
    states.apply("a", Event.RETRIED)
    assert states.failed() == {}
    states.apply("a", Event.DRIFTED, 102.0)
    assert states.open() == {"a"}


def test_a_refused_stand_in_leaves_the_drift_open() -> None:
    """If the kernel refuses the stand-in, the drift keeps its time, and no new try is made until something changes."""
    states = drifted()
    states.apply("a", Event.STAND_IN_REFUSED, error=REFUSED)
    assert (states.failed(), states.due_at("a")) == ({"a": REFUSED}, 100.0 + SETTLE)
    states.apply("a", Event.RETRIED)
    assert not states.failed()
    assert states.open() == {"a"}


def test_which_end_of_a_drift_is_a_repair() -> None:
    """Only a name that was in order before its drift is repaired.

    A reload makes what was in order unknown, but a drift that is older than the reload still counts.
    """
    states = StateTable(SETTLE)
    states.apply("new", Event.DRIFTED, 1.0)
    states.apply("old", Event.IN_ORDER)
    states.apply("old", Event.DRIFTED, 1.0)
    states.apply("in order", Event.IN_ORDER)
    states.apply("foreign", Event.IN_ORDER)
    states.apply("foreign", Event.SERVED_ELSEWHERE)
    states.apply_all(Event.RELOADED)
    was = {name: state.was_in_order for name, state in states.items()}
    assert was == {"new": False, "old": True, "in order": False, "foreign": False}


def test_prune() -> None:
    """A name of which nothing is known is dropped, unless it is declared."""
    states = StateTable(SETTLE)
    states.apply("gone", Event.UNDECLARED)
    states.apply("declared", Event.UNDECLARED)
    states.apply("failed", Event.REFUSED, error=REFUSED)
    states.count_repair("repaired", 1.0)
    states.prune({"declared"})
    assert {name for name, _ in states.items()} == {"declared", "failed", "repaired"}


@given(
    steps=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(Event), st.floats(0, 3), st.floats(0, 3)), max_size=40
    )
)
def test_whatever_happens(steps: list[tuple[str, Event, float, float]]) -> None:
    """After any events the parts of each state agree, and nothing ends a drift that began after the observation."""
    states, now = StateTable(SETTLE), 0.0
    for name, event, later, age in steps:
        now += later
        before = states[name].debounce
        observed_at = now - age
        error = REFUSED if event in (Event.REFUSED, Event.STAND_IN_REFUSED) else None
        states.apply(name, event, observed_at if event is Event.IN_ORDER else now, error)
        if event is Event.IN_ORDER and before is not None and before.since > observed_at:
            assert states[name].debounce is before
        for each, state in states.items():
            assert (state.debounce is not None) is (state.phase in OPEN) is (each in states.open())
            assert state.error is not None or state.phase is not Phase.FAILED
            assert not (state.exempt and state.phase not in OPEN)
            assert state.exempt or not state.flushed
            if state.debounce is not None:
                assert states.due_at(each) <= state.debounce.since + LONGEST
                assert states.calls_at() < float("inf")
    assert states.open() == {name for name, phase in states.phases().items() if phase in OPEN}


def test_every_pair_is_harmless() -> None:
    """No phase fails at any event."""
    for phase, event in product(Phase, Event):
        states = StateTable(SETTLE)
        states["a"].phase = phase
        states.apply("a", event, 1.0, REFUSED if event is Event.REFUSED else None)
        assert states["a"].phase is TRANSITIONS.get((phase, event), phase)
