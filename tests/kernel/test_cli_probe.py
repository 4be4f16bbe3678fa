"""``binfmtd probe``: which architectures run, through which entry, and otherwise the reason."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli import Cli, run
from support.instance import Instance
from support.programs import install

from binfmtd.catalog.architectures import CATALOG

# PR_SET_MDWE with PR_MDWE_REFUSE_EXEC_GAIN (prctl(2), Linux 6.3): systemd's MemoryDenyWriteExecute sets it.
FORBID = """
import ctypes, os, sys
assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0
os.execv(sys.executable, [sys.executable, "-m", "binfmtd", *sys.argv[1:]])
"""

Register = Callable[..., None]


@pytest.fixture
def register(instance: Instance, tmp_path: Path) -> Register:
    """Return a function that registers an interpreter, or a script as one, for an architecture."""

    def register(name: str, interpreter: str = "", flags: str = "F", *, script: str = "") -> None:
        if script:
            interpreter = str(install(tmp_path / name, f"#!/bin/sh\n{script}\n".encode()))
        instance.add(f"my-{name}", CATALOG[name].match, interpreter, flags)

    return register


def probe(cli: Cli, *names: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in cli("probe", "--json", *names).json["architectures"]}


def test_what_runs(cli: Cli, register: Register) -> None:
    """An architecture runs natively, through an entry also in a chroot, or without F only here; each has its time."""
    register("alpha", "/usr/bin/qemu-alpha")
    register("hppa", "/usr/bin/qemu-hppa", "")
    native = next(row["name"] for row in cli("arch", "--json").json if row["native"])
    found = probe(cli, "alpha", "hppa", native)
    said = ("runs", "natively", "entry", "in_chroot")
    assert {name: tuple(row[key] for key in said) for name, row in found.items()} == {
        "alpha": (True, False, "my-alpha", True),
        "hppa": (True, False, "my-hppa", False),
        native: (True, True, None, True),
    }
    assert found["hppa"]["reason"].startswith(
        "not in a chroot: its interpreter does not exist in an empty root directory"
    )
    assert all(row["duration_us"] > 0 for row in found.values())
    shown = cli("probe", "alpha", native)
    assert shown.status == 0
    assert [row[:3] for row in shown.rows[1:]] == [["alpha", "through", "my-alpha"], [native, "natively", "yes"]]


def test_why_not(instance: Instance, cli: Cli, register: Register, tmp_path: Path) -> None:
    """No handler, no interpreter, a crash, and an emulator that hangs and is killed have each their own reason."""
    register("hppa", "/nowhere/at-all", "")
    register("m68k", script="kill -SEGV $$", flags="")
    register("or1k", script="exec sleep 1000", flags="")
    found = probe(cli, "sh4", "hppa", "m68k", "or1k")
    assert not any(row["runs"] for row in found.values())
    assert found["sh4"]["reason"] == "no entry takes it, and the host does not run it natively"
    empty = tmp_path / "empty"
    empty.touch(0o755)
    instance.add("my-sh4", CATALOG["sh4"].match, str(empty))
    reason = probe(cli, "sh4")["sh4"]["reason"]
    assert reason == f"its entry's interpreter, {empty}, cannot be executed: Exec format error"
    assert (found["hppa"]["entry"], found["hppa"]["reason"]) == (
        "my-hppa",
        "its interpreter, or a file that the interpreter needs, is missing",
    )
    assert found["m68k"]["reason"].startswith("it was killed by signal 11")
    assert "makes no progress for 10 s, or runs longer than 60 s" in found["or1k"]["reason"]
    assert 10_000_000 <= found["or1k"]["duration_us"] < 18_000_000


def test_exit_status(cli: Cli, register: Register) -> None:
    """Status 1 if a named architecture does not run, 0 without names, and 2 for an unknown name."""
    register("alpha", "/usr/bin/qemu-alpha")
    assert cli("probe", "alpha").status == 0
    assert cli("probe", "alpha", "sh4").status == 1
    everything = cli("probe", "--json")
    assert everything.status == 0
    assert len(everything.json["architectures"]) == len(CATALOG)
    assert cli("probe", "alhpa").status == 2
    assert "leave the names out" in cli("probe", "--write", "alpha").message


def test_write(cli: Cli, register: Register) -> None:
    """``--write`` prints nothing, and writes all results to the state directory."""
    register("alpha", "/usr/bin/qemu-alpha")
    done = cli("probe", "--write")
    assert (done.status, done.stdout, done.stderr) == (0, "", "")
    written = json.loads((cli.state_directory / "probed.json").read_text())
    assert {row["name"] for row in written["architectures"]} == CATALOG.keys()


def test_where_emulators_cannot_work(cli: Cli, register: Register) -> None:
    """Where memory cannot be writable and executable, no architecture is judged: status 1 with the remedy."""
    register("alpha", "/usr/bin/qemu-alpha")
    done = run(cli.instance.entering([sys.executable, "-c", FORBID, "probe", "alpha"]))
    assert (done.status, done.stdout) == (1, "")
    assert "and emulators need it" in done.message
