"""Turn a config and the facts about this host into the desired state.

For each declared handler, ``resolve`` takes the first interpreter that exists and applies the guards.  The result is a
Handler to register, or an Unavailable with the reason why it cannot be registered now.  For example, a handler with two
possible paths of which only the second exists gets that one; if neither exists, it is WAITING.

This module makes no system calls: the caller passes the facts (which interpreters exist, what runs natively).
"""

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

from binfmtd.model.config import Config, HandlerSpec, Policy, StandInPolicy
from binfmtd.model.emulator_version import SYSTEM, command_to_add, version_of
from binfmtd.model.guard import NativeHeader, takes_native
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Match
from binfmtd.model.precedence import order_matters, overlaps
from binfmtd.model.shared_files import SharedFiles
from binfmtd.model.stand_in import stand_in_name

QEMU_SEES_P_FROM = (6, 0)
_DECLARED = [field for field in Handler._fields if field in HandlerSpec._fields]  # a handler has them from its config
_MOST_MATCHES = 1 << 15  # that are kept in a cache: there may be 20,000 entries
P_VISIBLE_FROM = (5, 12)  # AT_FLAGS_PRESERVE_ARGV0: from this kernel on, QEMU can see that argv[0] was preserved


_SCRIPT_WITH_F = (
    "{} is a script, which flag F does not carry into containers and chroots: the program in its first line and the "
    "script itself must exist there, too, else each exec through it fails: name a static program (`binfmtd emulators "
    'configure` makes emulators with settings such as QEMU_CPU), set flags = "{}" if the handler is meant for this '
    "root alone, or set force = true to register it anyway ({})"
)
_SCRIPT_WITH_O = (
    "{} is a script, and with flag O or C every exec through it fails with ENOEXEC: name a native program, remove the "
    "flag, or set force = true to register it anyway ({})"
)


class FileIdentity(NamedTuple):
    """The identity and version of a file.  Times are in nanoseconds, the size is in bytes."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @property
    def text(self) -> str:
        """The identity as text, for a file of another process."""
        return ":".join(map(str, self))


class InterpreterFacts(NamedTuple):
    """The facts about the file at one interpreter's path."""

    file_identity: FileIdentity | None = None  # None: no executable file exists there
    untrusted: str | None = None  # which other user could change it, with the path at fault and a remedy
    problem: str | None = None  # why the file at the path cannot be determined
    remote: bool = False  # on a file system that may not respond (network, FUSE): opening it may block
    script: bool = False  # it begins with #!, so the kernel executes another program in its place
    fails: str = ""  # why it runs no programs, by its content or by a probe of this file; empty: not known to fail
    version: tuple[int, ...] = ()  # of QEMU, if it is from a store, whose manifest has it
    in_version: bool = False  # it does not exist, and a manifest is beside its place: the version lacks it

    @property
    def sees_p(self) -> bool:
        """False if it is known to take argv[0], which flag P adds, for the program's first argument."""
        return not self.version or self.version >= QEMU_SEES_P_FROM


class Facts(NamedTuple):
    """The facts about this host."""

    interpreters: Mapping[str, InterpreterFacts]
    native: frozenset[str] = frozenset()  # architectures whose programs run without a handler
    header: NativeHeader = NativeHeader(2, 1, 62)
    heads: tuple[bytes, ...] = ()  # the first 256 bytes of each of some programs of this host
    kernel: tuple[int, int] = (6, 12)
    judges_paths: bool = True  # False: other processes resolve paths in another root (we are in a container)


class UnavailableReason(StrEnum):
    """The reason why a declared handler is not registered now."""

    WAITING = "waiting"  # its interpreter does not exist yet, or cannot be determined
    ABSENT = "absent"  # no interpreter exists, and it is from "all": no administrator asked for it by name
    LOST = "lost"  # as ABSENT, but it had an interpreter before
    REFUSED = "refused"  # a guard refused it


