"""The last drifts and repairs, as the status has them: what the log says of each, for whoever comes in the morning."""

from collections import deque
from collections.abc import Mapping
from typing import Any

LENGTH = 100
_MOST_ENTRIES = 40  # named in one row: a flush takes them all


class History:
    """Rows, the oldest first."""

    def __init__(self) -> None:
        self._rows: deque[Mapping[str, Any]] = deque(maxlen=LENGTH)

    def add(self, at: str, event: str, details: Mapping[str, Any]) -> None:
        """Remember one line of the log; what took place before the last hundred is forgotten."""
        row = {"at": at, "event": event, **details}
        entries = row.get("entries", ())
        if len(entries) > _MOST_ENTRIES:
            row |= {"entries": entries[:_MOST_ENTRIES], "more": len(entries) - _MOST_ENTRIES}
        self._rows.append(row)

    def rows(self) -> list[Mapping[str, Any]]:
        """All that is remembered."""
        return list(self._rows)
