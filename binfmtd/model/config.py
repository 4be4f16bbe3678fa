"""A loaded config: the declared handlers, and the rules by which the daemon keeps them.

``resolve`` (desired.py) turns it into the desired state of this host at this moment.
"""

from enum import StrEnum
from typing import NamedTuple

from binfmtd.model.handler import Flags
from binfmtd.model.match import Match

PLACEHOLDER = "{name}"  # in patterns of paths and entry names: stands for the architecture


class Unmanaged(StrEnum):
    """The policy for foreign entries."""

    KEEP = "keep"
    REMOVE = "remove"


class Shadowed(StrEnum):
    """The policy for a newer foreign entry that takes a handler's files."""

    REPORT = "report"
    OUTRANK = "outrank"


class OnStop(StrEnum):
    """The policy for binfmtd's own entries when the daemon stops."""

    KEEP = "keep"
    REMOVE = "remove"


class StandInPolicy(StrEnum):
    """The time during which a handler has its stand-in (model/stand_in.py)."""

    PERMANENT = "permanent"  # at all times
    TEMPORARY = "temporary"  # from a drift until the proper entry is registered again


class Probe(StrEnum):
    """The occasions on which the daemon tests the registered entries; ``Policy.probe`` may be an interval instead."""

    OFF = "off"
    AFTER_REPAIR = "after-repair"


class SetBy(NamedTuple):
    """The settings that change a handler, in the words of messages: keys of the config, or those of a drop-in.

    Example: `binfmt` reads no config, so there the emulators' paths are set by $QEMU_BINARY_PATH.  "": by nothing.
    """

    paths: str = "[emulators] paths"  # names the paths of its emulators; of a drop-in a variable with their directory
    program: str = "name"  # a verb: "name a static program"
    no_flag_f: str = 'set flags = "{}" if the handler is meant for this root alone'  # {}: the flags that are left
    no_credentials: str = "remove the flag"  # C, and O
    match: str = "narrow its magic and mask"
    without: str = "take it out of `architectures`"
    force: str = "set force = true to register it anyway"


class HandlerSpec(NamedTuple):
    """A handler as the config declares it, before its interpreter is looked up on this host."""

    name: str
    match: Match
    interpreters: tuple[str, ...]  # absolute paths; the first that exists is used
    flags: Flags
    priority: int = 0
    enabled: bool = True
    force: bool = False  # may take native programs
    architecture: str | None = None  # its catalog name, if it comes from `architectures`
    from_all: bool = False  # declared by "all", not by its own name
    unless_native: bool = False  # declared by name, but left out where the architecture runs natively
    store: str = ""  # the directory of the emulators' versions, for an architecture
    included: bool = False  # from binfmt.d: systemd-binfmt registers it at boot, whatever the config says
    source: str = ""  # file and key, for messages
    set_by: SetBy = SetBy()  # for messages


class Policy(NamedTuple):
    """The settings that are not handlers.  ``resync``, ``settle`` and a number as ``probe`` are in seconds."""

    unmanaged: Unmanaged = Unmanaged.KEEP
    keep: tuple[str, ...] = ("WSLInterop*", "python3*")  # globs over entry names
    restore: tuple[str, ...] = ("WSLInterop*",)  # globs over the names of foreign entries
    shadowed: Shadowed = Shadowed.REPORT
    on_stop: OnStop = OnStop.KEEP
    resync: float = 300.0
    settle: float = 0.020
    reload_on_change: bool = False
    stand_ins: StandInPolicy = StandInPolicy.PERMANENT
    sealed: bool | None = None  # False: open also what another process sealed; None: leave that as it is
    probe: Probe | float = Probe.OFF  # a number: after repairs, and at this interval


class Metrics(NamedTuple):
    """The outputs for metrics.  By default there are none."""

    textfile: str | None = None  # for node_exporter
    listen: tuple[str, int] | None = None  # HTTP: address and port


class Config(NamedTuple):
    """The content of all config files.  ``specs`` are in declared order, one for each name."""

    specs: tuple[HandlerSpec, ...]
    policy: Policy = Policy()
    metrics: Metrics = Metrics()
    sources: tuple[str, ...] = ()  # the files that were read, in order
    warnings: tuple[str, ...] = ()  # things that are allowed but surprising, such as a name declared twice
    labels: str | None = None  # path of the file for node-feature-discovery
    architectures: tuple[str, ...] | None = None  # those of --arch or $BINFMTD_ARCH, in place of the files' own
