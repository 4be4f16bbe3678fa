"""Does a build survive?  Two processes execute a foreign program without a pause beside each kind of disturbance.

A build is a long row of executions, and ends with the first that fails.  So what counts is the share of disturbances
during which at least one execution failed.
"""

import mmap
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from benchmarks.contestants import BUILD, LINES, SYSTEMD_BINFMT, daemon, process, scratch
from benchmarks.figures import Goal, Part
from support.binfmt_d import put_binfmt_d
from support.instance import Instance
from support.programs import foreign_program
from support.waiting import wait_until

from binfmtd.catalog.architectures import CATALOG

NAME, ARCHITECTURE, STATUS = "qemu-aarch64", "aarch64", 42
EMULATORS = [name for name in LINES if name.startswith("qemu-")]
Counts = Callable[[], tuple[int, int]]  # executions of the slower of two processes, and failures of both
A_TURN = 9  # disturbances
EVERY = 0.2  # seconds from one disturbance to the next: five a second
LONGEST = 5.0  # seconds until the entries are there again
CONFIG = """
architectures = ["all"]
[emulators]
flags = "F"
"""
MODES = {"no daemon": None, 'stand_ins = "temporary"': 'stand_ins = "temporary"\n' + CONFIG, "default": CONFIG}


class Disturbance(NamedTuple):
    """What another program does, and how many of 200 may break a build in the default."""

    what: str
    do: Callable[[Instance], object]
    limit: int | None = None


def _remove(instance: Instance, name: str = NAME) -> None:
    with suppress(FileNotFoundError):
        instance.remove(name)


def _register(instance: Instance, name: str = NAME) -> None:
    with suppress(FileExistsError):
        instance.register(LINES[name])


def _again(seconds: float) -> Callable[[Instance], None]:
    def do(instance: Instance) -> None:
        _remove(instance)
        time.sleep(seconds)
        _register(instance)

    return do


def _uninstall_and_install(instance: Instance) -> None:
    """As tonistiigi/binfmt: the first name that ends in -aarch64, which is the stand-in's where there is one."""
    names = sorted(name for name in instance.all_names() if name.endswith(f"-{ARCHITECTURE}"))
    _remove(instance, names[0] if names else NAME)
    _register(instance)


def _another(instance: Instance) -> None:
    """Another interpreter under the name: it is newer than everything."""
    magic = LINES[NAME].split(b":")
    _remove(instance)
    with suppress(FileExistsError):
        instance.register(b":".join([*magic[:6], b"/usr/bin/false", b"F"]))


def _uninstall_all(instance: Instance) -> None:
    """As `tonistiigi/binfmt --uninstall '*'`: each name, in the order of the directory."""
    for name in sorted(instance.all_names()):
        _remove(instance, name)


def disturbances(instance: Instance) -> list[Disturbance]:
    """All of them; systemd-binfmt has rules for all emulators."""
    found = [
        Disturbance("removal by name", _remove, 0),
        Disturbance("disable", lambda each: suppressed(each, NAME, b"0"), 0),
        Disturbance("remove and register at once", _again(0), 0),
        Disturbance("remove and register, 1 ms in between", _again(0.001), 0),
        Disturbance("remove and register, 50 ms in between", _again(0.05), 0),
        Disturbance("tonistiigi/binfmt --uninstall arm64; --install arm64", _uninstall_and_install, 0),
        Disturbance("another interpreter under the name", _another, 10),
        Disturbance("every name is removed", _uninstall_all, 2),
        Disturbance("flush: -1 to status", lambda each: each.remove("status"), 25),
        Disturbance("switched off: 0 to status", lambda each: each.write("status", b"0"), 25),
    ]
    if Path(SYSTEMD_BINFMT).exists():
        rules = put_binfmt_d(instance, scratch())["/usr/lib/binfmt.d"]
        (rules / "rules.conf").write_bytes(b"\n".join(LINES[name] for name in EMULATORS) + b"\n")
        found.append(Disturbance("systemd-binfmt runs", lambda each: each.run([SYSTEMD_BINFMT]), 25))
    return found


def suppressed(instance: Instance, name: str, data: bytes) -> None:
    with suppress(FileNotFoundError):
        instance.write(name, data)


def builds(scale: float) -> Part:
    """The share of disturbances that broke a build, without a daemon and with it."""
    rounds = max(3, int(200 * scale))
    broken: dict[str, dict[str, int]] = {}
    limits: dict[str, int | None] = {}
    for mode, config in MODES.items():
        with ExitStack() as stack:
            instance = stack.enter_context(Instance())
            kinds = disturbances(instance)
            for name in EMULATORS:
                instance.register(LINES[name])
            counts = stack.enter_context(executing(instance))
            for kind in kinds:
                limits[kind.what] = kind.limit
                broken.setdefault(kind.what, {})[mode] = _count(instance, kind, counts, config, rounds)
    rows = [[what, *(f"{broken[what][mode]} of {rounds}" for mode in MODES)] for what in broken]
    goals = [
        Goal(f"default, {what}", broken[what]["default"] * 200 / rounds, limit, "of 200")
        for what, limit in limits.items()
        if limit is not None
    ]
    samples = {f"{mode}: {what}": [counts[mode] / rounds] for what, counts in broken.items() for mode in MODES}
    return Part(("disturbance", *MODES), rows, goals, samples)


def _count(instance: Instance, kind: Disturbance, counts: Counts, config: str | None, rounds: int) -> int:
    """How many of the disturbances broke a build.

    The daemon starts anew for each turn: after ten repairs in ten seconds the entry would not be there to be disturbed.
    """
    broken = 0
    for begin in range(0, rounds, A_TURN):
        with nullcontext() if config is None else daemon(instance, config):
            turn = range(begin, min(begin + A_TURN, rounds))
            broken += sum(_breaks(instance, kind, counts, kept=config is not None) for _ in turn)
    return broken


@contextmanager
def executing(instance: Instance) -> Iterator[Counts]:
    """Two processes that execute; yields a function of their executions and failures so far."""
    program = foreign_program(scratch() / "program", CATALOG[ARCHITECTURE])
    with ExitStack() as stack:
        maps = []
        for number in range(2):
            path = scratch() / f"counts{number}"
            path.write_bytes(bytes(16))
            file = stack.enter_context(path.open("r+b"))
            maps.append(stack.enter_context(mmap.mmap(file.fileno(), 16)))
            stack.enter_context(process(instance, [str(BUILD / "executes"), str(program), str(STATUS), str(path)]))

        def counts() -> tuple[int, int]:
            both = [struct.unpack("qq", each[:16]) for each in maps]
            return min(runs for runs, _ in both), sum(failed for _, failed in both)

        yield counts


def _breaks(instance: Instance, kind: Disturbance, counts: Counts, *, kept: bool) -> bool:
    """Disturb once, and say if an execution failed until all stood again."""
    began = time.monotonic()
    _, before = counts()
    kind.do(instance)
    runs, _ = counts()
    wait_until(lambda: counts()[0] > runs + 1, what="two more executions of each")  # those that met it have ended
    _, after = counts()
    if not kept:
        instance.write("status", b"1")
        for name in EMULATORS:
            _register(instance, name)
        suppressed(instance, NAME, b"1")
        if b"false" in instance.read(NAME).encode():
            _remove(instance)
            _register(instance)
    wait_until(lambda: set(EMULATORS) <= set(instance.names()), LONGEST, "all entries again")
    time.sleep(max(0.0, began + EVERY - time.monotonic()))
    return after > before or (counts()[1] > after and kept)
