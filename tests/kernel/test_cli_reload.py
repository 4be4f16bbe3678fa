"""``binfmtd reload``: the daemon reads its config again, and the exit status is the result of that."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import Cli
from support.daemon import StartDaemon
from support.instance import COMMAND_SECONDS, MOUNT_POINT, Instance
from support.waiting import IN_OPEN, DirectoryWatch, wait_until

from binfmtd.daemon.state_files.state_dir import APPLY, Lock

pytestmark = pytest.mark.usefixtures("_cli_of_daemon")
ONE = "architectures = []\n[handlers.one]\nmagic = '\\x00one'\ninterpreter = '/usr/bin/true'\nflags = 'F'\n"
TWO = ONE.replace("one", "two")
BAD = "architecturez = []\n"
ASKED = 7  # an exit status


def test_in_force(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """`reload` returns when the handlers of the new config are registered."""
    daemon = start_daemon(ONE)
    for text, name in ((TWO, "two"), (ONE, "one"), (ONE, "one")):
        daemon.config.write_text(text)
        result = cli("reload")
        assert (result.status, result.stderr) == (0, "")
        assert result.stdout == "the config is in force: 1 handler in order\n"
        assert instance.names() == [name]
    assert daemon.status()["config"]["generation"] == 4


def test_rejected(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """A rejected config gives status 1 with the reason, also if the reason is the same as before."""
    daemon = start_daemon(ONE)
    daemon.config.write_text(BAD)
    for times in (1, 2):
        result = cli("reload")
        assert (result.status, result.stdout) == (1, "")
        assert result.message.startswith("the config was rejected, and the previous one stays in force: ")
        assert str(daemon.config) in result.message
        assert "architecturez" in result.message
        assert len(daemon.logs("config_rejected")) == times
    assert instance.names() == ["one"]
    daemon.config.write_text(TWO)
    assert cli("reload").status == 0
    assert instance.names() == ["two"]


def test_a_refused_handler(instance: Instance, start_daemon: StartDaemon, cli: Cli, tmp_path: Path) -> None:
    """A config that is in force with a refused handler gives status 1 as well, and the message names the handler."""
    unsafe = tmp_path / "unsafe"
    unsafe.write_bytes(b"")
    unsafe.chmod(0o777)
    daemon = start_daemon(ONE)
    daemon.config.write_text(ONE + f"[handlers.bad]\nmagic = '\\x00bad'\ninterpreter = '{unsafe}'\n")
    result = cli("reload")
    assert result.status == 1
    assert result.stdout.startswith("the config is in force: ")
    assert result.message.startswith("bad is refused: ")
    assert instance.names() == ["one"]


def test_without_a_mount(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """A config that is in force, but cannot be applied for lack of a mount, gives status 1 with the reason."""
    daemon = start_daemon(ONE, ("--no-autoload",))
    instance.run(["umount", MOUNT_POINT], check=True)
    daemon.wait_for_log("trouble")
    daemon.config.write_text(TWO)
    result = cli("reload")
    assert (result.status, daemon.status()["config"]["generation"]) == (1, 2)
    assert (result.stdout, result.message) == ("the config is in force\n", daemon.status()["problem"])


def test_a_daemon_that_is_just_starting(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """A request that comes before the daemon has its lock is answered after the first pass."""
    start_daemon(ONE, ready=False)
    result = cli("reload")
    assert (result.status, result.stderr) == (0, "")
    assert instance.names() == ["one"]


# This program takes the lock of a file and prints "locked". After a line on stdin it writes its process id to the file.
# SIGHUP ends it.
SLOW_DAEMON = f"""
import fcntl, os, signal, sys
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
signal.signal(signal.SIGHUP, lambda *_: os._exit({ASKED}))
print("locked", flush=True)
sys.stdin.readline()
os.write(lock, b"%d\\nrun\\n" % os.getpid())
signal.pause()
"""


def test_a_daemon_that_has_not_written_its_id(cli: Cli) -> None:
    """A request that comes between the lock and the id in its file waits for the id."""
    directory = cli.state_directory
    directory.mkdir(parents=True)
    command, pipe = [sys.executable, "-c", SLOW_DAEMON, str(directory / "lock")], subprocess.PIPE
    daemon = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    try:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "locked\n"
        with DirectoryWatch(directory, IN_OPEN) as watch:
            reload = subprocess.Popen(cli.command("reload"), stderr=pipe, text=True)
            for _ in range(2):  # at the second look it has seen no id
                watch.wait_for(lambda event: event.name == "lock", what="a look at the lock")
        daemon.communicate("now\n", timeout=COMMAND_SECONDS)
        _, message = reload.communicate(timeout=COMMAND_SECONDS)
    finally:
        daemon.kill()
        daemon.communicate()
    assert daemon.returncode == ASKED
    assert "ended before it answered" in message


def test_without_a_daemon(cli: Cli) -> None:
    """Without a daemon the message names the state directory."""
    result = cli("reload", "--timeout", "0s")
    assert result.status == 1
    assert result.message.startswith(f"no daemon runs with the state directory {cli.state_directory}")
    assert cli("reload", "--timeout", "1").message == result.message  # a number without a unit means seconds


def test_a_daemon_of_another_pid_namespace(cli: Cli) -> None:
    """A lock with a process id of another pid namespace is an error; the process with that id here gets no signal."""
    directory = cli.state_directory
    directory.mkdir(parents=True)
    with subprocess.Popen(["sleep", "infinity"]) as bystander:
        lock = Lock(str(directory))
        (directory / "lock").write_text(f"{bystander.pid}\nrun\n")
        result = cli("reload")
        lock.release()
        bystander.kill()
    assert bystander.returncode == -signal.SIGKILL
    assert result.status == 1
    assert f"(pid {bystander.pid} there)" in result.message
    assert "docker exec CONTAINER binfmtd reload" in result.message


def test_from_another_pid_namespace(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """A daemon in another container with the same state directory gets no signal; the message has the remedy."""
    daemon = start_daemon(ONE)
    apart = ("unshare", "--pid", "--fork", sys.executable, "-m", "binfmtd", "reload")
    result = instance.run([*apart, "--state-dir", str(cli.state_directory)])
    assert result.returncode == 1
    assert "runs in another container or pid namespace" in result.stderr
    assert daemon.process.poll() is None


def test_apply_is_no_daemon(cli: Cli) -> None:
    """An `apply` that has the lock (here: this test) gets no SIGHUP, which would end it."""
    directory = cli.state_directory
    directory.mkdir(parents=True)
    lock = Lock(str(directory), APPLY)
    result = cli("reload")
    lock.release()
    assert result.status == 1
    assert result.message.startswith(
        f"no daemon runs with the state directory {directory}; `binfmtd apply` (pid {os.getpid()}) uses it"
    )


def test_timeout(start_daemon: StartDaemon, cli: Cli) -> None:
    """A daemon that does not answer in time gives status 1."""
    daemon = start_daemon(ONE)
    daemon.process.send_signal(signal.SIGSTOP)
    result = cli("reload", "--timeout", "200ms")
    daemon.process.send_signal(signal.SIGCONT)
    assert result.status == 1
    assert result.message.startswith("the daemon has not answered within 200ms")
    assert cli("reload", "--timeout", "soon").status == 2


def test_the_daemon_ends(start_daemon: StartDaemon, cli: Cli) -> None:
    """A daemon that ends instead of answering gives status 1 at once."""
    daemon = start_daemon(ONE)
    daemon.process.send_signal(signal.SIGSTOP)
    daemon.process.terminate()
    waiting = subprocess.Popen(cli.command("reload"), stderr=subprocess.PIPE)
    wait_until(lambda: _pending_hangup(daemon.pid), what="the request")
    daemon.process.kill()
    _, message = waiting.communicate()
    assert waiting.returncode == 1
    assert b"ended before it answered" in message


def _pending_hangup(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    pending = next(line for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(pending.split()[1], 16) & (1 << (signal.SIGHUP - 1)))
