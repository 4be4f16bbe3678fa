"""The status as text for people.

First come the state and other problems, then a table of the handlers that are not in order, with the reasons below.
If no daemon runs, that is the first line: the state is then that of the last daemon.
Handlers in order are a paragraph of names, unless ``--all`` or names are given.  The rest follows, one line each.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from binfmtd.cli.table import shortened, table, wrapped
from binfmtd.model.config import PLACEHOLDER
from binfmtd.model.pause import shown
from binfmtd.report.durations import age, utc
from binfmtd.report.happened import REPAIRED, first_names, happened, names_of
from binfmtd.report.sentence import counted, in_brief

_MOST_FOREIGN = 20  # names of foreign entries, of maybe thousands; --json lists the first thousand
_LAST_ROWS = 5  # of a handler's history
_MOST_LINES = 4  # of names in order, so that those not in order stay on the screen
_HEADING = ("HANDLER", "STATE", "FLAGS", "REPAIRS", "INTERPRETER")
_VERSION = "VERSION"  # a column before the last, if a version is known
_STATE = 1
_INDENT = 11
_IN_ORDER = {"registered": "in order", "disabled": "disabled", "served_elsewhere": "elsewhere"}
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
NO_DAEMON = "no daemon runs with this state directory: the last one wrote this status"
_NONE_RUNS = "none runs: the last one wrote this status"


class Page(NamedTuple):
    """How a status is shown: ``now`` in seconds since the epoch, and the size in columns and lines (None: no limit).

    ``versions`` has the version of QEMU by interpreter, and ``emulators`` describes the one of each foreign entry.
    """

    now: float
    width: int | None = None
    height: int | None = None
    coloured: bool = False
    versions: Mapping[str, str] = {}
    emulators: Mapping[str, str] = {}

    def paint(self, text: str) -> str:
        """Return the name of a state in its colour."""
        colour = _COLOURS.get(text.strip())
        return f"\x1b[{colour}m{text}\x1b[0m" if self.coloured and colour else text

    def ago(self, at: str) -> str:
        """Return how long ago a timestamp was; if the output is no terminal, also the time itself, to the second."""
        try:
            since = age(at, self.now)
        except (ValueError, OverflowError):
            return at
        return since if self.width is not None else f"{since} ({utc(at)})"


def view(status: Mapping[str, Any], pid: int | None, page: Page, *, everything: bool = False) -> list[str]:
    """Return the lines, at most the page's height of them; ``everything``: handlers in order have a row, too.

    ``status`` is as ``read_status`` returns it, and ``pid`` as ``running_pid`` does.
    """
    handlers = status["handlers"]
    rows = handlers if everything else list(filter(_has_a_row, handlers))
    above = _labelled({**({"daemon": _NONE_RUNS} if pid is None else {}), **_troubles(status)}, page)
    middle = _handlers(rows, page)
    below = _labelled({**({} if everything else _in_order(handlers, page)), **_details(status, pid, page)}, page)
    parts = [above, middle, below]
    if page.height is not None and sum(map(len, parts)) + 2 > page.height:
        room = max(page.height - len(above) - len(below) - 3, 1)
        if len(middle) > room:
            parts[1] = [*middle[:room], f"... {len(middle) - room} more lines"]
    lines = [line for part in parts if part for line in ("", *part)][1:]
    if page.height is None:
        return lines
    # Lines with colours were wrapped before they were coloured, so they are not too long.
    width = page.width or max(map(len, lines))
    return [line if "\x1b" in line else shortened(line, width) for line in lines[: page.height]]


def problems_view(status: Mapping[str, Any], pid: int | None, page: Page) -> list[str]:
    """Return only what is not in order, or one line if nothing is out of order."""
    rows = list(filter(_has_a_row, status["handlers"]))
    troubles = _troubles(status)
    if not rows and status["state"] == "converged":
        troubles = {"rejected": troubles["rejected"]}
    troubles["daemon"] = None if pid is not None else NO_DAEMON
    lines = [*_labelled(troubles, page), *([""] if rows else []), *_handlers(rows, page)]
    return lines or ["nothing is out of order"]


def named_view(status: Mapping[str, Any], page: Page) -> list[str]:
    """Return the handlers of a status that was narrowed to some names, and the end of their history."""
    table = _handlers(status["handlers"], page)
    foreign = {"foreign": _foreign(status["foreign"], len(status["foreign"]))} if status["foreign"] else {}
    lines = [*table, *_labelled({**foreign, **page.emulators}, page)] or ["no handler and no entry has this name"]
    return [*lines, "", *history_view({"history": status["history"][-_LAST_ROWS:]}, page)]


def narrowed(status: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return the status with only these handlers, foreign entries and their history."""
    return {
        **status,
        "handlers": [row for row in status["handlers"] if row["name"] in names],
        "foreign": [entry for entry in status["foreign"] if entry["name"] in names],
        "history": [row for row in status["history"] if not set(names).isdisjoint(names_of(row))],
    }


