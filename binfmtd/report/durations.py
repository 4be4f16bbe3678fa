"""Durations, ages and times as text for people: "43 ms", "2 min ago", "2026-12-01 00:45:00 UTC"."""

from datetime import datetime

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def duration(seconds: float) -> str:
    """Return seconds as text in the largest unit that they fill: "0.34 ms", "43 ms", "1.2 s", "5 min".

    Below 10 s and below 10 ms it has two digits, else whole numbers.
    """
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (0.001, "ms"))
    number = seconds / size
    return f"{number:.0f} {unit}" if number >= 10 or size > 1 else f"{number:.2g} {unit}"


def age(at: str, now: float) -> str:
    """Return how long before ``now`` (seconds since the epoch) an ISO timestamp was.

    Raises ValueError for other text.
    """
    seconds = now - datetime.fromisoformat(at).timestamp()
    if seconds < 1:
        return "just now"  # also where the clock was set back
    size, unit = next((size, unit) for size, unit in _UNITS if seconds >= size)
    return f"{seconds // size:.0f} {unit} ago"


def utc(at: str) -> str:
    """Return an ISO timestamp in UTC as text, to the second."""
    return f"{at[:10]} {at[11:19]} UTC"


def milliseconds(seconds: float) -> float:
    """Return seconds as milliseconds, rounded to the microsecond, for the keys that end in ``_ms``."""
    return round(seconds * 1e3, 3)
