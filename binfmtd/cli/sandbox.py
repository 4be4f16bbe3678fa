"""``binfmtd sandbox``: a user namespace with an instance of its own and the daemon in it, for one command.

Nobody else is touched, no privileges are needed, and nothing is left behind: the namespace and its instance end with
the last process in it, and the daemon ends when this process does, however that comes about.
"""

import argparse
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType

from binfmtd.cli import options
from binfmtd.errors import SandboxError, UsageError
from binfmtd.kernel.ids import Ids, enter, one
from binfmtd.kernel.module import DEFAULT_DIRECTORY
from binfmtd.kernel.namespace import enter_own_instance
from binfmtd.kernel.tree import check_tree, furnish

START_SECONDS = 30.0
STOP_SECONDS = 5.0
NOT_FOUND = 127  # as shells say it
NOT_EXECUTABLE = 126

_Handler = Callable[[int, FrameType | None], None]
_TO_US = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_BY_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)  # to the command as well as to us


def parser() -> argparse.ArgumentParser:
    """What the command line may say."""
    command = options.parser("sandbox", epilog="Inside you are root of your own namespace; without COMMAND, a shell.")
    options.add_config(command)
    options.add_arch(command)
    options.add_mount(command)
    options.add_log(command, level="warning")
    command.add_argument(
        "--keep-user", action="store_true", help="run COMMAND as yourself, not as root of the namespace"
    )
    command.add_argument(
        "--root",
        metavar="DIR",
        help="run COMMAND in this root tree, with /proc, /sys, /dev and this host's resolv.conf",
    )
    command.add_argument("command", metavar="COMMAND", nargs="*", help="what to run, after --")
    return command


def main(arguments: Sequence[str]) -> int:
    """The exit status is the command's; 128 and the signal's number if a signal ended it."""
    given = parser().parse_args(arguments)
    root = None if given.root is None else os.path.realpath(given.root)
    command = given.command or ["/bin/sh" if root else os.environ.get("SHELL") or "/bin/sh"]
    user = (os.geteuid(), os.getegid()) if given.keep_user else None
    config = [] if given.config is None else ["--config", os.path.abspath(given.config)]
    where = os.path.abspath(given.mount or DEFAULT_DIRECTORY)
    if root is not None:
        check_tree(root)
    ids = enter_own_instance(where)
    if root is not None:
        furnish(root)
    _handle(_TO_US, _end)
    log = ["--log-level", given.log_level, "--log-format", given.log_format]
    arch = [] if given.arch is None else ["--arch", ",".join(given.arch)]
    with _directory() as directory, _daemon(directory, [*config, *arch, *log, "--mount", where]) as daemon:
        if (status := daemon.poll()) is not None:
            return status  # it has said why
        # So that other commands of ours inside mean this daemon and its config.
        environment = {"BINFMTD_STATE_DIR": directory} | ({"BINFMTD_CONFIG": config[1]} if config else {})
        return _run(command, environment, _entering(root, user, ids))


def _entering(root: str | None, user: tuple[int, int] | None, ids: Ids) -> Callable[[], None] | None:
    """What the command's process does before it becomes the command, if there is something to do.

    One more namespace makes it another user, whom only this one maps: who is root there is decided by whose the tree
    is, so what mmdebstrap or podman have made with subordinate ids belongs to root inside.
    """
    owner = check_tree(root) if root is not None else None
    theirs = (0, 0) if owner is None else (owner.st_uid, owner.st_gid)
    if user is not None:
        wanted: Ids | None = one(*user, *theirs)
    elif theirs != (0, 0):
        wanted = ids.without(*theirs)
    else:
        wanted = None
    if root is None and wanted is None:
        return None

    def enter_tree() -> None:
        from binfmtd.kernel.syscalls import CLONE_NEWUSER

        if wanted is not None and (why := enter(CLONE_NEWUSER, wanted)) is not None:
            raise OSError(why)
        if wanted is not None and user is None:  # we are somebody else yet: who was root out there
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        if root is not None:
            os.chroot(root)
            os.chdir("/")

    return enter_tree


