"""The presets for Windows programs take the same files, as does WSL's entry: which of them runs a program.

Other programs stand in for Mono, Wine and WSL's /init.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from support.cli import CHECKOUT, Cli
from support.daemon import StartDaemon
from support.instance import Instance
from support.programs import exits_with, install


class Preset(NamedTuple):
    """A preset's file, the entry and the interpreter in it, and the exit status of the program in its place."""

    file: str
    entry: str
    interpreter: str
    status: int


MONO = Preset("mono", "cli", "/usr/bin/cli", 61)
WINE = Preset("wine", "wine", "/usr/bin/wine", 62)
WSL = 63
WINDOWS_PROGRAM = b"MZ\x90\x00" + bytes(60)
NO_ARCHITECTURE = "architectures = []\n"


@pytest.fixture
def run_program(instance: Instance, tmp_path: Path) -> Callable[[], int]:
    """Return a function that runs a Windows program, and returns its exit status."""
    program = install(tmp_path / "program.exe", WINDOWS_PROGRAM)
    return lambda: instance.run(["sh", "-c", str(program)]).returncode


def copy(preset: Preset, directory: Path, more: str = "") -> None:
    """Copy a preset to conf.d, with another interpreter and ``more`` keys."""
    text = (CHECKOUT / "config" / "presets" / f"{preset.file}.toml").read_text()
    interpreter = install(directory / preset.file, exits_with(preset.status))
    for old, new in (
        (f'"{preset.interpreter}"', f'"{interpreter}"'),
        (f"[handlers.{preset.entry}]\n", f"[handlers.{preset.entry}]\n{more}"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (directory / "conf.d").mkdir(parents=True, exist_ok=True)
    (directory / "conf.d" / f"{preset.file}.toml").write_text(text)


@pytest.fixture
def daemon_directory(tmp_path: Path) -> Path:
    """Return the directory of the config of the daemon that ``start_daemon`` starts."""
    (directory := tmp_path / "daemon").mkdir()
    return directory


@pytest.mark.parametrize("preset", [MONO, WINE], ids=lambda preset: preset.file)
def test_one(start_daemon: StartDaemon, daemon_directory: Path, run_program: Callable[[], int], preset: Preset) -> None:
    """A preset runs Windows programs."""
    copy(preset, daemon_directory)
    start_daemon(NO_ARCHITECTURE)
    assert run_program() == preset.status


@pytest.mark.parametrize(("more", "winner"), [("", WINE), ("priority = 1\n", MONO)], ids=["name", "priority"])
def test_both(
    start_daemon: StartDaemon, daemon_directory: Path, run_program: Callable[[], int], more: str, winner: Preset
) -> None:
    """Of both the one with the later name wins, or the one with the higher priority."""
    copy(MONO, daemon_directory, more)
    copy(WINE, daemon_directory)
    start_daemon(NO_ARCHITECTURE)
    assert run_program() == winner.status


def test_check_names_the_conflict(instance: Instance, daemon_directory: Path) -> None:
    """`check` says of each preset that it can take the same files as the other one."""
    copy(MONO, daemon_directory)
    copy(WINE, daemon_directory)
    messages = Cli(instance, daemon_directory)("check", config=NO_ARCHITECTURE).messages
    for preset, other in ((MONO, WINE), (WINE, MONO)):
        assert any(text.startswith(f"{preset.entry}: can take the same files as {other.entry}") for text in messages)


@pytest.mark.parametrize("preset", [MONO, WINE], ids=lambda preset: preset.file)
def test_beside_wsl(
    instance: Instance,
    start_daemon: StartDaemon,
    daemon_directory: Path,
    run_program: Callable[[], int],
    preset: Preset,
) -> None:
    """Of a preset's entry and WSL's own entry the one that was registered last runs Windows programs."""
    init = install(daemon_directory / "init", exits_with(WSL))
    line = f":WSLInterop:M::MZ::{init}:P".encode()
    instance.register(line)
    assert run_program() == WSL
    copy(preset, daemon_directory)
    daemon = start_daemon(NO_ARCHITECTURE)
    assert run_program() == preset.status
    instance.remove("WSLInterop")
    instance.register(line)
    status = daemon.wait_status(lambda status: status["handlers"][0]["state"] == "shadowed", "the state shadowed")
    assert "WSLInterop" in status["handlers"][0]["reason"]
    assert run_program() == WSL
