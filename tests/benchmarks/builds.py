"""The disturbances that break a build: processes execute a foreign program without a pause beside each kind.

A build consists of thousands of executions, and ends with the first that fails.  So the figure is the share of
disturbances during which at least one execution failed.
"""

import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import NamedTuple

from benchmarks.contestants import (
    AS_THE_UNIT,
    BUILD,
    Skipped,
    daemon,
    loop,
    loop_in_python,
    process,
    scratch,
    wait_idle,
)
from benchmarks.disturbances import (
    ALL_UNINSTALLED,
    ARCHITECTURE,
    EMULATORS,
    FLUSH,
    REMOVAL,
    Disturbance,
    Host,
    disturbances,
)
from benchmarks.figures import Goal, Part
from support.instance import Instance
from support.programs import foreign_program
from support.waiting import wait_until

from binfmtd.catalog.architectures import CATALOG

STATUS = 42  # with which the program ends
Counts = Callable[[], tuple[int, int]]  # executions of the slowest process, and failures of all
ROUNDS = 200
A_TURN = 9  # disturbances
LONGEST = 5.0  # seconds until the entries are there again


class Mode(NamedTuple):
    """A program that keeps the entries; without one the benchmark registers them again after each disturbance."""

    start: Callable[[Host], AbstractContextManager[object]]
    keeps: bool = True


@contextmanager
def _as_the_unit(host: Host, keys: str) -> Iterator[None]:
    with daemon(host.instance, f"{keys}\n{host.config}", AS_THE_UNIT) as running:
        wait_idle(running)
        yield


def _binfmtd(keys: str = "") -> Mode:
    return Mode(lambda host: _as_the_unit(host, keys))


def _in_python(script: str) -> Mode:
    return Mode(lambda host: process(host.instance, loop_in_python(script, host.instance, host.lines)))


DEFAULT = "default"
SEALED = "sealed"
MODES = {
    "no daemon": Mode(lambda _: nullcontext(), keeps=False),
    DEFAULT: _binfmtd(),
    SEALED: _binfmtd("sealed = true"),
}
PEERS = {
    "C loop, real-time": Mode(lambda host: process(host.instance, loop(host.instance, host.lines), real_time=True)),
    "C loop": Mode(lambda host: process(host.instance, loop(host.instance, host.lines))),
    "least in Python": _in_python("least.py"),
    "bare pyinotify": _in_python("bare.py"),
}
BY_PEERS = (REMOVAL, ALL_UNINSTALLED, FLUSH)


def builds(scale: float) -> Part:
    """Make five disturbances a second beside two processes."""
    return _compare(MODES, disturbances, max(3, int(ROUNDS * scale)), every=0.2)


def builds_slow(scale: float) -> Part:
    """Make one a second, which takes five times as long."""
    return _compare(MODES, disturbances, max(3, int(ROUNDS * scale)), every=1)


def builds_cores(scale: float) -> Part:
    """Make five a second beside as many processes as there are cores."""
    cores = len(os.sched_getaffinity(0))
    if cores == 2:
        raise Skipped("there are two cores, and two processes are what `builds` has")
    return _compare(MODES, disturbances, max(3, int(ROUNDS * scale)), every=0.2, processes=cores)


def builds_peers(scale: float) -> Part:
    """Measure the peers of the other benchmarks, which only find out that an entry is missing."""
    return _compare(PEERS, lambda _: BY_PEERS, max(3, int(ROUNDS * scale)), every=0.2)