def history_view(status: Mapping[str, Any], page: Page) -> list[str]:
    """Return the last drifts and repairs, the newest last."""
    rows = [(page.ago(row["at"]), _in_words(row)) for row in status["history"]]
    start = max((len(when) for when, _ in rows), default=0) + 2
    lines = [line for when, text in rows for line in wrapped(text, page.width, f"{when:<{start}}", " " * start)]
    return lines or ["nothing has drifted"]


def _has_a_row(row: Mapping[str, Any]) -> bool:
    return row["state"] not in _IN_ORDER or (row["state"] == "registered" and row["reason"])


def _handlers(handlers: Sequence[Mapping[str, Any]], page: Page) -> list[str]:
    if not handlers:
        return []
    keys = [word.lower() for word in _HEADING[1:]]
    rows = [_HEADING, *((str(row["name"]), *(str(row[key]) for key in keys)) for row in handlers)]
    if page.versions:
        column = [_VERSION, *(page.versions.get(row["interpreter"], "-") for row in handlers)]
        rows = [(*row[:-1], version, row[-1]) for row, version in zip(rows, column, strict=True)]
    heading, *lines = table(rows, page.width, lambda place, cell: page.paint(cell) if place == _STATE else cell)
    return [*heading, *_with_reasons(handlers, lines, page)]


def _with_reasons(handlers: Sequence[Mapping[str, Any]], lines: Sequence[Sequence[str]], page: Page) -> Iterator[str]:
    """Yield the rows; a reason that consecutive rows share is shown once, below the last of them.

    Reasons that differ only in the architecture are shared, too, and have {name} in its place, as in the config.
    """
    numbered = enumerate(handlers)
    for _, group in groupby(numbered, lambda item: _general_reason(item[1])):
        rows = list(group)
        for number, _ in rows:
            yield from lines[number]
        row = rows[0][1]
        if (
            reason := str(row["reason"])
            if len({handler["reason"] for _, handler in rows}) == 1
            else _general_reason(row)
        ):
            yield from wrapped(reason, page.width, "  ", "  ")


def _general_reason(row: Mapping[str, Any]) -> str:
    architecture = row["architecture"]
    return str(row["reason"]) if architecture is None else str(row["reason"]).replace(architecture, PLACEHOLDER)


def _labelled(details: Mapping[str, str | None], page: Page) -> list[str]:
    lines = []
    for key, text in details.items():
        if text:
            first, *others = wrapped(str(text), page.width, f"{key + ':':<{_INDENT}}", " " * _INDENT)
            if key == "state":
                word = str(text).partition(":")[0]
                first = first.replace(word, page.paint(word), 1)
            lines += [first, *others]
    return lines


