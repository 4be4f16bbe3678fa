"""The desired state of this host: the handlers to register, and those that cannot be registered now, with the reasons.

``resolve`` (resolve.py) makes it from the config and the facts about this host, which are defined here as well.
"""

from bisect import bisect_right
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

from binfmtd.model.config import Policy, SetBy, StandInPolicy
from binfmtd.model.guard import NativeHeader
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Match
from binfmtd.model.precedence import order_matters, overlaps
from binfmtd.model.shared_files import SharedFiles
from binfmtd.model.stand_in import stand_in_name

QEMU_SEES_P_FROM = (6, 0)
_MOST_MATCHES = 1 << 15  # that are kept in a cache: there may be 20,000 entries


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
    paths_set_by: str = SetBy().paths


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
        opened = registration.interpreter in self.remote and Flags.F in registration.flags
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
