"""The write gate of one pass of the daemon: it waits for quiet names, backs off, and reads events before each write."""

from collections.abc import Callable

from binfmtd.daemon.repairs.repair_schedule import RepairSchedule
from binfmtd.daemon.trigger import Trigger
from binfmtd.daemon.watches.events import PendingEvents
from binfmtd.kernel.write_gate import WriteGate, WritePermission
from binfmtd.model.drift import Act, Action, Drift

Force = Callable[[str], bool]


def nothing(_: str) -> bool:
    """Return False: force no name."""
    return False


class PassGate(WriteGate):
    """The permissions of one pass."""

    def __init__(
        self,
        schedule: RepairSchedule,
        trigger: Trigger,
        read_events: Callable[[], PendingEvents],
        throttled: Callable[[], bool],
        *,
        at_once: bool = False,
        force: Force = nothing,
    ) -> None:
        """Prepare for a pass.

        ``read_events`` reads the queue, and returns the events that no repair has handled; ``throttled`` returns True
        while the loop leaves the queue unread.  ``at_once``: names that no other program has changed
        need not be quiet.  ``force`` returns True for names that are written
        whatever other programs do.
        """
        self._schedule = schedule
        self._only_bridges = trigger is Trigger.INTERPRETER  # everything else waits until it is quiet
        self._read_events = read_events
        self._throttled = throttled
        self._at_once = at_once
        self._force = force

    def considers(self, action: Action) -> bool:
        """Return False if the daemon backs off from the action's name."""
        if self._only_bridges and action.act is not Act.REPLACE:
            return False
        return self._force(action.entry) or self._schedule.allow(action)

    def permission(self, name: str) -> WritePermission:
        """Return the permission by quiet and backoff."""
        if self._force(name):
            return WritePermission.NOW
        if self._at_once and not self._schedule.has_drifted(name):
            return WritePermission.IF_UNTOUCHED
        permission = self._schedule.permission(name)
        return min(permission, WritePermission.WAIT) if self._only_bridges else permission

    def may_keep(self, name: str, drift: Drift) -> bool:
        """Return True within the budget for stand-ins, and unless another daemon keeps exchanging this one."""
        return self._schedule.may_keep(name, drift, at_once=self._at_once)

    def touched_since_read(self, name: str) -> bool:
        """Read the queue, and return True if it had an event that concerns the name."""
        if self._throttled():
            return True  # while no events are read, any name may be
        events = self._read_events()
        return events.any_entry or name in events.entries

    def removed_by_name(self, name: str) -> bool:
        """Read the queue, also while throttled: only an event distinguishes the removal from one by a flush."""
        return name in self._read_events().entries_written
