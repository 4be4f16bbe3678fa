"""``binfmtd status`` with a daemon that runs, or has run."""

import os
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from support.cli import Cli, run, unprivileged_python
from support.daemon import StartDaemon
from support.instance import Instance
from support.programs import install

from binfmtd.daemon.state_files.state_dir import running_pid
from binfmtd.report.status import FOREIGN_LISTED

pytestmark = pytest.mark.usefixtures("_cli_of_daemon")
CONFIG = """
architectures = []
[handlers.one]
magic = '\\x00one'
interpreter = "/usr/bin/true"
flags = "F"
priority = 5
[handlers.off]
magic = '\\x00off'
interpreter = "/usr/bin/true"
enabled = false
"""
BEFORE = '{"state": "converged", "of": "before"}'
LATE = "[handlers.late]\nmagic = '\\x00late'\ninterpreter = '/nowhere/late'\n"
MANY = "".join(
    f"[handlers.many_of_them_{n:02}]\nmagic = '\\x00{n:02}'\ninterpreter = '/usr/bin/true'\n" for n in range(31)
)
ARM64 = 'architectures = ["arm64"]\nemulators = {paths = ["/usr/bin/true"]}\n'
ODD = b"odd\x1b[31m\xff"


def test_reasons_that_differ_in_the_architecture(start_daemon: StartDaemon, cli: Cli, tmp_path: Path) -> None:
    """A reason that differs only in the architecture is shown once, below the last handler."""
    wanted = f'emulators = {{paths = ["{tmp_path}/qemu-{{name}}"]}}\narchitectures = '
    start_daemon(f'{wanted}["riscv64", "s390x"]')
    shown = " ".join(cli("status", "--problems").stdout.split())
    assert shown.count("no executable file") == 1
    assert f"no executable file at {tmp_path}/qemu-{{name}}: " in shown


def test_a_reason_of_one(start_daemon: StartDaemon, cli: Cli, tmp_path: Path) -> None:
    start_daemon(f'emulators = {{paths = ["{tmp_path}/qemu-{{name}}"]}}\narchitectures = ["riscv64"]')
    assert f"no executable file at {tmp_path}/qemu-riscv64: " in " ".join(cli("status").stdout.split())


def test_fresh(start_daemon: StartDaemon, cli: Cli) -> None:
    """While the daemon runs, all handlers are shown, or with --check one line: status 0."""
    daemon = start_daemon(CONFIG)
    check = cli("status", "--check")
    assert (check.status, check.stdout, check.stderr) == (0, "2 handlers in order\n", "")
    result = cli("status", "--all")
    assert (result.status, result.stderr) == (0, "")
    state, _, heading, off, why, one, *_ = result.rows
    assert " ".join(state) == "state: converged: 2 handlers in order"
    assert heading == ["HANDLER", "STATE", "FLAGS", "REPAIRS", "INTERPRETER"]
    assert off[:2] == ["off", "disabled"]
    assert " ".join(why) == "enabled = false in the config"
    assert one == ["one", "registered", "F", "0", "/usr/bin/true"]
    assert f"\ndaemon:    pid {daemon.pid}\n" in result.stdout
    assert re.search(
        rf"\nconfig:    {daemon.config}, generation 1, loaded (just now|\d+ (s|min) ago) \(20[0-9: -]+ UTC\)\n",
        result.stdout,
    )


