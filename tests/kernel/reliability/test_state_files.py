"""The state directory and its files: their owner and modes, and the links in them that are not followed."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.cli import Cli
from support.daemon import Daemon, StartDaemon
from support.instance import Instance
from support.waiting import wait_until

CONFIG = r"""
restore = ["WSL*"]
[handlers.one]
magic = '\x00one'
interpreter = "/usr/bin/true"
"""
FILES = {"ledger.json", "status.json", "foreign.json", "native.json", "lock"}
COMMANDS = (["run"], ["apply"])


@contextmanager
def masked(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


def everything_is_written(instance: Instance, daemon: Daemon) -> None:
    """Have the running daemon write each of its files, and wait until there is no other file beside them.

    For a moment there is: each new version of a file, before it takes the old one's place.
    """
    instance.register(b":WSL-1:E::exe::/usr/bin/true:")
    daemon.wait_status(lambda status: any(each["name"] == "WSL-1" for each in status["foreign"]))
    instance.remove("one")
    wait_until(lambda: "one" in instance.names(), what="the repair")
    wait_until(lambda: {path.name for path in daemon.state_directory.iterdir()} == FILES, what="each of its files")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(
    instance: Instance, start_daemon: StartDaemon, tmp_path: Path, umask: int
) -> None:
    """All users may read the files; only the owner may write them, create files or take the lock, with any umask."""
    (tmp_path / "daemon").mkdir(mode=0o755)
    (tmp_path / "daemon" / "binfmtd.toml").touch(mode=0o644)
    with masked(umask):
        daemon = start_daemon(CONFIG)
    everything_is_written(instance, daemon)
    modes = {name: stat.S_IMODE((daemon.state_directory / name).stat().st_mode) for name in FILES}
    assert modes == dict.fromkeys(FILES, 0o644) | {"lock": 0o600}
    assert stat.S_IMODE(daemon.state_directory.stat().st_mode) == 0o755


def test_planted_links_are_replaced(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """The target of a link in place of a state file is not written, and its mode is not changed."""
    state = tmp_path / "daemon" / "state"
    state.mkdir(parents=True, mode=0o755)
    victims = {}
    for name in FILES - {"lock"}:
        victim = tmp_path / f"victim-{name}"
        victim.write_text(json.dumps({"schema": 1, "boot_id": "", "entries": {}}))
        victim.chmod(0o600)
        (state / name).symlink_to(victim)
        victims[victim] = victim.read_bytes()
    everything_is_written(instance, start_daemon(CONFIG))
    for victim, content in victims.items():
        assert (victim.read_bytes(), stat.S_IMODE(victim.stat().st_mode)) == (content, 0o600)
    assert all(stat.S_ISREG((state / name).lstat().st_mode) for name in FILES)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_what_cannot_hold_the_state_is_one_error(instance: Instance, tmp_path: Path, command: list[str]) -> None:
    """A lock that is a link or directory, and a state directory open to other users or a link, are one error each."""
    cli = Cli(instance, tmp_path)
    state = cli.state_directory
    victim = tmp_path / "victim"
    victim.write_text("precious")

    def refused(*words: str) -> None:
        result = cli(*command, config=CONFIG)
        assert result.status == 1
        assert all(word in result.message for word in words), result.message
        assert victim.read_text() == "precious"
        assert instance.names() == []

    state.mkdir(mode=0o755)
    (state / "lock").symlink_to(victim)
    refused(str(state / "lock"), "is a symbolic link")
    (state / "lock").unlink()
    (state / "lock").mkdir()
    refused(str(state / "lock"))
    (state / "lock").rmdir()
    for mode in (0o777, 0o1777, 0o775):
        state.chmod(mode)
        refused(str(state), "chmod go-w")
    state.chmod(0o755)
    state.rename(tmp_path / "elsewhere")
    state.symlink_to(tmp_path / "elsewhere")
    refused(str(state), "--state-dir")
    state.unlink()
    state.write_text("")
    refused(str(state), "--state-dir")
    state.unlink()
    (tmp_path / "elsewhere").chmod(0o777)
    cli.state_directory = tmp_path / "elsewhere" / "state"
    refused(str(tmp_path / "elsewhere"), "chmod go-w")


@pytest.mark.usefixtures("private_instances")
def test_another_users_directory_is_refused(everybody: Instance, tmp_path: Path) -> None:
    """Another user's state directory is refused, because that user could put another ledger there."""
    cli = Cli(everybody, tmp_path)
    cli.state_directory.mkdir(mode=0o755)
    os.chown(cli.state_directory, 1000, 1000)
    for command in COMMANDS:
        assert "belongs to another user" in cli(*command, config=CONFIG).message
    assert everybody.names() == []
