"""The events that the watch reads, on ordinary directories: inotify is the same there."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from binfmtd.daemon.watches.inotify import InotifyWatcher
from binfmtd.files.paths import ANY_NAME, ITSELF
from binfmtd.kernel.writer import Wrote


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[InotifyWatcher]:
    """Yield a watch on a directory with the files that an instance has."""
    for name in ("register", "status", "one"):
        (tmp_path / name).write_bytes(b"")
    watch = InotifyWatcher()
    descriptor = watch.open()
    assert descriptor is not None
    assert watch.watch_instance(str(tmp_path))
    yield watch
    os.close(descriptor)


def write(path: Path, times: int = 1) -> None:
    """Write ``times`` times without O_TRUNC on one descriptor: MODIFY (merged), then CLOSE_WRITE."""
    descriptor = os.open(path, os.O_WRONLY)
    for _ in range(times):
        os.write(descriptor, b"1")
    os.close(descriptor)


def test_who_touched_what(watch: InotifyWatcher, tmp_path: Path) -> None:
    """An event on an entry names it; one on register or status concerns everything, and status means a flush."""
    write(tmp_path / "one")
    events = watch.read()
    assert (events.entries, events.any_entry, events.flushed) == ({"one"}, False, False)
    write(tmp_path / "register")
    events = watch.read()
    assert (events.entries, events.any_entry, events.flushed) == (set(), True, False)
    write(tmp_path / "status")
    assert watch.read().flushed
    assert not watch.read()


@pytest.mark.parametrize(
    ("gone", "flush"), [(("one", "two", "three"), True), (("one", "two"), True), (("one",), False)], ids=str
)
def test_a_flush_that_has_begun(watch: InotifyWatcher, tmp_path: Path, gone: tuple[str, ...], flush: bool) -> None:
    """A flush is recognised by removals without a write to their files, before an event names `status`."""
    for name in gone:
        (tmp_path / name).touch()
    watch.read()
    for name in gone:
        (tmp_path / name).unlink()
    called: list[bool] = []
    events = watch.read(flushed=lambda: called.append(True))
    assert (events.flushed, called) == (flush, [True] * flush)
    assert events.entries == set(gone)


def remove(path: Path, *, before: Callable[[], None] = lambda: None) -> None:
    """Remove by name, as the kernel reports it: DELETE, then ``before``, MODIFY and CLOSE_WRITE."""
    descriptor = os.open(path, os.O_WRONLY)
    path.unlink()
    before()
    os.write(descriptor, b"-1")
    os.close(descriptor)


def test_two_removals_by_name_at_the_same_time(watch: InotifyWatcher, tmp_path: Path) -> None:
    """Two removals by name that come before both of their writes look like a flush, and are none."""
    (tmp_path / "two").touch()
    watch.read()
    remove(tmp_path / "one", before=lambda: remove(tmp_path / "two"))
    called: list[bool] = []
    events = watch.read(flushed=lambda: called.append(True))
    assert (called, events.flushed, events.entries) == ([True], False, {"one", "two"})
    assert events.entries_written == {"one", "two"}


def test_no_flush(watch: InotifyWatcher, tmp_path: Path) -> None:
    """Entries that are removed by name are written to, and files of another directory are no entries: no flush."""
    for name in ("one", "two"):
        (tmp_path / name).touch()
    watch.read()
    for name in ("one", "two"):
        remove(tmp_path / name)
    (tmp_path / "files").mkdir()
    watch.watch_files("config", {str(tmp_path / "files"): [ANY_NAME]})
    for name in ("one", "two"):
        (tmp_path / "files" / name).touch()
    events = watch.read(flushed=lambda: pytest.fail("that is no flush"))
    assert not events.flushed
    for name in ("one", "two"):
        (tmp_path / "files" / name).unlink()
    assert not watch.read(flushed=lambda: pytest.fail("that is no flush")).flushed


def test_a_flush_beside_another_change(watch: InotifyWatcher, tmp_path: Path) -> None:
    """If an interpreter may have changed as well, nothing is registered before that event is examined."""
    (tmp_path / "two").touch()
    (tmp_path / "files").mkdir()
    watch.watch_files("/files/interpreter", {str(tmp_path / "files"): ["interpreter"]})
    watch.read()
    for name in ("one", "two"):
        (tmp_path / name).unlink()
    (tmp_path / "files/interpreter").touch()
    events = watch.read(flushed=lambda: pytest.fail("an interpreter has changed"))
    assert events.flushed
    assert events.interpreters == {"/files/interpreter"}


def test_own_writes_are_left_out(watch: InotifyWatcher, tmp_path: Path) -> None:
    """Events of our own writes are left out; the kernel merges those of several writes on one descriptor."""
    write(tmp_path / "one")
    write(tmp_path / "register", times=3)
    assert not watch.read([Wrote("one", 1), Wrote("register", 3)])


def test_a_write_beyond_our_own_is_reported(watch: InotifyWatcher, tmp_path: Path) -> None:
    """Of two writes to one file of which one is ours, the other is reported."""
    write(tmp_path / "one")
    write(tmp_path / "one")
    assert watch.read([Wrote("one", 1)]).entries == {"one"}


def test_own_writes_do_not_excuse_later_ones(watch: InotifyWatcher, tmp_path: Path) -> None:
    """The event of an own write that the first reading does not find cancels no later event of another program."""
    write(tmp_path / "one")
    assert not watch.read([Wrote("one", 5, removed=True)])
    write(tmp_path / "one")
    assert watch.read().entries == {"one"}


def test_our_merged_writes_cancel_no_other_event(watch: InotifyWatcher, tmp_path: Path) -> None:
    """Our three merged writes to `register` cancel no event of another program, which keeps the file open."""
    write(tmp_path / "register", times=3)
    descriptor = os.open(tmp_path / "register", os.O_WRONLY)
    os.write(descriptor, b"1")
    assert watch.read([Wrote("register", 3)]).any_entry
    os.close(descriptor)


def test_what_was_refused_excuses_no_write(watch: InotifyWatcher, tmp_path: Path) -> None:
    """A refused write raises CLOSE_WRITE alone, and one for several in a row: it cancels no other write."""
    for _ in range(3):
        write(tmp_path / "register", times=0)
    write(tmp_path / "register", times=2)
    own = [*[Wrote("register", 0)] * 3, Wrote("register", 2)]
    assert not watch.read(own)
    for times in (0, 0, 1):
        write(tmp_path / "register", times=times)
    assert watch.read(own[:2]).any_entry


@pytest.mark.parametrize(("file", "flushed"), [("one", False), ("status", True)])
def test_thousands_of_events_are_not_read_one_by_one(
    watch: InotifyWatcher, tmp_path: Path, file: str, flushed: bool
) -> None:
    """Thousands of events count as an overflow, and a possible flush among them is still reported."""
    for _ in range(3000):
        write(tmp_path / "one")
    write(tmp_path / file)
    events = watch.read()
    assert (events.entries, events.any_entry, events.overflow) == (set(), True, True)
    assert (events.flushed, events.watch_removed) == (flushed, False)


def test_thousands_of_events_of_files(watch: InotifyWatcher, tmp_path: Path) -> None:
    """After thousands of events only those kinds of files count as changed whose directories have an event."""
    etc, bin_directory = tmp_path / "etc", tmp_path / "bin"
    etc.mkdir()
    bin_directory.mkdir()
    watch.watch_files("interpreters", {str(bin_directory): {"qemu"}})
    watch.watch_files("config", {str(etc): {ANY_NAME}})
    for number in range(3000):
        (bin_directory / f"{number}").write_bytes(b"")
    events = watch.read()
    assert (events.overflow, events.changed_files, events.watch_removed) == (True, {"interpreters"}, False)
    for number in range(3000):
        (bin_directory / f"{number}").unlink()
        (bin_directory / f"{number}").write_bytes(b"")
    (etc / "new.toml").write_bytes(b"")
    assert watch.read().changed_files == {"interpreters", "config"}


def test_the_end_of_the_instance_is_found_among_thousands(watch: InotifyWatcher, tmp_path: Path) -> None:
    """The end of the instance, which is the last event of its watch, is found among thousands."""
    for _ in range(3000):
        write(tmp_path / "one")
    shutil.rmtree(tmp_path)
    assert watch.read().watch_removed


def test_the_same_instance_armed_again(watch: InotifyWatcher, tmp_path: Path) -> None:
    """To arm the same directory again changes nothing; after another one, the old one's events are not read."""
    assert not watch.watch_instance(str(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    assert watch.watch_instance(str(other))
    watch.read()
    write(tmp_path / "one")
    assert not watch.read()


def test_files_by_kind(watch: InotifyWatcher, tmp_path: Path) -> None:
    """Only watched names count, each for its kind of file; ANY_NAME stands for every name."""
    etc, bin_directory = tmp_path / "etc", tmp_path / "bin"
    etc.mkdir()
    bin_directory.mkdir()
    assert watch.watch_files("interpreters", {str(bin_directory): {"qemu"}}) == []
    assert watch.watch_files("config", {str(etc): {ANY_NAME}, str(bin_directory): {"link"}}) == []
    (bin_directory / "something").write_bytes(b"")
    assert not watch.read()
    assert watch.saw_unrelated
    (bin_directory / "qemu").write_bytes(b"")
    assert watch.read().changed_files == {"interpreters"}
    (bin_directory / "link").symlink_to("qemu")
    (etc / "new.toml").write_bytes(b"")
    assert watch.read().changed_files == {"config"}
    (etc / ".new.toml.lock").write_bytes(b"")
    assert not watch.read(), "no config, whatever it is"
    bin_directory.chmod(0o700)
    assert watch.read().changed_files == {"interpreters", "config"}, "of the directory itself: all that is in it"
    watch.watch_files("interpreters", {})
    (bin_directory / "qemu").unlink()
    assert not watch.read()


def test_a_directory_on_the_way_is_watched_as_such(watch: InotifyWatcher, tmp_path: Path) -> None:
    """A directory on the way reports its move and its mode, but not its other files, however many come and go."""
    (tmp_path / "opt" / "qemu").mkdir(parents=True)
    watch.watch_files("interpreters", {str(tmp_path / "opt"): {ITSELF}, str(tmp_path / "opt" / "qemu"): {"x"}})
    (tmp_path / "opt" / "other").write_bytes(b"")
    (tmp_path / "opt" / "other").unlink()
    assert not watch.read()
    assert not watch.saw_unrelated
    (tmp_path / "opt").chmod(0o700)
    assert watch.read().changed_files == {"interpreters"}
    (tmp_path / "opt").rename(tmp_path / "old")
    assert watch.read().changed_files == {"interpreters"}


def test_other_files_in_the_state_directory_are_not_noted(watch: InotifyWatcher, tmp_path: Path) -> None:
    """Files of other kinds in the state directory are not noted: the status there is replaced with each repair."""
    (tmp_path / "state").mkdir()
    watch.watch_files("pauses", {str(tmp_path / "state"): {"paused.json"}})
    (tmp_path / "state" / "status.json").write_bytes(b"")
    assert not watch.read()
    assert not watch.saw_unrelated


def test_what_is_watched_no_more_is_forgotten(watch: InotifyWatcher, tmp_path: Path) -> None:
    """A directory that is watched no more is forgotten, even if the kernel forgot it first.

    pyinotify would keep each for ever.
    """
    for _ in range(5):
        (tmp_path / "bin").mkdir()
        watch.watch_files("interpreters", {str(tmp_path / "bin"): {"qemu"}})
        (tmp_path / "bin").rmdir()
        watch.read()
        watch.watch_files("interpreters", {})
    manager = watch._manager  # noqa: SLF001  only the manager has what pyinotify keeps
    assert manager is not None
    assert len(manager.watches) == 1


def test_a_directory_that_cannot_be_watched_is_named(watch: InotifyWatcher, tmp_path: Path) -> None:
    """A directory that cannot be watched is returned, and all other directories are watched."""
    assert watch.watch_files("config", {str(tmp_path / "gone"): {"a"}, str(tmp_path): {"b"}}) == [
        str(tmp_path / "gone")
    ]
    (tmp_path / "b").write_bytes(b"")
    assert watch.read()


def test_an_interpreter_in_the_instances_own_directory(watch: InotifyWatcher, tmp_path: Path) -> None:
    """To watch files in the instance's own directory, and then no longer, leaves the instance's watch as it is."""
    watch.watch_files("interpreters", {str(tmp_path): {"one"}})
    watch.watch_files("interpreters", {})
    assert not watch.read().watch_removed
    write(tmp_path / "one")
    assert watch.read().entries == {"one"}


def test_the_end_of_the_directory(watch: InotifyWatcher, tmp_path: Path) -> None:
    """When its directory is removed the watch is lost, and reports that once."""
    for path in tmp_path.iterdir():
        path.unlink()
    watch.read()
    tmp_path.rmdir()
    assert watch.read().watch_removed
    assert not watch.read()


def test_overflow(watch: InotifyWatcher, tmp_path: Path) -> None:
    """Lost events mean that anything may have changed, but only among what is watched."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    (tmp_path / "two").write_bytes(b"")
    for _ in range(limit // 4 + 100):
        write(tmp_path / "one")
        write(tmp_path / "two")
    watch.watch_files("interpreters", {str(tmp_path.parent): {"x"}})
    watch.watch_files("config", {})
    events = watch.read()
    while not events.overflow and (more := watch.read()):
        events.add(more)
    assert events.overflow
    assert events.any_entry
    assert events.changed_files == {"interpreters"}


def test_the_descriptor_neither_blocks_nor_is_inherited(watch: InotifyWatcher) -> None:
    """The descriptor neither blocks nor is inherited, unlike pyinotify's own."""
    assert watch.descriptor is not None
    assert not os.get_blocking(watch.descriptor)
    assert not os.get_inheritable(watch.descriptor)


def test_opening_executes_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library is found without ldconfig: a program could not run while a handler takes all native ones."""

    def refuse(*arguments: object, **_: object) -> None:
        pytest.fail(f"a program is executed: {arguments}")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    watch = InotifyWatcher()
    descriptor = watch.open()
    assert descriptor is not None
    os.close(descriptor)
