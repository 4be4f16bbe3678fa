"""The inotify watches on files: events between the arming of a directory by a thread and the use of its names."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyinotify
import pytest

from binfmtd.daemon.watches import armed as module
from binfmtd.daemon.watches import inotify
from binfmtd.daemon.watches.armed import Armed
from binfmtd.daemon.watches.inotify import InotifyWatcher
from binfmtd.files.paths import ANY_NAME

OWNER = "/an/interpreter"


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[InotifyWatcher]:
    """Return a watcher that already watches one name in the directory, for another owner."""
    watch = InotifyWatcher()
    watch.open()
    watch.use("/another", watch.arm_all(lambda: {str(tmp_path): {"known"}}))
    yield watch
    close(watch)


def close(watch: InotifyWatcher) -> None:
    assert watch.descriptor is not None
    os.close(watch.descriptor)


def write(watch: InotifyWatcher, path: Path) -> set[str]:
    """Change a file, and return the owners to which the event is reported."""
    path.write_text("changed")
    return watch.read().changed_files


@pytest.mark.parametrize(
    ("name", "names", "concerns"),
    [
        pytest.param("new", {"new"}, True, id="the name"),
        pytest.param("known", {"known"}, True, id="a name of another owner"),
        pytest.param("other", {"new"}, False, id="another name"),
        pytest.param("other", {ANY_NAME}, True, id="any name"),
        pytest.param(".hidden", {ANY_NAME}, False, id="any name but a hidden one"),
    ],
)
def test_an_event_between_arming_and_use(
    watch: InotifyWatcher, tmp_path: Path, name: str, names: set[str], concerns: bool
) -> None:
    """The event is not reported to the owner, so ``use`` returns True; from then on it is reported."""
    armed = watch.arm_all(lambda: {str(tmp_path): names})
    assert OWNER not in write(watch, tmp_path / name)
    assert watch.use(OWNER, armed) is concerns
    assert (OWNER in write(watch, tmp_path / name)) is concerns


def test_a_new_directory(watch: InotifyWatcher, tmp_path: Path) -> None:
    """An event in a directory that no owner has watched before is not lost either."""
    (tmp_path / "below").mkdir()
    watch.read()
    armed = watch.arm_all(lambda: {str(tmp_path / "below"): {"new"}})
    assert write(watch, tmp_path / "below" / "new") == set()
    assert watch.use(OWNER, armed)


def test_an_event_before_the_arming(watch: InotifyWatcher, tmp_path: Path) -> None:
    """An event that was read before the arming is older than the look at the file."""
    write(watch, tmp_path / "new")
    assert not watch.use(OWNER, watch.arm_all(lambda: {str(tmp_path): {"new"}}))


def test_too_many_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If more events came than are kept, any of them may have concerned the name; a later arming is not concerned."""
    monkeypatch.setattr(module, "_RECENT", 10)
    watch = InotifyWatcher()
    watch.open()
    armed = watch.arm_all(lambda: {str(tmp_path): {"new"}})
    for number in range(10):
        write(watch, tmp_path / f"other{number}")
    assert watch.use(OWNER, armed)
    assert not watch.use(OWNER, watch.arm_all(lambda: {str(tmp_path): {"new"}}))
    close(watch)


def test_lost_events(watch: InotifyWatcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many events at once that their names were not examined, any may have concerned the name."""
    armed = watch.arm_all(lambda: {str(tmp_path): {"new"}})
    monkeypatch.setattr(inotify, "_MOST_BYTES", 0)
    write(watch, tmp_path / "other")
    assert watch.use(OWNER, armed)
    assert not watch.use(OWNER, Armed())


def test_names_that_are_armed_and_never_used(watch: InotifyWatcher, tmp_path: Path) -> None:
    """``tidy`` ends the watch on a directory whose names no owner uses, and no other."""
    (tmp_path / "below").mkdir()
    before = watches(watch)
    watch.tidy()
    assert watches(watch) == before
    watch.arm_all(lambda: {str(tmp_path / "below"): {"new"}})
    assert len(watches(watch)) == len(before) + 1
    watch.tidy()
    assert watches(watch) == before


def watches(watch: InotifyWatcher) -> list[str]:
    """Return the kernel's lines about the watches of inotify."""
    lines = Path(f"/proc/self/fdinfo/{watch.descriptor}").read_text().splitlines()
    return [line for line in lines if line.startswith("inotify")]


def test_no_watch_is_left(watch: InotifyWatcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner without its watches is the reason why inotify counts as used up until it has them."""

    def refused(*_: object, **__: object) -> None:
        raise pyinotify.WatchManagerError("Errno=No space left on device (ENOSPC)", {})

    monkeypatch.setattr(pyinotify.WatchManager, "add_watch", refused)
    armed = watch.arm_all(lambda: {str(tmp_path): {"new"}})
    assert armed.unwatched == ()
    watch.use(OWNER, armed)
    monkeypatch.undo()
    watch.watch_instance(str(tmp_path))
    assert watch.exhausted
    watch.use(OWNER, watch.arm_all(lambda: {str(tmp_path): {"new"}}))
    watch.watch_instance(str(tmp_path))
    assert watch.exhausted is None