def _compare(
    modes: Mapping[str, Mode],
    kinds: Callable[[Host], Sequence[Disturbance]],
    rounds: int,
    every: float,
    processes: int = 2,
) -> Part:
    """Count the disturbances that broke a build, of each kind in each mode."""
    broken: dict[Disturbance, dict[str, int]] = {}
    whats: dict[str, Disturbance] = {}
    for mode, contestant in modes.items():
        with ExitStack() as stack:
            host = Host(stack.enter_context(Instance()), scratch())
            host.restore()
            counts = stack.enter_context(executing(host, processes))
            for kind in kinds(host):
                first = whats.setdefault(kind.what, kind)
                broken.setdefault(first, {})[mode] = _count(host, kind, counts, contestant, rounds, every)
    head = f"{1 / every:g} a second, {processes} processes"
    rows = [[kind.what, *(f"{found[mode]} of {rounds}" for mode in modes)] for kind, found in broken.items()]
    samples = {f"{mode}: {kind.what}": [found[mode] / rounds] for kind, found in broken.items() for mode in modes}
    return Part((head, *modes), rows, _goals(broken, rounds), samples)


def _goals(broken: Mapping[Disturbance, Mapping[str, int]], rounds: int) -> list[Goal]:
    """Return the goals: in the default one for all kinds of limit 0, and one for each other; if sealed, one for all."""
    goals = []
    if by_name := [found[DEFAULT] for kind, found in broken.items() if DEFAULT in found and kind.limit == 0]:
        goals.append(Goal(f"{DEFAULT}, whatever works by name", sum(by_name), 0, f"of {rounds * len(by_name)}"))
    goals += [
        Goal(f"{DEFAULT}, {kind.what}", found[DEFAULT] * ROUNDS / rounds, kind.limit, f"of {ROUNDS}")
        for kind, found in broken.items()
        if DEFAULT in found and kind.limit
    ]
    if sealed := [found[SEALED] for found in broken.values() if SEALED in found]:
        goals.append(Goal(f"{SEALED}, all disturbances", sum(sealed), 0, f"of {rounds * len(sealed)}"))
    return goals


def _count(host: Host, kind: Disturbance, counts: Counts, mode: Mode, rounds: int, every: float) -> int:
    """Count the disturbances that broke a build.

    The daemon starts anew for each turn: after ten repairs in ten seconds it would back off from the entry, which would
    be missing then.
    """
    broken = 0
    for begin in range(0, rounds, A_TURN):
        with mode.start(host):
            turn = range(begin, min(begin + A_TURN, rounds))
            broken += sum(_breaks(host, kind, counts, mode, every) for _ in turn)
    return broken


@contextmanager
def executing(host: Host, processes: int) -> Iterator[Counts]:
    """Run processes that execute; yield a function that returns their executions and failures so far."""
    program = foreign_program(scratch() / "program", CATALOG[ARCHITECTURE])
    with ExitStack() as stack:
        maps = []
        for number in range(processes):
            path = scratch() / f"counts{number}"
            path.write_bytes(bytes(16))
            file = stack.enter_context(path.open("r+b"))
            maps.append(stack.enter_context(mmap.mmap(file.fileno(), 16)))
            command = [str(BUILD / "executes"), str(program), str(STATUS), str(path)]
            stack.enter_context(process(host.instance, command))

        def counts() -> tuple[int, int]:
            each = [struct.unpack("qq", found[:16]) for found in maps]
            return min(runs for runs, _ in each), sum(failed for _, failed in each)

        yield counts


def _breaks(host: Host, kind: Disturbance, counts: Counts, mode: Mode, every: float) -> bool:
    """Disturb once; return True if an execution failed before the next disturbance.

    In a mode that does not keep the entries only those before the benchmark registers them again count.
    """
    began = time.monotonic()
    _, before = counts()
    kind.do(host)
    runs, _ = counts()
    wait_until(lambda: counts()[0] > runs + 1, what="two more executions of each")  # those that met it are over
    _, after = counts()
    if not mode.keeps:
        host.restore()
    host.mount()  # binfmtd mounts it itself, but not in a user namespace
    try:
        wait_until(lambda: set(EMULATORS) <= set(host.instance.names()), LONGEST, "all entries again")
    except AssertionError as late:
        print(f"builds: after {kind.what}: {late}")
        return True
    time.sleep(max(0.0, began + every - time.monotonic()))
    return after > before or (mode.keeps and counts()[1] > before)
