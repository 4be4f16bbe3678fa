"""No command prints or logs a name, a path or a config's text unescaped; each is tried with the worst texts.

A terminal obeys escape sequences (ESC, or C1 controls like U+009B), U+202E reverses the direction of writing, and a
newline could begin a forged line of output.
"""

import json
import os
import pty
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.cli import BINFMTD, Cli, Result, run
from support.daemon import StartDaemon
from support.drop_in import DropIn
from support.instance import Instance
from support.many import Command, run_all

from binfmtd.formats.register_line import to_text

EVIL = to_text("\x1b]0;owned\x07\x1b[31m\x7f\u009b31m\u202e\u2028\r".encode() + b"\xff\xfe")
LINES = "\nbinfmtd: forged\nforged"  # where a newline is allowed
NAME = f"name{EVIL}"
TEXT = "".join(c for c in NAME if not "\udc80" <= c <= "\udcff")  # the characters that TOML and JSON can contain


def quoted(text: str) -> str:
    """Return the text as a TOML string."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\u{ord(c):04x}" for c in text) + '"'


def is_safe(text: str) -> None:
    for line in text.split("\n"):
        assert line.isprintable(), ascii(line)
        assert not line.startswith(("forged", "binfmtd: forged")), line


def run_all_safely(instance: Instance, commands: Sequence[Command]) -> list[Result]:
    return [safe(result) for result in run_all(instance, commands)]


def safe(result: Result) -> Result:
    is_safe(result.stdout)
    is_safe(result.stderr)
    assert "Traceback" not in result.stderr, result.stderr
    return result


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """Return a directory whose name has all characters that could do harm."""
    directory = tmp_path / f"directory{EVIL}{LINES}"
    directory.mkdir(mode=0o755)
    return directory


@pytest.fixture
def cli(instance: Instance, evil: Path) -> Cli:
    """Return a command line in an instance with such entries, with such a config and such a state directory."""
    for place, end in enumerate((b"", b"F")):
        instance.register(b":%b%d:E::x%d::/usr/bin/true:%b" % (os.fsencode(NAME), place, place, end))
    instance.register(b":plain:E::e%b::/nowhere/%b:" % (os.fsencode(EVIL), os.fsencode(NAME)))
    instance.write(f"{NAME}0", b"0")
    cli = Cli(instance, evil)
    cli.config.write_text(CONFIG)
    (evil / "conf.d").mkdir(mode=0o755)
    (evil / "conf.d" / f"{NAME}.toml").write_text("")
    (evil / "conf.d" / f"{NAME}{LINES}.toml").write_text(MORE)
    return cli


CONFIG = f"""
unmanaged = "remove"
keep = [{quoted(TEXT + "*")}, "plain"]
[handlers.{quoted(TEXT)}]
extension = {quoted("x" + TEXT)}
interpreter = {quoted("/usr/" + TEXT)}
[handlers.{quoted(TEXT + "1")}]
extension = "odd"
interpreter = "/usr/bin/true"
[handlers.{quoted(TEXT + "2")}]
magic = "#!"
interpreter = "/usr/bin/true"
"""
MORE = f"""
[handlers.{quoted(TEXT + "5")}]
extension = "five"
interpreter = "/usr/bin/true"
enabled = false
"""
READING = ("plan", "check", "apply", "export --format")  # the commands that read a config
COMMANDS = (
    "plan",
    "plan --json",
    "check",
    "check --json",
    "arch",
    "arch --json",
    "import --kernel",
    "import --kernel --json",
    "export --format binfmt.d --json",
    "export --format debian --json",
    "export --format nixos --json",
    "export --format shell --json",
    "apply",
    "apply --json",
    "status",
    "status --json",
    "plan",
    "export --format debian --output {evil}/out",
    "export --format debian --output {file}",
    "export --format nixos",
    "export --format debian",
    "import {evil}",
    "import {evil} --json",
    "import {evil}/nothing",
    "plan --mount {evil}",
    "check --mount {evil}",
    "status --state-dir {evil}/nothing",
    "status --check --state-dir {evil}",
    "apply --state-dir {file}",
    "apply --host-root {evil} --persistent",
    "export --remove --host-root {evil}",
    "export --remove --host-root {evil}/nothing",
    "apply --arch {name}",
    "{name}",
    "help {name}",
    "apply --{name}",
    "apply {name}",
    "run --log-level {name}",
    "run --config {evil}/nothing",
    "sandbox -- {evil}/nothing",
    "sandbox -- {file}",
    "sandbox --config {file} -- true",
    "explain {evil} {file} {evil}/nothing",
    "explain --json {evil} {file} {evil}/nothing",
    "explain --root {evil} /{name} /",
    "explain --root {evil}/nothing /",
    "doctor",
    "doctor --json",
    "doctor --state-dir {evil} --mount {evil}",
    "probe {name}",
    "probe --mount {evil} riscv64",
    "status --history",
    "sandbox --root {evil} -- true",
    "arch {name}",
)


@pytest.mark.parametrize("wrong", [False, True], ids=["valid", "invalid"])
def test_commands(cli: Cli, evil: Path, *, wrong: bool) -> None:
    """Every command prints only safe text, also if it fails, with a valid config and with an invalid one."""
    file = evil / "file.conf"
    file.write_bytes(b":%b:E::x::/usr/bin/true:\n:%b:E::x::relative:\n%b\n" % ((os.fsencode(NAME),) * 3))
    (evil / f"debian{EVIL}").write_bytes(
        b"package %b\ninterpreter /usr/bin/true\nmagic %b\n" % ((os.fsencode(EVIL),) * 2)
    )
    if wrong:
        cli.config.write_text(f"{CONFIG}\n{quoted(TEXT)} = {quoted(LINES)}\n")
    commands = []
    for command in COMMANDS if not wrong else [each for each in COMMANDS if each.startswith(READING)]:
        words = [word.format(evil=evil, file=file, name=NAME + LINES) for word in shlex.split(command)]
        if "--config" not in words and words[0] not in ("sandbox", NAME + LINES, "help"):
            words[1:1] = ["--config", str(cli.config)]
        commands.append(("binfmtd", words, {"BINFMTD_STATE_DIR": str(cli.state_directory)}))
    results = run_all_safely(cli.instance, commands)
    for (_, words, _), result in zip(commands, results, strict=True):
        if "--json" in words and result.stdout:
            json.loads(result.stdout)
    assert {result.status for result in results} >= ({2, 78} if wrong else {0, 1, 2, 3, 78})


WRONG = (
    f"{quoted(TEXT + LINES)} = 1",
    f"architectures = [{quoted(TEXT + LINES)}]",
    f"unmanaged = {quoted(TEXT + LINES)}",
    f"resync = {quoted(TEXT + LINES)}",
    f"include = [{quoted('/' + TEXT + 'x')}]",
    f"include = [{quoted(TEXT + LINES)}]",
    f"[handlers.{quoted(TEXT + LINES)}]",
    f"[handlers.a]\nmagic = {quoted(TEXT + LINES)}\ninterpreter = '/usr/bin/true'",
    f"[handlers.a]\nextension = {quoted(TEXT + LINES)}\ninterpreter = '/usr/bin/true'",
    f"[handlers.a]\nextension = 'a'\ninterpreter = {quoted(TEXT + LINES)}",
    f"[handlers.a]\nextension = 'a'\ninterpreter = {quoted('/' + TEXT + LINES)}",
    f"[handlers.a]\nextension = 'a'\ninterpreter = '/usr/bin/true'\nflags = {quoted(TEXT + LINES)}",
    f"[handlers.a]\nextension = 'a'\n{quoted(TEXT + LINES)} = 1",
    f"[emulators.{quoted(TEXT + LINES)}]",
    f"[emulators]\npaths = [{quoted(TEXT + LINES)}]",
    f"[emulators]\nentry = {quoted(TEXT + LINES)}",
    "a = \x1b[31m",
    "a = '\x7f\u009b'",
)


def test_what_is_wrong_with_a_config(cli: Cli, tmp_path: Path) -> None:
    """Each kind of wrong value in a config is rejected, with a message that contains the value only escaped."""
    commands: list[Command] = []
    for number, text in enumerate(WRONG):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        commands += [("binfmtd", [*words, "--config", str(path)], {}) for words in (["check"], ["check", "--json"])]
    results = run_all_safely(cli.instance, commands)
    assert all(result.status in (0, 78) for result in results)
    assert sum(result.status == 78 for result in results) >= len(WRONG)


@pytest.mark.parametrize("log_format", ["json", "logfmt", "console"])
def test_the_log(instance: Instance, cli: Cli, start_daemon: StartDaemon, log_format: str) -> None:
    """The log is safe in each format, also about a repair, a failed reload and foreign entries."""
    state = cli.config.parent / "state"
    options = ("--log-format", log_format, "--log-level", "debug", "--state-dir", str(state))
    daemon = start_daemon(CONFIG, (*options, "--config", str(cli.config)), environment={"NO_COLOR": "1"})
    inode = instance.inode(f"{TEXT}1")
    instance.remove(f"{TEXT}1")
    instance.register(b":brick%b:M::\x7fELF::/usr/bin/env:" % os.fsencode(EVIL))
    cli.config.write_text(f"{quoted(TEXT + LINES)} = 1")
    daemon.reload()
    daemon.state_directory = state
    daemon.wait_status(lambda status: status["config"]["error"], "a rejected config")
    daemon.wait_status(lambda status: len(status["foreign"]) >= 3, "others")
    assert instance.names().count(f"{TEXT}1") == 0 or instance.inode(f"{TEXT}1") != inode
    is_safe((state / "status.json").read_text())
    for command in ("status", "status --json", "apply"):
        safe(cli(*command.split()))
    assert daemon.terminate() == 0
    text = daemon.log_text()
    is_safe(text)
    for event in ("config_rejected", "entry_disabled", "repaired", "handler_refused", "stopped"):
        assert event in text


def test_the_drop_ins(instance: Instance, evil: Path) -> None:
    """`binfmt` prints only safe text in its four modes; all but its JSON, which is Go's, has one line for each item."""
    instance.register(b":%b:E::x::/usr/bin/true:" % os.fsencode(NAME))
    drop_in = DropIn(instance, evil)
    drop_in.put("aarch64", Path("/usr/bin/true").read_bytes())
    files = evil / f"files{EVIL}"
    files.mkdir(mode=0o755)
    (files / f"00{EVIL}{LINES}").write_bytes(b":%b:E::x::relative:\n" % os.fsencode(NAME))
    bad = NAME + LINES
    cases: list[tuple[str, list[str]]] = [
        ("", []),
        ("", ["--install", "arm64"]),
        ("", ["--install", bad]),
        ("", ["--uninstall", bad]),
        ("", ["--uninstall", "name*"]),
        ("", [f"--{bad}"]),
        ("", [f"--install={bad}"]),
        ("", [f"--version={bad}"]),
        ("", ["--mount", str(evil)]),
        ("linuxkit", ["-dir", str(files)]),
        ("linuxkit", ["-mount", str(evil)]),
        ("multiarch", ["--reset", "-p", "yes"]),
        ("multiarch", ["--reset", "-p", bad]),
        ("multiarch", ["--reset", f"--{bad}"]),
        ("multiarch", ["--reset", bad]),
        ("vicamo", []),
        ("vicamo", [bad]),
        (bad, []),
    ]
    variables = {
        "BINFMTD_STATE_DIR": str(drop_in.state_directory),
        "QEMU_BINARY_PATH": str(drop_in.emulators),
        "QEMU_BIN_DIR": str(drop_in.emulators),
    }
    run_all_safely(instance, [("binfmt", words, {"BINFMTD_COMPAT": compat, **variables}) for compat, words in cases])


def test_an_export_on_a_terminal(instance: Instance, tmp_path: Path) -> None:
    """An export to a file has a name's own bytes; on a terminal they are escaped."""
    config = tmp_path / "binfmtd.toml"
    name = quoted(TEXT.replace("\r", ""))  # binfmt.d cannot have it
    config.write_text(f"architectures = []\n[handlers.{name}]\nextension = 'x'\ninterpreter = '/usr/bin/true'\n")
    for kind in ("binfmt.d", "shell"):
        command = instance.entering([*BINFMTD, "export", "--format", kind, "--config", str(config)])
        assert "\x1b]0" in run(command).stdout
        ours, theirs = pty.openpty()
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=theirs, check=True)
        assert done.returncode == 0
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:
            pass  # the other end is closed: EIO
        os.close(ours)
        assert b"/usr/bin/true" in shown
        is_safe(shown.decode("utf-8", "surrogateescape").replace("\r\n", "\n"))
