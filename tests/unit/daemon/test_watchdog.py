"""The watchdog: if this process is watched, and how often it pings."""

import os
import socket
import time
from pathlib import Path

import pytest

from binfmtd.daemon.sd_notify import Notifier
from binfmtd.daemon.watchdog import Watchdog

NEVER = float("inf")


def watchdog(monkeypatch: pytest.MonkeyPatch, microseconds: str | None, pid: str | None = None) -> Watchdog:
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    made = Watchdog(Notifier())
    assert not os.environ.keys() & {"WATCHDOG_USEC", "WATCHDOG_PID"}, "no child may take it for its own"
    return made


@pytest.mark.parametrize("pid", [None, str(os.getpid())], ids=["any process", "this process"])
def test_pings_at_half_the_interval(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pid: str | None) -> None:
    """The first ping is due at half the interval, as sd_watchdog_enabled(3) advises, and each next one likewise."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(str(tmp_path / "notify"))
        before = time.monotonic()
        watched = watchdog(monkeypatch, "180000000", pid)
        assert before + 90 <= watched.due_at <= time.monotonic() + 90
        watched.ping(1000)
        assert watched.due_at == 1090
        assert manager.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("microseconds", "pid"),
    [(None, None), ("180000000", "1"), ("0", None), ("", None), ("soon", None), ("-5", None), ("9" * 5000, None)],
)
def test_not_watched(monkeypatch: pytest.MonkeyPatch, microseconds: str | None, pid: str | None) -> None:
    """Without an interval, with an invalid one, or with one for another process, no ping is ever due."""
    assert watchdog(monkeypatch, microseconds, pid).due_at == NEVER
