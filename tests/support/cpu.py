"""The CPU time that processes use, as a share of a core."""

import os
import time
from pathlib import Path

from support.waiting import wait_until

MINUTE = 60  # seconds; a shorter measurement is not reliable
MOST = 0.02  # of a core, over a minute: the limit while another program undoes repairs


def shares_of_a_core(seconds: float, *pids: int) -> list[float]:
    """Return the share of a core that each process uses in the next seconds, user and kernel time together."""
    before, began = [_cpu_seconds(pid) for pid in pids], time.monotonic()
    wait_until(lambda: time.monotonic() - began >= seconds, seconds + 10, "the time to be over")
    took = time.monotonic() - began
    return [(_cpu_seconds(pid) - earlier) / took for pid, earlier in zip(pids, before, strict=True)]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
