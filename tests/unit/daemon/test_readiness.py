"""The status is published once in each turn of the loop, and READY=1 follows it."""

import time
from math import inf
from unittest import mock

import pytest

from binfmtd.daemon.assessment import ReconcileResult
from binfmtd.daemon.background import Background
from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.publisher import Publisher
from binfmtd.daemon.readiness import Readiness
from binfmtd.daemon.repairs.repair_schedule import RepairSchedule
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.daemon.sd_notify import Notifier
from binfmtd.daemon.state_files.state_writer import KEY as STATE
from binfmtd.daemon.watches.instance_watch import InstanceWatch


class Started:
    """A daemon whose disks answer at once."""

    def __init__(self, *, open_drifts: bool = False, passed: bool = True) -> None:
        make = mock.create_autospec
        self.background = make(Background, instance=True)
        self.background.busy.return_value = False
        self.background.cpu_seconds = {}
        self.notifier, self.publisher = make(Notifier, instance=True), make(Publisher, instance=True)
        self.schedule = schedule = make(RepairSchedule, instance=True)
        schedule.contended.return_value = frozenset()
        schedule.is_settled.return_value = not open_drifts
        reconciler = make(Reconciler, instance=True, config=None)
        watch = make(InstanceWatch, instance=True, mounted=None)
        self.readiness = Readiness(
            self.background, self.notifier, self.publisher, make(Reporter, instance=True), reconciler, watch, schedule
        )
        self.result = make(ReconcileResult, instance=True)
        if passed:
            self.readiness.changed(self.result)
        self.readiness.await_published()

    def sent(self) -> list[str]:
        return [call.args[0] for call in self.notifier.send.call_args_list]


def test_ready_after_the_first_pass() -> None:
    """READY=1 is sent when the first pass has left no drift open and all is published; otherwise after a later pass."""
    assert Started().sent() == ["READY=1"]
    daemon = Started(open_drifts=True)
    assert daemon.sent() == []
    assert not daemon.readiness.ready


@pytest.mark.parametrize("mounted_late", [False, True])
def test_ready_although_another_program_undoes_each_repair(mounted_late: bool) -> None:
    """READY=1 is sent once, five seconds after the first pass at the latest."""
    daemon = Started(open_drifts=True, passed=not mounted_late)
    if mounted_late:
        assert daemon.readiness.due_at == inf
        daemon.readiness.changed(daemon.result)
        daemon.readiness.publish()
    due = daemon.readiness.due_at
    assert time.monotonic() < due < time.monotonic() + 6
    daemon.readiness.changed(daemon.result)
    daemon.readiness.publish()
    assert daemon.readiness.due_at == due
    daemon.readiness.end_start(due - 1)
    daemon.readiness.end_start(due)
    assert daemon.sent() == []
    daemon.readiness.publish()
    written = daemon.publisher.publish.call_args.kwargs["then"]
    if written is not None:
        written()
    assert daemon.sent() == ["READY=1"]
    assert daemon.readiness.ready
    assert daemon.readiness.due_at == inf


def test_one_status_for_each_turn() -> None:
    """However much changes in a turn, one status is published, and none if nothing has changed."""
    daemon = Started()
    daemon.publisher.publish.reset_mock()
    daemon.readiness.publish()
    daemon.publisher.publish.assert_not_called()
    daemon.readiness.changed()
    daemon.readiness.changed()
    daemon.readiness.publish()
    daemon.publisher.publish.assert_called_once()
    assert daemon.publisher.publish.call_args.kwargs["then"] is None


def test_ready_after_a_reload() -> None:
    """READY=1 after a reload is left to the publisher, which calls back when the status has been written."""
    daemon = Started()
    daemon.readiness.reloaded()
    daemon.readiness.publish()
    assert daemon.sent() == ["READY=1"]
    daemon.publisher.publish.call_args.kwargs["then"]()
    assert daemon.sent() == ["READY=1", "READY=1"]


def test_a_status_that_changes_without_end() -> None:
    """While the daemon backs off, the next status waits when publishing has taken its share of CPU time."""
    daemon = backing_off()
    assert waits(daemon)
    assert time.monotonic() < daemon.readiness.due_at < time.monotonic() + 100
    daemon.readiness.publish()
    daemon.publisher.publish.assert_not_called()
    daemon.readiness.reloaded()  # READY=1 waits for the status
    assert not waits(daemon)
    daemon.readiness.publish()
    daemon.publisher.publish.assert_called_once()


def test_a_status_after_the_backoff() -> None:
    """A status that has waited is published as soon as the daemon backs off from no name any more."""
    daemon = backing_off()
    daemon.schedule.contended.return_value = frozenset()
    assert not waits(daemon)


def backing_off() -> Started:
    """Return a daemon that backs off from a name, has spent its CPU time for publishing, and has news."""
    daemon = Started()
    daemon.schedule.contended.return_value = frozenset({"name"})
    daemon.background.cpu_seconds = {STATE: 0.3}  # what the threads took
    daemon.readiness.changed()
    daemon.readiness.publish()
    daemon.publisher.publish.reset_mock()
    daemon.readiness.changed()
    return daemon


def waits(daemon: Started) -> bool:
    return not daemon.readiness.unpublished
