"""The status as a page for people: plain HTML, without scripts and without external resources.

Every value is escaped, because names and reasons come from configs, files and the kernel.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from binfmtd import __version__
from binfmtd.report.printable import printable
from binfmtd.report.sentence import counted

_STYLE = """\
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .2em .8em .2em 0; border-bottom: 1px solid #8884; vertical-align: top }
"""


def render_page(document: Mapping[str, Any], unready: Sequence[str]) -> bytes:
    """Return the whole page, in UTF-8."""
    state = document["state"]
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>binfmtd: {_text(state)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>binfmtd: {_text(state)}</h1>",
        *_list("Builds should not be sent here", unready),
        _table(["", ""], _facts(document)),
        f"<h2>Handlers ({len(document['handlers'])})</h2>",
        _table(_HANDLER, [[row[key] for key in _HANDLER] for row in document["handlers"]]),
        *_list("Paused", [f"{pause['name']} until {pause['until'] or 'resumed'}" for pause in document["paused"]]),
        *_list("Contended", document["contended"]),
        *_list("Foreign entries", _foreign(document), sum(document["foreign_count"].values())),
        '<p><a href="/status.json">JSON</a> · <a href="/metrics">metrics</a></p>',
        "</body></html>\n",
    ]
    return "\n".join(parts).encode()


_HANDLER = ("name", "architecture", "state", "reason", "interpreter", "flags", "priority", "repairs")


def _facts(document: Mapping[str, Any]) -> Iterable[Sequence[object]]:
    mount, config, last = document["mount"], document["config"], document["last_pass"]
    if document["problem"]:
        yield "problem", document["problem"]
    if lacks := document.get("lacking"):
        yield "lacking", lacks
    yield "mount", "none" if mount is None else mount["directory"] + (" (read-only)" if mount["read_only"] else "")
    if document["seal"]["state"] != "off":
        yield "seal", ": ".join(filter(None, (document["seal"]["state"], document["seal"]["reason"])))
    yield "config", f"{config['path']}, generation {config['generation']}, loaded at {config['loaded_at']}"
    if config["error"]:
        yield "rejected", config["error"]
    yield "passes", document["passes"]
    yield "repairs", document["repairs"]
    if last is not None:
        yield "last pass", f"{last['at']} ({last['trigger']}), {counted(last['actions'], 'action')}"
    yield "version", __version__


def _foreign(document: Mapping[str, Any]) -> Iterable[str]:
    listed = document["foreign"]
    for entry in listed:
        yield str(entry["name"]) + ("" if entry["enabled"] else " (disabled)")
    if more := sum(document["foreign_count"].values()) - len(listed):
        yield f"and {more} more"


def _list(title: str, items: Iterable[str], number: int | None = None) -> list[str]:
    """Return a heading and the items, or nothing without items; ``number`` is that of all, if not all are listed."""
    lines = [f"<li>{_text(item)}</li>" for item in items]
    return [f"<h2>{title} ({len(lines) if number is None else number})</h2>", "<ul>", *lines, "</ul>"] if lines else []


def _table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["<table>"]
    if any(heading):
        lines.append("<tr>" + "".join(f"<th>{cell}</th>" for cell in heading) + "</tr>")
    lines += ["<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "\n".join([*lines, "</table>"])


def _text(value: object) -> str:
    return escape(printable("" if value is None else str(value)))