class Unavailable(NamedTuple):
    """A declared handler that stays unregistered, with the reason."""

    name: str
    match: Match
    cause: UnavailableReason
    reason: str
    architecture: str | None
    interpreters: tuple[str, ...]
    flags: Flags
    priority: int
    has_remedy: bool = False  # the reason contains the remedy
    judged: bool = True  # False: from here we cannot see if an interpreter exists where an entry without F needs it
    untrusted: bool = False  # another user can change its interpreter


class PassedOver(NamedTuple):
    """An interpreter in a handler's list that a later one replaces, and the reason."""

    path: str
    reason: str


class _Desired(NamedTuple):
    handlers: tuple[Handler, ...] = ()
    unavailable: tuple[Unavailable, ...] = ()
    policy: Policy = Policy()
    file_identities: Mapping[str, FileIdentity] = MappingProxyType({})
    remote: frozenset[str] = frozenset()  # interpreters on a file system that may not respond
    candidates: Mapping[str, tuple[str, ...]] = MappingProxyType({})  # by handler that has several: they exist
    passed_over: Mapping[str, tuple[PassedOver, ...]] = MappingProxyType({})  # by handler; interpreters before its own
    fails: Mapping[str, str] = MappingProxyType({})  # by handler: why its interpreter runs no programs


