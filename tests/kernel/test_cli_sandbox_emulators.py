"""``binfmtd sandbox --emulators``: the same command with several versions of the emulators.

The emulators are tiny native programs, each with an end of its own, in a store of the test's.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import BINFMTD, Result, run, unprivileged_python
from support.instance import Instance
from support.programs import FOREIGN, crashes, exits_with, foreign_program, install, waits
from support.waiting import wait_until

from binfmtd.catalog.architectures import CATALOG

CONFIG = f"architectures = ['{FOREIGN}']\n"
HANDLER = "[handlers.{}]\nmagic = '{}'\ninterpreter = '/usr/bin/true'\n"


class Sandboxes:
    """A store with versions, a config, and a program of an architecture that this machine does not run by itself."""

    def __init__(self, instance: Instance, directory: Path) -> None:
        self.instance = instance
        self.directory = directory
        self.store = directory / "store"
        self.store.mkdir()
        self.config = directory / "binfmtd.toml"
        self.config.write_text(CONFIG)
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self.program = str(foreign_program(directory / "program", CATALOG[FOREIGN]))

    def add(self, version: str, program: bytes, architecture: str = FOREIGN) -> None:
        (self.store / version).mkdir(exist_ok=True)
        install(self.store / version / f"qemu-{architecture}", program)

    def command(self, *arguments: str, python: tuple[str, ...] = BINFMTD) -> list[str]:
        given = ["sandbox", "--config", str(self.config), "--store", str(self.store), *arguments]
        return ["env", "-C", str(self.directory), f"TMPDIR={self.temporary}", *python, *given]

    def __call__(self, *arguments: str, **options: Any) -> Result:
        return run(self.instance.entering(self.command(*arguments)), **options)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start it as the leader of a process group, as a shell does with a job."""
        pipe = subprocess.PIPE
        command = self.command(*arguments)
        return self.instance.popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


@pytest.fixture
def sandbox(instance: Instance, open_directory: Path) -> Iterator[Sandboxes]:
    """Yield a maker of sandboxes in a directory that all users may read, and assert that no file is left there."""
    made = Sandboxes(instance, open_directory)
    made.add("good", exits_with(0))
    made.add("bad", exits_with(3))
    yield made
    assert os.listdir(made.temporary) == []


def rows(result: Result) -> list[list[str]]:
    """Return the rows of the table without their times."""
    heading, *others = result.rows
    assert heading == ["VERSION", "STATUS", "TIME"]
    assert all(float(row[-2]) >= 0 and row[-1] == "s" for row in others)
    return [row[:-2] for row in others]