def test_what_is_in_order_is_a_paragraph(start_daemon: StartDaemon, cli: Cli) -> None:
    """The state comes first, then the handlers that are not in order; the rest is only named."""
    daemon = start_daemon(CONFIG + LATE + MANY)
    lines = cli.on_a_terminal("status")
    assert lines[0].startswith("state:     waiting: 33 handlers in order, 1 waiting")
    assert lines[2].split() == ["HANDLER", "STATE", "FLAGS", "REPAIRS", "INTERPRETER"]
    assert lines[3].split()[:2] == ["late", "waiting"]
    assert lines[4] == "  no executable file at /nowhere/late"
    assert lines[6].startswith("in order:  many_of_them_00, many_of_them_01, ")
    assert len(lines) < 20
    assert max(len(line) for line in lines if str(daemon.config) not in line) <= 80
    named = set(re.findall(r"many\w+", "\n".join(lines)))
    assert named < {f"many_of_them_{number:02}" for number in range(31)}, (
        "whole names, and not so many that the rest scrolls away"
    )
    assert f"and {33 - 1 - len(named)} more: --all shows them" in re.sub(r"\s+", " ", " ".join(lines))
    assert {f"many_of_them_{number:02}" for number in range(31)} <= set(re.findall(r"\w+", cli("status").stdout))
    assert "many_of_them_30" in cli("status", "--all").stdout
    assert any(line.split()[:2] == ["many_of_them_30", "registered"] for line in cli.on_a_terminal("status", "--all"))


def test_only_problems(start_daemon: StartDaemon, cli: Cli) -> None:
    """With --problems only problems are shown, or one line if there are none."""
    daemon = start_daemon(CONFIG + LATE)
    result = cli("status", "--problems")
    assert "late" in result.stdout
    assert "one" not in re.findall(r"\w+", result.stdout)
    daemon.config.write_text(CONFIG)
    daemon.reload()
    daemon.wait_converged()
    assert cli("status", "--problems").stdout == "nothing is out of order\n"
    daemon.config.write_text("nonsense =")
    daemon.reload()
    daemon.wait_status(lambda status: status["config"]["error"], "the config rejected")
    assert cli("status", "--problems").stdout.startswith(f"rejected:  {daemon.config}: not valid TOML")


def test_versions(instance: Instance, start_daemon: StartDaemon, cli: Cli, tmp_path: Path) -> None:
    """With a name or --all the version of QEMU is shown, also that of a foreign entry's emulator."""
    (tmp_path / "bin").mkdir(mode=0o755)
    content = Path("/bin/true").read_bytes() + b"qemu-aarch64 version 9.2.2\n"
    emulator = install(tmp_path / "bin" / "qemu-aarch64", content)
    daemon = start_daemon(
        f'architectures = ["arm64"]\n[emulators]\npaths = ["{emulator}"]\n' + CONFIG.replace("architectures = []", "")
    )
    heading, arm = cli("status", "arm64").rows[:2]
    assert heading[-2:] == ["VERSION", "INTERPRETER"]
    assert arm[-2:] == ["9.2.2", str(emulator)]
    assert ["one", "registered", "-"] in [[*row[:2], row[-2]] for row in cli("status", "--all").rows if row]
    instance.register(b":theirs:E::theirs::%s:" % str(emulator).encode())
    daemon.wait_status(lambda status: status["foreign"], "the foreign entry")
    assert f"theirs:    {emulator} (QEMU 9.2.2)\n" in cli("status", "theirs").stdout


