"""The plan: the actions that turn the observed state into the desired state.

A plan is a function of values alone, and level-triggered: it depends on the present state, not on the events that led
to it.  Once its actions are done, the next plan is empty.  It names a foreign entry only if the config asks for that
(`unmanaged`, `restore`), or if the entry breaks every exec.

The order of the actions:

1. Enable and disable, which end their drift in one write.
2. Registrations: first foreign entries that are restored, then declared handlers, lowest rank first, since the newest
   entry wins.
3. Removals, so that no entry is removed before its successor is registered.

Example: ``qemu-arm`` is missing, ``qemu-s390x`` is disabled, and the config no longer declares ``qemu-sparc``.  The
plan is: enable ``qemu-s390x``, register ``qemu-arm``, remove ``qemu-sparc``.
"""

from collections.abc import Collection, Iterator, Mapping
from functools import partial

from binfmtd.model.classify import classify_drift, one_write_ends
from binfmtd.model.config import Shadowed
from binfmtd.model.desired import DesiredState, Unavailable, UnavailableReason
from binfmtd.model.drift import Act, Action, Drift, Plan, PlanContext
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.guard import BREAKS_EXEC
from binfmtd.model.handler import Flags, Handler
from binfmtd.model.ownership import equal, foreign, is_kept, overlapping_foreign, provider, registered_by_us
from binfmtd.model.precedence import inversions, out_of_order, overlaps
from binfmtd.model.restore import misplaced, restorable
from binfmtd.model.stand_in import is_stand_in, stand_in_name

INSTANCE = "status"  # the file that switches the whole instance on and off


def plan(desired: DesiredState, observed: ObservedState, context: PlanContext) -> Plan:
    """Return the plan that turns the observed state into the desired state."""
    reporting = desired.policy.shadowed is Shadowed.REPORT
    foreign_above = overlapping_foreign(desired, observed, context)
    above = _above(foreign_above, observed)
    shadowed = {name: entries[0].name for name, entries in above.items()}
    outranked = {
        name: entry.name
        for name, entries in above.items()
        for entry in reversed(entries)
        if not reporting or misplaced(entry, context)
    }
    coming_back = _coming_back(context)
    served: dict[str, str] = {}
    switches = [
        Action(Act.DISABLE, name, Drift.UNWANTED, BREAKS_EXEC)
        for name in sorted(context.exec_breaking)
        if name in observed.by_name and observed.by_name[name].enabled
    ]
    if not observed.switched_on:
        switches.append(Action(Act.ENABLE, INSTANCE, Drift.SWITCHED_OFF, "binfmt_misc as a whole is switched off"))
    writes: dict[str, Action] = {}
    for handler in desired.handlers:
        entry = observed.by_name.get(handler.name)
        if entry is None:
            if not handler.enabled:
                continue
            candidates = [*foreign_above.get(handler.name, []), *coming_back]
            elsewhere = provider(handler, candidates, context)
            if handler.yields and elsewhere is not None:
                served[handler.name] = elsewhere.name
            else:
                reason = "the entry is missing"
                writes[handler.name] = Action(Act.REGISTER, handler.name, Drift.MISSING, reason, handler)
        elif action := _present(handler, entry, desired, context):
            if action.handler is None:
                switches.append(action)
            else:
                writes[handler.name] = action
    blocked = _put_in_order(desired, observed, writes, outranked, context)
    permanent = {
        name: stand_in
        for name, stand_in in desired.permanent.items()
        if name not in served and not context.pauses.hold(name)
    }
    removals = _removals(desired, observed, context, writes.keys() | permanent.keys())
    in_rank = [writes[h.name] for h in desired.handlers if h.name in writes and h.name not in blocked]
    reason = "a flush removed it, and the config's `restore` names it"
    restores = [
        Action(Act.RESTORE, restored.name, Drift.MISSING, reason, restored)
        for restored in restorable(desired, context, writes.keys())
    ]
    yielding_to = {name: tuple(e.name for e in entries) for name, entries in foreign_above.items() if reporting}
    actions = (*switches, *restores, *in_rank, *removals)
    left_alone = {*context.refused, *blocked, *_yielding(yielding_to, observed)}
    writable = {n: stand_in for n, stand_in in permanent.items() if not left_alone & {n, stand_in.name}}
    stand_ins = tuple(_stand_ins(desired, observed, context, writable))
    wanted = tuple(a for a in actions if not _paused(a, context))
    return Plan(wanted, served, shadowed, yielding_to, blocked, stand_ins)


