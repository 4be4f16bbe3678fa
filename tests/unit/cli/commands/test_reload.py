"""The choice of the status that answers a request for a reload."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from binfmtd.cli.commands.reload import answer
from binfmtd.errors import StateError
from binfmtd.report.status_json import write_status

SENT = 100.0  # seconds since the boot


def status(reload_began: float | None, state: str = "converged", error: str | None = None) -> dict[str, Any]:
    """Return the status of a daemon without handlers."""
    config = {"path": "/c", "files": [], "generation": 1, "loaded_at": "", "reload_began": reload_began, "error": error}
    lists: dict[str, Any] = {key: [] for key in ("handlers", "contended", "paused", "foreign", "history")}
    numbers = dict.fromkeys(("log_lines_dropped", "passes", "repairs"), 0)
    probed: dict[str, Any] = {"at": None, "error": None, "architectures": []}
    counted = {"foreign_count": {"enabled": 0, "disabled": 0}}
    nothing: dict[str, Any] = dict.fromkeys(("problem", "lacking", "mount", "last_pass"))
    nothing["seal"] = {"state": "off", "reason": ""}
    return {"state": state, "config": config, "probed": probed, **lists, **numbers, **counted, **nothing}


@pytest.fixture
def daemon() -> Iterator[int]:
    """Return a descriptor of a process that does not end meanwhile: our own."""
    descriptor = os.pidfd_open(os.getpid())
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize(
    ("document", "is_answer"),
    [
        (status(None), False),  # no reload yet
        (status(SENT - 0.01), False),  # it began before the request, and may have read an older config
        (status(SENT - 0.01, error="bad"), False),
        (status(SENT + 0.01), True),
        (status(SENT + 0.01, error="bad"), True),
        (status(SENT + 0.01, error="bad", state="drifting"), True),
        (status(SENT + 0.01, state="drifting"), True),  # but only at the deadline
    ],
)
def test_answers(tmp_path: Path, daemon: int, document: dict[str, Any], *, is_answer: bool) -> None:
    """The answer is the first status with a reload that began after the request, whatever its result."""
    write_status(str(tmp_path), document)
    found = answer(str(tmp_path), daemon, SENT, time.monotonic() + 0.1)
    assert (found is not None) == is_answer


def test_another_version(tmp_path: Path, daemon: int) -> None:
    """The status of an older daemon lacks the time of its reload, so the error asks for a restart."""
    document = status(None)
    del document["config"]["reload_began"]
    write_status(str(tmp_path), document)
    with pytest.raises(StateError, match="restart it"):
        answer(str(tmp_path), daemon, SENT, time.monotonic() + 0.1)
