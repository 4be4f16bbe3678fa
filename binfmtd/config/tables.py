"""TOML text to plain tables, in bounded time whatever it says.

tomllib takes the square of a key's parts, and for each key those of its table's header again: a key of 16,000 parts
takes seconds, and a mebibyte of them hours.  Parts are joined by dots, and a key stands on one line.
"""

import re
from typing import Any

BUDGET = 3_000_000  # most dots of a line times all dots; a config of 20,000 handlers has less


def tables(text: str) -> dict[str, Any]:
    """Read a TOML document.  Raises ValueError for what is none, and RecursionError where it is nested too deeply."""
    most, line = max((dots.count("."), -number) for number, dots in enumerate(text.split("\n"), 1))
    if most * text.count(".") > BUDGET:
        raise ValueError(f"too many keys joined by dots (at line {-line}, {most} dots)")
    import tomllib  # where there is a config

    return tomllib.loads(text)


def dotted(*parts: str | int) -> str:
    """A key as TOML writes it."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch("[A-Za-z0-9_-]+", part) else repr(part))
    return text
