"""Repairs without an instance that can be opened, and beside a program that is about to register an entry."""

import time
from pathlib import Path
from unittest import mock

import pytest
from support.simulated import handler
from support.simulated_daemon import SimulatedDaemon

from binfmtd.daemon.entries.backoff import REPAIRS
from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.daemon.repairs.event_reader import EventReader, TouchedEntries
from binfmtd.daemon.repairs.instance_access import InstanceAccess
from binfmtd.daemon.repairs.instance_reconciler import InstanceReconciler
from binfmtd.daemon.repairs.repair_schedule import RepairSchedule
from binfmtd.daemon.repairs.sealing import Sealing
from binfmtd.daemon.repairs.urgent_repairs import UrgentRepairs
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.daemon.throttle import EventThrottle
from binfmtd.daemon.trigger import Trigger
from binfmtd.daemon.watches.inotify import InotifyWatcher
from binfmtd.daemon.watches.instance_watch import InstanceWatch
from binfmtd.kernel.mount import Mounted
from binfmtd.kernel.steps import in_one_go
from binfmtd.model.config import StandInPolicy
from binfmtd.model.entry import Entry
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Magic
from binfmtd.model.stand_in import stand_in_name


def test_an_instance_that_cannot_be_opened_from_the_start(tmp_path: Path) -> None:
    """An instance that cannot be opened is reported and waited for, and not looked for at once again and again."""
    instance_watch = mock.create_autospec(InstanceWatch, instance=True)
    instance_watch.mounted = Mounted(str(tmp_path / "closed"), 1, read_only=False)
    reconciler, sealing, watch, schedule, report = (
        mock.create_autospec(each, instance=True)
        for each in (Reconciler, Sealing, InotifyWatcher, RepairSchedule, Reporter)
    )
    facts, touched = mock.create_autospec(HostFacts, instance=True), TouchedEntries()
    events = EventReader(watch, facts, EventThrottle())
    access = InstanceAccess(instance_watch, sealing, events, facts)
    urgent = UrgentRepairs(access, events, touched, reconciler, schedule, instance_watch, report)
    passes = InstanceReconciler(access, events, touched, urgent, reconciler, schedule, instance_watch, report)
    assert in_one_go(passes.reconcile(Trigger.START)) is None
    instance_watch.regard_as.assert_called_once_with(None)
    assert not events.pending
    assert "check that binfmt_misc is still mounted there" in report.trouble.call_args.args[0]
    schedule.forget.assert_called_once_with()


OURS = Registration(Magic(b"A"), "/ours", Flags.NONE)
HELPER = stand_in_name(stand_in_name("a"))


@pytest.fixture
def daemon(tmp_path: Path) -> SimulatedDaemon:
    """Return a daemon with a handler that has its permanent stand-in."""
    daemon = SimulatedDaemon([Handler("a", OURS)], tmp_path, 0.02, stand_ins=StandInPolicy.PERMANENT)
    assert daemon.names() == ["a", stand_in_name("a")]
    return daemon


def test_another_entry_that_is_registered_a_moment_after_the_removal(daemon: SimulatedDaemon) -> None:
    """The daemon waits for a registration after a removal, and its first write puts an entry above the new one."""
    daemon.meanwhile = [lambda: daemon.registers("a", OURS._replace(interpreter="/theirs"))]
    daemon.removes("a")
    daemon.react()
    assert daemon.waits == 1
    assert daemon.seen[0] == [HELPER, "a", stand_in_name("a")]
    assert daemon.names() == [stand_in_name("a"), "a"], "the stand-in is on top, and the helper has gone"


def test_another_entry_whose_file_is_truncated_first(daemon: SimulatedDaemon) -> None:
    """A shell truncates `register` before it writes the line: the daemon waits until it has written it."""
    daemon.meanwhile = [daemon.stirs, lambda: daemon.registers("a", OURS._replace(interpreter="/theirs"))]
    daemon.removes("a")
    daemon.react()
    assert daemon.waits == 2
    assert daemon.seen[0] == [HELPER, "a", stand_in_name("a")]


def test_another_entry_that_is_equal(daemon: SimulatedDaemon) -> None:
    """A helper above an entry that proves to be equal is removed again."""
    daemon.meanwhile = [lambda: daemon.registers("a", OURS)]
    daemon.removes("a")
    daemon.react()
    assert daemon.seen == [[HELPER, "a", stand_in_name("a")], ["a", stand_in_name("a")]]