def _paused(action: Action, context: PlanContext) -> bool:
    """Return True if an administrator has paused the action's entry.

    Two kinds of action are never paused.  An entry that breaks every exec is disabled, and nothing else is done to it.
    A stand-in is removed, since it would otherwise serve instead of the entry that the administrator changes.
    """
    if is_stand_in(action.entry) or (action.act is Act.DISABLE and action.entry in context.exec_breaking):
        return False
    return context.pauses.hold(action.entry)


def _coming_back(context: PlanContext) -> list[Entry]:
    """Return the foreign entries that will be restored; once registered, they serve as before."""
    lost = [
        (name, remembered) for name, remembered in context.remembered.items() if remembered.lost and remembered.enabled
    ]
    return [Entry(name, remembered.inode, remembered.enabled, remembered.registration) for name, remembered in lost]


def _above(foreign_above: Mapping[str, list[Entry]], observed: ObservedState) -> dict[str, list[Entry]]:
    """Return, by handler name, the overlapping foreign entries above its entry, newest first.

    Names without any are left out.
    """
    place = observed.position
    above = {
        name: [entry for entry in entries if place[entry.name] < place.get(name, -1)]
        for name, entries in foreign_above.items()
    }
    return {name: entries for name, entries in above.items() if entries}


def _present(handler: Handler, entry: Entry, desired: DesiredState, context: PlanContext) -> Action | None:
    """Return the action that ends the drift of a handler's existing entry, or None if it has not drifted."""
    classification = classify_drift(handler, entry, _stale(handler, entry, desired, context))
    if classification is None:
        return None
    drift, reason = classification
    if one_write_ends(drift, handler):
        return Action(Act.ENABLE if handler.enabled else Act.DISABLE, handler.name, drift, reason)
    return Action(Act.REPLACE, handler.name, drift, reason, handler)


def _stale(handler: Handler, entry: Entry, desired: DesiredState, context: PlanContext) -> str | None:
    """Return the reason why an entry, if it has F, may run another file than the one at the interpreter's path."""
    record = context.records.get(handler.name)
    path = handler.registration.interpreter
    if record is None or record.inode != entry.inode or record.opened_file is None:
        return "the ledger does not record which file flag F opened (another program may have registered the entry)"
    return (
        None
        if record.opened_file == desired.file_identities.get(path)
        else f"{path} has changed since flag F opened it"
    )


def _put_in_order(
    desired: DesiredState,
    observed: ObservedState,
    writes: dict[str, Action],
    outranked: Mapping[str, str],
    context: PlanContext,
) -> dict[str, str]:
    """Add to ``writes`` the entries that have to move up; return the names that are blocked, with the reasons."""
    pauses, refused = context.pauses, context.refused
    fixed = {handler.name for handler in desired.handlers if pauses.hold(handler.name) or handler.name in refused}
    newest = _newest(desired, observed)
    order = partial(out_of_order, desired.handlers, desired.higher, observed.position, newest)
    moved = order(writes.keys() - fixed, outranked, fixed)
    blocked: dict[str, str] = {}
    if fixed:
        blocked = _blocked(desired, observed, (writes.keys() | moved) - fixed, fixed, context)
        stuck = fixed | blocked.keys()
        moved = order(writes.keys() - stuck, outranked, stuck) - stuck
    turned = frozenset[str]()
    if moved or blocked:
        turned = inversions(desired.handlers, desired.higher, observed.position, newest)
    for name in moved:
        if by := outranked.get(name):
            reason = f"the newer entry {by} takes its files"
        elif name in turned:
            reason = "an entry that belongs below it is newer"
        else:
            reason = "an entry that belongs below it is registered again"
        for_order_only = name not in turned and name not in outranked
        writes[name] = Action(Act.REPLACE, name, Drift.OUT_OF_ORDER, reason, desired.by_name[name], for_order_only)
    # A blocked entry that is in order needs nothing.
    return {name: why for name, why in blocked.items() if name in writes or name in turned or name in outranked}


