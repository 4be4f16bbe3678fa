"""The last drifts and repairs, as the status has them: one row for each cause, with the number of repeats.

A new row with the event, the reason and the entries of a row of the last hour replaces that row, and counts as its
repeat.  So a package upgrade, or an entry that is removed once a minute, does not push out all other rows.  The status
file keeps the rows for the next daemon.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from binfmtd.daemon.reporting.incidents import MOST_NAMES, Incident, named
from binfmtd.errors import DAMAGE
from binfmtd.report.happened import happened, names_of

LENGTH = 100
_HOUR = 3600.0  # seconds
_LONGEST = ("served_ms", "took_ms")


class RecentEvents:
    """The rows, 100 at most; the latest is the last."""

    def __init__(self, rows: Iterable[Any] = ()) -> None:
        """Begin with the ``rows`` of an earlier daemon; those that this version would not write are left out."""
        self._rows: list[dict[str, Any]] = [row for row in rows if _is_row(row)][-LENGTH:]

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row, or merge it with the one that it repeats; of more than 100 rows the oldest is dropped."""
        self._rows = _with(self._rows, row)

    def rows(self, still_open: list[Incident]) -> list[dict[str, Any]]:
        """Return all rows, and those of the incidents that are ``still_open``."""
        rows = self._rows
        for incident in still_open:
            rows = _with(rows, incident.row())
        return rows


def _with(rows: list[dict[str, Any]], row: Mapping[str, Any]) -> list[dict[str, Any]]:
    before = next((earlier for earlier in reversed(rows) if _same(earlier, row)), None)
    others = [other for other in rows if other is not before]
    return [*others, dict(row) if before is None else _merged(before, row)][-LENGTH:]


def _same(before: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return (
        before["event"] == row["event"]
        and before["reason"] == row["reason"]
        and set(names_of(before)) == set(names_of(row))
        and _seconds(row["first_at"]) - _seconds(before["at"]) <= _HOUR
    )


def _merged(before: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    names = list(dict.fromkeys([*names_of(before), *names_of(row)]))
    merged = {
        "first_at": before["first_at"],
        "at": row["at"],
        "event": row["event"],
        **named(names, MOST_NAMES),
        **{key: value for key, value in row.items() if key not in ("first_at", "entry", "entries", "count")},
        "times": before["times"] + row["times"],
    }
    if "count" in merged:
        merged["count"] = max(len(names), before.get("count", 1), row.get("count", 1))
    for key in _LONGEST:
        merged[key] = max((source[key] for source in (before, row) if source[key] is not None), default=None)
    return merged


def _is_row(row: Any) -> bool:
    try:
        happened(row)
        times, texts = (row["first_at"], row["at"]), (row["event"], row["reason"], *names_of(row))
        [_seconds(at) for at in times]
        numbers = [row[key] for key in _LONGEST]
    except DAMAGE:
        return False
    return (
        all(isinstance(text, str) for text in texts)
        and isinstance(row["times"], int)
        and all(number is None or isinstance(number, float) for number in numbers)
    )


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