def test_a_helper_is_paid_for(daemon: SimulatedDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper is paid from the budget of CPU time, even if not needed; when that is spent, none is registered."""
    monkeypatch.setattr(time, "thread_time", iter(range(99)).__next__)  # a second from each time to the next
    assert daemon.schedule.may_add_stand_in("a")
    daemon.removes("a")
    daemon.registers("a", OURS)
    daemon.react()
    assert daemon.seen[0][0] == HELPER
    daemon.seen.clear()
    assert daemon.schedule.restore_at() == float("inf")
    daemon.removes("a")
    daemon.registers("a", OURS)
    daemon.react()
    assert daemon.seen == []
    assert daemon.schedule.restore_at() > daemon.now


def test_who_pays_in_contention(daemon: SimulatedDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """In contention the budget for stand-ins pays for each repair, and not for a look that finds nothing to write.

    Otherwise a program that writes without end would use up the budget, and no repair would be made.
    """
    for _ in range(2 * REPAIRS):
        while "a" not in daemon.names():
            daemon.wait(0.2)
        daemon.removes("a")
        daemon.react()
    daemon.wait(30.0)
    assert daemon.schedule.contended() == {"a"}
    monkeypatch.setattr(time, "thread_time", iter(range(99)).__next__)  # a second from each time to the next
    daemon.stirs(flushed=True)
    daemon.react()
    for registered in (True, False):
        daemon.removes(stand_in_name("a"))
        daemon.react()
        assert (stand_in_name("a") in daemon.names()) is registered


def test_another_entry_that_is_registered_much_later(daemon: SimulatedDaemon) -> None:
    """The daemon waits 2 ms, once until the next pass; then the entry is known to be missing."""
    daemon.removes("a")
    daemon.react()
    assert (daemon.waits, daemon.seen) == (1, [])
    daemon.now += 0.01
    daemon.registers("a", OURS._replace(interpreter="/theirs"))
    daemon.removes("a")
    daemon.registers("a", OURS._replace(interpreter="/theirs"))
    daemon.react()
    assert daemon.waits == 1
    assert daemon.seen[0][0] == HELPER


def test_a_stand_in_that_is_removed_is_not_waited_for(daemon: SimulatedDaemon) -> None:
    """If the stand-in is removed as well, nothing serves, and it is registered at once."""
    daemon.removes("a")
    daemon.removes(stand_in_name("a"))
    daemon.react()
    assert (daemon.waits, daemon.names()) == (0, [stand_in_name("a")])


def test_a_stand_in_that_is_removed_while_the_daemon_waits(daemon: SimulatedDaemon) -> None:
    """The wait ends when the stand-in is removed."""
    daemon.meanwhile = [lambda: daemon.removes(stand_in_name("a")), lambda: pytest.fail("it waits on")]
    daemon.removes("a")
    daemon.react()
    assert daemon.names() == [stand_in_name("a")]


def test_a_stand_in_that_was_written_to_and_is_there(daemon: SimulatedDaemon) -> None:
    """A stand-in that was written to is still put above a newer entry."""
    daemon.touches(stand_in_name("a"))
    daemon.removes("a")
    daemon.registers("a", OURS._replace(interpreter="/theirs"))
    daemon.react()
    assert daemon.names() == [stand_in_name("a"), "a"]


def test_one_that_has_no_stand_in_is_not_waited_with(tmp_path: Path) -> None:
    """If another program removes all, a handler that shares files gets its stand-in without a wait."""
    handlers = [Handler("a", OURS), handler("b", Magic(b"B")), handler("c", Magic(b"BC"))]
    daemon = SimulatedDaemon(handlers, tmp_path, 0.02, stand_ins=StandInPolicy.PERMANENT)
    for name in "abc":
        daemon.removes(name)
    daemon.react()
    assert daemon.waits == 0
    assert {stand_in_name("b"), stand_in_name("c")} <= set(daemon.names())


def test_a_removal_while_a_pass_scans(daemon: SimulatedDaemon) -> None:
    """A removal is repaired between two slices of the scan, which begins again and does not end that drift."""
    daemon.while_scanned.append(lambda: daemon.removes("a"))
    result = daemon.reconcile(Trigger.RESYNC)
    assert daemon.names() == [stand_in_name("a")]
    assert result is not None
    assert [action.entry for action in result.assessment.plan.actions] == ["a"]
    assert daemon.schedule.drifting() == {"a"}
    daemon.wait(1.0)
    assert daemon.names() == ["a", stand_in_name("a")]


def test_a_removal_while_a_reload_scans(daemon: SimulatedDaemon) -> None:
    """A pass that writes at once leaves what another program has removed a moment ago; its repair is counted."""
    daemon.while_scanned.append(lambda: daemon.removes("a"))
    daemon.schedule.use(0.02)
    daemon.reconcile(Trigger.RELOAD, at_once=True)
    assert daemon.names() == [stand_in_name("a")]
    daemon.wait(1.0)
    assert (daemon.names(), daemon.reporter.repairs) == (["a", stand_in_name("a")], ["a"])


def test_another_entry_whose_events_are_merged_with_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that is registered during our own write is noticed without an event, and the stand-in put above it."""
    daemon = SimulatedDaemon([Handler("a", OURS)], tmp_path, settle=1.0)
    register = daemon.kernel.register

    def both_register(name: str, registration: Registration) -> Entry:
        entry = register(name, registration)
        monkeypatch.setattr(daemon.kernel, "register", register)
        register("a", OURS._replace(interpreter="/theirs"))
        return entry

    monkeypatch.setattr(daemon.kernel, "register", both_register)
    daemon.removes("a")
    daemon.react()
    assert daemon.names() == ["a", stand_in_name("a")]
    daemon.react()
    assert daemon.names() == [stand_in_name("a"), "a"]
    daemon.wait(2.0)
    assert daemon.names() == ["a"]
    assert daemon.kernel.entries[0].registration == OURS
