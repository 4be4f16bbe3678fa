"""``binfmtd status`` with a daemon that runs, or has run."""

import os
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from support.cli import Cli, run, unprivileged_python
from support.daemon import Daemon
from support.instance import Instance

from binfmtd.daemon.state_dir import running_pid
from binfmtd.report.status import FOREIGN_LISTED

StartDaemon = Callable[..., Daemon]

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
ALMOST_NEVER = 1000  # of many thousands, on a machine that is busy
BEFORE = '{"state": "converged", "of": "before"}'
LATE = "[handlers.late]\nmagic = '\\x00late'\ninterpreter = '/nowhere/late'\n"
ODD = b"odd\x1b[31m\xff"


@pytest.fixture
def cli(instance: Instance, tmp_path: Path) -> Cli:
    cli = Cli(instance, tmp_path)
    cli.state_directory = tmp_path / "daemon" / "state"
    return cli


def test_fresh(start_daemon: StartDaemon, cli: Cli) -> None:
    """While the daemon runs it shows each handler and the whole, or with --check one line: 0."""
    daemon = start_daemon(CONFIG)
    check = cli("status", "--check")
    assert (check.status, check.stdout, check.stderr) == (0, "2 handlers in order\n", "")
    result = cli("status")
    assert (result.status, result.stderr) == (0, "")
    heading, off, why, one, *_ = result.rows
    assert heading == ["HANDLER", "STATE", "INTERPRETER", "FLAGS", "REPAIRS"]
    assert off[:2] == ["off", "disabled"]
    assert " ".join(why) == "enabled = false in the config"
    assert one == ["one", "registered", "/usr/bin/true", "F", "0"]
    assert f"\ndaemon:    pid {daemon.pid}\n" in result.stdout
    assert f"config:    {daemon.config}, generation 1, loaded 20" in result.stdout
    assert "\nstate:     converged, 0 repairs in 1 passes\n" in result.stdout


def test_an_ordinary_user_sees_that_it_runs(start_daemon: StartDaemon) -> None:
    """Though he may not open the lock, with which he could keep every daemon out."""
    if os.geteuid() != 0:
        pytest.skip("takes root: the lock has to be somebody else's")
    python = unprivileged_python()
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        daemon = start_daemon(CONFIG, ("--state-dir", directory))
        status = [*python, "-m", "binfmtd", "status", "--state-dir", directory]
        result = run(status, cwd="/")
        assert (result.status, result.stderr) == (0, "")
        assert f"\ndaemon:    pid {daemon.pid}\n" in result.stdout
        for share in ("-s", "-x"):
            taken = run([*python[: python.index("env")], "flock", share, f"{directory}/lock", "true"], cwd="/")
            assert "Permission denied" in taken.stderr
        daemon.kill()
        assert "no daemon runs" in run(status, cwd="/").stderr


def test_more_foreign_entries_than_are_listed(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """The status says how many there are, and an entry that is only counted can be paused."""
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
        "flags": "F",
        "priority": 5,
        "repairs": 0,
    }


def test_without_handlers(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """No handlers are no damage: where none is declared all is converged, and where none can be it says why."""
    daemon = start_daemon("architectures = []\n")
    result = cli("status", "--check")
    assert (result.status, result.stderr) == (0, "")
    assert result.rows[0] == ["HANDLER", "STATE", "INTERPRETER", "FLAGS", "REPAIRS"]
    assert "\nstate:     converged, " in result.stdout
    daemon.config.write_text("[emulators]\npaths = ['/nowhere/qemu-{name}']\n")
    daemon.reload()
    daemon.wait_for_log("config_reloaded")
    assert cli("status").status == 0
    instance.shell(f"umount {instance.mount_point}", check=True)
    daemon.wait_status(lambda status: status["mount"] is None, "no mount")
    result = cli("status", "--check")
    assert (result.status, result.stderr) == (3, "")
    assert "\nmount:     none\n" in result.stdout
    assert "\nproblem:   " in result.stdout
    assert cli("status", "--history").status == 0


def test_not_converged(start_daemon: StartDaemon, cli: Cli) -> None:
    """While something waits, --check says 3, and without it the status is the answer: 0."""
    start_daemon(CONFIG + LATE)
    result = cli("status")
    assert (result.status, result.stderr) == (0, "")
    assert "late" in result.stdout
    assert "no executable file at /nowhere/late" in result.stdout
    assert "\nstate:     waiting, " in result.stdout
    check = cli("status", "--check")
    assert (check.status, check.stderr) == (3, "")
    assert check.stdout == "waiting: late: no executable file at /nowhere/late\n"


def test_stale(start_daemon: StartDaemon, cli: Cli) -> None:
    """After the daemon's end the last status is shown and called that: 1, and 3 with --check."""
    daemon = start_daemon(CONFIG)
    daemon.kill()
    for options, expected in (((), 1), (("--check",), 3), (("--json",), 1)):
        result = cli("status", *options)
        assert result.status == expected
        assert result.message.startswith("no daemon runs with this state directory")
        assert ("one" in result.stdout) == (options != ("--check",))
    assert cli("status", "--json").json["pid"] is None
    assert "\ndaemon:    none runs: " in cli("status").stdout


def test_odd_names_do_not_reach_the_terminal(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """A foreign name with control characters and bytes that are no text comes out escaped, as text and as JSON."""
    instance.register(b":%b:E::alien::/usr/bin/true:" % ODD)
    start_daemon(CONFIG)
    result = cli("status")
    assert "foreign:   odd\\x1b[31m\\xff\n" in result.stdout
    assert "\x1b" not in result.stdout
    as_json = cli("status", "--json")
    assert as_json.stdout.isascii()
    assert "\x1b" not in as_json.stdout
    assert as_json.json["foreign"][0]["name"] == ODD.decode("utf-8", "surrogateescape")


def test_what_the_last_daemon_said_is_not_taken_for_the_next_ones(start_daemon: StartDaemon) -> None:
    """While a daemon starts it has not converged, whatever the one before it had: their lock is one file."""
    daemon = start_daemon(CONFIG)
    daemon.kill()
    status = daemon.state_directory / "status.json"
    status.write_text(BEFORE)
    starting = start_daemon(CONFIG, ready=False)
    sights = Counter[bool]()  # of what is taken for fresh: is it from before?
    while "READY=1" not in starting.notifications:
        if running_pid(str(daemon.state_directory)) is not None:
            with suppress(FileNotFoundError):
                sights[status.read_text() == BEFORE] += 1
    assert sights[True] <= ALMOST_NEVER, "some microseconds are between taking the lock and removing the file"
