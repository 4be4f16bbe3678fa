"""The main job, shown: run inside ``binfmtd sandbox`` by ``make demo``.

A foreign program runs; its entry is removed behind the daemon's back; the program runs again; how long the repair took
is measured from the removal to the kernel's having a handler again, as inotify reports it.  Nothing on the host is
touched: this is a private instance of binfmt_misc.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support.waiting import IN_CLOSE_WRITE, IN_MODIFY, DirectoryWatch, wait_until

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program

MOUNT = Path("/proc/sys/fs/binfmt_misc")
ROUNDS = 9  # of one entry in ten seconds; the tenth would count as a quarrel, and the daemon would back off


def say(text: str) -> None:
    """One line of the transcript."""
    print(text, flush=True)


def run(program: Path) -> int:
    """Execute the foreign program; its exit status, or -1 if the kernel cannot."""
    try:
        return subprocess.run([program], check=False).returncode
    except OSError as error:
        say(f"    {error.strerror}")
        return -1


def repair(name: str) -> float:
    """Remove the entry, and return the microseconds until the kernel has a handler for its files again."""
    with DirectoryWatch(MOUNT, IN_MODIFY | IN_CLOSE_WRITE) as watch:
        descriptor = os.open(MOUNT / name, os.O_WRONLY)
        removed = time.perf_counter_ns()
        os.write(descriptor, b"-1")
        os.close(descriptor)
        watch.wait_for(lambda event: event.name == "register" and event.mask & IN_MODIFY, what="a registration")
        repaired = time.perf_counter_ns()
    wait_until((MOUNT / name).exists, what=f"the proper entry {name}")
    return (repaired - removed) / 1000


def main() -> int:
    """Show it; the exit status says whether it worked."""
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
        times = []
        for _ in range(ROUNDS):
            times.append(repair(name))
            if not times[1:]:
                say(f"3. entry {name} was removed behind the daemon's back")
                status = run(program)
                say(f"4. the program runs again: exit status {status}")
                if status != 42:
                    return 1
    say(
        f"5. from the removal to a handler again: {times[0]:.0f} microseconds the first time, "
        f"median of {ROUNDS}: {statistics.median(times):.0f}"
    )
    return 0


sys.exit(main())