class DesiredState(_Desired):
    """The handlers of this host, lowest rank first, and those that cannot be registered now."""

    @cached_property
    def by_name(self) -> dict[str, Handler]:
        """The handlers by name."""
        return {handler.name: handler for handler in self.handlers}

    @cached_property
    def unavailable_by_name(self) -> dict[str, Unavailable]:
        """The handlers that cannot be registered now, by name."""
        return {unavailable.name: unavailable for unavailable in self.unavailable}

    @cached_property
    def higher(self) -> dict[str, tuple[Handler, ...]]:
        """A map from each enabled handler's name to the handlers of higher rank that could take the same file."""
        higher = {}
        for place, low in enumerate(self.handlers):
            if not low.enabled:
                continue
            others = {other for other in self._kin.with_(low.registration.match) if other > place}
            if self._mixed:  # those of higher priority are at the end
                first = bisect_right(self.handlers, low.priority, key=lambda handler: handler.priority)
                above = enumerate(self.handlers[first:], first)
                others |= {other for other, high in above if high.enabled and order_matters(low, high)}
            higher[low.name] = tuple(self.handlers[other] for other in sorted(others))
        return higher

    @cached_property
    def all_higher(self) -> dict[str, frozenset[str]]:
        """A map from each handler's name to those that belong above it, and to those that belong above these."""
        above: dict[str, frozenset[str]] = {}
        for handler in reversed(self.handlers):  # highest rank first
            direct = [high.name for high in self.higher.get(handler.name, ())]
            above[handler.name] = frozenset(direct).union(*(above[name] for name in direct))
        return above

    @cached_property
    def permanent(self) -> dict[str, Handler]:
        """A map from a handler's name to its stand-in, for each handler that has one at all times.

        A handler and its stand-in have the same match and interpreter, so it does not matter which of them is newer.
        """
        if self.policy.stand_ins is StandInPolicy.TEMPORARY:
            return {}
        return {
            handler.name: handler._replace(name=stand_in_name(handler.name))
            for handler in self.handlers
            if handler.enabled and handler.name not in self.kept_temporary
        }

    @cached_property
    def kept_temporary(self) -> dict[str, str]:
        """A map from each handler that can have only a temporary stand-in to another handler that prevents more.

        A stand-in that is registered again lies above all other entries.  So two handlers that take some of the same
        files have temporary ones.  A magic and an extension may each have a permanent one, since the higher one's is
        registered again as well: but only if the higher one has one.

        Nor may a new stand-in lie above the entry of a handler whose interpreter is missing: with F that still serves.
        """
        prevented_by: dict[str, str] = {}
        for low, others in self.higher.items():
            for high in others:
                if overlaps(self.by_name[low].registration.match, high.registration.match):
                    prevented_by.setdefault(low, high.name)
                    prevented_by.setdefault(high.name, low)
        for unavailable in self.unavailable:
            if (
                unavailable.cause in (UnavailableReason.WAITING, UnavailableReason.LOST)
                and Flags.F in unavailable.flags
            ):
                for handler in self.handlers:
                    below = handler.enabled and handler.priority <= unavailable.priority
                    if below and overlaps(handler.registration.match, unavailable.match):
                        prevented_by.setdefault(handler.name, unavailable.name)
        for low in reversed(self.higher):  # highest rank first
            for high in self.higher[low]:
                if high.name in prevented_by:
                    prevented_by.setdefault(low, high.name)
        return prevented_by

    @cached_property
    def lower(self) -> dict[str, tuple[Handler, ...]]:
        """A map from a handler's name to the handlers of lower rank that could take the same file."""
        lower: dict[str, list[Handler]] = {}
        for low, others in self.higher.items():
            for high in others:
                lower.setdefault(high.name, []).append(self.by_name[low])
        return {name: tuple(handlers) for name, handlers in lower.items()}

    @cached_property
    def unseen(self) -> frozenset[str]:
        """The handlers without F whose interpreter does not exist here: other processes look in their own root."""
        return frozenset(
            handler.name
            for handler in self.handlers
            if handler.enabled
            and Flags.F not in handler.registration.flags
            and handler.registration.interpreter not in self.file_identities
        )

    @cached_property
    def _mixed(self) -> bool:
        """True if magics and extensions may have to be ranked against each other: then each pair is compared."""
        kinds = {(type(handler.registration.match), handler.priority) for handler in self.handlers if handler.enabled}
        return len({kind for kind, _ in kinds}) > 1 and len({priority for _, priority in kinds}) > 1

    def opens(self, registration: Registration) -> str | None:
        """Return the interpreter if registering makes the kernel open it on a file system that may not respond."""
        opened = Flags.F in registration.flags and registration.interpreter in self.remote
        return registration.interpreter if opened else None

    def changed_since(self, before: "DesiredState") -> frozenset[str]:
        """Return the names whose handler, or whose interpreter's file, differs from ``before``.

        The config or the interpreter caused such a difference: no other program undid a repair.
        """
        if self is before:
            return frozenset()
        names = self.wanted.keys() | before.wanted.keys()
        return frozenset(name for name in names if self.wanted.get(name) != before.wanted.get(name))

    @cached_property
    def wanted(self) -> dict[str, tuple[Handler, FileIdentity | None]]:
        """A map from a name to the handler and the identity of its interpreter's file."""
        return {h.name: (h, self.file_identities.get(h.registration.interpreter)) for h in self.handlers}

    def overlapping(self, match: Match) -> tuple[Handler, ...]:
        """Return the enabled handlers that share a file with ``match`` and are of its kind (magic or extension)."""
        handlers = self._overlapping.get(match)
        if handlers is None:
            handlers = tuple(self.handlers[place] for place in sorted(self._kin.with_(match)))
            if len(self._overlapping) >= _MOST_MATCHES:  # another program registers new matches without end
                self._overlapping.clear()
            self._overlapping[match] = handlers
        return handlers

    @cached_property
    def _kin(self) -> SharedFiles[int]:
        return SharedFiles((h.registration.match, place) for place, h in enumerate(self.handlers) if h.enabled)

    @cached_property
    def _overlapping(self) -> dict[Match, tuple[Handler, ...]]:
        # A cache: with 10,000 foreign entries the comparisons take most of the time of a full pass.
        return {}


