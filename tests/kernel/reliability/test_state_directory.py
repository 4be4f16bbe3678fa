"""What happens to the state directory under a running daemon: repairs go on, it is said once, and nothing is lost."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.cli import BINFMTD
from support.daemon import Daemon
from support.instance import Instance
from support.waiting import wait_until

StartDaemon = Callable[..., Daemon]
Trouble = Callable[[Instance, Path], AbstractContextManager[None]]

CONFIG = r"""
architectures = []
[handlers.one]
magic = '\x00one'
interpreter = "/usr/bin/true"
flags = "F"
"""


def repair(instance: Instance) -> None:
    """Whatever happened, an entry that is removed comes back: what is there after a flush was registered after it."""
    instance.remove("status")
    wait_until(lambda: instance.names() == ["one"], what="the repair")


def knows_its_entry(instance: Instance, daemon: Daemon) -> bool:
    """Whether the ledger tells which entry is ours."""
    try:
        ledger = json.loads((daemon.state_directory / "ledger.json").read_text())
    except FileNotFoundError:
        return False
    return bool(ledger["entries"]["one"]["inode"] == instance.inode("one"))


@contextmanager
def read_only(instance: Instance, state: Path) -> Iterator[None]:
    """EROFS."""
    instance.shell(f"mount --bind {state} {state} && mount -o remount,bind,ro {state}", check=True)
    yield
    instance.shell(f"umount {state}", check=True)


@contextmanager
def full(instance: Instance, state: Path) -> Iterator[None]:
    """ENOSPC: a file system of its own, with the files that were there and no room for more."""
    script = f"""
        mkdir -m 755 {state}.on-disk
        mount -t tmpfs -o size=64k,mode=755 tmpfs {state}.on-disk
        cp -p {state}/* {state}.on-disk
        mount --move {state}.on-disk {state}
        dd if=/dev/zero of={state}/fill bs=4k || :
    """
    instance.shell(script, check=True)
    yield
    instance.shell(f"rm {state}/fill", check=True)


@contextmanager
def immutable(_: Instance, state: Path) -> Iterator[None]:
    """EPERM, also for root: no file can be made, renamed or removed in it (chattr(1))."""
    flag = subprocess.run(["chattr", "+i", str(state)], capture_output=True, text=True, check=False)
    if flag.returncode != 0:
        pytest.skip(f"takes root of the machine, and a file system with flags: {flag.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(state)], check=True)


@pytest.mark.parametrize("trouble", [read_only, full, immutable], ids=lambda each: each.__name__)
def test_it_cannot_be_written(instance: Instance, start_daemon: StartDaemon, trouble: Trouble) -> None:
    """Said once, however much there is to write; and what could not be written is written when that is over."""
    daemon = start_daemon(CONFIG)
    with trouble(instance, daemon.state_directory):
        for _ in range(5):
            repair(instance)
        daemon.wait_for_log("status_unwritten")
    repair(instance)
    state = daemon.state_directory
    wait_until(lambda: str(instance.inode("one")) in instance.shell(f"cat {state}/ledger.json").stdout)
    assert len(daemon.logs("status_unwritten")) == 1
    assert daemon.terminate() == 0


def test_it_is_removed(instance: Instance, start_daemon: StartDaemon) -> None:
    """It is made again, with the lock, the status and the ledger; a second daemon is kept out as before."""
    daemon = start_daemon(CONFIG)
    shutil.rmtree(daemon.state_directory)
    repair(instance)
    wait_until(lambda: knows_its_entry(instance, daemon), what="the ledger")
    daemon.wait_converged()
    assert daemon.status()["repairs"] == 1
    assert len(daemon.logs("state_dir_made_again")) == 1
    second = start_daemon(CONFIG, ready=False)
    assert second.wait_exit() == 1
    assert str(daemon.pid) in second.log_text()
    told = instance.run([*BINFMTD, "pause", "--state-dir", str(daemon.state_directory)])
    assert told.returncode == 0, told.stderr


def test_the_lock_is_removed_where_there_is_no_room(instance: Instance, start_daemon: StartDaemon) -> None:
    """It is made again when there is, and trying before that does not keep ourselves out."""
    daemon = start_daemon(CONFIG)
    state = daemon.state_directory
    script = f"rm -f {state}/lock; dd if=/dev/zero of={state}/fill oflag=append conv=notrunc bs=4k || :"

    def lost() -> list[dict[str, Any]]:
        instance.shell(script)
        repair(instance)
        return daemon.logs("state_dir_lost")

    with full(instance, state):
        # A pass between the two commands finds room, and makes the lock again: then once more.
        assert "No space left" in wait_until(lost, what="a lock that cannot be made")[0]["reason"]
    made_again = len(daemon.logs("state_dir_made_again"))
    repair(instance)
    wait_until(lambda: len(daemon.logs("state_dir_made_again")) > made_again, what="the lock")
    assert len(daemon.logs("state_dir_lost")) == 1


def test_files_in_it_are_removed(instance: Instance, start_daemon: StartDaemon) -> None:
    """What somebody removes is written again with the next pass, changed or not."""
    daemon = start_daemon(CONFIG)
    for path in daemon.state_directory.iterdir():
        path.unlink()
    daemon.reload()
    wait_until(lambda: knows_its_entry(instance, daemon), what="the ledger")
    daemon.wait_converged()
    daemon.wait_for_log("state_dir_made_again")
    assert len(daemon.logs("state_dir_made_again")) == 1


def test_another_takes_its_place(instance: Instance, start_daemon: StartDaemon) -> None:
    """Whoever makes it anew is not overrun: the first daemon says so, and repairs go on."""
    daemon = start_daemon(CONFIG)
    shutil.rmtree(daemon.state_directory)
    second = start_daemon(CONFIG)
    repair(instance)
    lost = daemon.wait_for_log("state_dir_lost")
    assert str(second.pid) in lost["reason"]
    assert len(daemon.logs("state_dir_lost")) == 1
