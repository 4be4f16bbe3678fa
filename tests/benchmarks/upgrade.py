"""An emulator is upgraded as dpkg does, by a rename: how long until programs run with the new file."""

import json
import os
import sys
import time
from pathlib import Path

from benchmarks.contestants import ARCHITECTURES, INTERPRETERS, LINES, daemon, scratch
from benchmarks.figures import Goal, Part, median, quantile, shown
from support.exec_loop import TESTS, execute
from support.instance import Instance
from support.programs import exits_with, foreign_program, install

from binfmtd.catalog.architectures import CATALOG

NEVER = 1.0  # seconds after which it has not been noticed
NAME = "aarch64"


def upgrade(scale: float) -> Part:
    """Upgrade one of 31 emulators, each in its own file, with binfmtd and without."""
    rounds = max(5, int(50 * scale))
    directory = scratch()
    emulators = {name: install(directory / f"qemu-{name}", exits_with(1)) for name in ARCHITECTURES}
    config = f"""
architectures = {ARCHITECTURES}
[emulators]
paths = ["{directory}/qemu-{{name}}"]
flags = "F"
"""
    with Instance() as instance, daemon(instance, config):
        times = _times(instance, emulators[NAME], rounds)
    with Instance() as instance:
        line = LINES[f"qemu-{NAME}"]
        instance.register(line.replace(os.fsencode(INTERPRETERS[f"qemu-{NAME}"]), os.fsencode(emulators[NAME])))
        (peer,) = _times(instance, emulators[NAME], 1)
    rows = [
        ["binfmtd", f"{shown(median(times) * 1e3)} ms", f"{shown(quantile(times, 0.99) * 1e3)} ms"],
        ["nobody, as with the peers", *[f"not within {NEVER:g} s" if peer >= NEVER else f"{peer:.3f} s"] * 2],
    ]
    goals = [Goal("median", median(times) * 1e3, 5, "ms")]
    return Part(("who", "median", "p99"), rows, goals, {"binfmtd": times})


def _times(instance: Instance, emulator: Path, rounds: int) -> list[float]:
    """Return the seconds from each rename to the first execution that the new file served."""
    program = foreign_program(emulator.parent / "program", CATALOG[NAME])
    new = [install(emulator.parent / f"new-{status}", exits_with(status)) for status in range(2, rounds + 2)]
    done = instance.run(
        [
            sys.executable,
            "-c",
            "from benchmarks.upgrade import main; main()",
            str(program),
            str(emulator),
            *map(str, new),
        ],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        timeout=60 + 3 * rounds,
    )
    assert done.returncode == 0, done.stderr
    found: list[float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Run the process inside the instance: it renames each new file into place, and executes the program meanwhile."""
    program, emulator, *new = sys.argv[1:]
    times = []
    for status, file in enumerate(new, 2):
        time.sleep(1.5)  # a second upgrade within a second waits until it is quiet
        began = time.perf_counter()
        Path(file).rename(emulator)
        while (took := time.perf_counter() - began) < NEVER and execute(program) != status:
            pass
        times.append(time.perf_counter() - began if took < NEVER else NEVER)
    json.dump(times, sys.stdout)
