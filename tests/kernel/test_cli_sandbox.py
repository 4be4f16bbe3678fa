"""``binfmtd sandbox``: an instance with its own daemon, for one command.

It is started inside a private instance, which stands for the host's.
"""

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.cli import BINFMTD, Result, run, unprivileged_python
from support.instance import MOUNT_POINT, Instance
from support.programs import FOREIGN, foreign_program
from support.waiting import DirectoryWatch, wait_until

from binfmtd.catalog.architectures import CATALOG

CONFIG = """
architectures = []
[handlers.one]
magic = '\\x00one'
interpreter = "/usr/bin/true"
"""
TIMEOUT = ("--timeout", "1500ms")
TIMED_OUT = "the command was killed after 1500ms, with all its processes (--timeout)"
# Prints its own process id and its daemon's, then waits.
WAITING_COMMAND = 'echo $$; cat "$BINFMTD_STATE_DIR/lock"; exec sleep 600'


class Sandbox:
    """Sandboxes with one config and one directory for temporary files."""

    def __init__(self, instance: Instance, directory: Path) -> None:
        self.instance = instance
        self.directory = directory
        self.config = directory / "binfmtd.toml"
        self.config.write_text(CONFIG)
        self.temporary = directory / "tmp"
        self.temporary.mkdir()

    def command(self, *command: str, config: str | None = None, options: tuple[str, ...] = ()) -> list[str]:
        if config is not None:
            self.config.write_text(config)
        arguments = ["sandbox", "--config", str(self.config), *options, *(["--", *command] if command else [])]
        return ["env", f"TMPDIR={self.temporary}", *BINFMTD, *arguments]

    def __call__(
        self, *command: str, config: str | None = None, options: tuple[str, ...] = (), **of_run: Any
    ) -> Result:
        return run(self.instance.entering(self.command(*command, config=config, options=options)), **of_run)

    def start(self, *command: str) -> subprocess.Popen[str]:
        return self.instance.popen(self.command(*command), stdout=subprocess.PIPE, text=True)


@pytest.fixture
def sandbox(instance: Instance, open_directory: Path) -> Iterator[Sandbox]:
    """Yield a maker of sandboxes in a directory that all users may read, and assert that no file is left there."""
    sandbox = Sandbox(instance, open_directory)
    yield sandbox
    assert os.listdir(sandbox.temporary) == []


def members(namespace: str) -> list[str]:
    """Return the command lines of the processes that are in a user namespace."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text(errors="surrogateescape")
            if command and os.readlink(f"/proc/{pid}/ns/user") == namespace:  # a zombie has no command line
                found.append(command)
        except OSError:  # it has ended
            continue
    return found


def test_the_command_sees_the_handlers(sandbox: Sandbox) -> None:
    """Everything is registered when the command starts, in an instance that only it and its daemon have."""
    result = sandbox("ls", MOUNT_POINT)
    assert (result.status, result.stdout.split(), result.stderr) == (0, ["one", "register", "status"], "")


def test_the_daemon_is_at_work(sandbox: Sandbox) -> None:
    """An entry that is removed in the sandbox comes back, and `status` finds the daemon without an option."""
    script = f"echo -1 > {MOUNT_POINT}/one; until [ -e {MOUNT_POINT}/one ]; do :; done; exec $0 -m binfmtd status --all"
    result = sandbox("timeout", "10", "sh", "-c", script, BINFMTD[0])
    assert (result.status, result.stderr.replace("\n", "")) == (0, result.stderr.strip())
    assert ["one", "registered"] in [row[:2] for row in result.rows]


def test_the_host_is_untouched_and_nothing_stays(instance: Instance, sandbox: Sandbox) -> None:
    """The host's instance gets no event, and no process is left in the sandbox's namespace."""
    with DirectoryWatch(instance.directory) as watch:
        result = sandbox("readlink", "/proc/self/ns/user")
        assert watch.pending() == []
    assert result.status == 0
    assert instance.names() == []
    namespace = result.stdout.strip()
    assert namespace.startswith("user:[")
    assert namespace != os.readlink(f"/proc/{instance.pid}/ns/user")
    assert members(namespace) == []


def test_a_foreign_program_runs(sandbox: Sandbox) -> None:
    """A program of another architecture runs, with its own exit status."""
    if not os.path.exists(f"/usr/bin/qemu-{FOREIGN}"):
        pytest.skip("no emulator is installed: apt-get install qemu-user")
    program = foreign_program(sandbox.directory / "program", CATALOG[FOREIGN])
    result = sandbox(str(program), config=f"architectures = ['{FOREIGN}']")
    assert (result.status, result.stderr) == (42, "")


def test_its_architectures(sandbox: Sandbox) -> None:
    """Commands inside use the sandbox's architectures: `explain` names no handler that its daemon lacks."""
    program = foreign_program(sandbox.directory / "program", CATALOG[FOREIGN])
    config, options = f"architectures = ['{FOREIGN}']", ("--arch", "none")
    assert sandbox(*BINFMTD, "check", config=config, options=options).status == 0
    explained = sandbox(*BINFMTD, "explain", str(program), config=config, options=options)
    assert explained.status == 1
    assert "the config has handler" not in explained.stdout


