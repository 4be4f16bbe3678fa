"""The reference: what the loop does in 500 random scenarios, each as two short digests in loop_reference.txt.

The first digest is of the kernel writes, in order, with the final states and entries.  The second is of the whole
trace: writes, log events, what systemd gets, and what other programs did in between.  Times are in neither.

A change that is meant to change behaviour writes the file anew:

    BINFMTD_WRITE_REFERENCE=1 python -m pytest tests/unit/daemon/test_loop_reference.py

Then git shows in how many scenarios it does.  The test prints the trace of the first one that differs.
"""

import os
from collections.abc import Iterable
from hashlib import sha256
from itertools import groupby
from pathlib import Path

import pytest
from support.loop_scenarios import run_scenario
from support.simulated_world import Happened

SEEDS = 500
A_PART = 50  # scenarios in one test, so that two cores share the work
REFERENCE = Path(__file__).with_name("loop_reference.txt")
_STATES = ("kernel", "status", "entries")


def digest(trace: Iterable[Happened]) -> str:
    """Return a digest without the times, in which a log line that is repeated at once counts once."""
    lines = [(each.who, each.what, each.names) for each in trace]
    once = [line for line, same in groupby(lines) for _ in ([0] if line[0] == "log" else same)]
    return sha256(repr(once).encode()).hexdigest()[:8]


def digests(trace: list[Happened]) -> str:
    return f"{digest(each for each in trace if each.who in _STATES)} {digest(trace)}"


@pytest.mark.parametrize("first", range(0, SEEDS, A_PART))
def test_reference(first: int) -> None:
    """In each scenario the loop writes, logs and ends as the reference has it."""
    expected = REFERENCE.read_text(encoding="ascii").splitlines()
    assert len(expected) == SEEDS
    seeds = range(first, first + A_PART)
    if os.environ.get("BINFMTD_WRITE_REFERENCE"):
        expected[first : first + A_PART] = [f"{seed:3} {digests(run_scenario(seed).trace)}" for seed in seeds]
        REFERENCE.write_text("\n".join(expected) + "\n", encoding="ascii")
        pytest.skip(f"{REFERENCE} has been written anew")
    shown, differing = "", []
    for seed in seeds:
        trace = run_scenario(seed).trace
        found = digests(trace)
        if f"{seed:3} {found}" != expected[seed]:
            differing.append(seed)
            shown = shown or f"{found} instead of {expected[seed][4:]}:\n" + "\n".join(map(str, trace))
    assert not differing, f"{len(differing)} scenarios differ: {differing}\nscenario {differing[0]} has {shown}"


def test_digest() -> None:
    """The order of events changes the digest; a time does not, nor does a log line that is repeated at once."""
    one, two = Happened(0.0, "log", "debug done", "a"), Happened(0.1, "kernel", "register", "a")
    assert digest([one, two]) != digest([two, one])
    assert digest([one, two]) == digest([one, one._replace(at=0.5), two._replace(at=0.7)])
    assert digest([one, two]) != digest([one, two, two])
