"""A status document as the daemon writes it, with a value of every kind."""

from typing import Any

import pytest

from binfmtd.model.drift import Drift
from binfmtd.report.counts import Counts
from binfmtd.report.status import HANDLER_STATES

ODD = '<b>"odd"\\\n\udcff'  # a name as the kernel takes it


@pytest.fixture
def document() -> dict[str, Any]:
    """Return one handler in each state, one of them with a name that has to be escaped everywhere."""
    rows = [
        {
            "name": f"qemu-{state}" if state != "failed" else ODD,
            "architecture": "arm" if state != "failed" else None,
            "state": state,
            "reason": "why & where",
            "interpreter": "/usr/bin/true",
            "flags": "PF",
            "priority": 0,
            "repairs": 2,
        }
        for state in HANDLER_STATES
    ]
    return {
        "state": "degraded",
        "problem": "something is wrong",
        "lacking": None,
        "mount": {"directory": "/proc/sys/fs/binfmt_misc", "read_only": False, "host_unmounted": False},
        "seal": {"state": "off", "reason": ""},
        "config": {
            "path": "/etc/binfmtd/binfmtd.toml",
            "files": [],
            "generation": 3,
            "loaded_at": "2026-01-02T03:04:05.678+00:00",
            "error": "it says nonsense",
        },
        "handlers": rows,
        "contended": ["qemu-contended", ODD],
        "paused": [{"name": "qemu-paused", "until": None}, {"name": ODD, "until": "2026-01-02T03:04:05+00:00"}],
        "foreign": [{"name": ODD, "enabled": True}, {"name": "python3.13", "enabled": False}],
        "foreign_count": {"enabled": 1, "disabled": 1},
        "history": [],
        "passes": 7,
        "repairs": 4,
        "last_pass": {"at": "2026-01-02T03:04:06.000+00:00", "trigger": "quiet", "actions": 1, "duration_us": 900},
    }


@pytest.fixture
def counts() -> Counts:
    """Return counters, each with some counts."""
    counts = Counts(started_at=1.5e9)
    counts.repairs["qemu-registered", Drift.MISSING.value] = 3
    counts.repairs[ODD, Drift.CHANGED.value] = 1
    counts.unwanted = 5
    counts.passes["start"] = 1
    counts.passes["quiet"] = 6
    counts.contentions, counts.reload_failures = 8, 9
    for seconds in (0.00001, 0.0003, 0.0003, 31.0):
        counts.served.add(seconds)
    counts.settled.add(0.05)
    return counts