def resolve(config: Config, facts: Facts, had: Collection[str] = ()) -> DesiredState:
    """Choose an interpreter for each declared handler, apply the guards, and put the handlers in order of rank.

    ``had``: the names of the handlers from "all" that had an interpreter before.  Without one now, they are LOST.
    """
    handlers: list[Handler] = []
    unavailable: list[Unavailable] = []
    candidates: dict[str, tuple[str, ...]] = {}
    passed_over: dict[str, tuple[PassedOver, ...]] = {}
    missing = _missing_versions(config, facts)
    for declared in sorted(config.specs, key=lambda declared: declared.priority):
        optional = declared.from_all or declared.unless_native
        if optional and declared.architecture in facts.native and not declared.force:
            continue
        choice = _choose(declared, facts, had, missing)
        if isinstance(choice, Unavailable):
            unavailable.append(choice)
            continue
        handlers.append(choice)
        if len(usable := _usable(declared, facts)) > 1 and declared.architecture is not None:
            candidates[declared.name] = usable
        if passed := _passed_over(declared, choice.registration.interpreter, facts, missing):
            passed_over[declared.name] = passed
    chosen = {handler.registration.interpreter for handler in handlers}
    file_identities = {
        path: known.file_identity
        for path, known in facts.interpreters.items()
        if known.file_identity is not None and path in chosen
    }
    known = {path: facts.interpreters.get(path, InterpreterFacts()) for path in chosen}
    remote = frozenset(path for path in chosen if known[path].remote)
    used = {handler.name: handler.registration.interpreter for handler in handlers if handler.enabled}
    fails = {name: known[path].fails for name, path in used.items() if known[path].fails}
    return DesiredState(
        tuple(handlers), tuple(unavailable), config.policy, file_identities, remote, candidates, passed_over, fails
    )


def _usable(declared: HandlerSpec, facts: Facts) -> tuple[str, ...]:
    """Return the paths of a handler's interpreters that exist, and that no other user can change."""
    known = {path: facts.interpreters.get(path, InterpreterFacts()) for path in declared.interpreters}
    return tuple(path for path, file in known.items() if file.file_identity is not None and file.untrusted is None)


def _missing_versions(config: Config, facts: Facts) -> frozenset[tuple[str, str]]:
    """Return store and name of each version that the config names, and of which no file exists."""
    there: dict[tuple[str, str], bool] = {}
    for declared in config.specs:
        for path in declared.interpreters:
            if (version := version_of(path, declared.store)) is not None:
                known = facts.interpreters.get(path, InterpreterFacts())
                exists = known.file_identity is not None or known.problem is not None or known.in_version
                there[declared.store, version] = there.get((declared.store, version), False) or exists
    return frozenset(version for version, exists in there.items() if not exists)


def _missing(path: str, declared: HandlerSpec, missing: Collection[tuple[str, str]]) -> str:
    """Return why the file at an interpreter's path is missing."""
    version = version_of(path, declared.store)
    if version is None:
        return f"no executable file at {path}"
    if (declared.store, version) in missing:
        return f"version {version} is not in {declared.store}: run `{command_to_add(version)}`"
    other = f'name another version, or "{SYSTEM}", in [emulators.{declared.architecture}]'
    return f"version {version} has no executable file {path}: {other}"


def _why_none(declared: HandlerSpec, missing: Collection[tuple[str, str]]) -> str:
    in_store = [path for path in declared.interpreters if version_of(path, declared.store) is not None]
    others = [path for path in declared.interpreters if path not in in_store]
    reasons = dict.fromkeys(_missing(path, declared, missing) for path in in_store)
    return "; ".join([*reasons, *([f"no executable file at {' and '.join(others)}"] if others else [])])


def _passed_over(
    declared: HandlerSpec, chosen: str, facts: Facts, missing: Collection[tuple[str, str]]
) -> tuple[PassedOver, ...]:
    """Return the interpreters of a list that precede the chosen one, if the config chooses them one by one.

    That the first of the distribution's usual paths does not exist is no news.
    """
    before = declared.interpreters[: declared.interpreters.index(chosen)]
    passed = []
    for path in before:
        known = facts.interpreters.get(path, InterpreterFacts())
        if known.fails:
            passed.append(PassedOver(path, f"it does not run programs: {known.fails}"))
        elif version_of(path, declared.store) is not None:
            passed.append(PassedOver(path, known.problem or _missing(path, declared, missing)))
    return tuple(passed)