def test_by_name(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """With a name of an entry or architecture its row and its history are shown; an unknown name is an error."""
    daemon = start_daemon(ARM64 + CONFIG.replace("architectures = []", ""))
    for name, deed in (("one", b"-1"), ("qemu-aarch64", b"0")):
        repairs = daemon.status()["repairs"]
        instance.write(name, deed)
        daemon.wait_status(lambda status: status["repairs"] > repairs, "a repair")  # noqa: B023  waited for
    daemon.wait_converged()
    result = cli("status", "arm64")
    assert (result.status, result.stderr) == (0, "")
    heading, arm, _, history = result.rows
    assert (heading[0], arm[:2]) == ("HANDLER", ["qemu-aarch64", "registered"])
    assert "qemu-aarch64 disabled by another process, repaired in" in " ".join(history)
    assert "qemu" not in cli("status", "one", "--history").stdout
    document = cli("status", "one", "--json").json
    assert [row["name"] for row in document["handlers"]] == ["one"]
    assert [row["entry"] for row in document["history"]] == ["one"]
    assert cli("status", "riscv64").stdout.startswith("no handler and no entry has this name\n")
    unknown = cli("status", "on")
    assert unknown.status == 2
    assert unknown.message.startswith("'on' is neither an entry nor an architecture here")
    assert cli("status", "one", "--all").status == 2


def test_the_history_fits(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """On 80 columns names are whole, in a pipe a row is one line, and two flushes are one row with a number."""
    daemon = start_daemon(CONFIG + MANY)
    for _ in range(2):
        repairs = daemon.status()["repairs"]
        instance.remove("status")
        daemon.wait_status(lambda status: status["repairs"] == repairs + 32, "the repairs")  # noqa: B023  waited for
    lines = cli.on_a_terminal("status", "--history")
    assert max(map(len, lines)) <= 80
    words = "32 entries removed together with all other entries by another process, repaired in"
    assert words in re.sub(r"\s+", " ", " ".join(lines))
    (line,) = cli("status", "--history").stdout.splitlines()
    assert ", 2 times" in line
    assert re.search(r"(just now|ago) \(20[0-9: -]+ UTC\)  32 entries", line)
    assert line.endswith(" and 27 more")
    assert len(line) < 250


def test_an_ordinary_user_sees_that_it_runs(open_directory: Path, start_daemon: StartDaemon) -> None:
    """An ordinary user sees that the daemon runs, but may not open the lock, which could keep out every daemon."""
    if os.geteuid() != 0:
        pytest.skip("takes root: another user has to own the lock")
    python = unprivileged_python()
    daemon = start_daemon(CONFIG, ("--state-dir", str(open_directory)))
    status = [*python, "-m", "binfmtd", "status", "--state-dir", str(open_directory)]
    result = run(status, cwd="/")
    assert (result.status, result.stderr) == (0, "")
    assert f"\ndaemon:    pid {daemon.pid}\n" in result.stdout
    for share in ("-s", "-x"):
        taken = run([*python[: python.index("env")], "flock", share, f"{open_directory}/lock", "true"], cwd="/")
        assert "Permission denied" in taken.stderr
    daemon.kill()
    assert "no daemon runs" in run(status, cwd="/").stderr


def test_more_foreign_entries_than_are_listed(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """The status has the number of foreign entries, and an entry that is not listed can be paused."""
    number = FOREIGN_LISTED + 100
    for each in range(number):
        instance.register(f":alien-{each:05}:E::{each}::/usr/bin/true:".encode())
    start_daemon(CONFIG)
    result = cli("status")
    assert result.status == 0
    assert f", and {number - 20} more\n" in result.stdout
    document = cli("status", "--json").json
    assert (len(document["foreign"]), document["foreign_count"]["enabled"]) == (FOREIGN_LISTED, number)
    assert "alien-00000" not in {row["name"] for row in document["foreign"]}
    assert cli("pause", "alien-00000").stdout == "paused until `binfmtd resume`: alien-00000\n"


def test_json(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """With --json it has the documented keys."""
    instance.register(b":alien:E::alien::/usr/bin/true:")
    instance.write("alien", b"0")
    daemon = start_daemon(CONFIG)
    result = cli("status", "--json")
    assert (result.status, result.stderr) == (0, "")
    document = result.json
    documented = {"schema", "state", "mount", "config", "handlers", "foreign", "passes", "repairs", "last_pass"}
    documented.add("foreign_count")
    assert documented <= document.keys()
    assert (document["schema"], document["state"]) == (1, "converged")
    assert (document["passes"], document["repairs"], document["pid"]) == (1, 0, daemon.pid)
    assert {"path", "generation", "loaded_at", "error"} <= document["config"].keys()
    assert document["config"]["path"] == str(daemon.config)
    assert document["last_pass"]["id"] == daemon.logs("pass_finished")[-1]["pass"]
    assert document["foreign"] == [{"name": "alien", "enabled": False}]
    assert document["foreign_count"] == {"enabled": 0, "disabled": 1}
    assert document["handlers"][1] == {
        "name": "one",
        "architecture": None,
        "state": "registered",
        "reason": "",
        "interpreter": "/usr/bin/true",
        "candidates": [],
        "flags": "F",
        "priority": 5,
        "repairs": 0,
    }


def test_without_handlers(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """With no declared handler the state is converged; if no declared one is possible, the reason is shown."""
    daemon = start_daemon("architectures = []\n")
    result = cli("status", "--check")
    assert (result.status, result.stdout, result.stderr) == (0, "0 handlers in order\n", "")
    daemon.config.write_text("[emulators]\npaths = ['/nowhere/qemu-{name}']\n")
    daemon.reload()
    daemon.wait_for_log("config_reloaded")
    result = cli("status")
    assert (result.status, result.stdout.splitlines()[0].split(":")[:2]) == (0, ["state", "     waiting"])
    assert "no architecture has an emulator here" in result.stdout
    instance.shell(f"umount -l {instance.mount_point}", check=True)  # a pass may have it open
    daemon.wait_status(lambda status: status["mount"] is None, "no mount")
    result = cli("status", "--check")
    assert (result.status, result.stdout.count("\n"), result.stderr) == (3, 1, "")
    result = cli("status")
    assert "\nmount:     none\n" in result.stdout
    assert "\nproblem:   " in result.stdout
    assert cli("status", "--history").status == 0


def test_not_converged(start_daemon: StartDaemon, cli: Cli) -> None:
    """While a handler waits, --check gives status 3; without it the status is 0."""
    start_daemon(CONFIG + LATE)
    result = cli("status")
    assert (result.status, result.stderr) == (0, "")
    assert "late" in result.stdout
    assert "no executable file at /nowhere/late" in result.stdout
    assert result.stdout.startswith("state:     waiting: 2 handlers in order, 1 waiting\n")
    check = cli("status", "--check")
    assert (check.status, check.stderr) == (3, "")
    assert check.stdout == "waiting: late: no executable file at /nowhere/late\n"


def test_stale(start_daemon: StartDaemon, cli: Cli) -> None:
    """After the daemon's end its last status is shown as such: status 1, with --check 3."""
    daemon = start_daemon(CONFIG)
    daemon.kill()
    for options, expected in (((), 1), (("--check",), 3), (("--json",), 1)):
        result = cli("status", *options)
        assert result.status == expected
        assert result.message.startswith("no daemon runs with this state directory")
        assert ("one" in result.stdout) == (options != ("--check",))
    assert cli("status", "--json").json["pid"] is None
    assert cli("status").stdout.startswith("daemon:    none runs: the last one wrote this status\nstate:     ")


def test_odd_names_do_not_reach_the_terminal(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """A foreign name with control characters or invalid UTF-8 is escaped, as text and as JSON."""
    instance.register(b":%b:E::alien::/usr/bin/true:" % ODD)
    start_daemon(CONFIG)
    result = cli("status")
    assert "foreign:   odd\\x1b[31m\\xff\n" in result.stdout
    assert "\x1b" not in result.stdout
    as_json = cli("status", "--json")
    assert as_json.stdout.isascii()
    assert "\x1b" not in as_json.stdout
    assert as_json.json["foreign"][0]["name"] == ODD.decode("utf-8", "surrogateescape")


def test_the_last_daemons_status_is_not_the_next_ones(start_daemon: StartDaemon) -> None:
    """The last daemon's status is never taken for that of a daemon that is starting: they share one lock file."""
    daemon = start_daemon(CONFIG)
    daemon.kill()
    status = daemon.state_directory / "status.json"
    status.write_text(BEFORE)
    starting = start_daemon(CONFIG, ready=False)
    sights = Counter[bool]()  # of a status that is taken for fresh: is it the old one?
    while "READY=1" not in starting.notifications:
        if running_pid(str(daemon.state_directory)) is not None:
            with suppress(FileNotFoundError):
                sights[status.read_text() == BEFORE] += 1
    assert sights[True] == 0
    assert running_pid(str(daemon.state_directory)) is not None
