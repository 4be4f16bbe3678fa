"""Text for people, no wider than the terminal: tables, and lines wrapped between words."""

import os
from collections.abc import Callable, Sequence
from typing import TextIO

from binfmtd.report.printable import even

_GAP = "  "
_CUT = "..."
_INDENT = "  "
_ROOM = 24  # columns: a last cell that has less, and needs several lines, goes below its row


def size_of(stream: TextIO) -> os.terminal_size | None:
    """Return the columns and lines of a terminal; None for any other stream, which has no limits."""
    if not stream.isatty():
        return None
    size = os.get_terminal_size(stream.fileno())
    return size if size.columns and size.lines else os.terminal_size((80, 24))  # a serial line has neither


def width_of(stream: TextIO) -> int | None:
    """Return the columns of a terminal; None for any other stream."""
    size = size_of(stream)
    return None if size is None else size.columns


def help_width() -> int:
    """Return the columns of a help text: $COLUMNS, or else the terminal's, or else 80.

    shutil has a function for this, but imports all of Python's compression modules.
    """
    variable = os.environ.get("COLUMNS", "")
    try:
        columns = int(variable) if variable.isdecimal() and len(variable) < 6 else os.get_terminal_size().columns
    except OSError:
        columns = 0  # no terminal
    return columns or 80


def shortened(text: str, width: int) -> str:
    """Cut a text that is longer than ``width`` columns in its middle: both ends of a path are informative."""
    if len(text) <= width:
        return text
    kept = max(width - len(_CUT), 0)
    return text[: kept - kept // 2] + _CUT[:width] + text[len(text) - kept // 2 :]


def wrapped(text: str, width: int | None, first: str = "", then: str = "") -> list[str]:
    """Return lines that end between words: ``first`` is in front of the first line, ``then`` in front of each other.

    A word that is longer than a line has its own line.
    """
    text = even(text)
    if width is None or len(first) + len(text) <= width:
        return [first + text]
    lines, line = list[str](), first
    for word in text.split(" "):
        begun = len(line) > len(then if lines else first)
        if begun and len(line) + 1 + len(word) > width:
            lines.append(line)
            line, begun = then, False
        line += f" {word}" if begun else word
    return [*lines, line]


def table(
    rows: Sequence[Sequence[str]],
    width: int | None = None,
    paint: Callable[[int, str], str] = lambda _, cell: cell,
) -> list[list[str]]:
    """Return the lines of each row; the first row is the heading.

    To fit into ``width`` columns, the last cell of a row is wrapped, or put below its row if it has too little room.
    ``paint`` gets a column's number and a cell, and may put colours around it; it is not called for the last column.
    """
    cells = [[even(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)][:-1]
    if width is not None:
        widths = [min(column_width, width // 2) for column_width in widths]
    start = sum(widths) + len(_GAP) * len(widths)
    return [_lines(row, widths, start, width, paint) for row in cells]


def _lines(
    row: Sequence[str], widths: Sequence[int], start: int, width: int | None, paint: Callable[[int, str], str]
) -> list[str]:
    *others, last = row
    left = [
        paint(place, shortened(cell, room).ljust(room))
        for place, (cell, room) in enumerate(zip(others, widths, strict=True))
    ]
    room = len(last) if width is None else width - start
    first, *more = wrapped(last, room)
    below = wrapped(last, width, _INDENT, _INDENT)
    fits = max(map(len, last.split()), default=0) <= room
    if fits and (not more or (room >= _ROOM and len(more) <= len(below))):
        return [_GAP.join([*left, first]).rstrip(), *(" " * start + line for line in more)]
    return [_GAP.join(left).rstrip(), *below]
