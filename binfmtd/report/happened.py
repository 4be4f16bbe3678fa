"""A row of the history as a sentence: "31 entries replaced by another process, repaired in 3 ms".

The log has the same sentence for a repair (`summary`).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from binfmtd.report.durations import duration

REPAIRED = "repaired"
_WHOLE = "status"  # stands for binfmt_misc as a whole: the name of its file (model.plan.INSTANCE)
_MOST_NAMES = 5


def names_of(row: Mapping[str, Any]) -> list[str]:
    """Return the entries that a row names, which are the first hundred at most."""
    names: list[str] = [row["entry"]] if "entry" in row else row["entries"]
    return names


def happened(row: Mapping[str, Any]) -> str:
    """Return the sentence for a row of the history in the status file."""
    often = f", {row['times']} times{_span(row)}" if row["times"] > 1 else ""
    detail = f": {row['detail']}" if row["detail"] and "entry" in row else ""
    if row["event"] != REPAIRED:
        return f"{row['event'].replace('_', ' ')}: {_subject(row)}: {row['reason']}{often}{detail}"
    return f"{_subject(row)} {row['reason']}{_repaired(row)}{often}{detail}"


def _repaired(row: Mapping[str, Any]) -> str:
    """Return how long programs had no handler or, where a stand-in served, how long the proper entry was missing."""
    if row["served_ms"] is None:
        return ", repaired"
    if row["served_ms"] == 0 and row["took_ms"]:
        whose = "its stand-in" if "entry" in row else "their stand-ins"
        return f", {whose} served, registered again after {duration(row['took_ms'] / 1e3)}"
    return f", repaired in {duration(row['served_ms'] / 1e3)}"


def first_names(row: Mapping[str, Any]) -> str:
    """Return the names of several entries, of many the first five and the number of the rest; empty for one entry."""
    if "entry" in row:
        return ""
    names = row["entries"][:_MOST_NAMES]
    more = row["count"] - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def _subject(row: Mapping[str, Any]) -> str:
    if "entry" not in row:
        return f"{row['count']} entries"
    return "binfmt_misc" if row["entry"] == _WHOLE else str(row["entry"])


def _span(row: Mapping[str, Any]) -> str:
    try:
        first, last = (datetime.fromisoformat(row[key]).timestamp() for key in ("first_at", "at"))
    except (ValueError, OverflowError):
        return ""
    return f" in {duration(last - first)}" if last - first >= 1 else ""
