"""The time of the look that follows a change of the mount table."""

import time

import pytest

from binfmtd.daemon.watches.mount_watcher import LEAST_REST, MountWatcher


def test_looks_are_rested_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first change is looked at without delay; later ones wait, together, for a rest after that look."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    mounts = MountWatcher()
    assert mounts.due_at == float("inf")
    mounts.drain()
    assert mounts.due_at == now
    mounts.due_at, now = float("inf"), 100.5
    mounts.looked(100.0)
    for _ in range(3):
        mounts.drain()
        assert mounts.due_at == 100.5 + LEAST_REST * 0.5
    now = 200.0
    mounts.due_at = float("inf")
    mounts.drain()
    assert mounts.due_at == now
