"""``make bench``: how long programs go without a handler after a removal, and how long the daemon takes to start.

Each contestant keeps one entry among many, in a private instance of its own.  They take turns of a few rounds each, so
that the machine's mood is the same for all, and start afresh for each turn, since the daemon backs off from an entry
that needs ten repairs in ten seconds.  A slower machine is slower for all: the ratios are what to compare.
"""

import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # for `support`

from support.daemon import Daemon  # noqa: E402  after the path
from support.instance import MOUNT_POINT, Instance  # noqa: E402  after the path

import binfmtd  # noqa: E402  after the path

BUILD = HERE.parents[1] / "build" / "bench"
NAME = "bench"
STAND_IN = f".binfmtd~{NAME}"  # as a literal: the benchmark measures from outside
LINE = rf":{NAME}:M::\x00bench::/usr/bin/true:"
CONFIG = rf"""
architectures = []
[handlers.{NAME}]
magic = '\x00bench'
interpreter = "/usr/bin/true"
flags = ""
"""
ROUNDS_A_TURN = 9  # one less than what the daemon takes for contention
STARTS = 15


@dataclass(frozen=True, slots=True)
class Setting:
    """How many entries there are, of which one is repaired; how often; and how long it is quiet between two rounds."""

    entries: int
    rounds: int
    pause_us: int  # long enough for the look at everything that follows a repair


SETTINGS = (Setting(1, 300, 20_000), Setting(50, 300, 20_000), Setting(10_000, 100, 200_000))


@dataclass(slots=True)
class Contestant:
    """Who repairs, how it is started in an instance, and the times it took, in nanoseconds."""

    name: str
    start: Callable[[Instance, Path], AbstractContextManager[object]]
    times: list[int] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)  # the first of each turn: nothing is warm after a start


@contextmanager
def process(instance: Instance, argv: Sequence[str]) -> Iterator[None]:
    """Run a contestant that says ready on its standard output."""
    command = instance.popen([*argv, MOUNT_POINT, NAME, LINE], stdout=subprocess.PIPE)
    assert command.stdout is not None
    if command.stdout.readline() != b"ready\n":
        raise SystemExit(f"bench: {argv[-1]} did not start")
    try:
        yield
    finally:
        command.kill()
        command.wait()


@contextmanager
def daemon(instance: Instance, directory: Path, config: str) -> Iterator[None]:
    """Run binfmtd until the block ends."""
    running = Daemon(instance, directory, config)
    try:
        running.wait_ready()
        yield
    finally:
        running.close()


def contestants() -> tuple[Contestant, ...]:
    """Return all, the one that the others are compared with first."""
    return (
        Contestant("C loop", lambda instance, _: process(instance, [str(BUILD / "loop")])),
        Contestant("bare pyinotify", lambda instance, _: process(instance, [sys.executable, str(HERE / "bare.py")])),
        Contestant("binfmtd", lambda instance, directory: daemon(instance, directory, CONFIG)),
    )


