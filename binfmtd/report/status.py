"""The status: the handlers, their states and the reasons, in the words that its file, the metrics and a page share."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

from binfmtd.catalog.architectures import CATALOG
from binfmtd.files.distribution import emulators_remedy
from binfmtd.model.desired import DesiredState, Unavailable, UnavailableReason
from binfmtd.model.drift import Action, Plan
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Flags, Handler
from binfmtd.model.match import takes_plain
from binfmtd.model.ownership import stand_in_serves
from binfmtd.model.pause import Pauses
from binfmtd.model.stand_in import stand_in_name

STATES = ("converged", "waiting", "paused", "drifting", "contended", "degraded")  # of the whole, the worst last
SERVED = ("registered", "stand_in", "served_elsewhere", "shadowed")  # programs run, by this handler or a foreign entry
FOREIGN_LISTED = 1_000  # foreign entries beyond these are only counted, so that the document stays small
_KEEPS = "another process keeps undoing its repair, so the daemon registers the proper entry at growing intervals"
IF_MEANT = "if you removed it on purpose, reload the daemon"
HANDLER_STATES = (*SERVED, "disabled", "waiting", "paused", "contended", "refused", "failed")


def gone(lost: Iterable[Unavailable]) -> str:
    """Return what to do about emulators that were removed."""
    serves = "entries with flag F still run the removed files until the entries are removed"
    meant = "if you removed the emulators on purpose, take their architectures out of `architectures`"
    remedy = emulators_remedy(None, _paths(lost))
    return f"emulators that were installed before are missing: {remedy}; {serves}; {meant}"


def no_emulator(absent: Iterable[Unavailable]) -> str:
    """Return what to do where no architecture has an emulator."""
    remedy = emulators_remedy(None, _paths(absent))
    where = "" if "[emulators] paths" in remedy else ", or name their paths in [emulators] paths"
    return f"no architecture has an emulator here: {remedy}{where}"


def _paths(unavailable: Iterable[Unavailable]) -> list[str]:
    return [path for handler in unavailable for path in handler.interpreters]


class Troubles(NamedTuple):
    """The present errors, contentions and pauses, and the number of repairs by entry."""

    failed: Mapping[str, str] = MappingProxyType({})  # handler -> the kernel's refusal
    contended: Collection[str] = ()
    repairs: Mapping[str, int] = MappingProxyType({})
    problem: str | None = None  # why the daemon cannot do its work at all: no mount, read-only, no watch
    pauses: Pauses = Pauses()


def unavailable_reason(unavailable: Unavailable) -> str:
    """Return why a handler cannot be registered now and, for an architecture's emulator, how to install it here."""
    if unavailable.architecture is None or unavailable.has_remedy or unavailable.cause is UnavailableReason.REFUSED:
        return unavailable.reason
    paths, set_by = unavailable.interpreters, unavailable.paths_set_by
    return f"{unavailable.reason}: {emulators_remedy(unavailable.architecture, paths, set_by)}"


def doubted(handler: Handler, desired: DesiredState) -> str:
    """Return why the programs of a handler that is registered may fail; "" if nothing is known against it."""
    path = handler.registration.interpreter
    if handler.name in desired.fails:
        return f"{path} does not run programs: {desired.fails[handler.name]}"
    if handler.name not in desired.unseen:
        return ""
    return f"not checked: without flag F each program needs {path} in its own root, and this container has no such file"


def handler_states(
    desired: DesiredState, observed: ObservedState, planned: Plan, troubles: Troubles
) -> list[dict[str, Any]]:
    """Return one row a handler, sorted by name, also for those that cannot be registered now."""
    actions: dict[str, Action] = {}
    for action in planned.actions:
        actions.setdefault(action.entry, action)
    rows = [_handler_row(h, desired, observed, planned, actions.get(h.name), troubles) for h in desired.handlers]
    rows += [
        row for unavailable in desired.unavailable if (row := _held_row(unavailable, observed, troubles)) is not None
    ]
    return sorted(rows, key=lambda row: str(row["name"]))