@pytest.mark.parametrize(
    ("command", "status", "output"),
    [
        (("true",), 0, ""),
        (("sh", "-c", "exit 7"), 7, ""),
        (("sh", "-c", "kill -KILL $$"), 128 + signal.SIGKILL, ""),
        (("printf", "%s|", "a", "--", "--config"), 0, "a|--|--config|"),
    ],
)
def test_the_exit_status_is_the_commands(sandbox: Sandbox, command: tuple[str, ...], status: int, output: str) -> None:
    """The exit status is the command's, or 128 plus the signal that ended it; its arguments are passed unchanged."""
    result = sandbox(*command)
    assert (result.status, result.stdout, result.stderr) == (status, output, "")


def test_a_command_that_cannot_be_started(sandbox: Sandbox) -> None:
    """As with a shell, the status is 127 if the command does not exist, and 126 if it is no program."""
    result = sandbox("nonesuch", env=os.environ | {"PATH": "/usr/bin:/bin"})  # directories that all users may search
    assert (result.status, result.message) == (127, "'nonesuch': not found")
    result = sandbox(str(sandbox.config))
    assert (result.status, result.message) == (126, f"'{sandbox.config}': Permission denied")
    program = foreign_program(sandbox.directory / "program", CATALOG[FOREIGN])
    result = sandbox(str(program))
    expected = f"'{program}': Exec format error: no handler of this sandbox takes it: name its architecture, which "
    expected += "`binfmtd explain FILE` prints, with --arch"
    assert (result.status, result.message) == (126, expected)


def test_a_command_that_counts_as_an_architecture(sandbox: Sandbox) -> None:
    """Without -- a command after --arch counts as an architecture; the error names the dashes."""
    result = sandbox(options=("--arch", "arm64", "./program"))
    assert result.status == 2
    assert result.message == (
        "--arch: unknown architecture './program': `binfmtd arch` lists the known ones; if it is the command, write -- "
        "before it"
    )
    assert sandbox(options=("--arch", "")).message == "--arch is empty: name architectures, or write all or none"


def test_without_a_command_it_is_a_shell(sandbox: Sandbox) -> None:
    """Without a command $SHELL runs, which here reads its commands from stdin."""
    result = sandbox(input=f"ls {MOUNT_POINT}; exit 5\n", env=os.environ | {"SHELL": "/bin/sh"})
    assert (result.status, result.stdout.split()) == (5, ["one", "register", "status"])


def test_a_config_error(sandbox: Sandbox) -> None:
    """A config error is one line, with the same status as in other commands; the command does not run."""
    result = sandbox("echo", "it ran", config="x = 1")
    assert (result.status, result.stdout) == (78, "")
    assert result.message.startswith(f"{sandbox.config}: x: unknown key")


def test_a_mount_point_that_does_not_exist(sandbox: Sandbox) -> None:
    """A directory that does not exist is named as the reason, and not the right to make a user namespace."""
    result = sandbox("true", options=("--mount", "/nowhere"))
    assert (result.status, result.message.partition(":")[0]) == (1, "/nowhere is not a directory")


def test_modules_of_the_current_directory_are_not_taken(sandbox: Sandbox) -> None:
    """Files in the current directory with the names of Python's modules are not loaded by the daemon."""
    (sandbox.directory / "json.py").write_text("raise SystemExit('mine')")
    command = sandbox.command("true")
    command[command.index("-m") : command.index("-m")] = ["-P"]  # as the installed command does
    result = run(sandbox.instance.entering(["env", "-C", str(sandbox.directory), *command]))
    assert (result.status, result.stderr) == (0, "")


def test_sigterm_ends_command_and_daemon(sandbox: Sandbox) -> None:
    """SIGTERM is passed on to the command, and then command and daemon end."""
    process = sandbox.start("sh", "-c", WAITING_COMMAND)
    assert process.stdout is not None
    processes = [os.pidfd_open(int(process.stdout.readline())) for _ in ("command", "daemon")]
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM
    for descriptor in processes:
        assert select.select([descriptor], [], [], 0)[0], "it still runs"
        os.close(descriptor)


