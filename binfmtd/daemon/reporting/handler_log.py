"""Log lines about handlers whose files nothing runs, or not the interpreter that the config names first.

Each problem is logged once for each handler, also if it lasts for many passes, and all handlers that have the same kind
of problem are one line.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from binfmtd.daemon.assessment import Assessment
from binfmtd.daemon.reporting.event_log import EventLog
from binfmtd.daemon.reporting.incidents import named
from binfmtd.model.desired import DesiredState, PassedOver, UnavailableReason
from binfmtd.model.drift import Plan
from binfmtd.report.status import gone, unavailable_reason


class HandlerLog:
    """The lines that follow from an assessment, and the memory of what was logged."""

    def __init__(self, event_log: EventLog) -> None:
        self._event_log = event_log
        self._lost: set[str] = set()  # handlers whose emulator existed and is gone
        self._passed_over: Mapping[str, Sequence[PassedOver]] = {}  # in the last pass
        self._lacking: str | None = None  # why there is no handler at all

    def passed(self, assessment: Assessment) -> None:
        """Log what the pass with this assessment has found."""
        log = self._event_log.pass_log
        self._lost_emulators(assessment.desired)
        if refused := self._unavailable(assessment.desired, UnavailableReason.REFUSED):
            log.warning("handler_refused", **refused)
        if waiting := self._unavailable(assessment.desired, UnavailableReason.WAITING):
            log.warning("handler_waiting", **waiting)
        if shadowed := self._shadowed(assessment.plan):
            log.warning("handler_shadowed", **shadowed)
        self._later_interpreters(assessment.desired)

    def lacking(self, reason: str | None) -> None:
        """Log why there is no handler at all (None: there are some), unless the loss of the emulators was logged."""
        if reason and not self._lacking and not self._lost:
            self._event_log.log.warning("emulators_missing", reason=reason)
        self._lacking = reason

    def _unavailable(self, desired: DesiredState, cause: UnavailableReason) -> dict[str, Any]:
        """Return the keys of one line for the handlers of this ``cause`` that were not logged yet; empty if none."""
        known = desired.unavailable_by_name
        news = [
            unavailable.name
            for unavailable in desired.unavailable
            if unavailable.cause is cause and self._event_log.is_news(f"{cause} {unavailable.name}")
        ]
        return _one_line(news, lambda name: unavailable_reason(known[name]))

    def _shadowed(self, plan: Plan) -> dict[str, Any]:
        """Return the keys of one line for the handlers that stay shadowed, and that were not logged yet."""
        due = {action.entry for action in plan.actions}
        news = [name for name in plan.shadowed if name not in due and self._event_log.is_news(f"shadowed {name}")]
        return _one_line(news, lambda name: f"the newer entry {plan.shadowed[name]} takes its files")

    def _later_interpreters(self, desired: DesiredState) -> None:
        """Log each interpreter in place of which a later one of its handler's list is used since this pass."""
        before, self._passed_over = self._passed_over, desired.passed_over
        for name, interpreters in desired.passed_over.items():
            for passed in interpreters:
                if passed not in before.get(name, ()):
                    used = desired.by_name[name].registration.interpreter
                    self._event_log.pass_log.warning(
                        "interpreter_passed_over", entry=name, interpreter=passed.path, used=used, reason=passed.reason
                    )

    def _lost_emulators(self, desired: DesiredState) -> None:
        """Log the handlers whose emulators are gone since the last pass, all in one line."""
        lost = [unavailable for unavailable in desired.unavailable if unavailable.cause is UnavailableReason.LOST]
        for unavailable in lost:
            if unavailable.name not in self._lost:
                self._event_log.log_gathered(
                    "warning", "emulators_gone", unavailable.name, gone(lost), time.monotonic()
                )
        self._lost = {unavailable.name for unavailable in lost}


def _one_line(names: list[str], reason: Callable[[str], str]) -> dict[str, Any]:
    """Return the log keys for handlers with one kind of problem: all names, and the reason of the first."""
    if not names:
        return {}
    first, *others = names
    why = reason(first)
    if others:
        why = f"{first}: {why}; and {len(others)} more, see `binfmtd status`"
    return {**named(names), "reason": why}