def lacking(desired: DesiredState, observed: ObservedState) -> str | None:
    """Return why "all" has no emulator at all: none is installed, or the last one was removed.  None if it has one.

    A foreign entry that serves an architecture counts as one.  An entry that serves only because F has opened an
    emulator before it was removed does not.
    """
    causes = {unavailable.cause for unavailable in desired.unavailable}
    if desired.handlers or not causes or causes - {UnavailableReason.ABSENT, UnavailableReason.LOST}:
        return None
    by_foreign = ((by, unavailable) for unavailable in desired.unavailable if (by := _server(unavailable, observed)))
    if any(not _pins(by, unavailable, observed) for by, unavailable in by_foreign):
        return None
    lost = [unavailable for unavailable in desired.unavailable if unavailable.cause is UnavailableReason.LOST]
    return gone(lost) if lost else no_emulator(desired.unavailable)


def whole_state(
    rows: list[dict[str, Any]], planned: Plan, troubles: Troubles, *, drifting: bool = False, lacks: bool = False
) -> str:
    """Return the worst state of the parts: degraded, contended, drifting, paused, waiting, converged.

    ``drifting``: an entry has drifted since the plan was made; ``lacks``: there is no handler at all (``lacking``).
    """
    states = {row["state"] for row in rows}
    if troubles.problem or states & {"refused", "failed"}:
        return "degraded"
    handlers = {row["name"] for row in rows}
    # A contended name that is no handler is an entry that we remove or disable, or the instance as a whole.
    if "contended" in states or any(name not in handlers for name in troubles.contended):
        return "contended"
    if planned.actions or drifting:
        return "drifting"
    if troubles.pauses.until:
        return "paused"
    return "waiting" if lacks or "waiting" in states else "converged"


def foreign_part(entries: Iterable[Entry], count: tuple[int, int]) -> dict[str, Any]:
    """Return the document's part about foreign entries: a list of the newest, and the numbers of all.

    ``entries`` are all of them, newest first; ``count``: how many of them are enabled, and disabled.
    """
    enabled, disabled = count
    return {
        "foreign": [{"name": entry.name, "enabled": entry.enabled} for entry in islice(entries, FOREIGN_LISTED)],
        "foreign_count": {"enabled": enabled, "disabled": disabled},
    }


def unready(document: Mapping[str, Any]) -> list[str]:
    """Return why builds should not be sent to this host: a problem, or enabled handlers that no entry serves."""
    fine = {*SERVED, "disabled"}
    why = [document["problem"]] if document["problem"] else []
    if document["mount"] is None and not why:
        why.append("binfmt_misc is not mounted")
    rows = [row for row in document["handlers"] if row["state"] not in fine]
    if (lacks := document["lacking"]) and len(rows) == len(document["handlers"]):  # else a file that F opened serves
        why.append(lacks)
    return why + [f"{row['name']} is {row['state']}: {row['reason']}" for row in rows]


def healthy(document: Mapping[str, Any]) -> bool:
    """Return True if each handler is served, by its proper entry or, while that is missing, by its stand-in."""
    return document["state"] == "converged" or (
        document["state"] in ("drifting", "contended") and not unready(document)
    )


