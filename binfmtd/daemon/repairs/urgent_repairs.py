"""The urgent repairs: what the daemon does at once about events, before all else.

``FastRepair`` has the handlers and knows what to write.  This module reads the events before and during a repair, opens
the instance, and reports the repair when programs run again.

Example: another program removes both entries of a handler.  ``repair`` registers the stand-in, and then has the drift
logged and counted.
"""

import time
from collections.abc import Collection
from contextlib import suppress
from typing import NamedTuple

from binfmtd.daemon.entries.fast_repair import FastRepair, FastRepairResult
from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.repairs.event_reader import EventReader, TouchedEntries
from binfmtd.daemon.repairs.instance_access import InstanceAccess
from binfmtd.daemon.repairs.repair_schedule import RepairSchedule
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.daemon.watches.events import PendingEvents
from binfmtd.daemon.watches.instance_watch import InstanceWatch
from binfmtd.errors import MountError, WriteRefusedError
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.writer import Writer
from binfmtd.model.pause import Pauses
from binfmtd.model.plan import INSTANCE
from binfmtd.model.stand_in import stand_in_name

_REGISTERS_AGAIN = 0.002  # seconds from a removal by name to a registration by the same program, at most


class Answer(NamedTuple):
    """An urgent repair that has been made, and has still to be reported.

    ``began`` (monotonic) and ``seconds`` are the time that it took; ``cpu`` is this thread's CPU time before it and
    before the reading of the events.  All are in seconds.
    """

    look_for: PendingEvents
    events: PendingEvents
    reaction: FastRepairResult
    exec_breaking: list[str]
    began: float
    seconds: float
    cpu: float


