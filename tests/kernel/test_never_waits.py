"""A hanging log reader, disk, or file system of an interpreter delays no repair."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from support.cli import Cli
from support.daemon import StartDaemon
from support.fuse import HangingFileSystem
from support.instance import Instance
from support.programs import exits_with, install
from support.slices import SLICE, kernel_has_slices, ordinary_scheduling, slice_of
from support.waiting import SLOWNESS, wait_until

from binfmtd.model.stand_in import stand_in_name

ONE = """
[handlers.one]
magic = 'one'
interpreter = "/usr/bin/true"
flags = "F"
"""
CONFIG = "architectures = []\n" + ONE


def repair(instance: Instance, name: str = "one") -> None:
    """Remove an entry, and wait until it is registered again."""
    before = instance.inode(name)
    instance.remove(name)

    def again() -> bool:
        with suppress(FileNotFoundError):
            return instance.inode(name) != before
        return False

    wait_until(again, what=f"the entry {name}")


def full_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    return reading, writing


def full_socket() -> tuple[int, int]:
    """Return a full socket, like journald's stream socket when journald is stopped."""
    reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    os.set_blocking(writing.fileno(), False)
    with suppress(BlockingIOError):
        while True:
            writing.send(b"x" * 4096)
    os.set_blocking(writing.fileno(), True)
    return reading.detach(), writing.detach()


@pytest.mark.parametrize("full", [full_pipe, full_socket])
def test_a_log_that_is_not_read(
    instance: Instance, start_daemon: StartDaemon, full: Callable[[], tuple[int, int]]
) -> None:
    """With a full log, start, repairs, reload and end go on; the waiting lines are given up at the end."""
    reading, writing = full()
    daemon = start_daemon(CONFIG, stderr=writing)
    os.close(writing)
    for _ in range(3):
        repair(instance)
    daemon.config.write_text(CONFIG + ONE.replace("one", "two"))
    daemon.reload()
    wait_until(lambda: "two" in instance.names(), what="the new config")
    assert daemon.terminate() == 0
    text = b""
    while part := os.read(reading, 1 << 16):
        text += part
    os.close(reading)
    assert set(text) == {ord("x")}, "it was full, and what waited was given up at the end"
    assert daemon.status()["log_lines_dropped"] == 0, "they waited, and there were few"


def test_a_log_that_is_read_again(instance: Instance, start_daemon: StartDaemon) -> None:
    """Lines that were logged while the log was full are written later, in their order."""
    reading, writing = full_pipe()
    daemon = start_daemon(CONFIG, stderr=writing)
    os.close(writing)
    repair(instance)
    daemon.wait_converged()
    with os.fdopen(reading, "rb") as log:
        for line in log:
            daemon.log.write_bytes(daemon.log.read_bytes() + line.lstrip(b"x"))
            if daemon.logs("repaired"):
                break
    events = [line["event"] for line in daemon.logs()]
    assert events.index("pass_finished") < events.index("repaired")


