"""A terminal's output as an SVG picture, with its colours; readable on light and dark pages.

The terminal is dark on both.  Each run of equal colour is one ``text`` element with a fixed length, so columns stay
columns in each font.  The picture contains no script, and nothing from elsewhere.
"""

import re
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

GROUND, TEXT, TYPED = "#14181f", "#d7dce2", "#ffffff"
COLOURS = {"31": "#ff8a80", "32": "#5fd07f", "33": "#f0b440"}  # as status and doctor use them
SIZE, WIDTH, HEIGHT, MARGIN = 13, 7.8, 19, 16  # of the font; of a character's cell; around the text
_COLOUR = re.compile(r"\x1b\[([0-9;]*)m")


class Run(NamedTuple):
    """Characters of one colour, and the column where they begin."""

    column: int
    text: str
    colour: str


def runs(line: str, prompt: str) -> Iterator[Run]:
    """Yield the runs of a line; what is typed after the prompt is brighter.  Raises ValueError for other controls."""
    colour, column = (TYPED if line.startswith(prompt) else TEXT), 0
    for place, part in enumerate(_COLOUR.split(line)):
        if place % 2:
            colour = COLOURS.get(part, TEXT)
        elif part:
            if not part.isprintable():
                raise ValueError(f"a terminal's control that the picture does not know: {part!r}")
            yield Run(column, part, colour)
            column += len(part)


def draw(lines: Sequence[str], columns: int, title: str, prompt: str = "$ ") -> str:
    """Return the picture; ``title`` is what a screen reader says."""
    width, height = round(columns * WIDTH + 2 * MARGIN), len(lines) * HEIGHT + 2 * MARGIN
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8" fill="{GROUND}" stroke="#8b949e"/>',
        f'<g font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="{SIZE}">',
    ]
    for number, line in enumerate(lines):
        y = MARGIN + number * HEIGHT + SIZE
        for column, text, colour in runs(line, prompt):
            shown = text.rstrip()
            begin = len(shown) - len(shown.lstrip())
            word = shown[begin:]
            if word:
                parts.append(
                    f'<text x="{MARGIN + (column + begin) * WIDTH:.1f}" y="{y}" fill="{colour}" '
                    f'textLength="{len(word) * WIDTH:.1f}" xml:space="preserve">{escape(word)}</text>'
                )
    return "\n".join([*parts, "</g>", "</svg>", ""])
