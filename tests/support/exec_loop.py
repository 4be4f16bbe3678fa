"""A process that executes a program again and again, and records every outcome in order."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from support import Closing
from support.instance import Instance
from support.waiting import SLOWNESS

TESTS = Path(__file__).parents[1]
Outcome = tuple[int | str, int]  # an exit status or the text of an errno, and how many times in a row


class ExecLoop(Closing):
    """The process in the instance, from its first execution to ``stop``.

    A busy machine may hold it up for any time.  ``execute_again`` waits until it has gone on, and ``stop`` has it
    execute the program a last time: so the first and the last outcome are those of the first and the last moment.
    """

    longest_gap = 0.0  # seconds from one success to the next with failures in between; known after ``stop``

    def __init__(self, instance: Instance, program: Path) -> None:
        self._process: subprocess.Popen[Any] = instance.popen(
            [sys.executable, "-c", "from support.exec_loop import main; main()", str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(TESTS)},
        )
        self.execute_again()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def execute_again(self) -> None:
        """Wait until it has executed the program once more, from the beginning to the end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "executed\n"

    def stop(self) -> list[Outcome]:
        """Have it execute a last time, end it, and return the outcomes in order; equal neighbours are counted."""
        output, _ = self._process.communicate(timeout=30 * SLOWNESS)
        found, self.longest_gap = json.loads(output)
        return [(outcome, count) for outcome, count in found]


def execute(program: str) -> int | str:
    """Execute it; return its exit status or the text of the exec's errno.  posix_spawn tries no shell on ENOEXEC."""
    try:
        pid = os.posix_spawn(program, [program], {})
    except OSError as error:
        return os.strerror(error.errno or 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    """Run the process: its argument is the program.

    It answers each byte on its standard input after the next execution.  It ends after the execution that follows the
    end of its standard input.
    """
    program = sys.argv[1]
    found: list[list[Any]] = []
    longest_gap, succeeded, failing, ended = 0.0, time.monotonic(), False, False
    while not ended:
        requests = b""
        if select.select([0], [], [], 0)[0]:
            requests = os.read(0, 1024)
            ended = not requests
        began = time.monotonic()
        outcome = execute(program)
        if isinstance(outcome, str):
            failing = True
        else:
            longest_gap = max(longest_gap, began - succeeded if failing else 0.0)
            succeeded, failing = time.monotonic(), False
        if requests:
            sys.stdout.write("executed\n" * len(requests))
            sys.stdout.flush()
        if found and found[-1][0] == outcome:
            found[-1][1] += 1
        else:
            found.append([outcome, 1])
    sys.stdout.write(json.dumps([found, longest_gap]))
