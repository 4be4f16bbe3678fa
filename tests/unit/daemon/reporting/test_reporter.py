"""The failures of a pass that are reported, and those that are not."""

import errno
from pathlib import Path

import pytest

from binfmtd.daemon.assessment import Assessment, ReconcileResult
from binfmtd.daemon.entries.entry_state import StateTable
from binfmtd.daemon.reporting.event_log import EventLog
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.daemon.trigger import Trigger
from binfmtd.errors import Again, WriteRefusedError
from binfmtd.model.desired import DesiredState
from binfmtd.model.drift import Act, Action, Drift, Plan, PlanContext
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Magic

ONE = Registration(Magic(b"one"), "/i", Flags.F)
A = Handler("a", ONE)


@pytest.mark.parametrize(
    ("registration", "number", "logged"),
    [
        (ONE, errno.EEXIST, []),
        (ONE._replace(interpreter="/other"), errno.EEXIST, ["a"]),
        (None, errno.EEXIST, ["a"]),
        (ONE, errno.ENOEXEC, ["a"]),
    ],
)
def test_an_equal_entry_made_first_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registration: Registration | None, number: int, logged: list[str]
) -> None:
    """EEXIST is no error if an equal entry exists: another daemon has just replaced it.

    It is unknown which file its F opened, so it is replaced once more.
    """
    action = Action(Act.REPLACE, "a", Drift.STALE_INTERPRETER, "another file", A)
    entries = (Entry("a", 7, enabled=True, registration=registration),)
    assessment = Assessment(ObservedState(entries), DesiredState((A,)), PlanContext(), Plan((action,)))
    result = ReconcileResult(assessment)
    result.failed = [(action, WriteRefusedError("refused", number, Again.LATER))]
    reporter = Reporter(StateTable(), str(tmp_path), "config")
    failures_logged: list[str] = []

    def failed(_: EventLog, failures: list[tuple[str, WriteRefusedError]]) -> bool:
        failures_logged.extend(name for name, _ in failures)
        return True

    monkeypatch.setattr(EventLog, "failed", failed)
    reporter.passed(Trigger.QUIET, result, 0.0)
    assert failures_logged == logged
