"""``binfmtd sandbox``: a user namespace with an instance of its own and the daemon in it, for one command.

Nobody else is touched, no privileges are needed, and nothing is left behind: the namespace and its instance end with
the last process in it, and the daemon ends when this process does, however that comes about.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from types import FrameType

from binfmtd.cli import options
from binfmtd.errors import SandboxError, UsageError
from binfmtd.kernel.namespace import enter_own_instance

START_SECONDS = 30.0
STOP_SECONDS = 5.0
NOT_FOUND = 127  # as shells say it
NOT_EXECUTABLE = 126


def main(arguments: Sequence[str]) -> int:
    """The exit status is the command's; 128 and the signal's number if a signal ended it."""
    parser = options.parser("sandbox", epilog="Inside you are root of your own namespace; without COMMAND, a shell.")
    options.add_config(parser)
    options.add_log(parser, level="warning")
    parser.add_argument("command", metavar="COMMAND", nargs="*", help="what to run, after --")
    given = parser.parse_args(arguments)
    command = given.command or [os.environ.get("SHELL", "/bin/sh")]
    config = [] if given.config is None else ["--config", os.path.abspath(given.config)]
    enter_own_instance()
    directory = tempfile.mkdtemp(prefix="binfmtd-sandbox-")
    try:
        daemon = _start_daemon(directory, [*config, "--log-level", given.log_level, "--log-format", given.log_format])
        try:
            return _run(command, directory)
        finally:
            _stop(daemon)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _start_daemon(directory: str, arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start it and wait until it is ready.  Raises SandboxError."""
    import select
    import socket

    from binfmtd.kernel.syscalls import signal_when_parent_dies

    def before_exec() -> None:
        signal_when_parent_dies(signal.SIGTERM)

    address = os.path.join(directory, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.bind(address)
        daemon = subprocess.Popen(
            [sys.executable, "-m", "binfmtd", "run", "--state-dir", directory, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"NOTIFY_SOCKET": address},
            preexec_fn=before_exec,  # noqa: PLW1509  we have one thread
            start_new_session=True,  # a Ctrl-C is for the command, not for the daemon
        )
        ended = os.pidfd_open(daemon.pid)
        try:
            while True:
                ready, _, _ = select.select([channel.fileno(), ended], [], [], START_SECONDS)
                if channel.fileno() in ready and b"READY=1" in channel.recv(4096).splitlines():
                    return daemon
                if ended in ready:
                    raise SandboxError(f"the daemon ended with status {daemon.wait()}: see its message above")
                if not ready:
                    _stop(daemon)
                    raise SandboxError(f"the daemon was not ready within {START_SECONDS:g} s: try --log-level debug")
        finally:
            os.close(ended)


def _run(command: list[str], directory: str) -> int:
    """Run the command as if it were us: it gets the terminal's signals itself, and the others from us."""
    try:
        child = subprocess.Popen(command, env=os.environ | {"BINFMTD_STATE_DIR": directory})
    except FileNotFoundError:
        raise _CommandError(f"{command[0]!r}: not found", NOT_FOUND) from None
    except OSError as error:
        raise _CommandError(f"{command[0]!r}: {error.strerror}", NOT_EXECUTABLE) from None

    def forward(number: int, _frame: FrameType | None) -> None:
        child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, forward)
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    status = child.wait()
    return status if status >= 0 else 128 - status


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


class _CommandError(UsageError):
    """The command cannot be started; the exit status is a shell's."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
