"""``binfmtd plan``: what `apply` would do."""

import os
import shutil
from pathlib import Path

import pytest
from support.cli import Cli, run, unprivileged_python
from support.instance import Instance
from support.waiting import DirectoryWatch

CONFIG = """
architectures = []
[handlers.one]
magic = '\\x00one'
interpreter = "/usr/bin/true"
[handlers.two]
extension = "two"
interpreter = "/usr/bin/true"
flags = "F"
[handlers.three]
extension = "three"
interpreter = "/usr/bin/true"
"""


def test_something_to_do(instance: Instance, cli: Cli) -> None:
    """`plan` shows what `apply` would do, exits with 3, and writes neither to the kernel nor to disk."""
    with DirectoryWatch(instance.directory) as watch:
        result = cli("plan", config=CONFIG)
        as_json = cli("plan", "--json", config=CONFIG)
        assert watch.pending() == []
    assert (result.status, result.stderr, as_json.status, as_json.stderr) == (3, "", 3, "")
    names = ["one", "two", "three"]
    assert [row[:3] for row in result.rows] == [
        ["ACTION", "ENTRY", "DRIFT"],
        *(["register", name, "missing"] for name in names),
    ]
    assert as_json.json == {
        "actions": [
            {"action": "register", "entry": name, "drift": "missing", "reason": "the entry is missing"}
            for name in names
        ]
    }
    assert instance.names() == []
    assert not cli.state_directory.exists()


def test_nothing_to_do(cli: Cli) -> None:
    """After `apply` there is nothing left to do: status 0."""
    assert cli("apply", config=CONFIG).status == 0
    result = cli("plan", config=CONFIG)
    assert (result.status, result.stdout, result.stderr) == (
        0,
        "nothing to do: 3 handlers registered\n",
        "",
    )
    assert cli("plan", "--json", config=CONFIG).json == {"actions": []}


def test_every_drift_has_its_word(instance: Instance, cli: Cli) -> None:
    """Each kind of drift has its name, in snake_case."""
    cli("apply", config=CONFIG)
    instance.write("one", b"0")
    instance.remove("two")
    instance.register(b":two:E::two::/usr/bin/true:F")
    instance.remove("three")
    instance.register(b":three:E::three::/usr/bin/false:")
    instance.register(b":alien:E::alien::/usr/bin/true:")
    instance.write("status", b"0")
    result = cli("plan", "--json", config="unmanaged = 'remove'" + CONFIG)
    assert result.status == 3
    assert {(row["action"], row["entry"], row["drift"]) for row in result.json["actions"]} == {
        ("enable", "status", "switched_off"),
        ("enable", "one", "disabled"),
        ("replace", "two", "stale_interpreter"),
        ("replace", "three", "changed"),
        ("remove", "alien", "unwanted"),
    }


def test_odd_names_do_not_reach_the_terminal(instance: Instance, cli: Cli) -> None:
    """A name with control characters or invalid UTF-8 is escaped, in the table and as JSON."""
    instance.register(b":a\x1b[31m\xff:E::alien::/usr/bin/true:")
    config = "architectures = []\nunmanaged = 'remove'"
    result = cli("plan", config=config)
    assert result.rows[1][:2] == ["remove", "a\\x1b[31m\\xff"]
    assert "\x1b" not in result.stdout
    as_json = cli("plan", "--json", config=config)
    assert as_json.stdout.isascii()
    assert "\x1b" not in as_json.stdout
    assert as_json.json["actions"][0]["entry"] == "a\x1b[31m\udcff"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can show an instance to a user who does not own it")
def test_for_an_ordinary_user(instance: Instance, open_directory: Path) -> None:
    """A user who may not write can plan, without a state directory; for that user `apply` is one clear error."""
    config = open_directory / "binfmtd.toml"
    config.write_text(CONFIG)
    config.chmod(0o644)
    state = open_directory / "state"
    state.mkdir()
    shutil.chown(state, "nobody")
    command = ["nsenter", "-m", "-t", str(instance.pid), "--", *unprivileged_python(), "-m", "binfmtd"]
    planned = run([*command, "plan", "--config", str(config)])
    assert (planned.status, planned.stderr) == (3, "")
    assert [row[1] for row in planned.rows[1:]] == ["one", "two", "three"]
    applied = run([*command, "apply", "--config", str(config), "--state-dir", str(state)])
    assert (applied.status, applied.stdout) == (1, "")
    assert applied.message.endswith("/register: Permission denied: run as root, or with CAP_DAC_OVERRIDE")
    assert instance.names() == []


@pytest.mark.parametrize("command", ["plan", "check", "arch"])
def test_start_up_is_light(cli: Cli, command: str) -> None:
    """Commands that only print results load neither pyinotify nor structlog."""
    cli.config.write_text(CONFIG)
    python = cli.command()[: -len(("-m", "binfmtd"))]
    result = run([*python, "-X", "importtime", "-m", "binfmtd", command, "--config", str(cli.config)])
    loaded = set(result.stderr.split())
    assert "pydantic" in loaded  # so this would find the other modules
    assert not {"structlog", "pyinotify"} & loaded
