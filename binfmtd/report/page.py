"""The status as a page for people: plain HTML, without scripts and without external resources.

It has first what is not in order, then the last drifts and repairs, then the handlers that serve.  The browser loads it
again every REFRESH seconds.  Every value is escaped, because names and reasons come from configs, files and the kernel.

On a narrow screen a handler is not a row of a table but a block, with the heading of each value before it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from binfmtd import __version__
from binfmtd.model.pause import shown
from binfmtd.report.durations import age, duration, utc
from binfmtd.report.happened import happened
from binfmtd.report.printable import printable
from binfmtd.report.sentence import counted, sentence

REFRESH = 15  # seconds
_SHOWN = 30  # rows of the history, the newest ones
# The states of a handler, the worst first.  Those from "served_elsewhere" on need no attention.
_ORDER = (
    *("failed", "refused", "contended", "waiting", "paused", "stand_in", "shadowed"),
    *("served_elsewhere", "registered", "disabled"),
)
_RANK = {state: place for place, state in enumerate(_ORDER)}  # a state that is not in it comes first
_IN_ORDER = _ORDER[_ORDER.index("served_elsewhere") :]
_COLOUR = {
    **dict.fromkeys(("failed", "refused", "degraded"), "bad"),
    **dict.fromkeys(("contended", "waiting", "stand_in", "shadowed", "drifting"), "care"),
    **dict.fromkeys(("registered", "served_elsewhere", "converged"), "good"),
}
_STYLE = """\
:root { color-scheme: light dark; --good: #1a7f37; --care: #8a5a00; --bad: #b3261e; --line: #8883; --soft: #8881 }
@media (prefers-color-scheme: dark) { :root { --good: #5fd07f; --care: #f0b440; --bad: #ff8a80 } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em }
body { overflow-wrap: break-word }
h1 { font-size: 1.5em; margin: 0 } h2 { font-size: 1.1em; margin: 2em 0 .4em }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3em .9em .3em 0; border-bottom: 1px solid var(--line); vertical-align: top }
th { font-weight: 600; opacity: .75 } td:first-child { white-space: nowrap }
:where([data-label="handler"], [data-label="interpreter"], td:last-child):not(:empty) {
  min-width: 8em; overflow-wrap: anywhere
}
.state { border: 1px solid currentColor; border-radius: .8em; padding: 0 .6em; font-weight: 600; white-space: nowrap }
.good { color: var(--good) } .care { color: var(--care) } .bad { color: var(--bad) }
.alert { border-left: .3em solid var(--bad); background: var(--soft); padding: .1em 1em }
svg { display: block; margin: .6em 0 .6em 4em; overflow: visible; width: calc(100% - 4em) }
svg text { fill: currentColor; font-size: .8em; opacity: .75; text-anchor: end }
svg line { stroke: var(--line) } svg .gap { fill: var(--bad) } svg .kept { fill: var(--good) }
footer { margin-top: 2em; opacity: .75 }
@media (max-width: 55em) {
  .handlers, .handlers tbody, .handlers tr, .handlers td:last-child { display: block }
  .handlers thead, .handlers td:empty { display: none }
  .handlers tr { border-bottom: 1px solid var(--line); padding: .4em 0 }
  .handlers td { border: 0; display: inline-block; min-width: 0; padding: 0 .9em 0 0 }
  .handlers td:nth-child(n+3)::before { content: attr(data-label) " "; opacity: .75 }
  .handlers td:nth-child(2) { font-weight: 600 }
}
"""


def render_page(document: Mapping[str, Any], unready: Sequence[str], now: float) -> bytes:
    """Return the whole page, in UTF-8, as of ``now`` (seconds since the epoch)."""
    state = document["state"]
    rows = sorted(document["handlers"], key=lambda row: (_RANK.get(row["state"], -1), row["name"]))
    attention = [
        row for row in rows if row["state"] not in _IN_ORDER or (row["state"] == "registered" and row["reason"])
    ]
    in_order = [row for row in rows if row not in attention]
    history = document["history"][-_SHOWN:]
    at = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f'<meta http-equiv="refresh" content="{REFRESH}">',
        f"<title>binfmtd: {_text(state)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>binfmtd {_chip(state)}</h1>",
        f"<p>{_text(sentence(document))}</p>",
        *_alert(unready),
        *_section("Not in order", len(attention), _table(_ATTENTION, map(_attention, attention))),
        *_list("Contended", document["contended"]),
        *_list("Paused", map(_pause, document["paused"])),
        *_section("Drifts and repairs", len(history), _plot(history), _table(_HISTORY, _happened(history, now))),
        *_section("In order", len(in_order), _table(_HANDLER, map(_handler, in_order))),
        *_list("Foreign entries", _foreign(document), sum(document["foreign_count"].values())),
        "<h2>Daemon</h2>",
        _table((), ((_text(name), _text(value)) for name, value in _facts(document, now))),
        "<footer>",
        f"<p>As of {_text(utc(at))}. The browser loads this page again every {REFRESH} seconds.</p>",
        '<p><a href="/status.json">JSON</a> · <a href="/metrics">metrics</a></p>',
        "</footer>",
        "</body></html>\n",
    ]
    return "\n".join(parts).encode()


_ATTENTION = ("state", "handler", "architecture", "interpreter", "repairs", "reason")
_HANDLER = ("state", "handler", "architecture", "interpreter", "flags", "priority", "repairs", "reason")
_HISTORY = ("when", "what")


def _attention(row: Mapping[str, Any]) -> Sequence[str]:
    values = (row[key] for key in ("name", "architecture", "interpreter", "repairs", "reason"))
    return _chip(row["state"]), *map(_text, values)


def _handler(row: Mapping[str, Any]) -> Sequence[str]:
    values = (row[key] for key in ("name", "architecture", "interpreter", "flags", "priority", "repairs", "reason"))
    return _chip(row["state"]), *map(_text, values)


def _chip(state: object) -> str:
    return f'<span class="state {_COLOUR.get(str(state), "")}">{_text(state)}</span>'


def _happened(history: Sequence[Mapping[str, Any]], now: float) -> Iterator[Sequence[str]]:
    """Yield when and what, the newest first."""
    for row in reversed(history):
        yield f'<span title="{_text(row["at"])}">{_text(_age(row["at"], now))}</span>', _text(happened(row))


def _age(at: str, now: float) -> str:
    try:
        return age(at, now)
    except ValueError:  # a timestamp of an earlier daemon that cannot be read
        return at


def _plot(history: Sequence[Mapping[str, Any]]) -> str:
    """Return a bar for each repair of the history, the newest at the right, on a logarithmic scale; "" for none.

    Red is how long programs failed; green is how long only a stand-in served, or the proper entry.  Widths are a part
    of the plot's, and heights are pixels: on a narrow screen the bars become narrower, and the labels keep their size.
    """
    bars = [(row, row["served_ms"] or row["took_ms"]) for row in history]
    bars = [(row, milliseconds) for row, milliseconds in bars if milliseconds]
    if not bars:
        return ""
    lowest, highest = 0.01, max(100.0, *(milliseconds for _, milliseconds in bars))
    height = 130.0

    def level(milliseconds: float) -> float:
        share = math.log(max(milliseconds, lowest) / lowest) / math.log(highest / lowest)
        return round(4 + (height - 8) * share, 1)

    lines = []
    for tick in (0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0):
        if tick <= highest:
            y = height - level(tick)
            lines.append(f'<line x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"></line>')
            lines.append(f'<text x="-8" y="{y + 4:.1f}">{duration(tick / 1e3)}</text>')
    step = 100 / len(bars)
    for place, (row, milliseconds) in enumerate(bars):
        tall = level(milliseconds)
        kind = "gap" if row["served_ms"] else "kept"
        lines.append(
            f'<rect class="{kind}" x="{place * step:.1f}%" y="{height - tall:.1f}" width="{min(step * 0.7, 4):.1f}%" '
            f'height="{tall:.1f}"><title>{_text(happened(row))}</title></rect>'
        )
    times = sorted(milliseconds for _, milliseconds in bars)
    label = f"Repair times: {len(times)}, from {duration(times[0] / 1e3)} to {duration(times[-1] / 1e3)}"
    parts = [
        f'<svg role="img" aria-label="{label}" height="{height:.0f}">',
        *lines,
        "</svg>",
        f"<p>{label}. Red: programs failed until then. Green: a stand-in served meanwhile.</p>",
    ]
    return "\n".join(parts)


def _facts(document: Mapping[str, Any], now: float) -> Iterator[tuple[str, object]]:
    mount, config, last = document["mount"], document["config"], document["last_pass"]
    if document["problem"]:
        yield "problem", document["problem"]
    if lacks := document.get("lacking"):
        yield "lacking", lacks
    yield "mount", "none" if mount is None else mount["directory"] + (" (read-only)" if mount["read_only"] else "")
    if document["seal"]["state"] != "off":
        yield "seal", ": ".join(filter(None, (document["seal"]["state"], document["seal"]["reason"])))
    loaded = f"loaded {_age(config['loaded_at'], now)} ({config['loaded_at']})"
    yield "config", f"{config['path']}, generation {config['generation']}, {loaded}"
    if config["error"]:
        yield "rejected", config["error"]
    yield "passes", document["passes"]
    yield "repairs", document["repairs"]
    if last is not None:
        yield "last pass", f"{_age(last['at'], now)} ({last['trigger']}), {counted(last['actions'], 'action')}"
    yield "version", __version__


def _pause(row: Mapping[str, Any]) -> str:
    return f"{shown(row['name'])} until {utc(row['until']) if row['until'] else 'resumed'}"


def _foreign(document: Mapping[str, Any]) -> Iterator[str]:
    listed = document["foreign"]
    for entry in listed:
        yield str(entry["name"]) + ("" if entry["enabled"] else " (disabled)")
    if more := sum(document["foreign_count"].values()) - len(listed):
        yield f"and {more} more"


def _alert(reasons: Sequence[str]) -> list[str]:
    if not reasons:
        return []
    lines = [f"<li>{_text(reason)}</li>" for reason in reasons]
    return ['<div class="alert"><h2>Builds should not be sent here</h2>', "<ul>", *lines, "</ul></div>"]


def _list(title: str, items: Iterable[str], number: int | None = None) -> list[str]:
    """Return a heading and the items, or nothing without items; ``number`` is that of all, if not all are listed."""
    lines = [f"<li>{_text(item)}</li>" for item in items]
    return [f"<h2>{title} ({len(lines) if number is None else number})</h2>", "<ul>", *lines, "</ul>"] if lines else []


def _section(title: str, number: int, *parts: str) -> list[str]:
    return [f"<h2>{title} ({number})</h2>", *parts] if number else []


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of handlers, if ``heading`` has more than two words, or of pairs; the cells are HTML."""
    kind, starts = "pairs", ["<td>", "<td>"]
    if len(heading) > 2:
        kind, starts = "handlers", [f'<td data-label="{label}">' for label in heading]
    lines = [f'<div class="scroll"><table class="{kind}">']
    if heading:
        lines.append("<thead><tr>" + "".join(f"<th>{cell}</th>" for cell in heading) + "</tr></thead>")
    lines.append("<tbody>")
    for row in rows:
        cells = (f"{start}{cell}</td>" for start, cell in zip(starts, row, strict=True))
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def _text(value: object) -> str:
    return escape(printable("" if value is None else str(value)))
