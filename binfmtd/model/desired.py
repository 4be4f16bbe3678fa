"""From a config and the facts of this host to the desired state.

Pure: the facts (which interpreters are there, what runs natively) are handed in by whoever asked the system.
"""

from bisect import bisect_right
from collections.abc import Collection, Mapping
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

from binfmtd.model.config import Config, Declaration, Policy, StandInPolicy
from binfmtd.model.guard import NativeHeader, takes_native
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Match
from binfmtd.model.precedence import contends, overlaps
from binfmtd.model.shared_files import SharedFiles
from binfmtd.model.standin import stand_in_name

P_VISIBLE_FROM = (5, 12)  # AT_FLAGS_PRESERVE_ARGV0: from then on QEMU can tell that argv[0] was preserved


_SCRIPT_WITH_O = (
    "{} is a script, and with flag O or C every exec would fail with ENOEXEC: name a program, leave the flag out, or "
    "set force = true if that is meant ({})"
)


class Fingerprint(NamedTuple):
    """Which file this is, and in which version: times in nanoseconds, size in bytes."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class InterpreterFacts(NamedTuple):
    """One interpreter's path, looked at."""

    fingerprint: Fingerprint | None = None  # None: no executable file is there
    untrusted: str | None = None  # who else could change it, with the path that is to blame
    problem: str | None = None  # why it is not known which file is there
    remote: bool = False  # on a file system that may not answer (network, FUSE): opening it may block
    script: bool = False  # it begins with #!, so another program is executed in its place


class Facts(NamedTuple):
    """What this host says about itself."""

    interpreters: Mapping[str, InterpreterFacts]
    native: frozenset[str] = frozenset()  # architectures that run without any handler
    header: NativeHeader = NativeHeader(2, 1, 62)
    heads: tuple[bytes, ...] = ()  # the first 256 bytes of some programs of this host each
    kernel: tuple[int, int] = (6, 12)
    judges_paths: bool = True  # False: others resolve paths in another root than ours (we are in a container)


class Standing(StrEnum):
    """Why a declared handler is not to be registered now."""

    WAITING = "waiting"  # its interpreter is not there yet
    ABSENT = "absent"  # the same for an architecture from "all": no administrator asked for it by name
    LOST = "lost"  # the same, but it had one before
    REFUSED = "refused"  # a guard


class Held(NamedTuple):
    """A declared handler that stays unregistered, and the reason."""

    name: str
    standing: Standing
    reason: str
    architecture: str | None
    interpreters: tuple[str, ...]
    flags: Flags
    priority: int
    judged: bool = True  # False: whether an interpreter is there cannot be seen from here without F


class _Desired(NamedTuple):
    handlers: tuple[Handler, ...] = ()
    held: tuple[Held, ...] = ()
    policy: Policy = Policy()
    fingerprints: Mapping[str, Fingerprint] = MappingProxyType({})
    remote: frozenset[str] = frozenset()  # interpreters whose file system may not answer


class DesiredState(_Desired):
    """The handlers to have, lowest rank first, and those that cannot be had now."""

    @cached_property
    def by_name(self) -> dict[str, Handler]:
        """The handlers to have, under their names."""
        return {handler.name: handler for handler in self.handlers}

    @cached_property
    def held_by_name(self) -> dict[str, Held]:
        """Those that cannot be had now, under their names."""
        return {held.name: held for held in self.held}

    @cached_property
    def higher(self) -> dict[str, tuple[Handler, ...]]:
        """Name -> the handlers of higher rank that could take the same file."""
        found = {}
        for place, low in enumerate(self.handlers):
            if not low.enabled:
                continue
            others = {other for other in self._kin.with_(low.registration.match) if other > place}
            if self._mixed:  # of another priority are those at the end
                first = bisect_right(self.handlers, low.priority, key=lambda handler: handler.priority)
                above = enumerate(self.handlers[first:], first)
                others |= {other for other, high in above if high.enabled and contends(low, high)}
            found[low.name] = tuple(self.handlers[other] for other in sorted(others))
        return found

    @cached_property
    def permanent(self) -> dict[str, Handler]:
        """Name of a handler -> its stand-in, for each that has one at all times.

        The two say the same, so it does not matter which of them is newer.  Of handlers that share files the order
        does matter: their stand-ins are temporary, as one that is registered again lies above all of them.
        """
        if self.policy.stand_ins is StandInPolicy.TEMPORARY:
            return {}
        return {
            handler.name: handler._replace(name=stand_in_name(handler.name))
            for handler in self.handlers
            if handler.enabled and handler.name not in self.sharing
        }

    @cached_property
    def sharing(self) -> dict[str, str]:
        """Name -> another handler that takes files of the same kind.  A magic and an extension are two kinds."""
        found: dict[str, str] = {}
        for low, others in self.higher.items():
            for high in others:
                if overlaps(self.by_name[low].registration.match, high.registration.match):
                    found.setdefault(low, high.name)
                    found.setdefault(high.name, low)
        return found

    @cached_property
    def lower(self) -> dict[str, tuple[Handler, ...]]:
        """Name -> the handlers of lower rank that could take the same file."""
        found: dict[str, list[Handler]] = {}
        for low, others in self.higher.items():
            for high in others:
                found.setdefault(high.name, []).append(self.by_name[low])
        return {name: tuple(handlers) for name, handlers in found.items()}

    @cached_property
    def _mixed(self) -> bool:
        """Whether magics and extensions may have to be ranked against each other: then each pair is looked at."""
        kinds = {(type(handler.registration.match), handler.priority) for handler in self.handlers if handler.enabled}
        return len({kind for kind, _ in kinds}) > 1 and len({priority for _, priority in kinds}) > 1

    def opens(self, registration: Registration) -> str | None:
        """The interpreter, if registering makes the kernel open it on a file system that may not answer."""
        opened = Flags.F in registration.flags and registration.interpreter in self.remote
        return registration.interpreter if opened else None

    def changed_since(self, before: "DesiredState") -> frozenset[str]:
        """The names of which something else is wanted than before: the config says so, or another interpreter is there.

        Whoever changed that, nobody undid what we did.
        """
        if self is before:
            return frozenset()
        names = self.wanted.keys() | before.wanted.keys()
        return frozenset(name for name in names if self.wanted.get(name) != before.wanted.get(name))

    @cached_property
    def wanted(self) -> dict[str, tuple[Handler, Fingerprint | None]]:
        """Name -> the handler, and which file its interpreter is."""
        return {h.name: (h, self.fingerprints.get(h.registration.interpreter)) for h in self.handlers}

    def overlapping(self, match: Match) -> tuple[Handler, ...]:
        """The handlers that share a file with a foreign entry of this match."""
        found = self._overlapping.get(match)
        if found is None:
            found = tuple(self.handlers[place] for place in sorted(self._kin.with_(match)))
            self._overlapping[match] = found
        return found

    @cached_property
    def _kin(self) -> SharedFiles[int]:
        return SharedFiles((h.registration.match, place) for place, h in enumerate(self.handlers) if h.enabled)

    @cached_property
    def _overlapping(self) -> dict[Match, tuple[Handler, ...]]:
        # A memo: with 10,000 foreign entries the comparisons are most of a full look.
        return {}


