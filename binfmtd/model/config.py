"""A loaded config: what was declared, and by which rules the daemon keeps it.

``resolve`` (desired.py) turns it into the desired state of this host at this moment.
"""

from enum import StrEnum
from typing import NamedTuple

from binfmtd.model.handler import Flags
from binfmtd.model.match import Match

PLACEHOLDER = "{name}"  # in patterns of paths and entry names: the architecture


class Unmanaged(StrEnum):
    """What becomes of entries that nobody declared."""

    KEEP = "keep"
    REMOVE = "remove"


class Shadowed(StrEnum):
    """What is done about a foreign entry that takes our files."""

    REPORT = "report"
    OUTRANK = "outrank"


class OnStop(StrEnum):
    """What becomes of our entries when the daemon ends."""

    KEEP = "keep"
    REMOVE = "remove"


class StandInPolicy(StrEnum):
    """How long a handler has its stand-in (model/standin.py)."""

    PERMANENT = "permanent"  # at all times
    TEMPORARY = "temporary"  # from a drift until the proper entry is registered again


class Probe(StrEnum):
    """When the daemon tries what is registered, unless it does so at intervals."""

    OFF = "off"
    AFTER_REPAIR = "after-repair"


class Declaration(NamedTuple):
    """One handler as declared, before this host is asked which interpreter is there."""

    name: str
    match: Match
    interpreters: tuple[str, ...]  # absolute paths; the first that exists is taken
    flags: Flags
    priority: int = 0
    enabled: bool = True
    force: bool = False  # takes native programs, on purpose
    architecture: str | None = None  # its catalog name, where it came from `architectures`
    from_all: bool = False  # by "all", not by its own name
    unless_native: bool = False  # asked for by name, but not where it runs natively anyhow
    included: bool = False  # from binfmt.d, which has it whatever the config says
    source: str = ""  # file and key, for messages


class Policy(NamedTuple):
    """The settings that are not handlers.  ``resync`` and ``settle`` are seconds, and so is ``probe`` if a number."""

    unmanaged: Unmanaged = Unmanaged.KEEP
    keep: tuple[str, ...] = ("WSLInterop*", "python3*")  # globs over entry names
    restore: tuple[str, ...] = ("WSLInterop*",)  # globs over the names of foreign entries
    shadowed: Shadowed = Shadowed.REPORT
    on_stop: OnStop = OnStop.KEEP
    resync: float = 300.0
    settle: float = 0.020
    reload_on_change: bool = False
    stand_ins: StandInPolicy = StandInPolicy.PERMANENT
    sealed: bool | None = None  # False: open what another process sealed, too; None: leave it as it is
    probe: Probe | float = Probe.OFF  # a number: after repairs, and so often besides


class Metrics(NamedTuple):
    """Who is told how the daemon fares; nobody, unless it says so."""

    textfile: str | None = None  # for node_exporter
    listen: tuple[str, int] | None = None  # HTTP: address and port


class Config(NamedTuple):
    """Everything that the files say.  ``declarations`` are in declared order, one for each name."""

    declarations: tuple[Declaration, ...]
    policy: Policy = Policy()
    metrics: Metrics = Metrics()
    sources: tuple[str, ...] = ()  # the files that were read, in order
    warnings: tuple[str, ...] = ()  # what is allowed but surprising: a name declared twice, say
    labels: str | None = None  # the file for node-feature-discovery
