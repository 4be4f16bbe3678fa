"""A status for people: the handlers as a table with the reasons beneath, then all the rest, a line each."""

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from binfmtd.cli.table import table
from binfmtd.model.pause import EVERYTHING
from binfmtd.report.printable import even

_MOST_FOREIGN = 20  # of thousands nobody reads more; --json has a thousand
_HEADING = ("HANDLER", "STATE", "INTERPRETER", "FLAGS", "REPAIRS")
_HISTORY_HEADING = ("AT", "WHAT", "ENTRY", "WHY")
_STATE = 1
_FLEXIBLE = (0, 2)
_INDENT = 11
_RED, _GREEN, _YELLOW = 31, 32, 33
_COLOURS = {
    "registered": _GREEN,
    "converged": _GREEN,
    "stand_in": _YELLOW,
    "waiting": _YELLOW,
    "drifting": _YELLOW,
    "paused": _YELLOW,
    "shadowed": _YELLOW,
    "contended": _RED,
    "failed": _RED,
    "refused": _RED,
    "degraded": _RED,
}
NO_DAEMON = "no daemon runs with this state directory: what you see is what the last one left"


def view(
    status: Mapping[str, Any],
    pid: int | None,
    width: int | None = None,
    height: int | None = None,
    *,
    coloured: bool = False,
) -> list[str]:
    """The lines, at most ``height`` of them: what does not fit is left out of the table.

    ``status`` as ``read_status`` has it, and ``pid`` as ``running_pid``.
    """

    def paint(text: str) -> str:
        colour = _COLOURS.get(text.strip())
        return f"\x1b[{colour}m{text}\x1b[0m" if coloured and colour else text

    above = _handlers(status, width, paint)
    below = [line for key, text in _details(status, pid).items() for line in _detail(key, text, width, paint)]
    if height is not None and len(above) + 1 + len(below) > height:
        room = max(height - len(below) - 2, 1)
        above = [*above[:room], f"... {len(above) - room} more lines"]
    return [*above, "", *below][:height]


def _handlers(status: Mapping[str, Any], width: int | None, paint: Callable[[str], str]) -> list[str]:
    handlers = status["handlers"]
    keys = ("name", *(word.lower() for word in _HEADING[1:]))
    rows = [_HEADING, *(tuple(str(row[key]) for key in keys) for row in handlers)]
    heading, *lines = table(rows, width, _FLEXIBLE, lambda place, cell: paint(cell) if place == _STATE else cell)
    return [heading, *_with_reasons(handlers, lines, width)]


def _with_reasons(handlers: list[dict[str, Any]], lines: list[str], width: int | None) -> Iterator[str]:
    """A reason that several rows in a row have stands beneath the last of them."""
    reasons = [str(row["reason"]) for row in handlers]
    for line, (reason, following) in zip(lines, pairwise([*reasons, ""]), strict=True):
        yield line
        if reason and reason != following:
            yield from _wrapped(reason, width, "  ", "  ")


def _detail(key: str, text: str, width: int | None, paint: Callable[[str], str]) -> list[str]:
    first, *others = _wrapped(text, width, f"{key + ':':<{_INDENT}}", " " * _INDENT)
    if key == "state":
        word = text.partition(",")[0]
        first = first.replace(word, paint(word), 1)
    return [first, *others]


def _wrapped(text: str, width: int | None, first: str, then: str) -> list[str]:
    text = even(text)
    if width is None or len(first) + len(text) <= width:
        return [first + text]
    from textwrap import wrap

    lines = wrap(text, max(width, 2 * _INDENT), initial_indent=first, subsequent_indent=then, break_on_hyphens=False)
    return lines or [first]


def _details(status: Mapping[str, Any], pid: int | None) -> dict[str, str]:
    config, mount, last = status["config"], status["mount"], status["last_pass"]
    lines: dict[str, str | None] = {
        "foreign": _foreign(status["foreign"], sum(status["foreign_count"].values())),
        "mount": "none" if mount is None else mount["directory"] + (", read-only" if mount["read_only"] else ""),
        "config": f"{', '.join(config['files']) or 'none: the defaults'}, generation {config['generation']}, "
        f"loaded {config['loaded_at']}",
        "rejected": config["error"],
        "problem": status["problem"],
        "contended": ", ".join(status["contended"]),
        "paused": ", ".join(map(_pause, status["paused"])),
        "drift": _last_drift(status["history"]),
        "last pass": last and f"{last['id']} ({last['trigger']}), {last['actions']} actions, {last['at']}",
        "daemon": f"pid {pid}" if pid else "runs" if pid == 0 else "none runs: this is what the last one left",
        "state": f"{status['state']}, {status['repairs']} repairs in {status['passes']} passes",
    }
    return {key: str(text) for key, text in lines.items() if text}


def history_view(status: Mapping[str, Any], width: int | None = None) -> list[str]:
    """The last drifts and repairs, the newest last."""
    rows = [(row["at"], row["event"].replace("_", " "), _named(row), row["reason"]) for row in status["history"]]
    return table([_HISTORY_HEADING, *rows], width, (2, 3))


def _last_drift(history: list[dict[str, Any]]) -> str | None:
    drifts = [row for row in history if row["event"].startswith("drift_")]
    return f"{_named(drifts[-1])}: {drifts[-1]['reason']}, {drifts[-1]['at']}" if drifts else None


def _named(row: Mapping[str, Any]) -> str:
    entries = row["entries"] if "entries" in row else [row["entry"]]
    more = row.get("more", 0)
    return ", ".join(entries) + (f" and {more} more" if more else "")


def _foreign(entries: list[dict[str, Any]], number: int) -> str:
    named = [f"{entry['name']}{'' if entry['enabled'] else ' (disabled)'}" for entry in entries[:_MOST_FOREIGN]]
    more = number - len(named)
    return ", ".join([*named, *([f"and {more} more"] if more else [])]) or "none"


def _pause(row: dict[str, Any]) -> str:
    name = "everything" if row["name"] == EVERYTHING else row["name"]
    return f"{name} until {row['until'] or '`binfmtd resume`'}"