def _newest(desired: DesiredState, observed: ObservedState) -> dict[str, int]:
    """Return, by handler name, the position of the newer of its proper entry and its permanent stand-in, if enabled."""
    place = observed.position
    newest = {handler.name: place[handler.name] for handler in desired.handlers if handler.name in place}
    if desired.higher.keys() & desired.permanent.keys():
        for name, stand_in in desired.permanent.items():
            entry = observed.by_name.get(stand_in.name)
            if entry is not None and entry.enabled:
                newest[name] = min(place[entry.name], newest.get(name, place[entry.name]))
    return newest


def _yielding(yielding_to: Mapping[str, Collection[str]], observed: ObservedState) -> Iterator[str]:
    """Yield the handlers whose stand-in, if registered now, would take files of a foreign entry that may win."""
    place = observed.position
    for name, foreign_names in yielding_to.items():
        if any(place[foreign_name] < place.get(name, len(place)) for foreign_name in foreign_names):
            yield name


def _stand_ins(
    desired: DesiredState, observed: ObservedState, context: PlanContext, writable: Mapping[str, Handler]
) -> Iterator[Action]:
    """Yield the writes that bring the ``writable`` stand-ins, keyed by handler name, into the desired state.

    A stand-in that is registered again lies on top, so those of higher rank that share a file with it are registered
    again, too.  If one of these cannot be, the lower stand-in is withheld: it would take the higher handler's files.
    """
    place, newest = observed.position, _newest(desired, observed)
    fixed: set[str] = set()  # handlers that serve, and cannot be moved above another
    for handler in reversed(desired.handlers):
        above = desired.higher.get(handler.name, ())
        if handler.name not in writable or any(high.name in fixed for high in above):
            names = (handler.name, stand_in_name(handler.name))
            if any((entry := observed.by_name.get(name)) and entry.enabled for name in names):
                fixed.add(handler.name)
    written: set[str] = set()
    for handler in desired.handlers:
        name, stand_in = handler.name, writable.get(handler.name)
        if stand_in is None or any(high.name in fixed for high in desired.higher.get(name, ())):
            continue
        entry = observed.by_name.get(stand_in.name)
        if entry is None:
            yield Action(Act.REGISTER, stand_in.name, Drift.MISSING, "the stand-in is missing", stand_in)
        elif action := _present(stand_in, entry, desired, context):
            yield action
            if action.act is Act.ENABLE:
                continue
        elif any(
            low.name in written or newest.get(low.name, len(place)) < place[entry.name]
            for low in desired.lower.get(name, ())
        ):
            reason = "an entry that belongs below it is newer"
            yield Action(Act.REPLACE, stand_in.name, Drift.OUT_OF_ORDER, reason, stand_in)
        else:
            continue
        written.add(name)


