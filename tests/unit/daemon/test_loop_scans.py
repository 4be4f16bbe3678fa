"""The loop while a pass scans 300 foreign entries, which takes at least 30 ms: nothing urgent waits for its end.

The scan begins at ``SCAN``, when a refused registration has been quiet for ``settle`` seconds.
"""

from itertools import pairwise
from math import inf

import pytest
from support.simulated import declared
from support.simulated_loop import SimulatedLoop
from support.simulated_time import START
from support.simulated_wait import SLICE, WAKING

from binfmtd.daemon.loop import PASS_SECONDS
from binfmtd.model.config import Config, Policy
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.match import Extension, Magic
from binfmtd.model.stand_in import stand_in_name

SETTLE = 0.02
ENTRIES = 300
SCAN = 1.0 + SETTLE
SCAN_SECONDS = ENTRIES * SLICE  # at least
WITHIN = SCAN + 0.01
A, B = (Handler(name, Registration(Magic(name.encode()), "/i/" + name, Flags.NONE)) for name in "ab")


@pytest.fixture
def loop() -> SimulatedLoop:
    """Return a loop that scans all entries from ``SCAN`` on."""
    loop = SimulatedLoop(Config(declared([A, B]), Policy(settle=SETTLE)))
    for number in range(ENTRIES):
        loop.kernel.register(f"foreign{number}", Registration(Extension(f"x{number}"), "/i/x", Flags.NONE))
    loop.at(1.0, loop.touches, "a")
    return loop


def turns_in_the_scan(loop: SimulatedLoop) -> list[float]:
    """Return when each turn began that continued the pass, in seconds after the start."""
    return [turn.began - START for turn in loop.poller.turns if turn.deadline == -inf and turn.began - START >= SCAN]


def test_no_turn_is_long(loop: SimulatedLoop) -> None:
    """A turn continues a pass for 1 ms, and one slice more at most."""
    loop.run(5.0)
    turns = turns_in_the_scan(loop)
    assert turns[-1] - turns[0] >= 0.9 * SCAN_SECONDS
    assert max(b - a for a, b in pairwise(turns)) <= PASS_SECONDS + SLICE + WAKING


@pytest.mark.parametrize("place", [0.0, 0.5, 0.95])
def test_a_removal(loop: SimulatedLoop, place: float) -> None:
    """A stand-in is registered after one slice, and the proper entry when its name is quiet."""
    removed = SCAN + place * SCAN_SECONDS
    loop.at(removed, loop.removes, stand_in_name("a"))
    loop.at(removed, loop.removes, "a")
    loop.run(5.0)
    assert loop.when("kernel", "register", stand_in_name("a"))[1] <= removed + SLICE + 4 * WAKING
    repaired = loop.when("kernel", "register", "a")[1]
    assert removed + SETTLE <= repaired <= removed + SETTLE + 2 * SCAN_SECONDS
    assert {"a", "b", stand_in_name("a"), stand_in_name("b")} <= set(loop.names())


def test_a_flush(loop: SimulatedLoop) -> None:
    """After a flush within the scan all handlers serve again at once, and the status is right in the end."""
    loop.at(WITHIN, loop.flushes)
    loop.run(5.0)
    for name in "ab":
        assert loop.when("kernel", "register", stand_in_name(name))[1] <= WITHIN + SLICE + 6 * WAKING
    assert loop.happened("status")[-1] == "converged"
    assert set(loop.names()) == {"a", "b", stand_in_name("a"), stand_in_name("b")}


def test_a_reload(loop: SimulatedLoop) -> None:
    """RELOADING=1 is sent within the scan; the new config is put in force after it, and READY=1 follows its pass."""
    loop.at(WITHIN, loop.reloads, Config(declared([A]), Policy(settle=SETTLE)))
    loop.run(5.0)
    (reloading,), (reloaded,) = loop.when("systemd", "RELOADING=1"), loop.when("log", "info config_reloaded")
    assert reloading <= WITHIN + PASS_SECONDS + SLICE + WAKING
    assert reloaded >= SCAN + SCAN_SECONDS
    (removed,), ready = loop.when("kernel", "remove", "b"), loop.when("systemd", "READY=1")[-1]
    assert reloaded < removed < ready < reloaded + 2 * SCAN_SECONDS
    assert "b" not in loop.names()


def test_a_pause(loop: SimulatedLoop) -> None:
    """A pause is put in force after the scan, and a removal before that is repaired first."""
    loop.at(WITHIN, loop.removes, "a")
    loop.at(WITHIN + 0.001, loop.pauses, ["a"], inf)
    loop.at(2.0, loop.removes, "a")
    loop.run(5.0)
    (paused,) = loop.when("log", "warning pause_started", "a")
    repaired = loop.when("kernel", "register", "a")[1:]
    assert len(repaired) == 1
    assert SCAN + SCAN_SECONDS <= repaired[0] < paused


def test_lost_events(loop: SimulatedLoop) -> None:
    """The pass that reads all entries, since events were lost, comes after the scan that is under way."""
    loop.at(WITHIN, loop.overflows)
    loop.run(5.0)
    turns = turns_in_the_scan(loop)
    assert turns[-1] - turns[0] >= 1.8 * SCAN_SECONDS


def test_another_instance(loop: SimulatedLoop) -> None:
    """An instance that is mounted within the scan gets its handlers after it."""
    loop.at(WITHIN, loop.mounts_another)
    loop.run(5.0)
    assert set(loop.names()) == {"a", "b", stand_in_name("a"), stand_in_name("b")}
    assert loop.when("kernel", "register", "a")[1] <= SCAN + 3 * SCAN_SECONDS + SETTLE


def test_the_end(loop: SimulatedLoop) -> None:
    """SIGTERM within the scan ends the daemon with its work done."""
    loop.at(WITHIN - 0.001, loop.removes, "a")
    loop.run(WITHIN)
    assert {"a", "b"} <= set(loop.names())
    assert loop.happened("log")[-1] == "info stopped"