def is_sleeping(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00600\x00"
    except OSError:
        return False


def test_each_end(sandbox: Sandboxes) -> None:
    """Each version runs in the order given; the table has the exit status, the signal or the timeout of each run."""
    sandbox.add("crashing", crashes())
    sandbox.add("hanging", waits(0))
    words = "bad,crashing,hanging,good"
    result = sandbox("--emulators", words, "--timeout", "1500ms", "--", sandbox.program)
    assert rows(result) == [["bad", "3"], ["crashing", "139", "(SIGSEGV)"], ["hanging", "timeout"], ["good", "0"]]
    assert result.messages == [f"run {n} of 4: emulators {word}" for n, word in enumerate(words.split(","), 1)]
    assert result.status == 0


@pytest.mark.parametrize("umask", ["002", "077"])
def test_whatever_the_umask(sandbox: Sandboxes, umask: str) -> None:
    """The config of a run is the user's alone with any umask, also with 002, the default of some systems."""
    command = sandbox.command("--emulators", "bad,good", "--", sandbox.program)
    result = run(sandbox.instance.entering(["sh", "-c", f'umask {umask}; exec "$@"', "sh", *command]))
    assert (result.status, rows(result)) == (0, [["bad", "3"], ["good", "0"]])


def test_a_shell_reports_the_signal(sandbox: Sandboxes) -> None:
    """The exit status by which a shell reports a signal has that signal's name; without a success the status is 1."""
    sandbox.add("crashing", crashes())
    result = sandbox("--emulators", "crashing,bad", "--", "sh", "-c", f"{sandbox.program} 2>&-; exit $?")
    assert rows(result) == [["crashing", "139", "(SIGSEGV)"], ["bad", "3"]]
    assert result.status == 1


@pytest.mark.parametrize("status", [160, 255])
def test_a_status_that_is_no_signal(sandbox: Sandboxes, status: int) -> None:
    """A status above 128 to which no signal belongs has no name."""
    result = sandbox("--emulators", "good", "--json", "--", "sh", "-c", f"exit {status}")
    assert [(each["status"], each["signal"]) for each in result.json] == [(status, None)]


def test_json(sandbox: Sandboxes) -> None:
    """With --json stdout is the JSON alone: the command writes to stderr."""
    sandbox.add("hanging", waits(0))
    script = f"echo printed; {sandbox.program}"
    result = sandbox("--emulators", "bad hanging", "--timeout", "1s", "--json", "--", "sh", "-c", script)
    bad, hanging = result.json
    assert bad.pop("seconds") < hanging.pop("seconds")
    assert bad == {"version": "bad", "status": 3, "signal": None, "timed_out": False}
    assert hanging == {"version": "hanging", "status": None, "signal": None, "timed_out": True}
    lines = ["binfmtd: run 1 of 2: emulators bad", "printed", "binfmtd: run 2 of 2: emulators hanging", "printed"]
    assert (result.status, result.stderr.splitlines()) == (1, lines)


def test_order_of_the_output(sandbox: Sandboxes) -> None:
    """In a log with both streams each run has its line, then its output; the table comes last."""
    script = f"echo out; echo err >&2; {sandbox.program}"
    result = sandbox("--emulators", "bad,good", "--", "sh", "-c", script, capture_output=False, stdout=-1, stderr=-2)
    lines = result.stdout.splitlines()
    assert lines[:6] == [
        *("binfmtd: run 1 of 2: emulators bad", "out", "err"),
        *("binfmtd: run 2 of 2: emulators good", "out", "err"),
    ]
    assert lines[6].split() == ["VERSION", "STATUS", "TIME"]


def test_as_an_ordinary_user(sandbox: Sandboxes) -> None:
    """An ordinary user can use it, and is root inside."""
    python = unprivileged_python()
    sandbox.temporary.chmod(0o1777)
    script = f"id -u >&2; {sandbox.program}"
    arguments = ("--emulators", "bad,good", "--json", "--", "sh", "-c", script)
    result = run(sandbox.command(*arguments, python=(*python, "-m", "binfmtd")), cwd="/")
    assert [(each["version"], each["status"]) for each in result.json] == [("bad", 3), ("good", 0)]
    assert result.stderr.splitlines()[1::2] == ["0", "0"]


def test_paths_and_system(sandbox: Sandboxes) -> None:
    """A path with {name} is a version of its own, and `system` are the paths of the config."""
    with sandbox.config.open("a") as file:
        file.write(f"[emulators]\npaths = ['{sandbox.store}/bad/qemu-{{name}}']\nversion = 'good'\n")
    pattern = f"{sandbox.store}/good/qemu-{{name}}"
    result = sandbox("--emulators", f"system,{pattern}", "--", sandbox.program)
    assert rows(result) == [["system", "3"], [pattern, "0"]]


def test_the_store_of_the_environment(sandbox: Sandboxes) -> None:
    """$BINFMTD_STORE, or else the config names the store; --arch names the architectures, in any of their names."""
    arguments = ("sandbox", "--arch", CATALOG[FOREIGN].debian[0], "--emulators", "good,bad", "--", sandbox.program)
    (elsewhere := sandbox.directory / "elsewhere.toml").write_text(f"[emulators]\nstore = '{sandbox.store}'\n")
    for variable in (f"BINFMTD_STORE={sandbox.store}", f"BINFMTD_CONFIG={elsewhere}"):
        result = run(sandbox.instance.entering(["env", variable, *BINFMTD, *arguments]))
        assert rows(result) == [["good", "0"], ["bad", "3"]]


def test_all_architectures_are_those_of_the_version(sandbox: Sandboxes) -> None:
    """If no architecture is named, a version needs an emulator for one of them only."""
    sandbox.config.write_text("")
    result = sandbox("--emulators", "good", "--", "sh", "-c", f"ls /proc/sys/fs/binfmt_misc >&2; {sandbox.program}")
    assert rows(result) == [["good", "0"]]
    assert result.stderr.splitlines()[1:] == [f"qemu-{FOREIGN}", "register", "status"]


def test_a_native_architecture_needs_no_emulator(sandbox: Sandboxes) -> None:
    """An architecture that --arch names and that runs natively is no reason to refuse a version."""
    result = sandbox("--arch", f"{FOREIGN},{os.uname().machine}", "--emulators", "good", "--", sandbox.program)
    assert rows(result) == [["good", "0"]]


def test_commands_inside_use_the_same_config(sandbox: Sandboxes) -> None:
    """Other commands of binfmtd, inside, find the emulators of the run, and the config's other handlers."""
    with sandbox.config.open("a") as file:
        file.write(HANDLER.format("one", "\\x00one"))
    script = f"{' '.join(BINFMTD)} status --check --json >&2"
    result = sandbox("--emulators", "good", "--", "sh", "-c", script)
    assert rows(result) == [["good", "0"]]
    handlers = json.loads(result.stderr.partition("\n")[2])["handlers"]
    found = {handler["name"]: handler["interpreter"] for handler in handlers}
    assert found == {f"qemu-{FOREIGN}": f"{sandbox.store}/good/qemu-{FOREIGN}", "one": "/usr/bin/true"}


def test_the_working_directory_is_shared(sandbox: Sandboxes) -> None:
    """All runs have the same working directory: a run finds the files of those before it."""
    result = sandbox("--emulators", "bad,good", "--", "sh", "-c", "test -e built || { touch built; exit 5; }")
    assert rows(result) == [["bad", "5"], ["good", "0"]]
    assert (sandbox.directory / "built").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--emulators", "good,9.9"), "there is no version '9.9': the store {} has bad, good, half; system and"),
        (("--emulators", "good,half"), f"half has no emulator for {FOREIGN} (no executable file: {{}}/half/qemu-"),
        (("--emulators", "half", "--arch", "all"), "half has no emulator for any architecture that the config or"),
        (("--emulators", "good", "--arch", "none"), "good has no emulator for any architecture that the config or"),
        (("--emulators", "good,qemu/{name}"), "'qemu/{{name}}' is no absolute path"),
        (("--emulators", "good,/usr/bin/true"), "'/usr/bin/true' is one file for all architectures: put {{name}}"),
        (("--emulators", "good,.hidden"), "'.hidden' cannot be the name of a version"),
        (("--emulators", " ,"), "--emulators is empty: name versions, separated by commas; the store {} has bad"),
        (("--emulators", "good", "--arch", "arm65"), "--arch: unknown architecture 'arm65'"),
        (("--emulators", "good", "--store", "/none"), "the store /none has no versions; system"),
        (("--emulators", "9.9.0"), "run `binfmtd emulators pull docker.io/tonistiigi/binfmt:qemu-v9.9.0 --name 9.9.0`"),
        (("--emulators", "good", "--timeout", "soon"), "--timeout: 'soon' is not a duration"),
        (("--json",), "--json prints the results of --emulators"),
    ],
)
def test_errors_before_anything_runs(sandbox: Sandboxes, arguments: tuple[str, ...], message: str) -> None:
    """A mistake in one version or option is one line, which names what there is, and no run begins."""
    (sandbox.store / "half").mkdir()
    (sandbox.store / ".new").mkdir()  # one that is being written
    result = sandbox(*arguments, "--", "touch", "it-ran")
    assert (result.status, result.stdout) == (2, "")
    assert message.format(sandbox.store) in result.message
    assert not (sandbox.directory / "it-ran").exists()


