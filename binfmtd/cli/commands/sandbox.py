"""``binfmtd sandbox``: run one command in a user namespace that has its own instance, and a daemon in it.

No other program is affected, no privileges are needed, and nothing is left behind.  The namespace and its instance end
with the last process in it.  The daemon ends when this process ends, for whatever reason (PR_SET_PDEATHSIG in
prctl(2)).
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
from functools import partial

from binfmtd.cli import options
from binfmtd.cli.main import exit_on_signal
from binfmtd.cli.sandboxed_command import TO_US, Outcome, handle, run_command, uninterrupted
from binfmtd.errors import SandboxError, UsageError
from binfmtd.host.id_maps import Ids, enter, one
from binfmtd.host.kernel_module import DEFAULT_DIRECTORY
from binfmtd.host.root_tree import check_tree, furnish
from binfmtd.host.sandbox import enter_own_instance
from binfmtd.model.emulator_version import STORE

START_SECONDS = 30.0
STOP_SECONDS = 5.0


def parser() -> argparse.ArgumentParser:
    """Return the parser for ``binfmtd sandbox``."""
    command = options.parser(
        "sandbox",
        epilog="COMMAND runs as root of its own user namespace; without COMMAND, a shell does. With --emulators all "
        "runs have the same working directory, so a run finds the files that those before it have left; the processes "
        "that a run leaves are killed.",
    )
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
    command.add_argument(
        "--timeout",
        metavar="DURATION",
        type=options.with_unit,
        help="kill COMMAND and all its processes after this time, with --emulators in each run: seconds, or with units "
        "like 1m30s; the exit status is then 124",
    )
    command.add_argument(
        "--emulators",
        metavar="LIST",
        help="run COMMAND once with each of these versions of the emulators, one after the other, and print a table; "
        "exit status 0 if one of the runs has 0, else 1. Versions in the store, system (the distribution's) or "
        "absolute paths with {name} for the architecture, separated by commas. Each version has to have an emulator "
        "for each architecture that --arch or the config names",
    )
    command.add_argument(
        "--store",
        metavar="DIR",
        help=f"the directory of the versions ($BINFMTD_STORE, or the config's, or {STORE})",
    )
    command.add_argument(
        "--json",
        action="store_true",
        help="with --emulators, print the table as JSON, and write what COMMAND prints to stderr",
    )
    command.add_argument("command", metavar="COMMAND", nargs="*", help="the command to run, after --")
    return command


def main(arguments: Sequence[str]) -> int:
    """Return the command's exit status; 128 and the signal's number if a signal ended it.

    With ``--emulators`` return 0 if one of the runs has passed, else 1.
    """
    given = parser().parse_args(arguments)
    if given.arch is not None and not given.command:
        _expect_no_command_in(given)
    timeout = None if given.timeout is None else options.duration(given.timeout, "--timeout", "1m30s")
    if timeout == 0:
        raise UsageError("--timeout: the command would have no time at all: write at least 1ms, or leave --timeout out")
    if given.emulators is not None:
        from binfmtd.cli.emulator_runs import run_each

        if given.root is not None:
            check_tree(os.path.realpath(given.root))
        return run_each(given, partial(_sandboxed, given, timeout))
    if given.json:
        raise UsageError("--json prints the results of --emulators: add --emulators LIST, or leave --json out")
    outcome = _sandboxed(given, timeout)
    if outcome.timed_out:
        from binfmtd.cli.output import warn

        warn(f"the command was killed after {given.timeout}, with all its processes (--timeout)")
    return outcome.status


def _expect_no_command_in(given: argparse.Namespace) -> None:
    """Raise UsageError for an unknown architecture: without ``--`` a command counts as more of ``--arch``."""
    try:
        options.architectures(given)
    except UsageError as error:
        if not "".join(given.arch).strip():
            raise
        raise UsageError(f"{error}; if it is the command, write -- before it") from None


def _sandboxed(
    given: argparse.Namespace, timeout: float | None, write_config: Callable[[str], str] | None = None
) -> Outcome:
    """Run the command in a sandbox.  This process becomes part of it, so it can do this only once.

    ``write_config`` is given by a process that makes several sandboxes, each in a child process: it takes a directory
    and returns the path of the config to use.  Such a sandbox ends with its parent process.
    """
    root = None if given.root is None else os.path.realpath(given.root)
    command = given.command or ["/bin/sh" if root else os.environ.get("SHELL") or "/bin/sh"]
    user = (os.geteuid(), os.getegid()) if given.keep_user else None
    config = None if given.config is None else os.path.abspath(given.config)
    where = os.path.abspath(given.mount or DEFAULT_DIRECTORY)
    if root is not None:
        check_tree(root)
    ids = enter_own_instance(where)
    if root is not None:
        furnish(root)
    handle(TO_US, exit_on_signal)
    if write_config is not None:
        from binfmtd.host.syscalls import signal_when_parent_dies

        signal_when_parent_dies(signal.SIGTERM)  # not earlier: a new user namespace undoes it
    log = ["--log-level", given.log_level, "--log-format", given.log_format]
    arch = [] if given.arch is None else ["--arch", ",".join(given.arch)]
    with _directory() as directory:
        if write_config is not None:
            config = write_config(directory)
        options_of_daemon = [*([] if config is None else ["--config", config]), *arch, *log, "--mount", where]
        with _daemon(directory, options_of_daemon) as daemon:
            if (status := daemon.poll()) is not None:
                sys.exit(status)  # the daemon has printed the reason
            # So that other commands of binfmtd, inside, use this daemon, its config and its architectures.
            environment = {"BINFMTD_STATE_DIR": directory} | ({} if config is None else {"BINFMTD_CONFIG": config})
            environment |= {} if given.arch is None else {"BINFMTD_ARCH": ",".join(given.arch)}
            return run_command(
                command,
                environment,
                _entering(root, user, ids),
                daemon,
                timeout=timeout,
                leave_none=write_config is not None,
            )


def _entering(root: str | None, user: tuple[int, int] | None, ids: Ids) -> Callable[[], None] | None:
    """Return what the command's process does before it executes the command; None if there is nothing to do.

    It enters the root tree.  It enters one more user namespace if the command is not to be root of this one, or if
    another user owns the tree.  The owner of the tree becomes root there, or with ``user`` that user: so files that
    mmdebstrap or podman made with subordinate ids belong to root inside.
    """
    owner = check_tree(root) if root is not None else None
    if owner is not None and not ids.has(owner.st_uid):
        raise SandboxError(
            f"{root} belongs to a user who has no id in the sandbox: use a tree of your own, or run this as its owner "
            "or as root"
        )
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
        from binfmtd.host.syscalls import CLONE_NEWUSER

        if wanted is not None and (why := enter(CLONE_NEWUSER, wanted)) is not None:
            raise OSError(why)
        if wanted is not None and user is None:  # our own id was root in the outer namespace, and is another one here
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        if root is not None:
            os.chroot(root)
            os.chdir("/")

    return enter_tree


@contextmanager
def _directory() -> Iterator[str]:
    """Make the daemon's state directory, and remove it when the sandbox ends.  Raises SandboxError."""
    try:
        with uninterrupted():
            directory = tempfile.TemporaryDirectory(prefix="binfmtd-sandbox-", ignore_cleanup_errors=True)
    except OSError as error:
        raise SandboxError(
            f"no directory for temporary files can be used ({error.strerror}): set $TMPDIR to one"
        ) from None
    with directory as path:
        yield path


