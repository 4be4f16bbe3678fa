"""The daemon's reports: what happened, as log events, counters and the status document.

* Nothing is logged when nothing happens.  A problem that lasts is logged once (`event_log`).
* Everything that one cause brought about is one line, logged when it is repaired (`incidents`).  Its steps are logged
  at the level debug.

docs/logging.md lists every event.
"""

import errno
import time
from collections.abc import Collection
from typing import Any

from binfmtd.daemon.assessment import Assessment, ReconcileResult
from binfmtd.daemon.entries.entry_state import OPEN, Phase, StateTable
from binfmtd.daemon.entries.fast_repair import FastRepairResult
from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.interpreters.probe_report import ProbeReport
from binfmtd.daemon.reporting.causes import Cause, Causes
from binfmtd.daemon.reporting.event_log import EventLog, grouped
from binfmtd.daemon.reporting.handler_log import HandlerLog
from binfmtd.daemon.reporting.incidents import MOST_NAMES, Incident, named
from binfmtd.daemon.reporting.notices import Notices
from binfmtd.daemon.reporting.recent_events import RecentEvents
from binfmtd.daemon.reporting.status_file import StatusFile, now, when
from binfmtd.daemon.state_files.boot_persistence import BootPersistence
from binfmtd.daemon.trigger import Trigger
from binfmtd.daemon.watches.events import PendingEvents
from binfmtd.errors import WriteRefusedError
from binfmtd.kernel.mount import Mounted
from binfmtd.model.config import Config
from binfmtd.model.desired import UnavailableReason
from binfmtd.model.drift import Act, Action, Drift
from binfmtd.model.entry import Entry
from binfmtd.model.guard import BREAKS_EXEC
from binfmtd.model.ownership import equal
from binfmtd.model.pause import Pauses
from binfmtd.model.plan import INSTANCE
from binfmtd.model.stand_in import PREFIX, is_stand_in
from binfmtd.report.counts import Counts
from binfmtd.report.durations import milliseconds
from binfmtd.report.happened import REPAIRED
from binfmtd.report.log import LEVELS
from binfmtd.report.log_queue import LogQueue
from binfmtd.report.seal import OFF, SealStatus

_PAST = {
    Act.REGISTER: "entry_registered",
    Act.REPLACE: "entry_replaced",
    Act.REMOVE: "entry_removed",
    Act.ENABLE: "entry_enabled",
    Act.DISABLE: "entry_disabled",
    Act.RESTORE: "entry_restored",
}
_LOG_FIRST = 0.1  # seconds that the status file waits for the log
_UNSEALED_SECONDS = 60.0  # seconds from one warning that another process opens the seal to the next


