"""``binfmtd sandbox --emulators``: one command with several versions of the emulators, and a table of the results.

Each run is a sandbox in a child process, since a process can enter a sandbox only once.  The child writes the outcome
of the command to a pipe; if it writes nothing, the sandbox could not be made, and it has printed the reason.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple, NoReturn

from binfmtd.cli.emulator_versions import Version, find_versions
from binfmtd.cli.main import exit_on_signal, guarded
from binfmtd.cli.output import print_json, print_table, warn
from binfmtd.cli.sandboxed_command import BY_THE_TERMINAL, TO_US, CommandError, Outcome, handle, uninterrupted
from binfmtd.errors import BinfmtdError, UsageError

PASSED = 0
NONE_PASSED = 1
GRACE_SECONDS = 5.0  # after ^C or SIGTERM, until all processes of the run are killed
_ENDING = (*BY_THE_TERMINAL, signal.SIGTERM, signal.SIGHUP)

# Runs the command in a sandbox; its argument writes the config to a directory, and returns its path.
_Sandbox = Callable[[Callable[[str], str]], Outcome]


class Run(NamedTuple):
    """A finished run."""

    version: str
    outcome: Outcome


def run_each(given: argparse.Namespace, sandbox: _Sandbox) -> int:
    """Run the command with each version, and print the results.

    Returns PASSED if a run has exit status 0, else NONE_PASSED; 128 and the signal's number after a signal to us, and
    the status of a sandbox that could not be made.  Raises UsageError and ConfigError before the first run.
    """
    if not given.command:
        raise UsageError("--emulators runs a command once with each version: add the command, after --")
    versions = find_versions(given)
    runs, status = _Series(sandbox, json=given.json).run(versions)
    if given.json:
        print_json([document(run) for run in runs])
    elif runs:
        print_table([("VERSION", "STATUS", "TIME"), *map(row, runs)])
    if status is not None:
        return status
    return PASSED if any(run.outcome.status == 0 for run in runs) else NONE_PASSED


class _Series:
    """The runs, one after the other.  A signal that is to end us ends the present run, and no other begins."""

    def __init__(self, sandbox: _Sandbox, *, json: bool) -> None:
        self._sandbox = sandbox
        self._json = json
        self._child: int | None = None  # a pidfd
        self._ended_by = 0

    def run(self, versions: Sequence[Version]) -> tuple[list[Run], int | None]:
        """Return the finished runs; and the status with which to exit if they are not all."""
        runs: list[Run] = []
        handle(TO_US, self._forward)
        handle(_ENDING, self._stop)
        signal.signal(signal.SIGALRM, self._kill)
        for number, version in enumerate(versions, 1):
            warn(f"run {number} of {len(versions)}: emulators {version.name}")
            outcome, status = self._one(version)
            if self._ended_by:
                handle((*TO_US, *BY_THE_TERMINAL), signal.SIG_IGN)  # one more must not interrupt Python's own end
                return runs, 128 + self._ended_by
            if outcome is None:  # the next sandbox could not be made, either
                return runs, status
            runs.append(Run(version.name, outcome))
        return runs, None

    def _one(self, version: Version) -> tuple[Outcome | None, int]:
        """Make one run; return its outcome, or None and the exit status of a sandbox that could not be made."""
        sys.stdout.flush()
        with uninterrupted() as mask:
            if self._ended_by:  # between two runs
                return None, 1
            reading, writing = os.pipe2(os.O_CLOEXEC)
            child = os.fork()
            if child == 0:
                self._in_child(version, writing, mask)
            self._child = os.pidfd_open(child)
        os.close(writing)
        with os.fdopen(reading, "rb") as report:
            text = report.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        signal.setitimer(signal.ITIMER_REAL, 0)
        finished, self._child = self._child, None
        os.close(finished)
        if text:
            return Outcome(*json.loads(text)), status
        if status < 0:
            warn(f"the sandbox of this run was killed by {name_of_signal(-status) or f'signal {-status}'}")
        return None, status if status >= 0 else 128 - status

    def _in_child(self, version: Version, writing: int, mask: Iterable[int]) -> NoReturn:
        status = 1
        try:
            handle((*TO_US, *BY_THE_TERMINAL), signal.SIG_DFL)
            handle((signal.SIGINT,), signal.default_int_handler)
            signal.signal(signal.SIGALRM, exit_on_signal)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if self._json:
                os.dup2(2, 1)
            status = guarded(partial(self._report, version, writing))
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except Exception:  # noqa: BLE001  an error in our code: Python would print it as well
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)

    def _report(self, version: Version, writing: int) -> int:
        """Run the command in a sandbox, and write its outcome to the pipe; return the child's exit status."""
        try:
            outcome = self._sandbox(version.write_config)
        except CommandError as error:
            warn(str(error))
            outcome = Outcome(error.exit_code, 0.0)
        except BinfmtdError as error:
            warn(str(error))
            return error.exit_code
        os.write(writing, json.dumps(outcome).encode())
        return 0

    def _send(self, number: int) -> None:
        if self._child is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._child, number)

    def _forward(self, number: int, _frame: object) -> None:
        self._send(number)

    def _stop(self, number: int, _frame: object) -> None:
        """Have the present run end: the terminal has sent ^C to the command; other signals are forwarded to it."""
        if self._ended_by:  # the second one
            self._kill()
            return
        self._ended_by = number
        if number in TO_US:
            self._send(number)
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    def _kill(self, *_: object) -> None:
        self._send(signal.SIGALRM)  # with which run_command kills all processes


def name_of_signal(number: int) -> str | None:
    """Return a signal's name; None if no signal with a name has this number."""
    return signal.Signals(number).name if number in set(signal.Signals) else None


def row(run: Run) -> tuple[str, str, str]:
    """Return the row of the table; the signal is the one that killed the command, or that a shell reports so."""
    name = name_of_signal(run.outcome.status - 128)
    status = f"{run.outcome.status} ({name})" if name else str(run.outcome.status)
    return run.version, "timeout" if run.outcome.timed_out else status, f"{run.outcome.seconds:.2f} s"


def document(run: Run) -> dict[str, object]:
    """Return the row as JSON has it; ``seconds`` have three decimal places."""
    outcome = run.outcome
    return {
        "version": run.version,
        "status": None if outcome.timed_out else outcome.status,
        "signal": name_of_signal(outcome.status - 128),
        "timed_out": outcome.timed_out,
        "seconds": round(outcome.seconds, 3),
    }