class UrgentRepairs:
    """The maker of urgent repairs, prepared by the last pass."""

    def __init__(
        self,
        access: InstanceAccess,
        events: EventReader,
        touched: TouchedEntries,
        reconciler: Reconciler,
        schedule: RepairSchedule,
        instance_watch: InstanceWatch,
        report: Reporter,
    ) -> None:
        self._access = access
        self._events = events
        self._touched = touched
        self._reconciler = reconciler
        self._schedule = schedule
        self._instance_watch = instance_watch
        self._report = report
        self._fast_repair: FastRepair | None = None
        self._waited: FastRepair | None = None  # in which a repair has waited for a registration
        self._written_unreached: set[str] = set()  # foreign entries written to while the instance was out of reach
        self.knows_instance = False  # the last pass was made on this instance
        events.on_flush = self._rush

    @property
    def prepared(self) -> bool:
        """True if a pass has been made."""
        return self._fast_repair is not None

    def prepare(self, fast_repair: FastRepair) -> None:
        """Use what a pass has found."""
        self._fast_repair = fast_repair
        self.knows_instance = True

    def hold(self, pauses: Pauses) -> None:
        """Leave alone what these pauses hold, also before the next pass."""
        if self._fast_repair is not None:
            self._fast_repair.hold(pauses)

    def instance_found(self, *, fresh: bool) -> None:
        """Take in that an instance is attached.

        ``fresh``: it is another one, or was out of reach until now.
        """
        if fresh:
            self.knows_instance = False
        if not self._instance_watch.unbroken:
            self._events.forget_own_writes()
            self._written_unreached.clear()
        elif fresh or self._written_unreached:
            self._catch_up()

    def _catch_up(self) -> None:
        """Forget the foreign entries that other programs removed by name while the instance was out of reach."""
        if not self._events.throttled():
            self._events.read()
        written = self._written_unreached | self._events.pending.entries_written
        with suppress(MountError), self._access.open() as (instance, _):
            self._reconciler.removed_by_name(written, instance)
            self._written_unreached.clear()

    def repair(self, cpu: float) -> tuple[PendingEvents, FastRepairResult]:
        """Repair what the events call for, then report it; return the events and the repair.

        ``cpu``: this thread's CPU time before they were read, in seconds.

        The kernel comes first: stand-ins, drifts that one write ends, and entries that stop every exec.
        """
        events = self._events.take()
        if self._fast_repair is not None and self._fast_repair is not self._waited:
            self._await_registration(events, self._fast_repair)
        answer = self._answer(events, events, cpu)
        self.report(answer)
        return events, answer.reaction

    def repair_pending(self) -> Answer | None:
        """Repair what another program did to entries during a pass; all other events are left for ``repair``.

        The caller reports the answer (``report``) after the pass, whose result does not contain it.
        """
        if self._events.throttled():
            return None  # else one pass would lead to the next
        cpu = time.thread_time()
        self._events.read()
        if not (self._events.pending.entries or self._events.pending.any_entry):
            return None
        events = self._events.take()
        answer = self._answer(events, events, cpu)
        self._events.pending.add(events.beside_entries())
        return answer

    def check_identities(self, names: Collection[str] = ()) -> bool:
        """Look at these handlers, or at all, without any event, and repair; return True if something new was found.

        For the time in which the throttle keeps events unread, and for stand-ins that were withheld.
        """
        cpu, known = time.thread_time(), self._schedule.drifting()
        look_for = PendingEvents({*names, *map(stand_in_name, names)}, any_entry=not names)
        look_for.entries_written |= look_for.entries  # as if removed by name: no more events are to be read
        look_for.flushed = INSTANCE in names
        answer = self._answer(look_for, PendingEvents(), cpu)
        self.report(answer)
        return bool(answer.reaction.drifts.keys() - known or answer.reaction.repaired)

    def report(self, answer: Answer) -> None:
        """Report an urgent repair.  The kernel has its handlers again: from here on nothing is urgent."""
        reaction = answer.reaction
        for name in answer.exec_breaking:
            self._report.exec_breaking_disabled(name)
        self._report.reacted(reaction, answer.look_for, answer.seconds)
        self._schedule.record_fast_repair(answer.events, reaction, answer.began, answer.began + answer.seconds)
        for name, refusal in reaction.refused.items():
            self._reconciler.stand_in_refused(name, refusal)
            self._instance_watch.failed(refusal)
        if answer.look_for.entries or answer.look_for.any_entry:
            self._touched.add(answer.events.entries, {*reaction.drifts, *reaction.fixed, *reaction.kept})
        if reaction.repaired:  # else the throttle pays
            self._schedule.spent_on_repair(time.thread_time() - answer.cpu)

    def _rush(self) -> None:
        """Register the permanent stand-ins before the events are examined, which look like those of a flush."""
        if self._fast_repair is None or self._events.throttled():
            return
        cpu = time.thread_time()
        # `repair` comes next, and reports the reason of an error.
        with suppress(FileNotFoundError, WriteRefusedError), self._access.write_by_path() as writer:
            if writer is None:
                return
            try:
                self._fast_repair.rush(writer)
            finally:
                self._schedule.spent(time.thread_time() - cpu)

    def _answer(self, look_for: PendingEvents, events: PendingEvents, cpu: float) -> Answer:
        began = time.monotonic()
        reaction, exec_breaking = self._repair(look_for)
        events.flushed |= look_for.flushed  # only the look has found it, if there were no events
        return Answer(look_for, events, reaction, exec_breaking, began, time.monotonic() - began, cpu)

    def _repair(self, events: PendingEvents) -> tuple[FastRepairResult, list[str]]:
        if self._fast_repair is None or not (events.entries or events.any_entry):
            return FastRepairResult(), []
        if self._access.mounted is None or events.watch_removed:  # then its directory may be an automount by now
            self._out_of_reach(events)
            return FastRepairResult(), []
        reaction, exec_breaking = None, list[str]()
        try:
            with self._access.open() as (instance, writer):
                cpu = time.thread_time()
                reaction = self._fast_repair.react(events, lambda: self._more(writer), instance, writer)
                if reaction.bridged or reaction.kept or reaction.helped or INSTANCE in reaction.fixed:
                    self._schedule.spent(time.thread_time() - cpu)
                self._events.pending.any_entry |= _registered_meanwhile(reaction, instance)
                stood_in = [*reaction.bridged, *reaction.kept]
                self._reconciler.stood_in(stood_in, instance, self._access.unchanged)
                self._reconciler.removed_by_name(events.entries_written, instance)
                exec_breaking = self._reconciler.disable_exec_breaking(
                    instance, writer, events.entries, everything=events.any_entry
                )
        except MountError as error:
            self._out_of_reach(events)
            events.watch_removed = True
            self._instance_watch.failed(error)
        except WriteRefusedError as error:
            self._instance_watch.failed(error)
            self._report.trouble(self._instance_watch.problem or str(error))
        return reaction or FastRepairResult(), exec_breaking

    def _out_of_reach(self, events: PendingEvents) -> None:
        """Keep what ``removed_by_name`` needs: a mount may cover the instance, whose watch goes on."""
        self._written_unreached |= events.entries_written & self._reconciler.foreign_entries.entries.keys()

    def _await_registration(self, events: PendingEvents, prepared: FastRepair) -> None:
        """Wait up to 2 ms, once between two passes, for a program that removed an entry by name to register another.

        The new entry is newer than the stand-in, and serves until the stand-in is above it.  When the registration
        comes, little is left to do here.  Meanwhile no descriptor is open that would prevent the program from
        unmounting.

        A shell truncates `register` before it writes the line, and the event of that comes first.
        """
        if not prepared.is_served(events):
            return
        until = time.monotonic() + _REGISTERS_AGAIN
        while prepared.is_served(events) and not self._events.throttled() and (left := until - time.monotonic()) > 0:
            if events.any_entry and self._help(events, prepared):
                return
            self._waited = prepared
            self._events.read_within(left)
            events.add(self._events.take())

    def _help(self, events: PendingEvents, prepared: FastRepair) -> bool:
        """Have a helper serve if an entry was registered again; return True if so, or if no write is possible."""
        cpu = time.thread_time()
        with suppress(MountError, WriteRefusedError), self._access.open() as (instance, writer):
            registered_again = prepared.help(events, instance, writer)
            if registered_again:
                self._schedule.spent(time.thread_time() - cpu)
            return registered_again
        return True

    def _more(self, writer: Writer) -> PendingEvents:
        """Return the events of other programs since the last reading; the caller has to handle them."""
        if not self._events.throttled():
            self._events.leave_out(writer)
            self._events.read()
        return self._events.take()


def _registered_meanwhile(reaction: FastRepairResult, instance: Instance) -> bool:
    """Return True if another program has registered one of our names while we registered its stand-in.

    If two processes write to `register` at the same time, the kernel merges the events of both (inotify(7)), and those
    of the other program count as ours.
    """
    found = {name: entry.inode for name, entry in reaction.actual.items()}
    drifted = (name for name in reaction.bridged if name in reaction.drifts)
    return any(instance.inode(name) not in (None, found.get(name)) for name in drifted)
