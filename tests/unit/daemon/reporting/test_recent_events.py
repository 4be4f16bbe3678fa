from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.daemon.reporting.incidents import MOST_NAMES, Incident
from binfmtd.daemon.reporting.recent_events import LENGTH, RecentEvents
from binfmtd.report.happened import REPAIRED


def row(
    *names: str, reason: str = "removed by another process", minute: int = 0, event: str = REPAIRED
) -> dict[str, Any]:
    """Return the row of an incident of this minute."""
    incident = Incident(event, "warning", 0.0)
    incident.add(names, reason, "", "missing", 0.0)
    incident.lasted(0.001, 0.04)
    at = f"2026-01-02T{minute // 60:02}:{minute % 60:02}:00.000+00:00"
    return incident.row() | {"first_at": at, "at": at}


@given(numbers=st.lists(st.integers(), max_size=3 * LENGTH, unique=True))
def test_the_last_hundred(numbers: list[int]) -> None:
    """The last hundred rows are kept, in the order in which they came."""
    history = RecentEvents()
    for number in numbers:
        history.add(row(str(number)))
    assert [each["entry"] for each in history.rows([])] == [str(number) for number in numbers[-LENGTH:]]


def test_a_flush_of_thousands_is_one_short_row() -> None:
    """A row has a hundred names at most, and the number of all."""
    history = RecentEvents()
    history.add(row(*(str(number) for number in range(1000))))
    (found,) = history.rows([])
    assert (len(found["entries"]), found["count"], found["drift"]) == (MOST_NAMES, 1000, "missing")


def test_what_is_repeated_is_one_row() -> None:
    """A repeated row has the first and the last time, the names, the number of repeats, and the longest repair."""
    history = RecentEvents()
    history.add(row("a", "b", minute=1))
    history.add(row("c", reason="disabled by another process", minute=2))
    history.add(row("b", "a", minute=3) | {"took_ms": 700.0})
    other, found = history.rows([])
    assert other["entry"] == "c"
    assert (found["entries"], found["count"], found["times"]) == (["a", "b"], 2, 2)
    assert (found["first_at"], found["at"]) == ("2026-01-02T00:01:00.000+00:00", "2026-01-02T00:03:00.000+00:00")
    assert (found["served_ms"], found["took_ms"]) == (1.0, 700.0)


@pytest.mark.parametrize(
    "later",
    [row("b"), row("a", "b"), row("a", reason="disabled"), row("a", event="entry_removed"), row("a", minute=61)],
)
def test_what_is_not_the_same_has_a_row_of_its_own(later: dict[str, Any]) -> None:
    """Other entries, another cause, another event, or more than an hour in between make a new row."""
    history = RecentEvents()
    history.add(row("a"))
    history.add(later)
    assert history.rows([]) == [row("a"), later]


def test_what_is_going_on_is_shown_with_what_it_will_be_merged_with() -> None:
    """An open incident is shown merged with the row that it repeats, so the status never takes a row back."""
    history = RecentEvents([row("a")])
    incident = Incident(REPAIRED, "warning", 0.0)
    incident.add(["a"], "removed by another process", "", "missing", 0.0)
    incident.first_at = incident.last_at = "2026-01-02T00:01:00.000+00:00"
    shown = history.rows([incident])
    assert [each["times"] for each in shown] == [2]
    history.add(incident.row())
    assert history.rows([]) == shown


def test_it_is_continued() -> None:
    """The next daemon continues with the rows of the status file; those that no daemon writes are left out."""
    rows = [row("a"), row("b", "c", reason="x")]
    odd: list[Any] = [None, {}, [], row("a") | {"at": "soon"}, row("a") | {"entry": 5}, row("a") | {"times": "2"}]
    assert RecentEvents([*odd, *rows]).rows([]) == rows