def _handle(numbers: Sequence[int], handler: _Handler) -> None:
    """Have the handler called for these signals, except for what was ignored from the start (nohup) and stays so."""
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    """Leave, but clean up on the way."""
    sys.exit(128 + number)


@contextmanager
def _uninterrupted() -> Iterator[set[int | signal.Signals]]:
    """Have signals wait until what begins here can be cleaned up; yields what has to be masked afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*_TO_US, *_BY_THE_TERMINAL))
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _directory() -> Iterator[str]:
    """The daemon's state directory, for as long as the sandbox lasts."""
    try:
        with _uninterrupted():
            directory = tempfile.TemporaryDirectory(prefix="binfmtd-sandbox-", ignore_cleanup_errors=True)
    except OSError as error:
        raise SandboxError(f"no place for temporary files ({error.strerror}): name one in $TMPDIR") from None
    with directory as path:
        yield path


@contextmanager
def _daemon(directory: str, arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run it, from when it is ready, or has ended with a message of its own.  Raises SandboxError."""
    from binfmtd.kernel.syscalls import signal_when_parent_dies

    address = os.path.join(directory, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel, ExitStack() as stack:
        try:
            channel.bind(address)
        except OSError as error:
            raise SandboxError(f"{address} cannot be a socket ({error}): name a shorter path in $TMPDIR") from None
        with _uninterrupted() as masked:

            def before_exec() -> None:
                signal_when_parent_dies(signal.SIGTERM)
                signal.pthread_sigmask(signal.SIG_SETMASK, masked)

            daemon = subprocess.Popen(
                # -P: it finds its modules where we found them, and none in the current directory.
                [sys.executable, "-P", "-m", "binfmtd", "run", "--state-dir", directory, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # What is private must not come back on the host after a reboot, whatever the environment says.
                env=os.environ
                | {"NOTIFY_SOCKET": address, "PYTHONPATH": os.pathsep.join(sys.path), "BINFMTD_PERSISTENT": "0"},
                preexec_fn=before_exec,  # noqa: PLW1509  we have one thread
                start_new_session=True,  # a Ctrl-C is for the command, not for the daemon
            )
            stack.callback(_stop, daemon)
        _wait_until_ready(daemon, channel)
        yield daemon


def _wait_until_ready(daemon: subprocess.Popen[bytes], channel: socket.socket) -> None:
    ended = os.pidfd_open(daemon.pid)
    try:
        while True:
            ready, _, _ = select.select([channel.fileno(), ended], [], [], START_SECONDS)
            if channel.fileno() in ready and b"READY=1" in channel.recv(4096).splitlines():
                return
            if ended in ready:
                if daemon.wait() <= 0:
                    raise SandboxError(f"the daemon ended with status {daemon.returncode}: try --log-level debug")
                return
            if not ready:
                raise SandboxError(f"the daemon was not ready within {START_SECONDS:g} s: try --log-level debug")
    finally:
        os.close(ended)


def _run(command: list[str], environment: dict[str, str], before: Callable[[], None] | None) -> int:
    """Run the command as if it were us: it gets the terminal's signals itself, and the others from us."""
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    _handle(_TO_US, forward)
    _handle(_BY_THE_TERMINAL, lambda *_: None)  # not SIG_IGN: that the command would inherit
    try:
        child = subprocess.Popen(command, env=os.environ | environment, preexec_fn=before)  # noqa: PLW1509  one thread
    except FileNotFoundError:
        raise _CommandError(f"{command[0]!r}: not found", NOT_FOUND) from None
    except OSError as error:
        raise _CommandError(f"{command[0]!r}: {error.strerror}", NOT_EXECUTABLE) from None
    except subprocess.SubprocessError:  # in ``before``; what it was does not come through
        raise SandboxError(
            "the command's own user namespace or root directory cannot be had: see user.max_user_namespaces"
        ) from None
    for number in early:
        child.send_signal(number)
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
