"""Looks at interpreters by threads: the facts in use meanwhile, and those in use if no thread is left."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from binfmtd.daemon.background import Background
from binfmtd.daemon.interpreters import interpreter_files
from binfmtd.daemon.interpreters.interpreter_files import InterpreterFiles
from binfmtd.daemon.watches.armed import Armed
from binfmtd.daemon.watches.inotify import InotifyWatcher

PATHS = [f"/interpreter/{number}" for number in range(4)]


class Hanging(threading.Event):
    """The answer of a path; ``begun`` is set when a thread waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.begun.set()
        return super().wait(timeout)


class FileSystem:
    """A file system that answers for a path once its event is set."""

    def __init__(self) -> None:
        self.answers: dict[str, threading.Event] = {path: threading.Event() for path in PATHS}
        self.looked: list[bool] = []  # the calls of InterpreterFiles' callback
        self.watch = InotifyWatcher()
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
    monkeypatch.setattr(disk.watch, "arm_all", disk.look)
    files = InterpreterFiles(background, disk.watch, disk.looked.append, lambda _: None)
    files.keep(PATHS)
    return files


def test_a_changed_file_is_not_opened_while_it_is_looked_at(files: InterpreterFiles, disk: FileSystem) -> None:
    """A changed file is not opened while it is looked at: it is not known yet if the new one can be trusted.

    Until then its facts are those of the file before.
    """
    files.look(patience=5)
    files.wait()
    assert files.unchanged(PATHS[0])
    disk.answers[PATHS[0]].clear()
    files.changed([PATHS[0]])
    files.look()
    assert not files.unchanged(PATHS[0])
    assert files.unchanged(PATHS[1])
    disk.answers[PATHS[0]].set()
    files.wait()
    assert files.unchanged(PATHS[0])


