"""One line on a terminal that shows how far a command is; it appears after a second, and is erased at the end."""

import sys
import time
from typing import Self

from binfmtd.cli.table import shortened, width_of
from binfmtd.report.printable import even

_SECONDS = 1.0  # a command that is done by then shows nothing
_BETWEEN = 0.1  # seconds between two changes of the line


class Progress:
    """The line, on stderr; nothing is shown if that is no terminal."""

    def __init__(self) -> None:
        self._width = width_of(sys.stderr)
        self._next = time.monotonic() + _SECONDS
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, text: str) -> None:
        """Replace the line, unless it is too early for that."""
        now = time.monotonic()
        if self._width is None or now < self._next:
            return
        self._next, self._shown = now + _BETWEEN, True
        room = self._width - 1  # in the last column some terminals begin a new line
        print(f"\r{shortened(even(text), room).ljust(room)}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Erase the line, before another message is printed."""
        if self._shown and self._width is not None:
            print(f"\r{'':{self._width - 1}}\r", end="", file=sys.stderr, flush=True)
            self._shown = False


def in_words(size: int) -> str:
    """Return a number of bytes with a unit, like 13.6 MiB."""
    amount, units = float(size), iter(("B", "KiB", "MiB", "GiB"))
    unit = next(units)
    for larger in units:
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
