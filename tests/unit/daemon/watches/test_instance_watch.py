"""The times of looks without an event."""

import errno
from unittest import mock

import pytest

from binfmtd.daemon.poller import Poller
from binfmtd.daemon.watches import instance_watch
from binfmtd.daemon.watches.inotify import InotifyWatcher
from binfmtd.daemon.watches.instance_watch import InstanceWatch
from binfmtd.errors import Again, WriteRefusedError
from binfmtd.kernel.mount import Mounted, Where

RESYNC = 300.0
WRITABLE = Mounted("/m", 1, read_only=False)


class World:
    """An attachment with a clock, and with a mount that stands for the mount table."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.mounted = WRITABLE
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr(instance_watch, "find_or_mount", lambda _: self.mounted)
        self.watch = mock.create_autospec(InotifyWatcher, instance=True)
        self.watch.open.return_value, self.watch.exhausted = None, None
        self.instance_watch = InstanceWatch(Where(), self.watch, mock.create_autospec(Poller, instance=True))
        self.look()

    def look(self, again: Again | None = None, number: int = errno.ENOMEM, took: float = 0.0) -> float:
        """Make a look, which may fail; return the number of seconds until the next one."""
        self.instance_watch.begin()
        self.instance_watch.attach(self.instance_watch.find())
        if again is not None:
            self.instance_watch.failed(WriteRefusedError("refused", number, again))
        self.now += took
        self.instance_watch.looked()
        return self.instance_watch.look_at(RESYNC) - self.now


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a world where nothing fails."""
    return World(monkeypatch)


def test_what_may_go_better_without_an_event_is_tried_again(world: World) -> None:
    """After a failure that may end without an event a look comes at once, then at growing intervals.

    After a look without a failure the intervals are as before.
    """
    world.now += 100
    world.instance_watch.failed(WriteRefusedError("refused", errno.ENOMEM, Again.LATER))
    assert world.instance_watch.look_at(RESYNC) <= world.now
    assert [world.look(Again.LATER) for _ in range(5)] == [2, 4, 8, 10, 10]
    assert world.look() == RESYNC
    assert world.look(Again.LATER) == 1


def test_a_later_failure_is_another_one(world: World) -> None:
    """After a pass without a failure, one that an event brings about leads to intervals that grow from the first."""
    assert [world.look(Again.LATER) for _ in range(5)] == [1, 2, 4, 8, 10]
    world.instance_watch.reconciled()  # the pass has failed as well
    assert world.look() == RESYNC
    world.instance_watch.reconciled()
    world.now += 100
    world.instance_watch.failed(WriteRefusedError("refused", errno.EMFILE, Again.LATER))
    assert [world.look(Again.LATER) for _ in range(2)] == [2, 4]


@pytest.mark.parametrize("again", [Again.RELOAD, Again.MOUNT, Again.NOW])
def test_what_an_event_reports_is_waited_for(world: World, again: Again) -> None:
    """If an event reports the end of a failure, there are no extra looks; nor does it hide another failure."""
    assert world.look(again) == RESYNC
    world.instance_watch.failed(WriteRefusedError("refused", errno.ENOMEM, Again.LATER))
    world.instance_watch.failed(WriteRefusedError("refused", errno.EINVAL, again))
    assert world.instance_watch.look_at(RESYNC) == world.now + 1


def test_opened_between_the_write_and_the_look(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seal that another program has opened since the refused write counts until the next look."""
    monkeypatch.setattr(instance_watch, "is_sealed", lambda _: True)
    world.look(Again.LATER, errno.EROFS)
    sealed = str(world.instance_watch.problem)
    assert "sealed" in sealed
    monkeypatch.setattr(instance_watch, "is_sealed", lambda _: False)
    world.instance_watch.failed(WriteRefusedError("refused", errno.EROFS, Again.LATER))
    assert world.instance_watch.problem == sealed
    assert world.look() == RESYNC
    assert world.instance_watch.problem is None


def test_read_only(world: World) -> None:
    """A read-only mount, by a refused write or by the mount table, is a problem, and looks search for its end."""
    assert world.look(Again.LATER, errno.EROFS) == 1
    assert world.instance_watch.problem == "/m is mounted read-only: run `mount -o remount,bind,rw /m`"
    world.mounted = WRITABLE._replace(read_only=True)
    assert [world.look(), world.look()] == [2, 4]
    world.mounted = WRITABLE
    world.look()
    assert world.look() == RESYNC
    assert world.instance_watch.problem is None


def test_looks_take_a_twentieth_of_a_core(world: World) -> None:
    """However long a look takes, looks take a twentieth of a core; `resync` is the longest interval."""
    assert world.look(Again.LATER, took=1.0) == 20
    assert world.look(Again.LATER, took=100.0) == RESYNC


def test_without_inotify_looks_take_the_place_of_events(world: World) -> None:
    """Without inotify looks take the place of events, and do not become rarer."""
    world.watch.exhausted = "no inotify watch is left"
    assert [world.look(Again.LATER) for _ in range(3)] == [1, 1, 1]


def test_the_next_instance_may_have_the_same_device_number(world: World) -> None:
    """An instance that was created at another time is another one, and nothing of the last one is said of it."""
    watch = world.instance_watch
    world.watch.watch_instance.return_value = False
    assert watch.attach(WRITABLE._replace(created=1, follows=True))
    assert not watch.attach(WRITABLE._replace(created=1))
    assert watch.mounted is not None
    assert watch.mounted.host_unmounted
    assert watch.attach(WRITABLE._replace(created=2))
    assert not watch.mounted.host_unmounted
