"""How long something took and how long ago it was, for people: "43 ms", "2 min ago"."""

from datetime import datetime

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def duration(seconds: float) -> str:
    """Two digits, in the largest unit that gives a whole number: "0.34 ms", "43 ms", "1.2 s", "5 min"."""
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (0.001, "ms"))
    number = seconds / size
    return f"{number:.0f} {unit}" if number >= 10 or size > 1 else f"{number:.2g} {unit}"


def age(at: str, now: float) -> str:
    """How long before ``now`` (seconds since the epoch) an ISO timestamp was; raises ValueError for anything else."""
    seconds = now - datetime.fromisoformat(at).timestamp()
    if seconds < 1:
        return "just now"  # also where the clock was set back
    size, unit = next((size, unit) for size, unit in _UNITS if seconds >= size)
    return f"{seconds // size:.0f} {unit} ago"


def milliseconds(seconds: float) -> float:
    """As the keys that end in ``_ms`` have them: to the microsecond."""
    return round(seconds * 1e3, 3)