def resolve(config: Config, facts: Facts, had: Collection[str] = ()) -> DesiredState:
    """Choose interpreters, apply the guards and rank what is left.

    ``had``: the handlers from "all" that had an interpreter before; without one they are LOST.
    """
    handlers: list[Handler] = []
    held: list[Held] = []
    for declared in sorted(config.declarations, key=lambda declared: declared.priority):
        optional = declared.from_all or declared.unless_native
        if optional and declared.architecture in facts.native and not declared.force:
            continue
        found = _choose(declared, facts, had)
        if isinstance(found, Held):
            held.append(found)
        else:
            handlers.append(found)
    chosen = {handler.registration.interpreter for handler in handlers}
    fingerprints = {
        path: known.fingerprint
        for path, known in facts.interpreters.items()
        if known.fingerprint is not None and path in chosen
    }
    remote = frozenset(path for path in chosen if facts.interpreters.get(path, InterpreterFacts()).remote)
    return DesiredState(tuple(handlers), tuple(held), config.policy, fingerprints, remote)


def _choose(declared: Declaration, facts: Facts, had: Collection[str]) -> Handler | Held:
    flags = declared.flags
    if declared.architecture is not None and facts.kernel < P_VISIBLE_FROM:
        flags &= ~Flags.P

    def hold(standing: Standing, reason: str, *, judged: bool = True) -> Held:
        return Held(
            declared.name,
            standing,
            reason,
            declared.architecture,
            declared.interpreters,
            flags,
            declared.priority,
            judged and facts.judges_paths,
        )

    if declared.enabled and not declared.force and (taken := takes_native(declared.match, facts.header, facts.heads)):
        return hold(
            Standing.REFUSED,
            f"it takes {taken} of this host, and every exec would fail with ELOOP: narrow its magic and mask, "
            f"or set force = true if that is meant ({declared.source})",
        )
    for path in declared.interpreters:
        known = facts.interpreters.get(path, InterpreterFacts())
        if known.fingerprint is None:
            continue
        if known.untrusted is not None and declared.enabled:
            return hold(Standing.REFUSED, known.untrusted)
        if known.script and Flags.O in flags and declared.enabled and not declared.force:
            if declared.architecture is None or Flags.C in flags:
                return hold(Standing.REFUSED, _SCRIPT_WITH_O.format(path, declared.source))
            flags &= ~Flags.O
        break
    else:
        path = declared.interpreters[0]
        # Without F the kernel resolves the path in the root of whoever executes, which may not be ours.
        elsewhere = not facts.judges_paths and Flags.F not in flags and not declared.from_all
        if declared.enabled and not elsewhere:
            missing = " and ".join(declared.interpreters)
            without = Standing.LOST if declared.name in had else Standing.ABSENT
            standing = without if declared.from_all else Standing.WAITING
            for each in declared.interpreters:
                if problem := facts.interpreters.get(each, InterpreterFacts()).problem:
                    return hold(Standing.WAITING, f"{each}: {problem}", judged=False)
            return hold(standing, f"no executable file at {missing}")
    return Handler(
        declared.name,
        Registration(declared.match, path, flags),
        declared.priority,
        declared.enabled,
        declared.architecture,
        declared.from_all,
    )
