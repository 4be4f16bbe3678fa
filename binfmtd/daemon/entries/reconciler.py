"""The pass: observe, plan, apply, and observe again.

All commands use the same code: the daemon makes a pass when the kernel wakes it, ``apply`` makes one, and ``plan``
stops before it writes.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from errno import ETIMEDOUT
from functools import cache
from typing import NamedTuple

from binfmtd.daemon.assessment import Assessment, ReconcileResult
from binfmtd.daemon.entries.adoption import Adoption
from binfmtd.daemon.entries.entry_index import EntryIndex
from binfmtd.daemon.entries.entry_state import Event, StateTable
from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.daemon.state_files.foreign_entries import ForeignEntryStore, can_be_written
from binfmtd.daemon.state_files.ledger import Ledger
from binfmtd.errors import Again, WriteRefusedError
from binfmtd.host.interpreters import cannot_run
from binfmtd.kernel.executor import Outcome, PlanExecutor
from binfmtd.kernel.instance import Instance, Observer
from binfmtd.kernel.steps import Steps, in_one_go
from binfmtd.kernel.write_gate import WriteGate
from binfmtd.kernel.writer import DISABLE, REMOVE, Writer
from binfmtd.model.config import Config
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Act, Action, Drift, Plan, PlanContext, Record
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.guard import breaks_exec
from binfmtd.model.handler import Handler, Registration
from binfmtd.model.match import takes
from binfmtd.model.ownership import equal, foreign, registered_by_us
from binfmtd.model.pause import Pauses
from binfmtd.model.plan import plan, removal_plan
from binfmtd.model.resolve import resolve
from binfmtd.model.restore import remember
from binfmtd.model.stand_in import is_stand_in, stand_in_name

InForce = Callable[[], Sequence[Registration]]

_ROUNDS = 4  # at most; the second finds nothing to do, unless another program writes meanwhile


class Scanned(NamedTuple):
    """The entries, as a scan has found them."""

    observed: ObservedState
    desired: DesiredState
    at: float  # monotonic, in seconds: when the scan began
    before: Collection[int]  # the inode numbers of the entries that were known before it


class Reconciler:
    """The state between passes: the config, what is known of this host, and what binfmtd has registered."""

    def __init__(self, config: Config, facts: HostFacts, ledger: Ledger, foreign_entries: ForeignEntryStore) -> None:
        self.config = config
        self.ledger = ledger
        self.foreign_entries = foreign_entries
        self.pauses = Pauses()
        self.states = StateTable()
        self.adoption = Adoption(self.states, ledger)
        self.facts = facts
        self._had: set[str] = set()  # handlers from "all" that had an interpreter under this config
        self._desired: DesiredState | None = None  # None: config or interpreters have changed; it caches what overlaps
        self._observer = Observer()
        self._index = EntryIndex(facts.heads)

    @property
    def failed(self) -> dict[str, WriteRefusedError]:
        """The refusals of the names that are not tried again until something changes, or `resync` (see `refused`)."""
        return self.states.failed()

    def use(self, config: Config) -> None:
        """Use another config, whose interpreters have been looked at."""
        self.config = config
        self.states.apply_all(Event.RETRIED)
        self._had.clear()
        self._desired = resolve(config, self.facts.gather(config, None))

    def use_pauses(self, pauses: Pauses) -> None:
        """Put these pauses in force, and no others."""
        self.pauses = pauses

    def retry(self, *, interpreters: bool = False) -> None:
        """Let what failed be tried again; ``interpreters``: also gather facts anew, since interpreters have changed."""
        self.states.apply_all(Event.RETRIED)
        if interpreters:
            self._desired = None

    def intend(self) -> None:
        """Record in the ledger that all handlers may be registered, before any of them is."""
        if self._desired is not None:
            self.ledger.intend(self._desired.handlers)

    def interpreter_arrived(self) -> None:
        """Use new facts about interpreters; what failed is not tried again before everything is quiet."""
        self._desired = None

    def stand_in_refused(self, name: str, error: WriteRefusedError) -> None:
        """Record that the kernel has refused a handler's stand-in, as in ``refused``."""
        if error.again is not Again.NOW:
            self.states.apply(name, Event.STAND_IN_REFUSED, error=error)

    def refused(self, name: str, error: WriteRefusedError) -> None:
        """Record a refusal by the kernel: no new try before something changes, or a while has passed.

        A refusal that the next try may end (Again.NOW) is not recorded.
        """
        if error.again is not Again.NOW:
            self.states.apply(name, Event.REFUSED, error=error)

    def assess(self, instance: Instance, touched: set[str] | None = None) -> Assessment:
        """Observe the instance and plan.  Raises MountError.

        ``touched``: the entries to read again although their inode numbers are the same; None: all.
        """
        return self._assess(in_one_go(self.scan(instance, touched)))

    def scan(self, instance: Instance, touched: set[str] | None = None) -> Steps[Scanned]:
        """Observe the instance in slices of about 0.1 ms; ``touched`` as in ``assess``.  Raises MountError.

        What other programs change between two slices calls for another scan (``rescan``).
        """
        before = (self._observer.inodes() or self.foreign_entries.inodes()) if self.foreign_entries.entries else ()
        at = time.monotonic()
        observed = yield from self._observer.scan(instance, touched)
        self.ledger.claim(observed, instance.created())
        if (desired := self._desired) is None:
            desired = self._desired = resolve(self.config, self.facts.gather(self.config, observed), self._had)
        observed = yield from self._index.without_bystanders(observed, desired, self.ledger.records)
        return Scanned(observed, desired, at, before)

    def rescan(self, instance: Instance, scanned: Scanned, touched: set[str]) -> Scanned:
        """Observe the instance again, of which another program has ``touched`` these entries during the scan."""
        return in_one_go(self.scan(instance, touched))._replace(before=scanned.before)

    def _assess(self, scanned: Scanned) -> Assessment:
        observed, desired = scanned.observed, scanned.desired
        failed, others_stand_ins = self.failed, self.adoption.adopt(observed, desired)
        context = self._context(observed, desired)
        known = remember(self.foreign_entries.entries, observed, desired, context, scanned.before)
        standing = _in_force(observed)
        self.foreign_entries.entries = {
            name: remembered
            for name, remembered in known.items()
            if can_be_written(name, remembered)
            and not (remembered.lost and self._breaks_exec(remembered.registration, standing))
        }
        to_restore = {
            name: remembered for name, remembered in self.foreign_entries.entries.items() if name not in failed
        }
        context = context._replace(
            remembered=to_restore,
            others_stand_ins=others_stand_ins,
            pauses=self.pauses,
            refused=frozenset(failed),
        )
        planned = plan(desired, observed, context)
        self._had |= {h.name for h in desired.handlers if h.yields} - planned.served_elsewhere.keys()
        return Assessment(observed, desired, context, planned, scanned.at)

    def reconcile(
        self,
        instance: Instance,
        writer: Writer,
        scanned: Scanned | None = None,
        *,
        gate: WriteGate | None = None,
        unchanged: Callable[[str], bool] | None = None,
        last: bool = True,
    ) -> ReconcileResult:
        """Write what is due, and observe again until nothing due is left to do.

        ``scanned`` is a scan that has just been made; by default this method makes one.  ``gate`` is asked before each
        write; by default it allows all but permanent stand-ins.  ``unchanged`` as in PlanExecutor; by default the
        interpreters' own.

        An entry that this pass has registered may be gone again meanwhile.  Only a pass that is the ``last`` registers
        it anew; otherwise it waits for the next pass.
        Raises MountError, and WriteRefusedError where nothing can be written.
        """
        gate = gate or WriteGate()
        unchanged = unchanged or self.facts.interpreters.unchanged
        assessment = self._assess(scanned or in_one_go(self.scan(instance)))
        result = ReconcileResult(assessment)
        for _ in range(_ROUNDS):
            failed = self.failed
            owners = {stand_in.name: name for name, stand_in in assessment.desired.permanent.items()}
            undone = set() if last else {a.entry for a in result.done if a.act in (Act.REGISTER, Act.REPLACE)}
            actions = tuple(
                a
                for a in assessment.plan.actions
                if a.entry not in failed and gate.considers(a) and not (a.drift is Drift.MISSING and a.entry in undone)
            )
            stand_ins = tuple(
                a
                for a in assessment.plan.stand_ins
                if gate.may_keep(owners[a.entry], a.drift) and not (a.drift is Drift.MISSING and a.entry in result.kept)
            )
            if not actions and not stand_ins:
                break
            self._save_foreign()
            self.ledger.intend(assessment.desired.handlers)
            result.replaced |= {a.entry: assessment.observed.by_name[a.entry] for a in actions if a.act is Act.REPLACE}
            result.others_stand_ins |= self._others_stand_ins(actions, assessment.observed)
            todo = assessment.plan._replace(actions=actions, stand_ins=stand_ins)
            executor = PlanExecutor(todo, assessment.desired, instance, writer, gate, unchanged)
            try:
                outcome = executor.run()
            finally:  # what was registered before an error is ours, too
                self._take_in(executor.outcome, result)
            if outcome.interpreters_moved:
                self._desired = None
                result.interpreters_moved = True
            judged = assessment.desired.file_identities
            assessment = result.assessment = self._look_after(instance, assessment, todo, outcome, last=last)
            if not outcome.done and not outcome.kept and assessment.desired.file_identities == judged:
                break
        self._forget_void(assessment.observed)
        # A daemon may register them again at any moment, and its ledger is written later than that.
        intended = _to_be_registered(assessment.plan.actions) if last else assessment.desired.handlers
        self.ledger.save(intended, assessment.observed)
        self._save_foreign()
        return result

    def _others_stand_ins(self, actions: Iterable[Action], observed: ObservedState) -> set[str]:
        """Return the stand-ins that these actions remove, and that this daemon has not registered."""
        removed = [observed.by_name[a.entry] for a in actions if a.act is Act.REMOVE and is_stand_in(a.entry)]
        return {each.name for each in removed if not registered_by_us(each, self.ledger.records.get(each.name))}

    def _look_after(
        self, instance: Instance, assessment: Assessment, executed: Plan, outcome: Outcome, *, last: bool
    ) -> Assessment:
        """Look at what was written; at everything if another program has removed any of it, or no pass follows."""
        at, actions = time.monotonic(), (*executed.actions, *executed.stand_ins)
        before = self._observer.inodes() if self.foreign_entries.entries else ()
        written = {action.entry for action in actions}
        written |= {name for entry in written for name in (stand_in_name(entry), stand_in_name(stand_in_name(entry)))}
        there = {a.entry for a in outcome.done if a.act in (Act.REGISTER, Act.REPLACE, Act.RESTORE)}
        there.update(outcome.kept)
        observed = None if last else self._observer.refresh(instance, assessment.observed, written)
        if observed is None or self._desired is not assessment.desired or not there <= observed.by_name.keys():
            return self.assess(instance, written)
        self.ledger.claim(observed, instance.created())
        return self._assess(Scanned(observed, assessment.desired, at, before))

    def removed_by_name(self, names: Collection[str], instance: Instance) -> None:
        """Forget those of these entries that are gone: a program wrote to their own files, so they are not restored."""
        remembered = [name for name in names if name in self.foreign_entries.entries]
        self.foreign_entries.forget([name for name in remembered if instance.inode(name) is None])

    def disable_exec_breaking(
        self, instance: Instance, writer: Writer, touched: Collection[str], *, everything: bool
    ) -> list[str]:
        """Disable entries that stop every exec, without waiting for quiet; return their names.

        Examines the entries that were ``touched`` and, with ``everything``, those that are new.  Raises MountError and
        WriteRefusedError.
        """
        entries = [entry for name in touched if (entry := instance.entry(name)) is not None]
        entries += self._observer.newcomers(instance) if everything else []
        suspects = [entry for entry in entries if entry.enabled and self._takes_programs(entry)]
        if not suspects or self._desired is None:
            return []
        standing = _in_force(Observer().observe(instance))
        exec_breaking = [entry.name for entry in suspects if self._is_exec_breaking(entry, standing, self._desired)]
        for name in exec_breaking:
            writer.control(name, DISABLE)
        return exec_breaking

    def remove_owned(self, instance: Instance, writer: Writer) -> tuple[list[Action], Assessment]:
        """Remove every entry that is ours (`on_stop = "remove"`); return the removals, and an assessment of the rest.

        Raises as ``reconcile``.
        """
        assessment = self.assess(instance)
        removal = removal_plan(assessment.desired, assessment.observed, assessment.context)
        unchanged = self.facts.interpreters.unchanged
        outcome = PlanExecutor(removal, assessment.desired, instance, writer, WriteGate(), unchanged).run()
        for action in outcome.done:
            self.ledger.records.pop(action.entry, None)
        self.ledger.save()
        return outcome.done, self.assess(instance)

    def remove(self, names: Collection[str], writer: Writer) -> list[str]:
        """Remove entries, also foreign ones, for an administrator's command; return the names of those that existed.

        Raises WriteRefusedError.
        """
        removed = [name for name in names if writer.control(name, REMOVE)]
        for name in removed:
            self.ledger.records.pop(name, None)
        self.ledger.save()
        return removed

    def _save_foreign(self) -> None:
        self.foreign_entries.save(record.inode for record in self.ledger.records.values())

    def stood_in(self, names: Iterable[str], instance: Instance, unchanged: Callable[[str], bool]) -> None:
        """Record in the ledger the stand-ins that were registered for these handlers just now.

        One that was only enabled has its record, perhaps of an emulator that was upgraded since.
        """
        if self._desired is None:
            return
        for name in names:
            stand_in = self._desired.permanent.get(name)
            if stand_in is None:
                continue
            path = stand_in.registration.interpreter
            opened_file = self._desired.file_identities.get(path) if unchanged(path) else None
            inode, record = instance.inode(stand_in.name), self.ledger.records.get(stand_in.name)
            if inode is not None and (record is None or record.inode != inode):
                self.ledger.records[stand_in.name] = Record(stand_in.registration, inode, opened_file)

    def _take_in(self, outcome: Outcome, result: ReconcileResult) -> None:
        self.ledger.records |= outcome.records
        for action in outcome.done:
            if action.act is Act.REMOVE:
                self.ledger.records.pop(action.entry, None)
                self.states[action.entry].ours = False  # if it comes back, another daemon keeps it: it is no leftover
            elif action.drift is Drift.STALE_INTERPRETER and action.handler is not None:
                record = outcome.records.get(action.entry)
                self.adoption.replaced(action.handler, record.opened_file if record else None)
        for action, error in outcome.failed:
            self.refused(action.entry, error)
            # A REPLACE may have left the entry that it was to replace: that one is no late registration of ours.
            if error.errno == ETIMEDOUT and action.act is Act.REGISTER and action.handler is not None:
                path = action.handler.registration.interpreter
                self.adoption.given_up(action.handler, result.assessment.desired.file_identities.get(path))
        result.done += outcome.done
        result.failed += outcome.failed
        result.kept |= set(outcome.kept)

    def _forget_void(self, observed: ObservedState) -> None:
        """Drop the records of entries that do not exist, or that another program has registered again."""
        for name, record in list(self.ledger.records.items()):
            entry = observed.by_name.get(name)
            void = not self.adoption.awaits(name) if entry is None else record.inode not in (None, entry.inode)
            if void:
                del self.ledger.records[name]

    def _context(self, observed: ObservedState, desired: DesiredState) -> PlanContext:
        others = PlanContext(self.ledger.records)
        standing = _in_force(observed)
        broken = set()
        exec_breaking = set()
        for entry in observed.relevant:
            registration = entry.registration
            if registration is None:
                continue
            if self._is_exec_breaking(entry, standing, desired):
                exec_breaking.add(entry.name)
            competes = entry.enabled and desired.overlapping(registration.match) and foreign(entry, desired, others)
            if competes and cannot_run(entry, self.facts.interpreters.can_run):
                broken.add(entry.name)
        return PlanContext(self.ledger.records, frozenset(broken), frozenset(exec_breaking))

    def _is_exec_breaking(self, entry: Entry, standing: InForce, desired: DesiredState) -> bool:
        """Return True if this entry stops every exec, or would if it were enabled.

        A declared entry does not count: ``force`` allows it.
        """
        if entry.registration is None or not self._breaks_exec(entry.registration, standing):
            return False
        return not any(equal(entry.registration, handler.registration) for handler in desired.handlers)

    def _takes_programs(self, entry: Entry) -> bool:
        registration = entry.registration
        return registration is not None and any(takes(registration.match, head) for head in self.facts.heads)

    def _breaks_exec(self, registration: Registration, standing: InForce) -> bool:
        return breaks_exec(
            registration, standing, self.facts.header, self.facts.heads, self.facts.interpreters.read_head
        )


def _to_be_registered(actions: Iterable[Action]) -> list[Handler]:
    written = (Act.REGISTER, Act.REPLACE)
    return [action.handler for action in actions if action.handler is not None and action.act in written]


def _in_force(observed: ObservedState) -> InForce:
    """Return a function that lists the registrations in force, newest first, when it is called for the first time."""

    @cache
    def registrations() -> list[Registration]:
        return [entry.registration for entry in observed.entries if entry.enabled and entry.registration is not None]

    return registrations
