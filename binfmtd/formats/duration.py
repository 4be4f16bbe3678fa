"""Durations as people write them: numbers with units, the largest first, such as ``1h30m``, ``90s`` or ``20ms``."""

import re

from binfmtd.errors import FormatError

_DURATION = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?(?:(\d{1,9})ms)?", re.ASCII)
_UNITS = (3600.0, 60.0, 1.0, 0.001)


def parse_duration(text: str) -> float:
    """Return the duration in seconds; raises FormatError."""
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise FormatError("is not a duration: write whole numbers with units (h, m, s, ms)")
    return sum(int(number) * unit for number, unit in zip(match.groups(), _UNITS, strict=True) if number)
