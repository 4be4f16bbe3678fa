"""The assessment of an instance, which a plan is a part of, and the result of a pass."""

import time
from collections.abc import Iterator
from typing import NamedTuple

from binfmtd.errors import WriteRefusedError
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Action, DriftFacts, Plan, PlanContext
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.ownership import foreign


class Assessment(NamedTuple):
    """The observed state, the desired state, and the plan that leads from one to the other.

    ``observed_at`` (monotonic, in seconds): when the entries that other programs have touched were read.
    """

    observed: ObservedState
    desired: DesiredState
    context: PlanContext
    plan: Plan
    observed_at: float = float("inf")

    def foreign(self) -> Iterator[Entry]:
        """Yield the foreign entries, newest first."""
        own = {entry.name for entry in self._own()}
        return (entry for entry in self.observed.entries if entry.name not in own)

    def foreign_count(self) -> tuple[int, int]:
        """Return the numbers of the foreign entries that are enabled, and of those that are disabled."""
        own = self._own()
        enabled = self.observed.enabled - sum(entry.enabled for entry in own)
        return enabled, len(self.observed.entries) - len(own) - enabled

    def _own(self) -> list[Entry]:
        return [entry for entry in self.observed.relevant if not foreign(entry, self.desired, self.context)]


class EndedDrift(NamedTuple):
    """A drift that a pass has ended.  The times are in seconds, from the begin of the drift; None if not known."""

    is_repair: bool  # the entry was in order before the drift
    took: float | None  # until the entry was as declared
    served_after: float | None  # until a stand-in served
    facts: DriftFacts | None  # about its cause


class ReconcileResult:
    """The actions of a pass, and its last assessment.

    ``began`` (monotonic, in seconds): when it had made its first assessment.  ``RepairSchedule.record_reconcile`` sets
    ``ended``: the drifts that the pass has ended, by name.
    """

    def __init__(self, assessment: Assessment) -> None:
        self.assessment = assessment
        self.done: list[Action] = []
        self.began = time.monotonic()
        self.failed: list[tuple[Action, WriteRefusedError]] = []
        self.kept: set[str] = set()  # permanent stand-ins that were written
        self.replaced: dict[str, Entry] = {}  # entries that the pass replaced
        self.others_stand_ins: set[str] = set()  # names of stand-ins to remove that this daemon had not registered
        self.ended: dict[str, EndedDrift] = {}
        self.interpreters_moved = False  # a write was left out, since the file of an interpreter has to be looked at
