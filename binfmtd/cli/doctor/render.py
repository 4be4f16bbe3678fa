"""The page that ``binfmtd doctor`` prints: the worst findings first, each with its command below; totals at the end."""

import os
from collections import Counter
from collections.abc import Sequence

from binfmtd.cli.table import wrapped
from binfmtd.model.finding import Finding, Level, count, worst_first
from binfmtd.report.printable import even

_COLOURS = {Level.FAILURE: 31, Level.WARNING: 33, Level.OK: 32}
_MOST = 3  # findings of one check; --json has all
_NARROWEST = 20  # columns that a text gets at least
_GAP = "  "
_TYPE = "$ "


def page(findings: Sequence[Finding], width: int | None = None, *, coloured: bool = False) -> list[str]:
    """Return the lines, with texts wrapped to ``width`` columns; None does not wrap.

    A command is never broken, so that it can be copied; the terminal wraps it.  Of findings with the same section,
    check and level, at most three are shown.
    """
    shown = worst_first(findings)
    levels = max(len(level.value) for level in Level)
    sections = max((len(finding.section.value) for finding in shown), default=0)
    indent = " " * (levels + sections + 2 * len(_GAP))
    lines = []
    seen: Counter[tuple[str, str, Level]] = Counter()
    total = Counter((finding.section.value, finding.check, finding.level) for finding in shown)
    for finding in shown:
        key = (finding.section.value, finding.check, finding.level)
        seen[key] += 1
        if seen[key] > _MOST:
            if seen[key] == _MOST + 1:
                lines.append(f"{indent}... and {total[key] - _MOST} more of these: --json lists them all")
            continue
        level = finding.level.value.ljust(levels)
        head = f"{_painted(level, finding.level, coloured=coloured)}{_GAP}{finding.section.value:<{sections}}{_GAP}"
        first, *others = wrapped(finding.text, None if width is None else max(width - len(indent), _NARROWEST))
        lines += [head + first, *(indent + line for line in others)]
        if finding.remedy:
            lines.append(f"{indent}{_TYPE}{even(finding.remedy)}")
    return [*lines, "", _sum(shown, coloured=coloured)]


def _sum(findings: Sequence[Finding], *, coloured: bool) -> str:
    parts = []
    for level in (Level.FAILURE, Level.WARNING, Level.NOTE, Level.OK):
        number = count(findings, level)
        if number == 0 and level is Level.NOTE:
            continue
        plural = "s" if number != 1 and level is not Level.OK else ""
        text = f"{number} {level}{plural}"
        parts.append(_painted(text, level, coloured=coloured and number > 0))
    unseen = count(findings, Level.UNSEEN)
    who = "" if os.geteuid() == 0 else ": root may see more"
    return ", ".join([*parts, *([f"{unseen} not seen{who}"] if unseen else [])])


def _painted(text: str, level: Level, *, coloured: bool) -> str:
    colour = _COLOURS.get(level)
    return f"\x1b[{colour}m{text}\x1b[0m" if coloured and colour else text
