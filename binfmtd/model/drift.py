"""Differences, and what ends them: the words that plan, log, status and metrics share."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from binfmtd.model.desired import Fingerprint
from binfmtd.model.handler import Handler, Registration
from binfmtd.model.pause import Pauses
from binfmtd.model.standin import is_stand_in


class Drift(StrEnum):
    """One difference between the desired and the observed state."""

    MISSING = "missing"
    CHANGED = "changed"
    DISABLED = "disabled"
    UNWANTED = "unwanted"
    OUT_OF_ORDER = "out_of_order"
    STALE_INTERPRETER = "stale_interpreter"
    SWITCHED_OFF = "switched_off"


class Act(StrEnum):
    """What is done to one entry."""

    REGISTER = "register"
    REMOVE = "remove"
    ENABLE = "enable"
    DISABLE = "disable"
    REPLACE = "replace"  # registered anew under the same name, a stand-in serving meanwhile
    RESTORE = "restore"  # a foreign entry that went with a flush, registered again as it was


class Action(NamedTuple):
    """One step of a plan, with the drift that it ends.  ``handler`` is there for register, replace and restore.

    ``dragged``: the entry is as it should be, and only has to stay above another that is registered anew.
    """

    act: Act
    entry: str
    drift: Drift
    reason: str
    handler: Handler | None = None
    dragged: bool = False


def additive(action: Action) -> bool:
    """Whether an action is allowed to who only adds: it takes away no entry but left-over stand-ins."""
    return action.act is not Act.REMOVE or is_stand_in(action.entry)


class Record(NamedTuple):
    """What the ledger knows of one entry that binfmtd registered.

    ``inode`` is None between the intent and the deed.  ``pinned`` is the file that F opened, and None where that is not
    certain: then nobody vouches for it.
    """

    registration: Registration
    inode: int | None = None
    pinned: Fingerprint | None = None


class Remembered(NamedTuple):
    """A foreign entry that the config's ``restore`` names, as it was when it was last seen.

    ``above``: it wins over a handler of ours that takes some of its files.  ``lost``: it went with a flush.
    """

    registration: Registration
    enabled: bool
    inode: int
    above: bool = False
    lost: bool = False


class Surroundings(NamedTuple):
    """What a plan has to know beside the entries themselves."""

    records: Mapping[str, Record] = MappingProxyType({})
    broken: frozenset[str] = frozenset()  # foreign entries whose interpreter cannot be executed
    bricking: frozenset[str] = frozenset()  # foreign entries that stop every exec, or would if they were enabled
    remembered: Mapping[str, Remembered] = MappingProxyType({})  # foreign entries to restore, oldest first
    others_stand_ins: frozenset[str] = frozenset()  # another daemon on this instance is at work with them
    pauses: Pauses = Pauses()  # what is left as it is
    refused: frozenset[str] = frozenset()  # what the kernel would not register when it was tried last


class Plan(NamedTuple):
    """The ordered actions that end all drift, and who already serves what we leave alone."""

    actions: tuple[Action, ...] = ()
    served_elsewhere: Mapping[str, str] = MappingProxyType({})  # handler -> foreign entry
    shadowed: Mapping[str, str] = MappingProxyType({})  # handler -> foreign entry above it
    yielding_to: Mapping[str, tuple[str, ...]] = MappingProxyType({})  # handler -> foreign entries that may win
    blocked: Mapping[str, str] = MappingProxyType({})  # handler -> why it cannot be registered where it belongs
    stand_ins: tuple[Action, ...] = ()  # to have permanent stand-ins as they should be, lowest rank first
