"""What a process costs."""

import os
import time
from pathlib import Path

from support.waiting import wait_until

MINUTE = 60  # seconds: over a shorter time it says little
MOST = 0.02  # of a core, over a minute, is what a quarrel may cost


def shares_of_a_core(seconds: float, *pids: int) -> list[float]:
    """What each process uses in the next seconds, in itself and in the kernel."""
    before, began = [_cpu_seconds(pid) for pid in pids], time.monotonic()
    wait_until(lambda: time.monotonic() - began >= seconds, seconds + 10, "the time to be over")
    took = time.monotonic() - began
    return [(_cpu_seconds(pid) - earlier) / took for pid, earlier in zip(pids, before, strict=True)]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