def first_to_use(paths: Sequence[str], known: Mapping[str, InterpreterFacts]) -> str | None:
    """Return the first of these interpreters that exists and is not known to fail; None if none exists.

    If all of them fail, the first that exists may still run some programs.
    """
    existing = [path for path in paths if known[path].file_identity]
    return next((path for path in existing if not known[path].fails), existing[0] if existing else None)


def _refused_script(path: str, declared: HandlerSpec, flags: Flags) -> str | None:
    """Return why a script cannot be the interpreter, or None; of an architecture O alone is left out instead."""
    if Flags.F in flags:
        return _SCRIPT_WITH_F.format(path, (flags & Flags.P).letters, declared.source)
    if Flags.C in flags or (Flags.O in flags and declared.architecture is None):
        return _SCRIPT_WITH_O.format(path, declared.source)
    return None


def _choose(
    declared: HandlerSpec, facts: Facts, had: Collection[str], missing: Collection[tuple[str, str]]
) -> Handler | Unavailable:
    flags = declared.flags
    if declared.architecture is not None and facts.kernel < P_VISIBLE_FROM:
        flags &= ~Flags.P

    def hold(
        cause: UnavailableReason,
        reason: str,
        *,
        judged: bool = True,
        has_remedy: bool = False,
        untrusted: bool = False,
    ) -> Unavailable:
        return Unavailable(
            declared.name,
            declared.match,
            cause,
            reason,
            declared.architecture,
            declared.interpreters,
            flags,
            declared.priority,
            has_remedy,
            judged and facts.judges_paths,
            untrusted,
        )

    if declared.enabled and not declared.force and (taken := takes_native(declared.match, facts.header, facts.heads)):
        remedy = (
            "narrow its magic and mask, or set force = true to register it anyway"
            if declared.architecture is None
            else f"this host runs {declared.architecture} natively, so take it out of `architectures`"
        )
        return hold(
            UnavailableReason.REFUSED,
            f"it takes this host's {taken}, so each exec of one would fail with ELOOP or run its interpreter instead: "
            f"{remedy} ({declared.source})",
        )
    known = {path: facts.interpreters.get(path, InterpreterFacts()) for path in declared.interpreters}
    path = first_to_use(declared.interpreters, known)
    if path is not None and declared.enabled:
        script = known[path].script and not declared.force
        refusal = known[path].untrusted or (_refused_script(path, declared, flags) if script else None)
        if refusal is not None:
            return hold(UnavailableReason.REFUSED, refusal, untrusted=known[path].untrusted is not None)
        if script:
            flags &= ~Flags.O
        if not known[path].sees_p:
            flags &= ~Flags.P
    # Without F the kernel resolves the path in the root of the process that calls exec, which may not be ours.
    elsewhere = not facts.judges_paths and Flags.F not in flags and not declared.from_all
    if path is None and declared.enabled and not elsewhere:
        for interpreter in declared.interpreters:
            if problem := known[interpreter].problem:
                return hold(UnavailableReason.WAITING, f"{interpreter}: {problem}", judged=False)
        # That an architecture of "all" has no emulator is no news, but that a version is missing is.
        asked = any((declared.store, version_of(path, declared.store)) in missing for path in declared.interpreters)
        without = UnavailableReason.LOST if declared.name in had else UnavailableReason.ABSENT
        cause = without if declared.from_all and not asked else UnavailableReason.WAITING
        in_store = any(version_of(path, declared.store) is not None for path in declared.interpreters)
        return hold(cause, _why_none(declared, missing), has_remedy=in_store)
    return Handler(
        registration=Registration(declared.match, path or declared.interpreters[0], flags),
        yields=declared.from_all,
        **{field: getattr(declared, field) for field in _DECLARED},
    )
