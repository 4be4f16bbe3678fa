"""If the state directory is damaged under a running daemon, repairs go on, it is logged once, and nothing is lost."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.cli import BINFMTD
from support.daemon import CONFIG, Daemon, StartDaemon
from support.instance import Instance
from support.programs import exits_with, install
from support.waiting import wait_until

Trouble = Callable[[Instance, Path], AbstractContextManager[None]]


def repair(instance: Instance) -> None:
    """Flush, and wait for the entry: one that is there after the flush was registered after it."""
    instance.remove("status")
    wait_until(lambda: instance.names() == ["one"], what="the repair")


def knows_its_entry(instance: Instance, daemon: Daemon) -> bool:
    """Return True if the ledger has the inode number of the registered entry."""
    try:
        ledger = json.loads((daemon.state_directory / "ledger.json").read_text())
    except FileNotFoundError:
        return False
    return bool(ledger["entries"]["one"]["inode"] == instance.inode("one"))


@contextmanager
def read_only(instance: Instance, state: Path) -> Iterator[None]:
    """Mount it read-only: EROFS."""
    instance.shell(f"mount --bind {state} {state} && mount -o remount,bind,ro {state}", check=True)
    yield
    unmount = f"umount {state}"  # busy while the daemon tries to write
    wait_until(lambda: instance.shell(unmount).returncode == 0, what=unmount)


@contextmanager
def full(instance: Instance, state: Path) -> Iterator[None]:
    """Mount a small file system with its files over it, without room for more: ENOSPC."""
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
    """Make it immutable (chattr(1)): EPERM, also for root, for creating, renaming and removing files."""
    flag = subprocess.run(["chattr", "+i", str(state)], capture_output=True, text=True, check=False)
    if flag.returncode != 0:
        pytest.skip(f"takes root of the machine, and a file system with flags: {flag.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(state)], check=True)


@pytest.mark.parametrize("trouble", [read_only, full, immutable], ids=lambda each: each.__name__)
def test_it_cannot_be_written(instance: Instance, start_daemon: StartDaemon, trouble: Trouble) -> None:
    """A state directory that cannot be written is logged once, and all is written as soon as it can be."""
    daemon = start_daemon(CONFIG)
    with ExitStack() as stack:
        with daemon.stopped():  # a file that it is just replacing would make room
            stack.enter_context(trouble(instance, daemon.state_directory))
        for _ in range(5):
            repair(instance)
        daemon.wait_for_log("status_unwritten")
    repair(instance)
    state = daemon.state_directory
    wait_until(lambda: str(instance.inode("one")) in instance.shell(f"cat {state}/ledger.json").stdout)
    assert len(daemon.logs("status_unwritten")) == 1
    assert daemon.terminate() == 0


def test_no_old_status_remains_where_there_is_no_room(
    instance: Instance, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """A status that cannot be replaced is removed, so it does not count as the present one, and is written soon."""
    interpreter = install(tmp_path / "interpreter", exits_with(0))
    daemon = start_daemon(CONFIG.replace("/usr/bin/true", str(interpreter)).replace('flags = "F"', ""))
    status = f"cat {daemon.state_directory}/status.json"
    with ExitStack() as stack:
        with daemon.stopped():
            stack.enter_context(full(instance, daemon.state_directory))
        assert '"registered"' in instance.shell(status).stdout
        interpreter.unlink()
        wait_until(lambda: instance.names() == [], what="the removal")
        daemon.wait_for_log("status_unwritten")
        assert (
            '"registered"' not in instance.shell(status).stdout
        )  # the removed file may have made room for the new one
    wait_until(lambda: '"waiting"' in instance.shell(status).stdout, what="a status without another event")


def test_it_is_removed(instance: Instance, start_daemon: StartDaemon) -> None:
    """A removed state directory is made again, with lock, status and ledger; a second daemon is refused as before."""
    daemon = start_daemon(CONFIG)
    with daemon.stopped():  # else it may write a file meanwhile, and so make the directory again
        shutil.rmtree(daemon.state_directory)
    repair(instance)
    wait_until(lambda: knows_its_entry(instance, daemon), what="the ledger")
    daemon.wait_status(lambda status: status["repairs"] == 1 and status["state"] == "converged", "one repair")
    daemon.wait_for_log("state_dir_made_again")
    assert len(daemon.logs("state_dir_made_again")) == 1
    second = start_daemon(CONFIG, ready=False)
    assert second.wait_exit() == 1
    assert str(daemon.pid) in second.log_text()
    result = instance.run([*BINFMTD, "pause", "--state-dir", str(daemon.state_directory)])
    assert result.returncode == 0, result.stderr


def test_it_is_removed_at_rest(start_daemon: StartDaemon) -> None:
    """A state directory that is removed while there is nothing to repair is made again at once, also repeatedly."""
    daemon = start_daemon(CONFIG)
    for number in range(1, 4):
        with daemon.stopped():
            shutil.rmtree(daemon.state_directory)
        wait_until(lambda: len(daemon.logs("state_dir_made_again")) == number, what="another directory")  # noqa: B023
        daemon.wait_status(lambda status: status["state"] == "converged", "a status")
    assert not daemon.logs("repaired")


def test_the_lock_is_removed_where_there_is_no_room(instance: Instance, start_daemon: StartDaemon) -> None:
    """A removed lock is made again once there is room; the attempts before that do not lock out the daemon itself."""
    daemon = start_daemon(CONFIG)
    state = daemon.state_directory
    script = f"rm -f {state}/lock; dd if=/dev/zero of={state}/fill oflag=append conv=notrunc bs=4k || :"

    def lost() -> list[dict[str, Any]]:
        instance.shell(script)
        repair(instance)
        return daemon.logs("state_dir_lost")

    with full(instance, state):
        # A pass between the two commands finds room, and makes the lock again: then try once more.
        assert "No space left" in wait_until(lost, what="a lock that cannot be made")[0]["reason"]
        made_again = len(daemon.logs("state_dir_made_again"))  # before there is room: it does not wait for the repair
    repair(instance)
    wait_until(lambda: len(daemon.logs("state_dir_made_again")) > made_again, what="the lock")
    assert len(daemon.logs("state_dir_lost")) == 1


def test_files_in_it_are_removed(instance: Instance, start_daemon: StartDaemon) -> None:
    """Files that are removed from the state directory are written again with the next pass, changed or not."""
    daemon = start_daemon(CONFIG)
    with daemon.stopped():
        for path in daemon.state_directory.iterdir():
            path.unlink()
    daemon.reload()
    wait_until(lambda: knows_its_entry(instance, daemon), what="the ledger")
    daemon.wait_converged()
    daemon.wait_for_log("state_dir_made_again")
    assert len(daemon.logs("state_dir_made_again")) == 1


def test_another_takes_its_place(instance: Instance, start_daemon: StartDaemon) -> None:
    """A daemon whose state directory another daemon has made anew leaves it to that one, logs it, and still repairs."""
    daemon = start_daemon(CONFIG)
    with daemon.stopped():  # else it may make the directory again before the other one does
        shutil.rmtree(daemon.state_directory)
        second = start_daemon(CONFIG)
    repair(instance)
    lost = daemon.wait_for_log("state_dir_lost")
    assert str(second.pid) in lost["reason"]
    assert len(daemon.logs("state_dir_lost")) == 1
