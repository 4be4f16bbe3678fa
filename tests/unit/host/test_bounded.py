"""Calls with a time limit, beside file systems that hang and cores that are busy."""

import _thread
import threading
from collections.abc import Callable

import pytest

from binfmtd.host.bounded import BoundedCalls

LONG = 10.0  # seconds
SHORT = 0.001


def test_a_call_that_hangs_returns_the_default() -> None:
    """A call that has not ended in time returns the default; so does the next one with its key, until it ends."""
    answers, ended = threading.Event(), threading.Event()
    calls = BoundedCalls(SHORT)

    def hangs() -> str:
        answers.wait()
        ended.set()
        return "late"

    assert calls.call("a", hangs, otherwise="default") == "default"
    assert calls.hangs("a")
    assert calls.call("a", lambda: "not called", otherwise="default") == "default"
    answers.set()
    assert ended.wait(LONG)


def test_a_thread_that_waits_for_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit begins with the thread, however late that is; it holds for a late thread as well."""
    start, late = _thread.start_new_thread, 100 * SHORT

    def start_late(thread: Callable[[], None], arguments: tuple[()]) -> None:
        threading.Timer(late, start, (thread, arguments)).start()

    monkeypatch.setattr(_thread, "start_new_thread", start_late)
    assert BoundedCalls(late / 2, LONG).call("a", lambda: "result", otherwise="default") == "result"
    assert (
        BoundedCalls(SHORT, LONG).call("a", lambda: str(threading.Event().wait(LONG / 5)), otherwise="default")
        == "default"
    )


@pytest.mark.parametrize("starting", [None, 0.0])
def test_a_thread_that_never_begins(monkeypatch: pytest.MonkeyPatch, starting: float | None) -> None:
    """A thread that has not begun after that time counts as one that hangs."""
    monkeypatch.setattr(_thread, "start_new_thread", lambda *_: None)
    assert BoundedCalls(SHORT, starting).call("a", lambda: "result", otherwise="default") == "default"