def _troubles(status: Mapping[str, Any]) -> dict[str, str | None]:
    seal = status["seal"]
    return {
        "state": f"{status['state']}: {in_brief(status)}",
        "problem": status["problem"],
        "lacking": status["lacking"],
        "rejected": status["config"]["error"],
        "contended": ", ".join(status["contended"]),
        "paused": ", ".join(map(_pause, status["paused"])),
        "seal": None if seal["state"] in ("off", "sealed") else f"{seal['state']}: {seal['reason']}",
    }


def _in_order(handlers: Sequence[Mapping[str, Any]], page: Page) -> dict[str, str]:
    """Return a paragraph of names for each state that is in order; on a terminal it has _MOST_LINES at most."""
    names: dict[str, list[str]] = {}
    for row in handlers:
        if not _has_a_row(row):
            names.setdefault(_IN_ORDER[row["state"]], []).append(str(row["name"]))
    return {key: _list(names[key], page) for key in _IN_ORDER.values() if key in names}


def _list(names: Sequence[str], page: Page) -> str:
    whole = ", ".join(names)
    if page.width is None or len(wrapped(whole, page.width - _INDENT)) <= _MOST_LINES:
        return whole
    texts = (
        f"{', '.join(names[:n])} and {len(names) - n} more: --all shows them" for n in range(len(names) - 1, 0, -1)
    )
    fitting = (text for text in texts if len(wrapped(text, page.width - _INDENT)) <= _MOST_LINES)
    return next(fitting, counted(len(names), "name"))


def _details(status: Mapping[str, Any], pid: int | None, page: Page) -> dict[str, str | None]:
    config, mount, last = status["config"], status["mount"], status["last_pass"]
    return {
        "foreign": _foreign(status["foreign"], sum(status["foreign_count"].values())),
        **_last_drift(status["history"], page.ago),
        "mount": "none" if mount is None else mount["directory"] + _read_only(status),
        "config": f"{', '.join(config['files']) or 'no file: the defaults'}{_command_line(config)}, "
        f"generation {config['generation']}, "
        f"loaded {page.ago(config['loaded_at'])}",
        "last pass": last
        and f"{last['id']} ({last['trigger']}), {counted(last['actions'], 'action')}, {page.ago(last['at'])}",
        "daemon": f"pid {pid}" if pid else "runs" if pid == 0 else None,  # then it is the first row
    }


def _command_line(config: Mapping[str, Any]) -> str:
    """Return the architectures that --arch or $BINFMTD_ARCH sets in place of the config's, or ""."""
    named = config.get("architectures")
    return "" if named is None else f", with --arch or $BINFMTD_ARCH {' '.join(named) or 'none'}"


def _read_only(status: Mapping[str, Any]) -> str:
    seal = status["seal"]
    if seal["state"] == "sealed":
        return f", sealed ({seal['reason']})" if seal["reason"] else ", sealed"
    return ", read-only" if status["mount"]["read_only"] else ""


def _last_drift(history: Sequence[Mapping[str, Any]], ago: Callable[[str], str]) -> dict[str, str]:
    if not history:
        return {}
    last = history[-1]
    label = "repaired" if last["event"] == REPAIRED else "drift" if last["event"] == "drift_found" else "changed"
    return {label: f"{ago(last['at'])}: {_in_words(last)}"}


def _in_words(row: Mapping[str, Any]) -> str:
    names = first_names(row)
    return happened(row) + (f": {names}" if names else "")


def _foreign(entries: Sequence[Mapping[str, Any]], number: int) -> str:
    named = [f"{entry['name']}{'' if entry['enabled'] else ' (disabled)'}" for entry in entries[:_MOST_FOREIGN]]
    more = number - len(named)
    return ", ".join([*named, *([f"and {more} more"] if more else [])]) or "none"


def _pause(row: Mapping[str, Any]) -> str:
    return f"{shown(row['name'])} until {utc(row['until']) if row['until'] else '`binfmtd resume`'}"