class Reporter:
    """Log, counters and status of one daemon, and the memory of what it has reported."""

    def __init__(
        self,
        states: StateTable,
        state_dir: str,
        config_path: str,
        lines: LogQueue | None = None,
        history: RecentEvents | None = None,
    ) -> None:
        """Report through the queue ``lines``, which leads to stderr, and continue an earlier daemon's ``history``."""
        self._states = states
        self._lines = lines
        self._state_dir = state_dir
        self.counts = Counts(time.time())
        self.probe = ProbeReport()
        self._trouble: str | None = None
        self._seal = OFF
        self._unsealed_at = float("-inf")  # monotonic, in seconds: the last warning
        self._causes = Causes(states)
        self._unpersistent: str | None = None  # why a reboot would lose the handlers
        self._unread: str | None = None  # why paused.json cannot be read
        self._invalid: str | None = None  # why the last valid config is in force, since the start
        self._event_log = EventLog(self.counts, history or RecentEvents(), states)
        self._handlers = HandlerLog(self._event_log)
        self.notices = Notices(self._event_log, state_dir)
        self.status = StatusFile(state_dir, config_path, self.counts, self.probe)

    def reacted(self, reaction: FastRepairResult, events: PendingEvents, seconds: float) -> None:
        """Report what the fast repair did about ``events``, before its drifts are recorded in the state table."""
        self._causes.refine(events)
        if not (reaction.drifts or reaction.fixed or reaction.bridged or reaction.refused):
            return  # the usual case when other programs write
        why = self._causes.take_in(reaction, events)
        serving = {*reaction.bridged, *reaction.standing}
        drifts, log = reaction.drifts, self._event_log.pass_log
        fresh = [name for name in drifts if self._states[name].phase not in OPEN]
        for (drift, served, words), names in grouped(fresh, lambda n: (drifts[n], n in serving, why[n].words)):
            if not served and not self._backs_off(names):  # programs fail until the repair
                self._log_at_once("warning", "drift_found", names, words, drift, why[names[0]].detail)
            else:
                reason = why[names[0]].full if len(names) == 1 else words
                details = {"drift": drift.value, "reason": reason, "took_ms": milliseconds(seconds)}
                log.debug("drift_found", **named(names, MOST_NAMES), **details)
        for name, drift in reaction.fixed.items():
            self._log_repair(name, why[name], drift, seconds, seconds)
        self._event_log.failed(reaction.refused.items())
        for name in reaction.bridged:  # also if the stand-in had served before another program's entry took its files
            self._states[name].served_after = max(seconds, self._states[name].served_after or 0.0)
        for name in reaction.standing:
            self._states[name].served_after = self._states[name].served_after or 0.0
        for _ in (*reaction.bridged, *reaction.fixed):
            self.counts.served.add(seconds)
        for _ in reaction.fixed:
            self.counts.settled.add(seconds)

    def watch_lost(self) -> None:
        """Report that the instance under the watch is gone, with all its entries."""
        self.notices.watch_lost()
        self._causes.instance_lost()

    def passed(self, trigger: Trigger, result: ReconcileResult, seconds: float) -> None:
        """Report a pass, which took ``seconds``."""
        self.counts.last_pass_at = time.time()
        if not result.assessment.plan.actions:
            self.counts.last_success_at = self.counts.last_pass_at
        log, pass_id = self._event_log.pass_log, self._event_log.pass_id
        self.status.assessment = result.assessment
        reported = [action for action in result.done if not is_stand_in(action.entry)]
        still_open = {action.entry for action in result.assessment.plan.actions}
        steps = list(zip(reported, self._causes.ended(reported, result.replaced, result.ended), strict=True))
        for (act, drift, words), done in grouped(steps, lambda step: (step[0].act, step[0].drift, step[1].words)):
            names = [action.entry for action, _ in done]
            log.debug("done", action=act.value, **named(names, MOST_NAMES), drift=drift.value, reason=words)
        for action, cause in steps:
            ended = result.ended.get(action.entry)
            if ended and ended.is_repair and action.act is not Act.RESTORE:
                took = seconds if ended.took is None else ended.took
                served = took if ended.served_after is None else ended.served_after
                self._log_repair(action.entry, cause, action.drift, served, took)
            elif not (action.for_order_only or (trigger.sums_up and action.act in (Act.REGISTER, Act.REPLACE))):
                self._log_action(trigger, action)
        for action in result.done:
            self._event_log.went_well(action.entry)
            self.probe.registered(action.entry)
        failures = []
        for action, error in result.failed:
            if is_stand_in(action.entry):
                continue  # its handler has failed, too, or is served all the same
            entry = result.assessment.observed.by_name.get(action.entry)
            # No later plan contains a restore that has failed.
            not_restored = action.act is Act.RESTORE and entry is None
            if (not_restored or action.entry in still_open) and not _was_faster(entry, action, error):
                failures.append((action.entry, error))
        news = self._event_log.failed(failures)
        self._handlers.passed(result.assessment)
        self.status.last_pass = {
            "id": pass_id,
            "at": now(),
            "trigger": trigger.value,
            "actions": len(result.done),
            "duration_us": round(seconds * 1e6),
        }
        if trigger.sums_up or result.done or news:
            observed, desired = result.assessment.observed, result.assessment.desired
            log.log(
                LEVELS["info" if trigger.sums_up else "debug"],
                "pass_finished",
                trigger=trigger.value,
                actions=len(result.done),
                failed=len(result.failed),
                registered=len(desired.by_name.keys() & observed.by_name.keys()),
                waiting=sum(
                    unavailable.cause in (UnavailableReason.WAITING, UnavailableReason.LOST)
                    for unavailable in desired.unavailable
                ),
                foreign=sum(result.assessment.foreign_count()),
                took_ms=milliseconds(seconds),
            )
        self.counts.passes[trigger.value] += 1

    def _log_at_once(
        self, level: str, event: str, names: list[str], words: str, drift: Drift, detail: str = ""
    ) -> None:
        moment = time.monotonic()
        incident = Incident(event, level, moment)
        incident.add(names, words, detail, drift.value, moment)
        incident.pass_id = self._event_log.pass_id
        self._event_log.log_incident(incident)

    def _log_repair(self, name: str, cause: Cause, drift: Drift, served: float, took: float) -> None:
        """Log a repair; ``served``: seconds until programs ran again; ``took``: until the entry was as declared."""
        moment = time.monotonic()
        incident = self._event_log.incident("warning", REPAIRED, cause.key, moment)
        incident.add([name], cause.words, cause.detail, drift.value, moment)
        incident.lasted(served, took)

    def _log_action(self, trigger: Trigger, action: Action) -> None:
        """Log what a pass did that is no repair."""
        unwanted = action.drift is Drift.UNWANTED
        here = self.status.assessment
        declared = here is not None and action.entry in here.desired.unavailable_by_name  # its interpreter has gone
        if unwanted and not trigger.sums_up and not declared:
            self.counts.unwanted += 1
        level = "error" if unwanted and action.act is Act.DISABLE else "info"
        moment = time.monotonic()
        self._event_log.log_gathered(level, _PAST[action.act], action.entry, action.reason, moment, action.drift)

    def log_due(self, now: float) -> bool:
        """Log the incidents that are over by ``now`` (infinity: all); return True if that changes the status."""
        return self._event_log.log_due(now, self._states.contended())

    @property
    def due_at(self) -> float:
        """The time when the next incident is to be logged (monotonic, in seconds); infinity if none is."""
        return self._event_log.due_at()

    def _backs_off(self, names: Collection[str]) -> bool:
        return self._states.is_contended(INSTANCE) or all(map(self._states.is_contended, names))

    def count_repair(self, name: str, drift: Drift, seconds: float | None = None, *, bridged: bool = False) -> None:
        """Count the repair of one drift.

        ``seconds`` after its first event, if a pass ended it and that is known; ``bridged``: a stand-in served before.
        """
        self.counts.repairs[name, drift.value] += 1
        if seconds is not None:
            self.counts.settled.add(seconds)
            if not bridged:
                self.counts.served.add(seconds)

    def trouble(self, problem: str | None) -> None:
        """Log once why the daemon cannot do its work (None: it can again)."""
        if problem == self._trouble:
            return
        self._trouble = problem
        if problem is None:
            self._event_log.pass_log.info("trouble_over")
        else:
            self._event_log.pass_log.error("trouble", reason=problem)

    def exec_breaking_disabled(self, name: str) -> None:
        """Log at once that an entry which stopped every exec was disabled."""
        self.counts.unwanted += 1
        self._log_at_once("error", "entry_disabled", [name], BREAKS_EXEC, Drift.UNWANTED)

    def kept_for_reboot(self, boot_persistence: BootPersistence) -> None:
        """Log that the file which brings the handlers back after a reboot is up to date, or why it cannot be."""
        problem = boot_persistence.problem
        for warning in (
            *boot_persistence.warnings,
            *(f"{name}: {why}" for name, why in boot_persistence.left_out.items()),
        ):
            self._event_log.once(warning, "persistent_warning", reason=warning)
        if problem is None:
            self._event_log.log.info("persistent_file_in_step", file=boot_persistence.file)
        elif problem != self._unpersistent:
            self._event_log.log.error("persistent_file_failed", reason=problem)
        self._unpersistent = problem

    def seal(self, seal: SealStatus, why_opened: str) -> None:
        """Log that binfmt_misc was sealed or opened, or cannot be; ``why_opened``, if it is open."""
        before, self._seal = self._seal, seal
        log = self._event_log.log
        reason = {"reason": seal.reason} if seal.reason else {}
        if seal.state == "sealed":
            log.info("sealed", **reason)
        elif seal.state == "impossible":
            log.error("seal_failed", **reason)
        elif seal.state != "unsealed" and before.state in ("sealed", "unsealed", "impossible"):
            log.info("seal_opened", reason=seal.reason or why_opened)

    def unsealed(self, reason: str) -> None:
        """Log that another process has opened the seal, or prevents sealing: a warning once a minute, else debug."""
        level, moment = "debug", time.monotonic()
        if moment - self._unsealed_at >= _UNSEALED_SECONDS:
            level, self._unsealed_at = "warning", moment
        self._event_log.log.log(LEVELS[level], "unsealed", reason=reason)

    def contention_started(self, name: str) -> None:
        """Log that another process keeps undoing the repairs of this name; INSTANCE: of all names."""
        self.counts.contentions += 1
        undone = "removing all entries or switching binfmt_misc off" if name == INSTANCE else "undoing repairs"
        reason = f"another process keeps {undone}: the daemon makes repairs at growing intervals"
        self._event_log.log_gathered(
            "warning", "contention_started", name.removeprefix(PREFIX), reason, time.monotonic()
        )

    def contention_ended(self, name: str) -> None:
        """Log that no repair of this name was needed for a minute."""
        reason = "no repair was needed for a minute"
        self._event_log.log_gathered("info", "contention_ended", name.removeprefix(PREFIX), reason, time.monotonic())

    def paused(self, pauses: Pauses, before: Pauses) -> None:
        """Log the pauses that begin or end; ``before`` are those that were in force."""
        for name, end in pauses.until.items():
            if before.until.get(name) != end:
                moment = when(end)
                limit = {} if moment is None else {"until": moment}
                self._event_log.pass_log.warning("pause_started", entry=name, **limit)
        for name in before.until.keys() - pauses.until.keys():
            self._event_log.pass_log.info("pause_ended", entry=name)

    def pauses_unread(self, problem: str | None) -> bool:
        """Log once why the pauses cannot be read (None: they can); return True if that has changed."""
        if problem == self._unread:
            return False
        self._unread = problem
        if problem is not None:
            self._event_log.pass_log.error("pauses_unread", reason=problem)
        return True

    def config_loaded(self, config: Config) -> None:
        """Take in the config that is in force, at the start and after each reload: log its warnings."""
        for warning in config.warnings:
            self._event_log.log.warning("config_warning", reason=warning)

    def config_reloaded(self, config: Config, began: float) -> None:
        """Log that another config is in force; its reload ``began`` at this time since the boot, in seconds."""
        self.status.config_replaced(began)
        self._invalid = None
        self._event_log.forget_said()
        self._event_log.pass_log.info("config_reloaded", generation=self.status.generation, files=list(config.sources))
        self.config_loaded(config)

    def last_valid_in_force(self, error: str) -> None:
        """Log that the files are invalid at the start, so that the last valid config is in force."""
        self._invalid = f"the config is invalid, and the last valid one is in force: {error}"
        self.status.config_error = error
        self._rejected(error)

    def config_rejected(self, error: str, began: float) -> None:
        """Log why a new config is invalid; the old one stays in force."""
        self.status.config_rejected(error, began)
        self._rejected(error)

    def _rejected(self, error: str) -> None:
        self.counts.reload_failures += 1
        self._event_log.log.error("config_rejected", reason=error, generation=self.status.generation)

    def removed(self, actions: list[Action], assessment: Assessment) -> None:
        """Log the entries that `on_stop = "remove"` removed; the ``assessment`` has what is left."""
        self.status.assessment = assessment
        self.probe.found(None)
        self._event_log.log.info("entries_removed", entries=[action.entry for action in actions])

    def stopped(self) -> None:
        """Log the open incidents, and the end of the daemon."""
        self.log_due(float("inf"))
        self._event_log.log.info("stopped", passes=self.counts.passes.total(), repairs=self.counts.repairs.total())

    def document(self, reconciler: Reconciler, mounted: Mounted | None, contended: Collection[str]) -> dict[str, Any]:
        """Return the status document of this moment, and make it the content of the status file."""
        if self._lines is not None:
            self.counts.log_lines_dropped = self._lines.dropped
        troubles = (self._trouble, self._invalid, self._unpersistent, self._unread)
        phases = self._states.phases()
        bridged = {name: (phase is Phase.BRIDGED, self._causes.get(name)) for name, phase in phases.items()}
        document = self.status.document(
            reconciler, mounted, contended, bridged, troubles, self._event_log.history(), self._seal
        )
        self._handlers.lacking(document["lacking"])
        self.status.put(document)
        return document

    def flush(self) -> None:
        """Wait in a thread, 0.1 s at most, for the log: it is written before the status that reports the same."""
        if self._lines is not None:
            self._lines.flush(_LOG_FIRST)

    def state_written(self) -> None:
        """Log once why the status file could not be written; a full disk is no reason to stop repairing."""
        if (error := self.status.error) is not None:
            self._event_log.once(
                f"status {error.errno}", "status_unwritten", directory=self._state_dir, reason=error.strerror
            )


def _was_faster(entry: Entry | None, action: Action, error: WriteRefusedError) -> bool:
    """Return True if another daemon with the same handler had registered an equal entry before us."""
    same = entry and action.handler and equal(entry.registration, action.handler.registration)
    return error.errno == errno.EEXIST and bool(same)
