"""The cost of a daemon when nothing happens: wake-ups, CPU, memory."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.contestants import MODEL, PACKAGES, PYTHON, daemon
from benchmarks.figures import Goal, Part, shown
from support.instance import Instance

SECONDS = 300


def idle(scale: float) -> Part:
    """Measure a daemon without a config file, which registers all emulators of this machine."""
    seconds = max(5, SECONDS * scale)
    with Instance() as instance, daemon(instance, None) as running:
        time.sleep(3)
        wakes, cpu = _wakes(running.pid), _cpu_ns(running.pid)
        time.sleep(seconds)
        wakes, cpu = _wakes(running.pid) - wakes, _cpu_ns(running.pid) - cpu
    rows = [[f"{seconds:g} s", str(wakes), f"{cpu / 1e9:.2f} s"]]
    goals = [
        Goal("wake-ups", wakes / seconds * 60, 1, "a minute"),
        Goal("CPU, rounded to 0.01 s", round(cpu / 1e9, 2), 0, "s"),
    ]
    return Part(("time", "wake-ups", "CPU"), rows, goals)


def memory(_: float) -> Part:
    """Measure the memory of idle daemons, beside a Python that has imported the packages, and does nothing."""
    with ExitStack() as stack:
        bare = "import of the three packages"
        pids = {bare: stack.enter_context(_importing(PACKAGES))}
        pids[f"{bare}, and a model of one field"] = stack.enter_context(_importing(f"{PACKAGES}\n{MODEL}"))
        for who, config in {"no config file": None, "with a config file": 'architectures = ["all"]'}.items():
            instance = stack.enter_context(Instance())
            pids[f"binfmtd, {who}"] = stack.enter_context(daemon(instance, config)).pid
        time.sleep(1)
        found = {who: _memory_kib(pid) for who, pid in pids.items()}
    rss, pss = found[bare]
    rows = [
        [who, f"{shown(r / 1024)} MiB ({shown(r / rss)} x)", f"{shown(p / 1024)} MiB ({shown(p / pss)} x)"]
        for who, (r, p) in found.items()
    ]
    goals = [
        Goal(f"{name}, {who.removeprefix('binfmtd, ')}, to the import", ours / theirs, 1.15)
        for who, each in list(found.items())[2:]
        for name, ours, theirs in zip(("RSS", "PSS"), each, (rss, pss), strict=True)
    ]
    return Part(("who", "RSS", "PSS"), rows, goals)


@contextmanager
def _importing(script: str) -> Iterator[int]:
    command = subprocess.Popen(
        [PYTHON, "-c", f"{script}\nprint('ready', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert command.stdout is not None
    assert command.stdout.readline() == b"ready\n"
    try:
        yield command.pid
    finally:
        command.kill()
        command.communicate()


def _wakes(pid: int) -> int:
    """Return how often the kernel gave a core to its threads."""
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if "ctxt_switches" in line:
                found += int(line.split()[1])
    return found


def _cpu_ns(pid: int) -> int:
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def _memory_kib(pid: int) -> tuple[int, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = {line.split()[0]: line.split()[1] for line in lines[1:]}
    return int(found["Rss:"]), int(found["Pss:"])
