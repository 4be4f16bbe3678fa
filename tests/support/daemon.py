"""The daemon from outside: a process in a private instance, its log, status file and notifications to systemd."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from binfmtd.report.status_json import SHAPE, fits
from support.cli import BINFMTD
from support.instance import Instance
from support.waiting import SLOWNESS, deadline_in, wait_until

T = TypeVar("T")

DEADLINE_SECONDS = 10
# One handler.
CONFIG = r"""
architectures = []
[handlers.one]
magic = '\x00one'
interpreter = "/usr/bin/true"
flags = "F"
"""


class Daemon:
    """``binfmtd run`` in an instance, from its start to ``close``.

    ``directory`` gets its config (``binfmtd.toml``), ``state`` and a log; a test may rewrite the config.  With a
    ``config`` of None the daemon uses the host's, or none.
    """

    def __init__(
        self,
        instance: Instance,
        directory: Path,
        config: str | None = "",
        options: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        python: str = sys.executable,
        stderr: int | None = None,
        *,
        privileged: bool = False,
    ) -> None:
        """Start it; with ``privileged`` in the instance's mount namespace only, so with the caller's own privileges."""
        directory.mkdir(parents=True, exist_ok=True)
        self.config = directory / "binfmtd.toml"
        self.state_directory = directory / "state"
        if config is not None:
            self.config.write_text(config)
        log, path = tempfile.mkstemp(prefix="log-", dir=directory)  # one each: several daemons may use a directory
        self.log = Path(path)
        # Not under ``directory``: a socket's path has at most 107 bytes, and a test's name alone may have as many.
        self._socket_directory = tempfile.TemporaryDirectory(prefix="binfmtd-")
        notify = Path(self._socket_directory.name) / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(notify))
        self._notifications: list[str] = []
        command = [python, "-m", "binfmtd", "run", *([] if config is None else ["--config", str(self.config)])]
        command += ["--state-dir", str(self.state_directory), "--log-format", "json", *options]
        self.process = instance.popen(
            command,
            privileged=privileged,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log if stderr is None else stderr,
            env=os.environ | {"NOTIFY_SOCKET": str(notify)} | (environment or {}),
        )
        os.close(log)

    @property
    def pid(self) -> int:
        """The daemon's own process id: nsenter has become it."""
        return self.process.pid

    def close(self) -> None:
        """Kill it if it still runs."""
        self.kill()
        self._socket.close()
        self._socket_directory.cleanup()

    # Its log, status and notifications

    def log_text(self) -> str:
        """Return everything that it wrote to its standard output and error so far."""
        return self.log.read_text(errors="surrogateescape")

    def logs(self, event: str | None = None, **keys: object) -> list[dict[str, Any]]:
        """Return the log lines, or those of one event, or those that have these keys with these values too.

        A line that is not JSON (a traceback, say) counts as ``{"event": None, "text": LINE}``.  A last line without its
        newline is left out: the kernel writes a line that crosses a page in two steps, and a kill may come in between.
        """
        text = self.log_text()
        lines = map(_parse, text[: text.rfind("\n") + 1].splitlines())
        return [
            line
            for line in lines
            if (event is None or line.get("event") == event) and all(line.get(key) == keys[key] for key in keys)
        ]

    def wait_for_log(self, event: str, deadline_seconds: float = DEADLINE_SECONDS, **keys: object) -> dict[str, Any]:
        """Return the first log line of this event with these keys, once it is there."""
        what = f"the log line {event} {keys or ''}"
        return self._wait(lambda: self.logs(event, **keys), what, deadline_seconds)[0]

    @property
    def notifications(self) -> list[str]:
        """The lines that NOTIFY_SOCKET has received so far."""
        while True:
            try:
                self._notifications += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self._notifications

    def status(self) -> dict[str, Any]:
        """Return the status file of the state directory."""
        status: dict[str, Any] = json.loads((self.state_directory / "status.json").read_text())
        assert fits(status, SHAPE), "every status that a daemon writes is one that every reader takes"
        return status

    def states(self) -> dict[str, str]:
        """Return each handler's state from the status file."""
        return {row["name"]: row["state"] for row in self.status()["handlers"]}

    def wait_status(
        self,
        condition: Callable[[dict[str, Any]], object],
        what: str = "a status",
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> dict[str, Any]:
        """Return the status once it meets the condition."""

        def look() -> dict[str, Any] | None:
            try:
                status = self.status()
            except FileNotFoundError:  # the first pass writes it
                return None
            return status if condition(status) else None

        found = self._wait(look, what, deadline_seconds)
        assert found is not None
        return found

    def wait_converged(self, deadline_seconds: float = DEADLINE_SECONDS) -> dict[str, Any]:
        """Return the status once its state is converged.

        The status may be older than a drift that the daemon has not noticed yet: first wait for the repair's result.
        """
        return self.wait_status(lambda status: status["state"] == "converged", "state converged", deadline_seconds)

    def wait_ready(self, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        """Wait for READY=1; AssertionError with the log if it ends before, or after the deadline."""
        self.wait_notified("READY=1", 1, deadline_seconds)

    def wait_notified(self, line: str, times: int, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until it has sent this line to systemd so many times; AssertionError as in ``wait_ready``."""
        deadline = deadline_in(deadline_seconds)
        ended = os.pidfd_open(self.pid)
        try:
            while True:
                # Both before the notifications are read, so that the last ones count: see wait_until.
                remaining, has_ended = deadline - time.monotonic(), self.process.poll() is not None
                if self.notifications.count(line) >= times:
                    return
                if has_ended or remaining <= 0:
                    state = "it ended" if has_ended else f"not within {deadline_seconds * SLOWNESS:g} s"
                    raise AssertionError(f"no {line} from the daemon: {state}\n{self.log_text()}")
                select.select([self._socket.fileno(), ended], [], [], remaining)
        finally:
            os.close(ended)

    # Signals to it

    def reload(self) -> None:
        """Send SIGHUP; the log has the result."""
        self.process.send_signal(signal.SIGHUP)

    def wait_exit(self, deadline_seconds: float = DEADLINE_SECONDS) -> int:
        """Wait for its end, and return its exit code."""
        return self.process.wait(deadline_seconds * SLOWNESS)

    def terminate(self, deadline_seconds: float = DEADLINE_SECONDS) -> int:
        """Send SIGTERM, and return the exit code."""
        self.process.terminate()
        return self.wait_exit(deadline_seconds)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop all its threads (SIGSTOP) until the end of the block."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            wait_until(self._is_stopped, what="all threads stopped")
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def _is_stopped(self) -> bool:
        stats = [task / "stat" for task in Path(f"/proc/{self.pid}/task").iterdir()]
        try:
            return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in stats)
        except ProcessLookupError:  # a thread has ended
            return False

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def _wait(self, condition: Callable[[], T], what: str, deadline_seconds: float) -> T:
        """Wait until the condition is true; AssertionError once the daemon has ended."""

        def ask() -> T:
            ended = self.process.poll() is not None  # asked first, so that its last output counts
            answer = condition()
            if ended and not answer:
                raise AssertionError(f"the daemon ended with {self.process.returncode} before {what}")
            return answer

        return wait_until(ask, deadline_seconds, what)


StartDaemon = Callable[..., Daemon]  # the fixture ``start_daemon``


def pause_and_resume(instance: Instance, daemon: Daemon) -> None:
    """Run both commands; the daemon has to apply both.

    A call waits for 10 s, on any machine: on one that is N times slower, it may take N calls.
    """
    for command in ("pause", "resume"):
        call = [*BINFMTD, command, "--state-dir", str(daemon.state_directory)]
        result, calls = instance.run(call), 1
        while result.returncode and calls < SLOWNESS:
            result, calls = instance.run(call), calls + 1
        assert result.returncode == 0, result.stderr


def _parse(line: str) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except ValueError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {"event": None, "text": line}
