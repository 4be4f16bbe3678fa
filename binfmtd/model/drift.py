"""Drifts and the actions that end them: the terms that plan, log, status and metrics share."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from binfmtd.model.desired import FileIdentity
from binfmtd.model.handler import Handler, Registration
from binfmtd.model.pause import Pauses
from binfmtd.model.stand_in import is_stand_in


class Drift(StrEnum):
    """A kind of difference between the desired and the observed state."""

    MISSING = "missing"
    CHANGED = "changed"
    DISABLED = "disabled"
    UNWANTED = "unwanted"
    OUT_OF_ORDER = "out_of_order"
    STALE_INTERPRETER = "stale_interpreter"
    SWITCHED_OFF = "switched_off"

    @property
    def differs(self) -> bool:
        """True if an entry exists under the name, and its registration is not the declared one.

        The log then describes the difference, and exchanging its stand-in counts towards the backoff.
        """
        return _DIFFERS[self]


_DIFFERS = {
    Drift.MISSING: False,
    Drift.CHANGED: True,
    Drift.DISABLED: False,
    Drift.UNWANTED: False,
    Drift.OUT_OF_ORDER: False,
    Drift.STALE_INTERPRETER: False,
    Drift.SWITCHED_OFF: False,
}


class DriftFacts(NamedTuple):
    """The known facts about the cause of one open drift."""

    drift: Drift
    by_name: bool  # a process wrote to the entry's own file
    flushed: bool
    tool: str | None = None  # the tool that registers entries like the one in its place
    detail: str = ""  # how the entry differs


class Act(StrEnum):
    """A kind of change to one entry."""

    REGISTER = "register"
    REMOVE = "remove"
    ENABLE = "enable"
    DISABLE = "disable"
    REPLACE = "replace"  # register again under the same name; a stand-in serves meanwhile
    RESTORE = "restore"  # register a foreign entry again, as it was before a flush removed it


class Action(NamedTuple):
    """One step of a plan, with the drift that it ends.  ``handler`` is set for register, replace and restore.

    ``for_order_only``: the entry itself is in order; it moves only to stay above an entry that is registered again.
    """

    act: Act
    entry: str
    drift: Drift
    reason: str
    handler: Handler | None = None
    for_order_only: bool = False


def additive(action: Action) -> bool:
    """Return True if a command that only adds may take the action: it removes only stand-ins that are left over."""
    return action.act is not Act.REMOVE or is_stand_in(action.entry)


class Record(NamedTuple):
    """The ledger's record of one entry that binfmtd registered.

    ``inode`` is None while the registration may still come, as after a write that the daemon has given up.
    ``opened_file`` is the file that F opened.  It is None if that file is not certain, and the entry then counts as
    stale.
    """

    registration: Registration
    inode: int | None = None
    opened_file: FileIdentity | None = None


class Remembered(NamedTuple):
    """A foreign entry that the config's ``restore`` names, as it was at the last pass that found it.

    ``above``: it wins over a declared handler that takes some of its files.  ``lost``: a flush removed it.
    """

    registration: Registration
    enabled: bool
    inode: int
    above: bool = False
    lost: bool = False


class PlanContext(NamedTuple):
    """The inputs of a plan besides the desired and the observed state."""

    records: Mapping[str, Record] = MappingProxyType({})
    broken: frozenset[str] = frozenset()  # foreign entries whose interpreter cannot be executed
    exec_breaking: frozenset[str] = frozenset()  # entries, not as declared, that break every exec, or would if enabled
    remembered: Mapping[str, Remembered] = MappingProxyType({})  # foreign entries to restore, oldest first
    others_stand_ins: frozenset[str] = frozenset()  # stand-ins of another daemon on this instance
    pauses: Pauses = Pauses()  # entries that are left as they are
    refused: frozenset[str] = frozenset()  # names that the kernel refused to register at the last attempt


class Plan(NamedTuple):
    """The ordered actions that end all drift, and the handlers that are left to foreign entries, or blocked."""

    actions: tuple[Action, ...] = ()
    served_elsewhere: Mapping[str, str] = MappingProxyType({})  # handler -> foreign entry
    shadowed: Mapping[str, str] = MappingProxyType({})  # handler -> foreign entry above it
    yielding_to: Mapping[str, tuple[str, ...]] = MappingProxyType({})  # handler -> foreign entries that may win
    blocked: Mapping[str, str] = MappingProxyType({})  # handler -> why it cannot be registered at its rank
    stand_ins: tuple[Action, ...] = ()  # writes for permanent stand-ins that have drifted, lowest rank first
