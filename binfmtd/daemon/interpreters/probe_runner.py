"""Probes: a child process, ``binfmtd probe --write``, tries the registered entries.  No repair waits for it.

* A probe is due one second after an entry was registered or repaired, also at the start, and at the intervals that the
  config sets.  After a probe comes a rest of twenty times its CPU time.  So probes take a twentieth of a core at most,
  however many repairs there are.
* When the child process ends, SIGCHLD wakes the loop; when the file with its result was written, inotify does.  Its
  error messages come through a pipe, which is read when it has ended.
"""

import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from binfmtd.daemon.background import Background
from binfmtd.daemon.interpreters.probe_report import ProbeReport
from binfmtd.daemon.state_files.probed_file import ProbedFile
from binfmtd.daemon.watches.mount_watcher import LEAST_REST
from binfmtd.model.config import Probe
from binfmtd.model.probe_result import Probed

if TYPE_CHECKING:
    import subprocess

DELAY = 1.0  # seconds after a repair: more may follow at once
LONGEST = 600.0  # seconds after which the child is killed
_PATIENCE = 1.0  # seconds, for each step of ``stop``
_NEVER = float("inf")
KEY = "probe"
FILE_KEY = "probed.json"


class ProbeRunner:
    """A schedule of probes, one child process at a time.  ``step`` is to be called at ``due_at``."""

    def __init__(
        self,
        file: ProbedFile,
        state_dir: str,
        mount: str | None,
        probe: Probe | float,
        report: ProbeReport,
        background: Background,
    ) -> None:
        """Schedule probes as ``probe`` has it; if that is OFF, only the file is read."""
        self.watched = file.watched
        self._changed: Callable[[], None] = lambda: None
        self._use: Callable[[Probed | None], None] = lambda _: None
        self._file = file
        self._background = background
        where = ["--state-dir", state_dir, *(["--mount", mount] if mount else [])]
        # -P: the child finds its modules where we found ours, and none in the current directory.
        self._command: Sequence[str] = [sys.executable, "-P", "-m", "binfmtd", "probe", "--write", *where]
        self._probe = probe
        self._report = report
        self._child: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._cost_before = 0.0
        self._rested_at = 0.0
        self._wanted_at = _NEVER

    @property
    def due_at(self) -> float:
        """The time to start the child, or to kill it (monotonic, in seconds)."""
        if self._background.busy(KEY):
            return _NEVER
        return self._wanted_at if self._child is None else self._began + LONGEST

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call this from now on when the report has changed."""
        self._changed = changed

    def on_result(self, use: Callable[[Probed | None], None]) -> None:
        """Call this from now on with each result, or with None if there is none in this boot."""
        self._use = use

    def use(self, probe: Probe | float) -> None:
        """Use the value of another config, and schedule a probe unless it is OFF."""
        self._probe = probe
        self._wanted_at = _NEVER
        self.want()

    def want(self) -> None:
        """Schedule a probe: other programs may run now, or fail."""
        if self._probe is not Probe.OFF:
            self._wanted_at = min(self._wanted_at, max(time.monotonic() + DELAY, self._rested_at))

    def step(self, now: float) -> None:
        """Start the child, or kill it: whichever is due."""
        if self._child is not None:
            self._child.kill()  # SIGCHLD reports its end; the program that it tries ends with it
            self._began = _NEVER
            self._report.failed(f"the probe took longer than {LONGEST:g} s and was killed")
            return
        self._wanted_at = _NEVER
        self._began, self._cost_before = now, _cost_of_children()
        self._background.run(KEY, self._start, self._started)

    def _start(self) -> "subprocess.Popen[bytes] | OSError":
        """Start the child, in a thread: its program may lie on a disk that hangs.  Return it, or the error."""
        import subprocess

        try:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
        except OSError as error:
            return error

    def _started(self, child: "subprocess.Popen[bytes] | OSError") -> None:
        if isinstance(child, OSError):
            self._report.failed(f"the probe cannot be started: {self._command[0]}: {child.strerror}")
            self._rest()
            self._changed()
        else:
            self._child = child
            self.reap()  # its SIGCHLD may have come before

    def begin(self) -> None:
        """Read the result from before the start, so that no label disappears for a moment."""
        self._found(self._file.read())

    def take_in(self) -> None:
        """Read the result, of our child or of another program, in a thread."""
        self._background.run(FILE_KEY, self._file.read, self._found)

    def _found(self, probed: Probed | None) -> None:
        self._report.found(probed)
        self._use(probed)
        if self._file.problem:
            self._report.failed(self._file.problem)
        self._changed()

    def reap(self) -> None:
        """Take in the end of the child and its error message; does nothing if another child process has ended."""
        child = self._child
        if child is None or child.poll() is None or child.stderr is None:
            return
        os.set_blocking(child.stderr.fileno(), False)  # another process may hold the pipe open
        complaint = (child.stderr.read() or b"").decode(errors="replace").strip().rpartition("\n")[2]
        child.stderr.close()
        self._child = None
        if self._began < _NEVER:  # else ``step`` has reported it
            status = child.returncode
            how = f"was killed by signal {-status}" if status < 0 else f"failed with exit status {status}"
            ended = complaint or (f"the probe {how}" if status else None)
            self._report.failed(ended and ended.removeprefix("binfmtd: "))
        self._rest()
        self.take_in()

    def stop(self) -> None:
        """End the child when the daemon ends; waits three seconds at most."""
        import subprocess

        self._background.finish([KEY], _PATIENCE)
        if self._child is not None:
            self._child.terminate()  # so that it removes its directory
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(_PATIENCE)
            self._child.kill()
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(_PATIENCE)

    def _rest(self) -> None:
        now = time.monotonic()
        self._rested_at = now + LEAST_REST * (_cost_of_children() - self._cost_before)
        if isinstance(self._probe, float):
            self._wanted_at = min(self._wanted_at, now + self._probe)
        self._wanted_at = max(self._wanted_at, self._rested_at)


def _cost_of_children() -> float:
    """Return the CPU time, in seconds, of all child processes that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