def _blocked(
    desired: DesiredState,
    observed: ObservedState,
    names: Collection[str],
    fixed: Collection[str],
    context: PlanContext,
) -> dict[str, str]:
    """Return the reason for each of ``names`` that would get above a ``fixed`` handler of higher rank that serves.

    A handler below one that is blocked itself is blocked for the same reason.
    """
    reasons: dict[str, str] = {}
    for name in (handler.name for handler in reversed(desired.handlers) if handler.name in names):
        for high in desired.higher.get(name, ()):
            # A file could always match both a magic and an extension: so these never block each other.
            if not overlaps(desired.by_name[name].registration.match, high.registration.match):
                continue
            there = [observed.by_name.get(entry_name) for entry_name in (high.name, stand_in_name(high.name))]
            serving = [observed.position[entry.name] for entry in there if entry and entry.enabled]
            low = observed.by_name.get(name)
            if low and low.enabled and observed.position[name] < min(serving, default=0):
                continue  # it is above already, so its content can be corrected all the same
            if (high.name in fixed or high.name in reasons) and serving:
                why = "is paused" if context.pauses.hold(high.name) else "could not be registered"
                reasons[name] = reasons.get(high.name, f"it belongs below {high.name}, which {why}")
    return reasons


def _removals(
    desired: DesiredState, observed: ObservedState, context: PlanContext, bridged: Collection[str]
) -> Iterator[Action]:
    """Yield the removals.

    These are binfmtd's own entries that are no longer declared or have lost their interpreter, stand-ins that no
    handler in ``bridged`` needs, and foreign entries under `unmanaged = "remove"`.
    """
    serving = {stand_in_name(name) for name in bridged}
    waiting = {
        stand_in_name(h.name): h
        for h in desired.unavailable
        if h.cause in (UnavailableReason.WAITING, UnavailableReason.LOST)
    }
    for entry in observed.relevant:
        if is_stand_in(entry.name):
            needed = entry.name in serving or _bridges(waiting.get(entry.name), entry)
            if not needed and entry.name not in context.others_stand_ins:
                yield Action(Act.REMOVE, entry.name, Drift.UNWANTED, "the stand-in is no longer needed")
        elif entry.name in desired.by_name:
            continue
        elif foreign(entry, desired, context):
            if not is_kept(entry, desired):
                reason = 'the config does not declare it, and `unmanaged` is "remove"'
                yield Action(Act.REMOVE, entry.name, Drift.UNWANTED, reason)
        elif (unavailable := desired.unavailable_by_name.get(entry.name)) is None:
            yield Action(Act.REMOVE, entry.name, Drift.UNWANTED, "the config no longer declares it")
        elif _useless(unavailable, entry):
            yield Action(Act.REMOVE, entry.name, Drift.UNWANTED, unavailable.reason)


def _bridges(waiting: Unavailable | None, stand_in: Entry) -> bool:
    """Return True if a stand-in serves a handler whose interpreter disappeared before the proper entry was registered.

    That takes flag F: the kernel has opened the interpreter's file.
    """
    registration = stand_in.registration
    return bool(
        waiting and registration and Flags.F in registration.flags and registration.interpreter in waiting.interpreters
    )


def _useless(unavailable: Unavailable, entry: Entry) -> bool:
    """Return True if the entry, one of binfmtd's own, has lost its interpreter, or another user can change that.

    With F it would still serve, by the file that the kernel opened before, and False is returned.  The entry of a
    handler that is refused for another reason stays, too.
    """
    if not unavailable.judged or (unavailable.cause is UnavailableReason.REFUSED and not unavailable.untrusted):
        return False
    if entry.registration is None or Flags.F in entry.registration.flags:
        return False
    return entry.registration.interpreter in unavailable.interpreters


def removal_plan(desired: DesiredState, observed: ObservedState, context: PlanContext) -> Plan:
    """Return the plan that removes all of binfmtd's own entries.

    These are the entries that are as the config declares them, those that the ledger records, and the stand-ins.
    Another daemon's stand-ins stay.
    """
    reason = 'the daemon stops, and `on_stop` is "remove"'
    actions = []
    for entry in observed.entries:
        handler = desired.by_name.get(entry.name)
        declared = handler is not None and handler.enabled and equal(entry.registration, handler.registration)
        ours = registered_by_us(entry, context.records.get(entry.name))
        helper = is_stand_in(entry.name) and entry.name not in context.others_stand_ins
        if declared or ours or helper:
            actions.append(Action(Act.REMOVE, entry.name, Drift.UNWANTED, reason))
    return Plan(tuple(actions))
