"""Looks at interpreters by threads: the facts in use meanwhile, and those in use if no thread is left."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from binfmtd.daemon import interpreter_files
from binfmtd.daemon.background import Background
from binfmtd.daemon.inotify import Armed, InotifyWatcher
from binfmtd.daemon.interpreter_files import InterpreterFiles

PATHS = [f"/interpreter/{number}" for number in range(4)]


class FileSystem:
    """A file system that answers for a path once its event is set."""

    def __init__(self) -> None:
        self.answers = {path: threading.Event() for path in PATHS}
        for event in self.answers.values():
            event.set()

    def look(self, find: Callable[[], object]) -> Armed:
        find()
        return Armed({}, ())


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileSystem]:
    disk = FileSystem()

    def watched(paths: list[str]) -> dict[str, set[str]]:
        assert all(disk.answers[path].wait(30) for path in paths)
        return {}

    monkeypatch.setattr(interpreter_files, "watched", watched)
    yield disk
    for event in disk.answers.values():
        event.set()


@pytest.fixture
def background() -> Background:
    return Background()


@pytest.fixture
def files(disk: FileSystem, background: Background, monkeypatch: pytest.MonkeyPatch) -> InterpreterFiles:
    watch = InotifyWatcher()
    monkeypatch.setattr(watch, "arm_all", disk.look)
    files = InterpreterFiles(background, watch, lambda _: None, lambda _: None)
    files.keep(PATHS)
    return files


def test_a_changed_file_is_not_opened_while_it_is_looked_at(files: InterpreterFiles, disk: FileSystem) -> None:
    """A changed file is not opened while it is looked at: it is not known yet if the new one can be trusted.

    Until then its facts are those of the file before.
    """
    files.look()
    files.wait(5)
    assert files.unchanged(PATHS[0])
    disk.answers[PATHS[0]].clear()
    files.changed([PATHS[0]])
    files.look()
    assert not files.unchanged(PATHS[0])
    assert files.unchanged(PATHS[1])
    disk.answers[PATHS[0]].set()
    files.wait(5)
    assert files.unchanged(PATHS[0])


def test_all_threads_hang(
    files: InterpreterFiles, background: Background, disk: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look ends even if all threads hang; the rest keeps its facts, and is looked at when a thread is free again."""
    monkeypatch.setattr(interpreter_files, "THREADS", 2)
    files.look()
    files.wait(5)
    for event in disk.answers.values():
        event.clear()
    files.changed()
    files.look()
    files.wait(0.1)
    assert not files.looking
    unanswered = [path for path, facts in files.facts(PATHS).items() if facts.problem is not None]
    assert 1 <= len(unanswered) <= 2
    assert not any(map(files.unchanged, PATHS))
    assert not files.out_of_date, "for a second"
    for event in disk.answers.values():
        event.set()
    end = time.monotonic() + 30
    while not all(map(files.unchanged, PATHS)) and time.monotonic() < end:
        time.sleep(max(0.0, min(0.05, files.due_at - time.monotonic())))
        files.step(time.monotonic())
        files.wait(5)
        background.deliver()
    assert all(map(files.unchanged, PATHS))


def test_no_thread_can_be_had(files: InterpreterFiles, background: Background, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no thread can be started, the facts from before are used, and the next look comes later."""
    files.look()
    files.wait(5)
    monkeypatch.setattr(background, "thread", lambda _: False)
    files.look(everything=True)
    files.wait(0.1)
    assert not files.looking
    assert all(map(files.unchanged, PATHS))
    files.changed()
    files.look()
    files.wait(0.1)
    assert not files.out_of_date
    assert files.due_at > time.monotonic() + 0.5