def test_a_timeout(sandbox: Sandbox) -> None:
    """--timeout kills the command with all its processes, also in other sessions; the status is that of timeout(1)."""
    result = sandbox("sh", "-c", "setsid sleep 600 & readlink /proc/self/ns/user; exec sleep 600", options=TIMEOUT)
    assert (result.status, result.message) == (124, TIMED_OUT)
    assert members(result.stdout.strip()) == []


@pytest.mark.parametrize("timeout", ["1m30s", "999999999h"])
def test_a_timeout_that_is_not_reached(sandbox: Sandbox, timeout: str) -> None:
    """A command that ends in time has its own exit status, and the processes that it leaves run on."""
    result = sandbox("sh", "-c", "sleep 600 >&- 2>&- & echo $!; exit 4", options=("--timeout", timeout))
    assert (result.status, result.stderr) == (4, "")
    os.kill(int(result.stdout), signal.SIGKILL)


def test_a_timeout_of_nothing(sandbox: Sandbox) -> None:
    """Without any time the command could not run at all."""
    result = sandbox("touch", str(sandbox.directory / "it-ran"), options=("--timeout", "0"))
    assert (result.status, result.message.partition(":")[0]) == (2, "--timeout")
    assert not (sandbox.directory / "it-ran").exists()


def test_orphans_are_collected(sandbox: Sandbox) -> None:
    """With --timeout the sandbox adopts orphans; those that end do not remain as zombies."""
    orphans = "for i in $(seq 30); do (true &); done"
    # Until the sandbox's process has only two children: the daemon and this command.
    script = f"{orphans}; until set -- $(cat /proc/$PPID/task/$PPID/children) && [ $# -le 2 ]; do :; done"
    assert sandbox("sh", "-c", script, options=("--timeout", "30s")) == Result(0, "", "")


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_at_the_start(sandbox: Sandbox, processes: int) -> None:
    """SIGTERM before the command runs, or while the daemon starts, leaves nothing behind either."""
    for _ in range(5):
        process = sandbox.start("sleep", "600")
        wait_until(lambda: os.listdir(sandbox.temporary), what="a directory for the daemon")
        namespace = os.readlink(f"/proc/{process.pid}/ns/user")
        wait_until(partial(_number, namespace, processes), what="the daemon, or not even that")
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGTERM
        wait_until(partial(_number, namespace, 0), what="no process in the namespace")
        assert os.listdir(sandbox.temporary) == []


def _number(namespace: str, number: int) -> bool:
    return len(members(namespace)) >= number if number else not members(namespace)


def test_the_daemon_does_not_outlive_a_killed_sandbox(sandbox: Sandbox) -> None:
    """A killed sandbox's daemon ends."""
    process = sandbox.start("sh", "-c", WAITING_COMMAND)
    assert process.stdout is not None
    command, daemon = (os.pidfd_open(int(process.stdout.readline())) for _ in ("command", "daemon"))
    process.kill()
    assert select.select([daemon], [], [], 10)[0], "the daemon still runs"
    signal.pidfd_send_signal(command, signal.SIGKILL)
    for descriptor in (command, daemon):
        os.close(descriptor)
    for left in sandbox.temporary.iterdir():  # SIGKILL leaves no time to tidy up
        shutil.rmtree(left)


def test_as_an_ordinary_user(sandbox: Sandbox) -> None:
    """An ordinary user can use it."""
    python = unprivileged_python()
    sandbox.temporary.chmod(0o1777)
    command = ["env", f"TMPDIR={sandbox.temporary}", *python, "-m", "binfmtd", "sandbox"]
    command += ["--config", str(sandbox.config), "--", "sh", "-c", f"ls {MOUNT_POINT}; id -u; exit 3"]
    result = run(command, cwd="/")
    assert (result.status, result.stdout.split(), result.stderr) == (3, ["one", "register", "status", "0"], "")


def test_nothing_of_it_outlasts_a_reboot(instance: Instance, tmp_path: Path) -> None:
    """$BINFMTD_PERSISTENT is for the host's handlers: a sandbox's daemon does not write to the host's binfmt.d."""
    environment = os.environ | {"BINFMTD_PERSISTENT": "1", "BINFMTD_HOST_ROOT": str(tmp_path)}
    result = run(instance.entering([*BINFMTD, "sandbox", "--", "true"]), env=environment)
    assert (result.status, result.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_what_the_hosts_daemon_publishes(sandbox: Sandbox) -> None:
    """With the host's config: metrics and labels of the host's daemon are neither replaced nor removed."""
    files = [sandbox.directory / name for name in ("binfmtd.prom", "labels")]
    for file in files:
        file.write_text("the host's")
    result = sandbox("true", config=CONFIG + f"[metrics]\ntextfile = '{files[0]}'\n[labels]\nfile = '{files[1]}'\n")
    assert (result.status, result.stderr) == (0, "")
    assert [file.read_text() for file in files] == ["the host's"] * 2
