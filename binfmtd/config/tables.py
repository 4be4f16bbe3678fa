"""From TOML text to plain tables, in bounded time for every text.

tomllib's time grows with the square of a key's parts, and the parts of a table's header count again for each of its
keys.  A key of 16,000 parts takes seconds, and a mebibyte of them hours.  Parts are joined by dots, and a key is on one
line, so the number of dots bounds the time.
"""

import re
from typing import Any

BUDGET = 3_000_000  # the dots of the line with the most, times all dots; a config of 20,000 handlers has less


def tables(text: str) -> dict[str, Any]:
    """Read a TOML document.

    Raises ValueError for a text that is not TOML or has too many dots, and RecursionError if it is nested too deeply.
    """
    most, line = max((dots.count("."), -number) for number, dots in enumerate(text.split("\n"), 1))
    if most * text.count(".") > BUDGET:
        raise ValueError(f"too many keys joined by dots (at line {-line}, {most} dots)")
    import tomllib  # needed only if there is a config

    return tomllib.loads(text)


def dotted(*parts: str | int) -> str:
    """Return a key as TOML writes it, its parts joined by dots; a number is an index in brackets."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch("[A-Za-z0-9_-]+", part) else repr(part))
    return text
