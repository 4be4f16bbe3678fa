"""Every kind of watched file leads to something when it changes."""

from typing import Any
from unittest import mock

import pytest

from binfmtd.daemon.entries.fast_repair import FastRepairResult
from binfmtd.daemon.event_handler import EventHandler, Repaired
from binfmtd.daemon.interpreters.probe_runner import ProbeRunner
from binfmtd.daemon.mount_search import MountSearch
from binfmtd.daemon.passes import Passes
from binfmtd.daemon.pause_control import PauseControl
from binfmtd.daemon.readiness import Readiness
from binfmtd.daemon.reload import Reload
from binfmtd.daemon.repairs.event_reader import EventReader
from binfmtd.daemon.repairs.instance_reconciler import InstanceReconciler
from binfmtd.daemon.repairs.interpreter_looks import InterpreterLooks
from binfmtd.daemon.repairs.seal_keeper import SealKeeper
from binfmtd.daemon.repairs.urgent_repairs import UrgentRepairs
from binfmtd.daemon.reporting.reporter import Reporter
from binfmtd.daemon.throttle import EventThrottle
from binfmtd.daemon.watches.events import PendingEvents, WatchKind
from binfmtd.daemon.watches.inotify import InotifyWatcher

PARTS = (
    InotifyWatcher,
    EventReader,
    UrgentRepairs,
    InstanceReconciler,
    EventThrottle,
    PauseControl,
    Reload,
    InterpreterLooks,
    Passes,
    MountSearch,
    SealKeeper,
    ProbeRunner,
    Reporter,
    Readiness,
)


def called(changed: str) -> dict[type, list[str]]:
    """Return the methods that are called when a file of this owner has changed, by part."""
    parts: dict[type, Any] = {each: mock.create_autospec(each, instance=True) for each in PARTS}
    events = PendingEvents()
    events.changed_files.add(changed)
    EventHandler(*parts.values()).handle(Repaired(0.0, events, FastRepairResult()), 0.0)
    of = {each: [name for name, _, _ in part.method_calls] for each, part in parts.items()}
    return {each: names for each, names in of.items() if names and each not in (SealKeeper, EventThrottle)}


@pytest.mark.parametrize("kind", WatchKind)
def test_every_kind_of_file(kind: WatchKind) -> None:
    """One part takes in the change of each kind, and no two kinds have the same consequence."""
    (consequence,) = called(kind).items()
    assert all(called(other) != dict([consequence]) for other in WatchKind if other is not kind)


def test_an_interpreter() -> None:
    """The file of an interpreter is looked at."""
    assert called("/usr/bin/qemu-arm") == {InterpreterLooks: ["read"]}
