"""States for a service manager that cannot take them at the moment."""

import errno
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from binfmtd.daemon.sd_notify import Notifier


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Yield the socket that a service manager reads."""
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(0)
        listener.bind(path)
        yield listener


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_a_socket(manager: socket.socket, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A state for which the process has no socket left is sent later; the time until then doubles."""
    notifier = Notifier()
    waits = []
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: 1000.0)
        patch.setattr(socket, "socket", lambda *_: (_ for _ in ()).throw(OSError(number, "none left")))
        notifier.send("READY=1")
        for _ in range(12):
            waits.append(round(notifier.due_at - 1000.0, 3))
            notifier.retry(0.0)
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert max(waits) == waits[-1] == 60.0
    notifier.retry(0.0)
    assert (manager.recv(100), notifier.due_at) == (b"READY=1", float("inf"))


def test_a_manager_that_has_gone(manager: socket.socket) -> None:
    """States for a socket that no process reads any more are dropped, and cause no wake-ups."""
    notifier = Notifier()
    manager.close()
    notifier.send("STATUS=one")
    assert notifier.due_at == float("inf")
