"""What a look at everything found, and what a pass did about it."""

import time
from typing import NamedTuple

from binfmtd.errors import WriteRefusedError
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Action, Plan, Surroundings
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.ownership import foreign


class Look(NamedTuple):
    """What was seen, what should be, and what would have to be done."""

    observed: ObservedState
    desired: DesiredState
    surroundings: Surroundings
    plan: Plan

    def foreign(self) -> dict[str, bool]:
        """The names of the entries that belong to others, newest first, and whether each is enabled."""
        entries = self.observed.entries
        return {entry.name: entry.enabled for entry in entries if foreign(entry, self.desired, self.surroundings)}

    def providers(self) -> list[str]:
        """The interpreters of the foreign entries that serve in our place, where anybody can tell where they lie.

        The kernel takes a relative path, too, from the directory of whoever registered it (F) or executes something.
        """
        entries = (self.observed.by_name.get(name) for name in self.plan.served_elsewhere.values())
        paths = {entry.registration.interpreter for entry in entries if entry and entry.registration}
        return sorted(path for path in paths if path.startswith("/"))


class PassResult:
    """What a pass did, when it began (monotonic, in seconds), and the last look at what it left."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.done: list[Action] = []
        self.began = time.monotonic()
        self.failed: list[tuple[Action, WriteRefusedError]] = []
        self.bridged: list[str] = []  # names that got a stand-in
        self.kept: set[str] = set()  # permanent stand-ins that were written
        self.replaced: dict[str, Entry] = {}  # what stood in the place of ours