def compile_programs() -> None:
    """Compile the measuring and the measured C program."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for program in ("measure", "loop"):
        command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(BUILD / program), str(HERE / f"{program}.c")]
        subprocess.run(command, check=True)


def measure(instance: Instance, setting: Setting, rounds: int) -> list[int]:
    """Return the nanoseconds of some rounds."""
    argv = [str(BUILD / "measure"), MOUNT_POINT, NAME, STAND_IN, str(rounds), str(setting.pause_us)]
    result = instance.run(argv)
    if result.returncode != 0:
        raise SystemExit(f"bench: {result.stderr.strip()}")
    return [int(line) for line in result.stdout.split()]


def race(setting: Setting, scratch: Path) -> tuple[Contestant, ...]:
    """Let all contestants take turns at one setting."""
    racing = contestants()
    instances = [Instance() for _ in racing]
    try:
        for instance in instances:
            for number in range(setting.entries - 1):
                instance.register(rf":foreign{number}:M::\x01f{number:05}::/usr/bin/true:".encode())
            instance.register(LINE.encode())
        while (done := len(racing[0].times)) < setting.rounds:
            for instance, contestant in zip(instances, racing, strict=True):
                directory = scratch / f"{setting.entries}-{done}"
                with contestant.start(instance, directory):
                    first, *others = measure(instance, setting, ROUNDS_A_TURN)
                    contestant.firsts.append(first)
                    contestant.times += others[: setting.rounds - done]
    finally:
        for instance in instances:
            instance.close()
    return racing


def quantile(times: Sequence[float], share: float) -> float:
    """Return the time that this share of the rounds did not exceed."""
    return sorted(times)[math.ceil(share * len(times)) - 1]


def print_race(setting: Setting, racing: Sequence[Contestant]) -> None:
    """Print one row a contestant: ratios to the first contestant, and microseconds."""
    reference = racing[0]
    for contestant in racing:
        row = f"{setting.entries:>9,}{len(contestant.times):>8}  {contestant.name:<16}"
        for took, unit in (
            (quantile(contestant.times, 0.5), quantile(reference.times, 0.5)),
            (quantile(contestant.times, 0.99), quantile(reference.times, 0.99)),
            (quantile(contestant.firsts, 0.5), quantile(reference.firsts, 0.5)),
        ):
            row += f"{took / unit:>7.2f} x{took / 1000:>8,.0f} us"
        print(row, flush=True)


def start_daemon_once(scratch: Path, config: str) -> float:
    """Return the seconds from starting the daemon, in an empty instance and without state, to READY=1."""
    with Instance() as instance:
        directory = Path(tempfile.mkdtemp(dir=scratch))
        begin = time.monotonic()
        with daemon(instance, directory, config):
            return time.monotonic() - begin


def import_once() -> float:
    """Return the seconds from starting Python to its having imported the three packages that the daemon uses."""
    # `import pydantic` alone imports next to nothing: it waits for the first name that is asked of it.
    script = "from pydantic import BaseModel; import pyinotify, structlog; print('ready', flush=True)"
    with Instance() as instance:
        begin = time.monotonic()
        command = instance.popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert command.stdout is not None
        assert command.stdout.readline() == b"ready\n"
        return time.monotonic() - begin


def print_starts(scratch: Path) -> None:
    """Print the medians of the starts, and their ratios to the bare import."""
    starts: dict[str, Callable[[], float]] = {
        "importing pydantic, structlog, pyinotify": import_once,
        "binfmtd, one handler": lambda: start_daemon_once(scratch, CONFIG),
        "binfmtd, every architecture": lambda: start_daemon_once(scratch, ""),
    }
    for start in starts.values():
        start()  # the first writes the bytecode
    turns = [[start() for start in starts.values()] for _ in range(STARTS)]
    medians = [statistics.median(times) for times in zip(*turns, strict=True)]
    for name, median in zip(starts, medians, strict=True):
        print(f"  {name:<42}{median / medians[0]:>6.2f} x{median * 1000:>8.0f} ms")


def main() -> None:
    """Print everything."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody starts a daemon without bytecode
    compile_programs()
    scratch = Path(tempfile.mkdtemp(prefix="binfmtd-bench-"))
    try:
        machine = f"Linux {platform.release()} on {platform.machine()}, {os.cpu_count()} CPUs"
        print(f"binfmtd {binfmtd.__version__}, {machine}, Python {platform.python_version()}\n")
        print("From an entry's removal until the kernel has one for its match again; x: as multiples of the C loop")
        print(f"{'entries':>9}{'rounds':>8}  {'':16}{'median':>20}{'p99':>20}{'first after a start':>20}")
        for setting in SETTINGS:
            print_race(setting, race(setting, scratch))
        print(f"\nFrom the start of the process, median of {STARTS}; the daemon until READY=1")
        print_starts(scratch)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