@contextmanager
def _daemon(directory: str, arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the daemon; yield it when it is ready, or has ended with a message.  Raises SandboxError."""
    from binfmtd.host.syscalls import signal_when_parent_dies

    address = os.path.join(directory, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel, ExitStack() as stack:
        try:
            channel.bind(address)
        except OSError as error:
            raise SandboxError(
                f"the socket {address} cannot be made ({error}): set $TMPDIR to a shorter path"
            ) from None
        with uninterrupted() as masked:

            def before_exec() -> None:
                signal_when_parent_dies(signal.SIGTERM)
                signal.pthread_sigmask(signal.SIG_SETMASK, masked)

            daemon = subprocess.Popen(
                # -P: the daemon imports its modules from where we did, and none from the current directory.
                [sys.executable, "-P", "-m", "binfmtd", "run", "--state-dir", directory, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # The handlers are private: whatever environment and config ask for, the host must not have them after a
                # boot, nor metrics and labels of this daemon.
                env=os.environ
                | {"NOTIFY_SOCKET": address, "PYTHONPATH": os.pathsep.join(sys.path)}
                | {"BINFMTD_PERSISTENT": "0", "BINFMTD_PRIVATE": "1"},
                preexec_fn=before_exec,  # noqa: PLW1509  we have one thread
                start_new_session=True,  # a Ctrl-C is for the command, not for the daemon
            )
            stack.callback(_stop, daemon)
        _wait_until_ready(daemon, channel)
        channel.close()  # nothing reads it any more
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


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