def test_no_command(sandbox: Sandboxes) -> None:
    """There is no shell for each version."""
    result = sandbox("--emulators", "good")
    assert (result.status, result.message.partition(":")[0]) == (
        2,
        "--emulators runs a command once with each version",
    )


def test_a_config_error_is_reported_once(sandbox: Sandboxes) -> None:
    """An invalid config is one line that names the caller's own file."""
    sandbox.config.write_text("x = 1")
    result = sandbox("--emulators", "good,bad", "--", "true")
    assert (result.status, result.stdout) == (78, "")
    assert result.message.startswith(f"{sandbox.config}: x: unknown key")


@pytest.mark.parametrize("name", ["other", f"qemu-{FOREIGN}"])
def test_a_handler_that_would_take_the_programs(sandbox: Sandboxes, name: str) -> None:
    """A handler of the config for the same programs is an error, because it could run them instead of the version."""
    magic = "".join(f"\\x{byte:02x}" for byte in CATALOG[FOREIGN].match.magic[:4])
    with sandbox.config.open("a") as file:
        file.write(HANDLER.format(name, magic))
    result = sandbox("--emulators", "good", "--", "touch", "it-ran")
    assert (result.status, result.stdout) == (2, "")
    assert f"the handler '{name}' takes programs of {FOREIGN}, so good would not run them" in result.message
    assert str(sandbox.config) in result.message


def test_a_handler_for_other_programs(sandbox: Sandboxes) -> None:
    """A handler for an architecture that is not asked for stays, though the version has an emulator for it."""
    sandbox.add("good", exits_with(0), "s390x")
    with sandbox.config.open("a") as file:
        file.write("[handlers.other]\nmatch = 's390x'\ninterpreter = '/usr/bin/true'\n")
    result = sandbox("--emulators", "good", "--", "ls", "/proc/sys/fs/binfmt_misc")
    assert result.status == 0
    assert {"other", f"qemu-{FOREIGN}"} < set(result.stdout.split())