def _handler_row(
    handler: Handler,
    desired: DesiredState,
    observed: ObservedState,
    planned: Plan,
    action: Action | None,
    troubles: Troubles,
) -> dict[str, Any]:
    name = handler.name
    state, reason = "registered", ""
    if not handler.enabled:
        state, reason = "disabled", "enabled = false in the config"
    elif troubles.pauses.hold(name):
        state, reason = "paused", "paused by an administrator; run `binfmtd resume` to continue"
    elif name in troubles.failed:
        state, reason = "failed", troubles.failed[name]
    elif name in planned.blocked:
        state, reason = "waiting", planned.blocked[name]
    elif name in planned.served_elsewhere:
        state, reason = "served_elsewhere", f"entry {planned.served_elsewhere[name]} serves it"
    elif action and stand_in_serves(handler, observed):
        state, reason = "stand_in", f"{action.reason}; {_KEEPS}" if name in troubles.contended else action.reason
    elif action and name in troubles.contended:
        state, reason = "contended", f"{action.reason}; {_KEEPS}"
    elif action:
        state, reason = "waiting", action.reason
    elif why := troubles.failed.get(stand_in_name(name)):
        fails = "if another program removes this entry, programs fail until the daemon registers it again"
        reason = f"its stand-in cannot be registered ({why}): {fails}"
    elif name in planned.shadowed:
        state, reason = "shadowed", f"the newer entry {planned.shadowed[name]} takes its files"
    elif doubt := doubted(handler, desired):
        reason = doubt
    elif name in desired.passed_over:
        reason = "; ".join(f"{passed.path} is not used: {passed.reason}" for passed in desired.passed_over[name])
    registration = handler.registration
    return _row(
        name,
        handler.architecture,
        state,
        reason,
        registration.interpreter,
        registration.flags,
        handler.priority,
        troubles,
        desired.candidates.get(name, ()),
    )


def _held_row(unavailable: Unavailable, observed: ObservedState, troubles: Troubles) -> dict[str, Any] | None:
    state, reason = unavailable.cause.value, unavailable_reason(unavailable)
    names = {"registered": unavailable.name, "stand_in": stand_in_name(unavailable.name)}
    serving = next((kind for kind, name in names.items() if _pins(name, unavailable, observed)), None)
    if serving and unavailable.cause is not UnavailableReason.REFUSED:
        state, reason = (
            serving,
            f"{unavailable.reason}; the entry still runs the previous file, which flag F keeps open",
        )
    elif unavailable.cause is UnavailableReason.ABSENT:
        return None  # no administrator asked for it by name
    elif unavailable.cause is UnavailableReason.LOST:
        by = _server(unavailable, observed)
        state, reason = ("served_elsewhere", f"entry {by} serves it") if by else ("waiting", f"{reason}; {IF_MEANT}")
    interpreter = unavailable.interpreters[0]
    return _row(
        unavailable.name,
        unavailable.architecture,
        state,
        reason,
        interpreter,
        unavailable.flags,
        unavailable.priority,
        troubles,
    )


def _pins(name: str, unavailable: Unavailable, observed: ObservedState) -> bool:
    """Return True if this entry serves a handler by an interpreter that was removed after F had opened it."""
    entry = observed.by_name.get(name)
    registration = entry.registration if entry is not None and entry.enabled else None
    return (
        registration is not None
        and Flags.F in registration.flags
        and registration.interpreter in unavailable.interpreters
    )


def _server(unavailable: Unavailable, observed: ObservedState) -> str | None:
    """Return the entry that serves an architecture without an emulator here, or None.

    The newest enabled entry that takes its programs counts, and only if it has opened its own interpreter (F).
    """
    if unavailable.architecture is None:
        return None
    match = CATALOG[unavailable.architecture].match
    for entry in observed.entries:
        registration = entry.registration
        if registration is not None and entry.enabled and takes_plain(registration.match, match):
            return entry.name if Flags.F in registration.flags else None
    return None


def _row(
    name: str,
    architecture: str | None,
    state: str,
    reason: str,
    interpreter: str,
    flags: Flags,
    priority: int,
    troubles: Troubles,
    candidates: Sequence[str] = (),
) -> dict[str, Any]:
    return {
        "name": name,
        "architecture": architecture,
        "state": state,
        "reason": reason,
        "interpreter": interpreter,
        "candidates": list(candidates),
        "flags": flags.letters,
        "priority": priority,
        "repairs": troubles.repairs.get(name, 0),
    }
