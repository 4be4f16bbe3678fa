"""Failed executions while handlers are replaced: two processes execute programs in a loop."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contestants import ARCHITECTURES, SYSTEMD_BINFMT, Skipped, daemon, scratch
from benchmarks.figures import Goal, Part, shown
from support.binfmt_d import put_binfmt_d
from support.exec_loop import ExecLoop
from support.instance import Instance
from support.programs import exits_with, foreign_program, install
from support.waiting import wait_until

from binfmtd.catalog.architectures import CATALOG
from binfmtd.formats.register_line import encode_line
from binfmtd.model.handler import Flags, Registration

EXECUTED = ("aarch64", "riscv64")
REPLACEMENTS = 1_000


class Replacing:
    """One instance with the architectures' entries, and a way to replace them, some at a time."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.directory = scratch()
        self.interpreters = [install(self.directory / str(status), exits_with(status)) for status in (1, 2)]
        self.programs = [foreign_program(self.directory / name, CATALOG[name]) for name in EXECUTED]
        self.turn = 0

    def line(self, name: str) -> bytes:
        interpreter = os.fspath(self.interpreters[self.turn % 2])
        return encode_line(f"qemu-{name}", Registration(CATALOG[name].match, interpreter, Flags.F))

    def register(self) -> None:
        for name in ARCHITECTURES:
            self.instance.register(self.line(name))

    def executing(self, replace: Callable[[], int], replacements: int) -> tuple[int, int, int]:
        """Replace again and again; return the numbers of replacements, of executions, and of failed executions."""
        done = 0
        with ExitStack() as stack:
            loops = [stack.enter_context(ExecLoop(self.instance, program)) for program in self.programs]
            while done < replacements:
                self.turn += 1
                done += replace()
            outcomes = [outcome for each in loops for outcome in each.stop()]
        wrong = [outcome for outcome, _ in outcomes if outcome not in (1, 2) and not isinstance(outcome, str)]
        assert not wrong, f"a program was run by another interpreter: {wrong}"
        failed = sum(count for outcome, count in outcomes if isinstance(outcome, str))
        return done, sum(count for _, count in outcomes), failed


def failures(scale: float) -> Part:
    """Run each contestant in its own instance, one after the other: the counts do not depend on slow moments."""
    if not Path(SYSTEMD_BINFMT).exists():
        raise Skipped(f"{SYSTEMD_BINFMT} is not here: install systemd")
    replacements = max(62, int(REPLACEMENTS * scale))
    rows, goals = [], []
    for who, run in CONTESTANTS.items():
        with Instance() as instance:
            done, executions, failed = run(Replacing(instance), replacements)
        rows.append([who, f"{done:,}", f"{executions:,}", f"{failed:,}", f"{shown(100 * failed / executions)} %"])
        if who == BY_RELOADS:
            goals.append(Goal("failed executions", failed, 0, "executions"))
    return Part(("who replaces", "replacements", "executions", "failed", "share"), rows, goals)


def _config(place: Replacing) -> str:
    first, second = place.interpreters
    others = "".join(f'[emulators.{name}]\ninterpreter = "{second}"\n' for name in ARCHITECTURES[place.turn % 2 :: 2])
    return f'architectures = {ARCHITECTURES}\n[emulators]\npaths = ["{first}"]\nflags = "F"\n{others}'


def _by_reloads(place: Replacing, replacements: int) -> tuple[int, int, int]:
    def in_force(generation: int, status: dict[str, Any]) -> bool:
        return bool(status["config"]["generation"] == generation and status["state"] == "converged")

    with daemon(place.instance, _config(place)) as running:

        def replace() -> int:
            before = place.instance.inodes()
            running.config.write_text(_config(place))
            running.reload()
            running.wait_status(partial(in_force, place.turn + 1), "the config in force")
            return sum(before[name] != inode for name, inode in place.instance.inodes().items())

        return place.executing(replace, replacements)


@contextmanager
def _rules(place: Replacing) -> Iterator[Callable[[], int]]:
    rules = put_binfmt_d(place.instance, scratch())["/usr/lib/binfmt.d"] / "rules.conf"

    def replace() -> int:
        rules.write_bytes(b"\n".join(map(place.line, ARCHITECTURES)) + b"\n")
        done = place.instance.run([SYSTEMD_BINFMT])
        assert done.returncode == 0, done.stderr
        return len(ARCHITECTURES)

    yield replace


def _by_systemd(place: Replacing, replacements: int) -> tuple[int, int, int]:
    place.register()
    with _rules(place) as replace:
        return place.executing(replace, replacements)


def _by_systemd_beside(place: Replacing, replacements: int) -> tuple[int, int, int]:
    names = {f"qemu-{name}" for name in ARCHITECTURES}
    with daemon(place.instance, _config(place)) as running, _rules(place) as flush:
        expected = {name: place.instance.read(name) for name in names}

        def is_back() -> bool:
            try:
                return all(place.instance.read(name) == text for name, text in expected.items())
            except FileNotFoundError:
                return False

        def replace() -> int:
            count = flush()
            wait_until(is_back, 30, "the daemon's entries")
            return count

        found = place.executing(replace, replacements)
        assert not running.logs("contention_started")
        return found


def _by_writes(place: Replacing, replacements: int) -> tuple[int, int, int]:
    place.register()

    def replace() -> int:
        for name in ARCHITECTURES:
            place.instance.remove(f"qemu-{name}")
            place.instance.register(place.line(name))
        return len(ARCHITECTURES)

    return place.executing(replace, replacements)


BY_RELOADS = "binfmtd, by reloads that change half of them"
CONTESTANTS = {
    BY_RELOADS: _by_reloads,
    "systemd-binfmt, as its restart does": _by_systemd,
    "systemd-binfmt, with binfmtd beside it": _by_systemd_beside,
    "remove and register, one after the other, as the images do": _by_writes,
}
