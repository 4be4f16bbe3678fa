"""Measures each turn of the daemon's loop: the CPU time of its thread.  Python imports this module by its name.

The file that TURNS names gets a line for each turn when the daemon ends: when the turn ended (monotonic), and its CPU
time, both in seconds.
"""

import atexit
import os
import time
from pathlib import Path

from binfmtd.daemon.loop import Loop

_found: list[tuple[float, float]] = []
_turn = Loop._turn  # noqa: SLF001


def _measured(self: Loop) -> None:
    began = time.thread_time()
    _turn(self)
    _found.append((time.monotonic(), time.thread_time() - began))


def _save() -> None:
    Path(os.environ["TURNS"]).write_text("".join(f"{at} {cpu}\n" for at, cpu in _found), encoding="ascii")


Loop._turn = _measured  # type: ignore[method-assign]  # noqa: SLF001
atexit.register(_save)
