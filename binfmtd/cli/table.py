"""Tables for people: each column as wide as it must be, and the whole no wider than the terminal."""

import os
from collections.abc import Callable, Collection, Sequence
from typing import TextIO

from binfmtd.report.printable import even

_GAP = "  "
_CUT = "..."
_NARROWEST = 10  # columns: less of a name or a path tells nothing


def size_of(stream: TextIO) -> os.terminal_size | None:
    """Columns and lines of the terminal that this is; None for anything else, which has no ends."""
    if not stream.isatty():
        return None
    found = os.get_terminal_size(stream.fileno())
    return found if found.columns and found.lines else os.terminal_size((80, 24))  # a serial line knows neither


def shortened(text: str, width: int) -> str:
    """Cut in the middle what is too long: both ends of a path tell something."""
    if len(text) <= width:
        return text
    kept = max(width - len(_CUT), 0)
    return text[: kept - kept // 2] + _CUT[:width] + text[len(text) - kept // 2 :]


def table(
    rows: Sequence[Sequence[str]],
    width: int | None = None,
    flexible: Collection[int] = (),
    paint: Callable[[int, str], str] = lambda _, cell: cell,
) -> list[str]:
    """A line each, the first row being the heading.

    To fit into ``width``, the ``flexible`` columns are cut, the widest first.  ``paint`` is given a column's number and
    a cell, and may put colours around it.
    """
    cells = [[even(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    while width is not None and sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        widest = max(flexible, key=widths.__getitem__, default=None)
        if widest is None or widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    last = len(widths) - 1
    return [
        _GAP.join(
            paint(place, shortened(cell, room).ljust(0 if place == last else room))
            for place, (cell, room) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