def test_a_disk_that_hangs_under_the_state_directory(
    instance: Instance, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """A hanging state directory delays no repair and no reload; its files are written when the disk answers again."""
    disk = HangingFileSystem(instance, tmp_path / "disk", tmp_path / "backing")
    daemon = start_daemon(CONFIG, ("--state-dir", str(disk.directory / "state")))
    disk.hang()
    for _ in range(3):
        repair(instance)
    daemon.config.write_text(CONFIG + ONE.replace("one", "two"))
    daemon.reload()
    wait_until(lambda: "two" in instance.names(), what="the new config")
    repair(instance, "two")
    disk.answer()
    daemon.state_directory = disk.backing / "state"
    status = daemon.wait_status(
        lambda status: status["config"]["generation"] == 2 and status["state"] == "converged", "the latest status"
    )
    assert status["repairs"] > 1
    assert [row["state"] for row in status["handlers"]] == ["registered", "registered"]
    assert daemon.terminate() == 0


def test_a_disk_that_hangs_at_the_end(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """SIGTERM ends the daemon although the state directory hangs."""
    disk = HangingFileSystem(instance, tmp_path / "disk", tmp_path / "backing")
    daemon = start_daemon(CONFIG, ("--state-dir", str(disk.directory / "state")))
    disk.hang()
    repair(instance)
    assert daemon.terminate() == 0


def test_a_disk_that_hangs_under_labels_and_textfile(
    instance: Instance, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """Labels and textfile that hang have each their own thread: the status is written, and repairs go on."""
    disk = HangingFileSystem(instance, tmp_path / "disk", tmp_path / "backing")
    sinks = f'[metrics]\ntextfile = "{disk.directory}/m.prom"\n[labels]\nfile = "{disk.directory}/labels"\n'
    daemon = start_daemon(CONFIG + sinks)
    wait_until((disk.backing / "m.prom").exists, what="the textfile")
    wait_until((disk.backing / "labels").exists, what="the labels")
    disk.hang()
    for number in range(1, 4):
        repair(instance)
        daemon.wait_status(
            lambda status: status["repairs"] == number and status["state"] == "converged",  # noqa: B023  waited for
            f"{number} repairs",
        )
    disk.answer()
    wait_until(
        lambda: 'binfmtd_repairs_total{drift="missing",entry="one"} 3.0' in (disk.backing / "m.prom").read_text(),
        what="the newest snapshot in the textfile",
    )


def test_a_disk_that_hangs_under_labels_at_the_start(
    instance: Instance, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """Repairs are made before READY=1, which waits a little for labels that hang."""
    disk = HangingFileSystem(instance, tmp_path / "disk", tmp_path / "backing")
    disk.hang()
    labels = f'[labels]\nfile = "{disk.directory}/labels"\n'
    daemon = start_daemon(CONFIG + labels, ready=False)
    wait_until(lambda: "one" in instance.names(), what="the entry")
    repair(instance)
    assert "READY=1" not in daemon.notifications
    daemon.wait_ready()
    assert daemon.terminate() == 0


FAR = '[handlers.far]\nmagic = \'far\'\ninterpreter = "{0}/bin/far"\nflags = "{1}"\n'


@pytest.fixture
def far(instance: Instance, tmp_path: Path) -> HangingFileSystem:
    """Return a file system that can hang, with an interpreter on it."""
    disk = HangingFileSystem(instance, tmp_path / "disk", tmp_path / "backing")
    (disk.backing / "bin").mkdir()
    install(disk.backing / "bin" / "far", exits_with(7))
    return disk


def test_an_interpreter_that_does_not_answer(
    instance: Instance, start_daemon: StartDaemon, far: HangingFileSystem
) -> None:
    """After a flush one hanging interpreter delays no other entry; its own returns when its file system answers."""
    daemon = start_daemon(CONFIG + FAR.format(far.directory, "F"))
    assert sorted(instance.names()) == ["far", "one"]
    far.hang()
    instance.remove("status")
    wait_until(lambda: "one" in instance.names(), what="the other handler")
    reason = (
        f"{far.directory}/bin/far: its file system does not answer, so the handler cannot be registered until it does"
    )
    status = daemon.wait_status(
        lambda status: reason in [row["reason"] for row in status["handlers"]], "the one that does not answer"
    )
    assert state_of(status, "far") == "waiting"
    repair(instance)
    far.answer()
    wait_until(lambda: sorted(instance.names()) == ["far", "one"], what="both")
    daemon.wait_converged()
    assert sorted(instance.names()) == ["far", "one"]


def test_an_interpreter_that_does_not_answer_at_the_start(
    instance: Instance, start_daemon: StartDaemon, far: HangingFileSystem
) -> None:
    """At the start a hanging interpreter delays neither the other handlers nor READY=1."""
    far.hang()
    daemon = start_daemon(CONFIG + FAR.format(far.directory, "F"))
    assert instance.names() == ["one"]
    assert state_of(daemon.status(), "far") == "waiting"
    far.answer()
    wait_until(lambda: sorted(instance.names()) == ["far", "one"], what="both")


def test_an_entry_whose_interpreter_does_not_answer_stays(
    instance: Instance, start_daemon: StartDaemon, far: HangingFileSystem
) -> None:
    """The entry of an interpreter that hangs stays, also without F, since it may still exist."""
    daemon = start_daemon(CONFIG + FAR.format(far.directory, ""))
    number = instance.inode("far")
    far.hang()
    daemon.config.write_text(CONFIG + FAR.format(far.directory, "") + "# again\n")
    daemon.reload()
    daemon.wait_for_log("config_reloaded")
    daemon.wait_status(lambda status: state_of(status, "far") == "waiting", "a look that had no answer")
    assert instance.inode("far") == number
    far.answer()
    daemon.wait_converged()
    assert instance.inode("far") == number


def test_a_foreign_entry_whose_interpreter_does_not_answer(
    instance: Instance, start_daemon: StartDaemon, far: HangingFileSystem
) -> None:
    """A foreign entry whose interpreter hangs when it is to be restored delays no repair, and comes back later."""
    daemon = start_daemon('restore = ["far"]\n' + CONFIG)
    line = f":far:M::far::{far.directory}/bin/far:F"
    instance.shell(f"printf %s '{line}' > {instance.mount_point}/register", check=True)
    daemon.wait_status(lambda status: "far" in [row["name"] for row in status["foreign"]], "the foreign entry")
    far.hang()
    instance.remove("status")
    wait_until(lambda: instance.names() == ["one"], what="the handler")
    repair(instance)
    far.answer()
    wait_until(lambda: set(instance.names()) == {"far", "one"}, what="the foreign entry")
    daemon.wait_converged(20)


def test_a_handler_above_one_whose_interpreter_does_not_answer(
    instance: Instance, start_daemon: StartDaemon, far: HangingFileSystem
) -> None:
    """A handler that has to be registered after one that hangs, since it belongs above it, does not hang with it."""
    above = "[handlers.above]\nmagic = 'far-above'\npriority = 1\ninterpreter = \"/usr/bin/true\"\n"
    daemon = start_daemon(CONFIG + FAR.format(far.directory, "F") + above)
    far.hang()
    instance.remove("status")
    wait_until(lambda: set(instance.names()) == {"above", "one"}, what="the other handlers")
    repair(instance)
    far.answer()
    wait_until(lambda: set(instance.names()) == {"above", "far", "one"}, what="all of them")
    daemon.wait_converged()


def test_a_handler_that_is_removed_while_its_interpreter_does_not_answer(
    instance: Instance, start_daemon: StartDaemon, far: HangingFileSystem
) -> None:
    """An entry is removed if the kernel registers it so late that the config no longer declares it."""
    daemon = start_daemon(CONFIG + FAR.format(far.directory, "F"))
    far.hang()
    instance.remove("far")
    daemon.wait_for_log("registration_failed", entry="far")
    daemon.config.write_text(CONFIG)
    daemon.reload()
    daemon.wait_for_log("config_reloaded")
    far.answer()
    daemon.wait_for_log("entry_removed", entry="far")
    wait_until(lambda: set(instance.all_names()) == {"one", stand_in_name("one")}, what="the other handler alone")


def test_an_upgrade_beside_an_interpreter_that_does_not_answer(
    instance: Instance, start_daemon: StartDaemon, far: HangingFileSystem, tmp_path: Path
) -> None:
    """An upgraded interpreter serves at once beside one that hangs, whose entry stays as it is."""
    interpreter = install(tmp_path / "near", exits_with(1))
    near = f'[handlers.near]\nmagic = \'near\'\ninterpreter = "{interpreter}"\nflags = "F"\n'
    daemon = start_daemon(CONFIG + FAR.format(far.directory, "F") + near)
    program = install(tmp_path / "program", b"near")
    numbers = {name: instance.inode(name) for name in ("far", "one", "near")}
    far.hang()
    install(interpreter, exits_with(2))
    wait_until(lambda: instance.run([str(program)]).returncode == 2, what="the new interpreter")
    instance.wait_registered_anew("near", numbers["near"])
    assert {name: instance.inode(name) for name in ("far", "one")} == {n: numbers[n] for n in ("far", "one")}
    far.answer()
    daemon.wait_converged()


def test_a_hung_config_directory(instance: Instance, start_daemon: StartDaemon, far: HangingFileSystem) -> None:
    """A hanging config directory delays a reload, but no repair."""
    (far.backing / "b.toml").write_text(CONFIG)
    daemon = start_daemon(None, ("--config", str(far.directory / "b.toml")))
    far.hang()
    (far.backing / "b.toml").write_text(CONFIG + ONE.replace("one", "two"))
    daemon.reload()
    for _ in range(2):
        repair(instance)
    assert instance.names() == ["one"]
    far.answer()
    wait_until(lambda: "two" in instance.names(), what="the new config")


def state_of(status: dict[str, object], name: str) -> str | None:
    rows = status["handlers"]
    assert isinstance(rows, list)
    return next((row["state"] for row in rows if row["name"] == name), None)


def test_many_log_lines_that_are_not_read(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """Lines beyond the queue are dropped and counted in status and metrics; a line reports them to the next reader."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    reading, writing = full_pipe()
    metrics = f'[metrics]\nlisten = "127.0.0.1:{port}"\n'
    daemon = start_daemon(CONFIG + metrics, stderr=writing)
    os.close(writing)
    names = [f"h{n}" for n in range(1200)]
    unknown = "".join(f"[handlers.{name}]\nmagic = '{name}'\ninterpreter = \"/nowhere/{name}\"\n" for name in names)
    daemon.config.write_text(CONFIG + metrics + unknown)
    daemon.reload()
    daemon.wait_status(lambda status: len(status["handlers"]) == 1201, "the new config")
    cli.state_directory = daemon.state_directory
    assert cli("pause", *names).status == 0  # a line for each
    status = daemon.wait_status(lambda status: status["log_lines_dropped"], "dropped lines")
    repair(instance)
    with suppress(HTTPError), urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30 * SLOWNESS) as page:
        text = page.read().decode()
        assert "binfmtd_log_lines_dropped_total 0" not in text
        assert "binfmtd_log_lines_dropped_total " in text
    with os.fdopen(reading, "rb") as log:
        for line in log:
            if b'"log_lines_dropped"' in line:
                break
    daemon.log.write_bytes(line.lstrip(b"x"))
    (said,) = daemon.logs("log_lines_dropped")
    assert said["lines"] >= status["log_lines_dropped"]


def test_an_interpreter_on_a_mount_that_is_gone(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """An interpreter on a FUSE file system whose server has ended is an error, not a hang, and repairs go on."""
    disk = HangingFileSystem(instance, tmp_path / "disk", tmp_path / "backing")
    (disk.backing / "bin").mkdir()
    install(disk.backing / "bin" / "far", exits_with(7))
    daemon = start_daemon(CONFIG + FAR.format(disk.directory, "F"))
    disk.end()
    instance.remove("status")
    wait_until(lambda: "one" in instance.names(), what="the other handler")
    repair(instance)
    assert instance.run(["umount", str(disk.directory)]).returncode == 0
    assert daemon.terminate() == 0


def test_every_thread_has_a_short_slice(start_daemon: StartDaemon) -> None:
    """No thread has to wait until a process of a build has used up its slice of some milliseconds."""
    if not kernel_has_slices():
        pytest.skip("this kernel has no slices of single threads: they came with Linux 6.12")
    with ordinary_scheduling(0):
        daemon = start_daemon(CONFIG)
    found = set()
    for thread in os.listdir(f"/proc/{daemon.pid}/task"):
        with suppress(ProcessLookupError):  # it has ended
            found.add(slice_of(int(thread)))
    assert found == {SLICE}
