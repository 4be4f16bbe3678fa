"""The table of docs/logging.md: each log event with its levels and keys."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "logging.md"
EVERYWHERE = frozenset({"event", "level", "timestamp"})


@dataclass(frozen=True, slots=True)
class Documented:
    """One row of the table."""

    levels: frozenset[str]
    keys: frozenset[str]


@cache
def documented() -> dict[str, Documented]:
    """Return the table of events."""
    table = PAGE.read_text().partition("\n## Events\n")[2]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| `")]
    events = {event.strip(" `"): Documented(_words(levels), _words(keys)) for event, levels, keys, _ in rows}
    assert len(events) == len(rows) > 0
    return events


def undocumented(line: dict[str, Any]) -> str | None:
    """Return the part of a log line that the page lacks, in words, or None."""
    said = documented().get(line["event"])
    if said is None:
        return f"no event {line['event']}"
    if line["level"] not in said.levels:
        return f"{line['event']} at level {line['level']}"
    keys = line.keys() - said.keys - EVERYWHERE
    return f"{line['event']} with {', '.join(sorted(keys))}" if keys else None


def _words(cell: str) -> frozenset[str]:
    return frozenset(word.strip(" `") for word in cell.split(",")) - {""}
