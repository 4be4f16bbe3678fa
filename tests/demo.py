"""A demonstration of the main job: ``make demo`` runs it inside ``binfmtd sandbox``.

A process executes a foreign program without a pause while its entry is removed, again and again: no execution fails.
Then all entries are removed at once, and the time until the first is registered again is measured by inotify events.
Nothing on the host is touched: this is a private instance of binfmt_misc.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from support.waiting import IN_CLOSE_WRITE, IN_MODIFY, DirectoryWatch, wait_until

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program

MOUNT = Path("/proc/sys/fs/binfmt_misc")
REMOVALS = 9  # in ten seconds; after the tenth the daemon would register the proper entry at growing intervals
FLUSHES = 9


def say(text: str) -> None:
    """Print one line of the transcript."""
    print(text, flush=True)


def run(program: Path) -> int:
    """Execute the foreign program; return its exit status, or -1 if the kernel cannot."""
    try:
        return subprocess.run([program], check=False).returncode
    except OSError as error:
        say(f"    {error.strerror}")
        return -1


def remove(name: str) -> None:
    """Remove one entry, or with ``status`` all."""
    descriptor = os.open(MOUNT / name, os.O_WRONLY)
    os.write(descriptor, b"-1")
    os.close(descriptor)


def executions_beside_removals(program: Path, name: str) -> tuple[int, int]:
    """Execute the program in a loop while its entry is removed; return the numbers of executions and of failures."""
    outcomes: list[int] = []
    over = threading.Event()

    def execute() -> None:
        while not over.is_set():
            outcomes.append(run(program))

    loop = threading.Thread(target=execute)
    loop.start()
    for _ in range(REMOVALS):
        remove(name)
        wait_until((MOUNT / name).exists, what=f"the proper entry {name}")
    over.set()
    loop.join()
    return len(outcomes), sum(status != 42 for status in outcomes)


def flush(names: list[str]) -> float:
    """Remove all entries at once, and return the microseconds until the first is registered again."""
    with DirectoryWatch(MOUNT, IN_MODIFY | IN_CLOSE_WRITE) as watch:
        removed = time.perf_counter_ns()
        remove("status")
        watch.wait_for(lambda event: event.name == "register" and event.mask & IN_MODIFY, what="a registration")
        registered = time.perf_counter_ns()
    wait_until(lambda: all((MOUNT / name).exists() for name in names), what="the proper entries")
    return (registered - removed) / 1000


def main() -> int:
    """Run the demonstration; return 0 if every step worked, else 1."""
    registered = sorted(path.name for path in MOUNT.glob("qemu-*"))
    say(f"1. the daemon is ready: {len(registered)} architectures registered in a private binfmt_misc")
    name = next((name for name in ("qemu-aarch64", "qemu-riscv64", *registered) if name in registered), None)
    if name is None:
        say("   no emulator is installed: apt-get install qemu-user")
        return 1
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "program"
        program.write_bytes(tiny_program(CATALOG[name.removeprefix("qemu-")]))
        program.chmod(0o755)
        status = run(program)
        say(f"2. a program for {name.removeprefix('qemu-')}, which ends with exit(42), runs: exit status {status}")
        if status != 42:
            return 1
        executions, failed = executions_beside_removals(program, name)
        say(f"3. entry {name} was removed {REMOVALS} times while a loop executed it: {failed} of {executions} failed")
        times = [flush(registered) for _ in range(FLUSHES)]
        say(f"4. everything was removed at once {FLUSHES} times, and was registered again")
        status = run(program)
        say(f"5. the program runs: exit status {status}")
    say(
        f"6. from a flush to the first handler: {times[0]:.0f} microseconds the first time, "
        f"median of {FLUSHES}: {statistics.median(times):.0f}"
    )
    return 0 if (failed, status) == (0, 42) else 1


sys.exit(main())