def test_a_look_that_catches_up(files: InterpreterFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at files of which no event has come calls for nothing that waited for a look."""
    caught_up: list[bool] = []
    monkeypatch.setattr(files, "_looked", lambda _: caught_up.append(files.caught_up))
    for changed in (PATHS, [], PATHS[:1]):
        files.changed(changed)
        files.look(everything=True, patience=5)
        files.wait()
    assert caught_up == [True, False, True]


def step_until(files: InterpreterFiles, background: Background, condition: Callable[[], bool]) -> None:
    """Do what the loop does, until the condition is true."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        background.wait(max(0.0, min(0.05, files.due_at - time.monotonic())))
        background.deliver()
        files.step(time.monotonic())


def test_a_slow_file_keeps_its_facts(files: InterpreterFiles, background: Background, disk: FileSystem) -> None:
    """A path that does not answer at once keeps its facts; a second later it counts as hanging, until it answers."""
    files.look(patience=5)
    files.wait()
    before = files.facts(PATHS)
    disk.answers[PATHS[0]].clear()
    files.changed(PATHS[:1])
    disk.looked.clear()
    began = time.monotonic()
    files.look()
    step_until(files, background, lambda: not files.looking)
    if time.monotonic() < began + interpreter_files.HANGS:  # else this machine is too slow to tell
        assert files.facts(PATHS) == before
        assert disk.looked == [False]
    assert not files.unchanged(PATHS[0]), "no entry with F is registered for it"
    step_until(files, background, lambda: disk.looked[-1])
    assert time.monotonic() >= began + interpreter_files.HANGS
    assert "does not answer" in str(files.facts(PATHS)[PATHS[0]].problem)
    assert {path: files.facts(PATHS)[path] for path in PATHS[1:]} == {path: before[path] for path in PATHS[1:]}
    disk.looked.clear()
    disk.answers[PATHS[0]].set()
    step_until(files, background, lambda: bool(disk.looked))
    assert disk.looked == [True]
    assert files.facts(PATHS) == before


def begin_slow_look(files: InterpreterFiles, background: Background, disk: FileSystem) -> None:
    """Look at a changed path that does not answer, until its batch ends without it."""
    files.look(patience=5)
    files.wait()
    disk.answers[PATHS[0]].clear()
    files.changed(PATHS[:1])
    files.look()
    step_until(files, background, lambda: not files.looking)


def test_a_late_answer_continues_what_waits(
    files: InterpreterFiles, background: Background, disk: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that comes late, and says that nothing has changed, is reported too: an entry with F waits for it."""
    monkeypatch.setattr(interpreter_files, "HANGS", 60)
    begin_slow_look(files, background, disk)
    disk.looked.clear()
    disk.answers[PATHS[0]].set()
    step_until(files, background, lambda: files.unchanged(PATHS[0]))
    assert disk.looked == [False]


def test_an_event_during_a_slow_look(
    files: InterpreterFiles, background: Background, disk: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer may be older than an event about a name that was not in use yet: the path is out of date."""
    monkeypatch.setattr(interpreter_files, "HANGS", 60)
    begin_slow_look(files, background, disk)
    with monkeypatch.context() as events:
        events.setattr(disk.watch, "use", lambda *_: True)
        disk.looked.clear()
        disk.answers[PATHS[0]].set()
        step_until(files, background, lambda: bool(disk.looked))
        assert not files.unchanged(PATHS[0])
        assert files.out_of_date
    files.look(patience=5)
    files.wait()
    assert files.unchanged(PATHS[0])


def test_a_late_answer_does_not_end_another_look(
    files: InterpreterFiles, background: Background, disk: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late answer is reported when no look is open: what waits for the open one has to wait for its end."""
    monkeypatch.setattr(interpreter_files, "HANGS", 60)
    files.look(patience=5)
    files.wait()
    for path in PATHS[:2]:
        disk.answers[path].clear()
    files.changed(PATHS[:1])
    files.look()
    step_until(files, background, lambda: not files.looking)
    disk.looked.clear()
    files.changed(PATHS[1:2])
    files.look(patience=60)
    disk.answers[PATHS[0]].set()
    step_until(files, background, lambda: files.unchanged(PATHS[0]))
    assert disk.looked == []
    disk.answers[PATHS[1]].set()
    step_until(files, background, lambda: files.unchanged(PATHS[1]))
    assert disk.looked == [False]


def test_a_path_that_is_kept_again(
    files: InterpreterFiles, background: Background, disk: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look at a path that was forgotten says nothing about the same path, kept again."""
    monkeypatch.setattr(interpreter_files, "HANGS", 0.2)
    files.look(patience=5)
    files.wait()
    stuck = disk.answers[PATHS[0]] = Hanging()
    files.changed(PATHS[:1])
    files.look()
    assert stuck.begun.wait(30)
    disk.answers[PATHS[0]] = threading.Event()
    disk.answers[PATHS[0]].set()  # as on another file system that was mounted there
    files.keep(PATHS[1:])
    files.keep(PATHS)
    files.look()
    step_until(files, background, lambda: files.unchanged(PATHS[0]) and not files.looking)
    step_until(files, background, lambda: files.due_at == float("inf"))
    assert files.facts(PATHS)[PATHS[0]].problem is None
    assert files.unchanged(PATHS[0])
    files.changed(PATHS[:1])
    stuck.set()
    step_until(files, background, lambda: not files.at_work)
    assert not files.unchanged(PATHS[0]), "the old answer is not that of the last change"


def test_a_look_with_patience_waits_for_a_slow_file(
    files: InterpreterFiles, background: Background, disk: FileSystem
) -> None:
    """A look with patience does not end without the path, but another thread looks at the others meanwhile."""
    disk.answers[PATHS[0]].clear()
    files.look(patience=60)
    step_until(files, background, lambda: all(map(files.unchanged, PATHS[1:])))
    assert files.looking
    disk.answers[PATHS[0]].set()
    step_until(files, background, lambda: not files.looking)
    assert disk.looked == [True]
    assert all(map(files.unchanged, PATHS))


def test_all_threads_hang(
    files: InterpreterFiles, background: Background, disk: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look ends even if all threads hang; the rest keeps its facts, and is looked at when a thread is free again."""
    monkeypatch.setattr(interpreter_files, "THREADS", 2)
    files.look(patience=5)
    files.wait()
    for event in disk.answers.values():
        event.clear()
    files.changed()
    files.look(patience=0.1)
    files.wait()
    assert not files.looking
    assert not any(map(files.unchanged, PATHS))
    assert not files.out_of_date, "for a second"
    step_until(files, background, lambda: any(facts.problem for facts in files.facts(PATHS).values()))
    unanswered = [path for path, facts in files.facts(PATHS).items() if facts.problem is not None]
    assert 1 <= len(unanswered) <= 2
    for event in disk.answers.values():
        event.set()
    step_until(files, background, lambda: all(map(files.unchanged, PATHS)))


def test_no_thread_can_be_had(files: InterpreterFiles, background: Background, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no thread can be started, the facts from before are used, and the next look comes later."""
    files.look(patience=5)
    files.wait()
    monkeypatch.setattr(background, "thread", lambda _: False)
    files.look(everything=True, patience=0.1)
    files.wait()
    assert not files.looking
    assert all(map(files.unchanged, PATHS))
    files.changed()
    files.look(patience=0.1)
    files.wait()
    assert not files.out_of_date
    assert files.due_at > time.monotonic() + 0.5