@pytest.mark.parametrize(("version", "flags"), [("5.2.0", "OF"), ("6.0.0", "POF")])
def test_flag_p(sandbox: Sandboxes, version: str, flags: str) -> None:
    """QEMU before 6.0 does not see flag P, and its handlers do not have it."""
    sandbox.add(version, exits_with(0) + f"qemu-{FOREIGN} version {version} (Debian)".encode())
    result = sandbox("--emulators", version, "--", "cat", f"/proc/sys/fs/binfmt_misc/qemu-{FOREIGN}")
    assert f"flags: {flags}" in result.stdout.splitlines()


def test_a_command_that_cannot_be_started(sandbox: Sandboxes) -> None:
    """As without --emulators the status is 127 or 126; each run has it, and its message."""
    result = sandbox("--emulators", "bad,good", "--", str(sandbox.config))
    assert rows(result) == [["bad", "126"], ["good", "126"]]
    assert result.messages[1::2] == [f"'{sandbox.config}': Permission denied"] * 2
    assert result.status == 1


def test_a_machine_without_sandboxes(sandbox: Sandboxes) -> None:
    """If no sandbox can be made, the reason is printed once, and there is no table."""
    forbid = 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"'
    result = run(
        sandbox.instance.entering(["sh", "-c", forbid, "sh", *sandbox.command("--emulators", "bad,good", "--", "true")])
    )
    assert (result.status, result.stdout, len(result.messages)) == (1, "", 2)
    assert "set user.max_user_namespaces" in result.messages[1]


def test_a_root_that_is_none(sandbox: Sandboxes) -> None:
    """A --root that is no root tree is one error, before the first run."""
    result = sandbox("--emulators", "bad,good", "--root", str(sandbox.store), "--", "true")
    assert (result.status, result.stdout) == (1, "")
    assert "--root takes the root directory of a system" in result.message


def test_what_a_run_leaves_running_is_killed(sandbox: Sandboxes) -> None:
    """A process that left the command's session is killed at the end of the run: it could serve the next one."""
    script = "setsid sh -c 'setsid sleep 600 & echo $! >left' & wait; kill -0 $(cat left) && cat left"
    result = sandbox("--emulators", "bad,good", "--", "sh", "-c", script)
    first, second, *_ = result.stdout.splitlines()
    assert int(first) != int(second)
    assert not is_sleeping(first)
    assert not is_sleeping(second)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
def test_a_signal_ends_all(sandbox: Sandboxes, number: signal.Signals) -> None:
    """^C, and a SIGTERM to the first process, end the present run and all further ones; the finished are printed."""
    sandbox.add("hanging", waits(0))
    script = f"echo $$; {sandbox.program}; exec {sandbox.program}"
    process = sandbox.start("--emulators", "good,hanging,bad", "--", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stderr is not None
    _, second = process.stdout.readline(), process.stdout.readline()
    assert second.strip().isdecimal(), process.stderr.read()
    if number is signal.SIGTERM:
        process.send_signal(number)
    else:  # the terminal sends it to the whole group
        os.killpg(process.pid, number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert [line.split()[:2] for line in stdout.splitlines()] == [["VERSION", "STATUS"], ["good", "0"]]
    assert "run 3 of 3" not in stderr
    wait_until(lambda: not Path(f"/proc/{second.strip()}").exists(), what="the end of the run")


def test_a_second_interrupt_kills(sandbox: Sandboxes) -> None:
    """A command that ignores ^C is killed with all its processes, at the second one or after some seconds."""
    script = "trap '' INT; setsid sleep 600 & echo $!; exec sleep 600"
    process = sandbox.start("--emulators", "good,bad", "--", "sh", "-c", script)
    assert process.stdout is not None
    left = process.stdout.readline().strip()
    wait_until(lambda: is_sleeping(left), what="the process that leaves the session")

    def ended() -> bool:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        return process.poll() is not None

    wait_until(ended, what="the end after repeated interrupts")
    assert (process.returncode, process.stdout.read()) == (130, "")
    assert not is_sleeping(left)


def test_the_run_does_not_outlive_its_killed_parent(sandbox: Sandboxes) -> None:
    """If the first process is killed, the present run ends, and removes its files."""
    process = sandbox.start("--emulators", "good,bad", "--", "sh", "-c", "echo $$; exec sleep 600")
    assert process.stdout is not None
    command = process.stdout.readline().strip()
    wait_until(lambda: is_sleeping(command), what="the command")
    process.kill()
    wait_until(lambda: not is_sleeping(command), what="the end of the command")
    wait_until(lambda: not os.listdir(sandbox.temporary), what="no file")
