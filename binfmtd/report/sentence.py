"""The status in one line, as `systemctl status` shows it: "33 handlers in order, 2 waiting, 4 repairs"."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from binfmtd.report.printable import printable

# Handlers that need no attention, also those that the config disables.
_IN_ORDER = ("registered", "disabled")
_CONVERGED = (*_IN_ORDER, "served_elsewhere", "shadowed")


def sentence(document: Mapping[str, Any]) -> str:
    """Return one line for a status document (``report.status``); a problem that stops the daemon's work comes first."""
    problems = [document["problem"]] if document["problem"] else []
    return printable("; ".join([*problems, *_parts(document)]))


def beside_problems(document: Mapping[str, Any]) -> str:
    """Return the sentence without the problem; an empty text if binfmt_misc is not mounted, and nothing is lacking."""
    return printable("; ".join(_parts(document)))


def _parts(document: Mapping[str, Any]) -> list[str]:
    parts = []
    if document["mount"] is not None:
        parts.append(in_brief(document))
    if lacks := document["lacking"]:
        parts.append(lacks)
    if document["config"]["error"]:
        parts.append("the config files are invalid now, and the previous config is in force")
    return parts


def verdict(document: Mapping[str, Any]) -> str:
    """Return one line for a health check: the sentence, or the state and the first reason why it is not converged."""
    if document["state"] == "converged":
        return sentence(document)
    rows = [row for row in document["handlers"] if row["state"] not in _CONVERGED]
    problems = [document["problem"]] if document["problem"] else []
    first, *others = [*problems, *(f"{row['name']}: {row['reason']}" for row in rows)] or [sentence(document)]
    more = f" (and {len(others)} more)" if others else ""
    return printable(f"{document['state']}: {first}{more}")


def in_brief(document: Mapping[str, Any]) -> str:
    """Return how many handlers are in which state, and the number of repairs."""
    states = Counter(row["state"] for row in document["handlers"])
    counts = [f"{counted(sum(states.pop(state, 0) for state in _IN_ORDER), 'handler')} in order"]
    counts += [f"{states[state]} {state.replace('_', ' ')}" for state in sorted(states)]
    if repairs := document["repairs"]:
        counts.append(counted(repairs, "repair"))
    return ", ".join(counts)


def counted(number: int, noun: str) -> str:
    """Return the number and the noun, in the plural unless the number is one."""
    plural = noun.removesuffix("y") + ("ies" if noun.endswith("y") else "es" if noun.endswith("s") else "s")
    return f"{number} {noun if number == 1 else plural}"
