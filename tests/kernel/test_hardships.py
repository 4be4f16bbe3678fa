"""Regression tests for everything that a hostile review of the daemon found."""

import errno
import json
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.daemon import CONFIG, StartDaemon
from support.instance import Instance
from support.programs import FOREIGN, install
from support.waiting import IN_Q_OVERFLOW, SLOWNESS, DirectoryWatch, wait_until

from binfmtd.catalog.architectures import CATALOG
from binfmtd.host.native import find_native

E_VERSION = "".join(f"\\x{byte:02x}" for byte in (1).to_bytes(4, sys.byteorder))  # in each program's ELF header


def repaired(instance: Instance) -> None:
    """Wait until the proper entry stands, without a stand-in of it."""
    wait_until(lambda: [name for name in instance.names() if "one" in name] == ["one"], what="the proper entry alone")


def test_an_interpreter_that_blocks_at_open(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A foreign entry whose interpreter is a FIFO does not block the daemon: it is not opened, and repairs go on."""
    os.mkfifo(tmp_path / "fifo")
    daemon = start_daemon(CONFIG)
    instance.register(rf":fifo:M::\x7fELF:\xff\xff\xff\x00:{tmp_path}/fifo:".encode())
    instance.write("fifo", b"0")
    instance.remove("one")
    repaired(instance)
    assert daemon.terminate() == 0


def test_a_manager_that_does_not_read(instance: Instance, start_daemon: StartDaemon) -> None:
    """A service manager whose socket is full does not block the daemon."""
    name = f"binfmtd-full-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        daemon = start_daemon(CONFIG, environment={"NOTIFY_SOCKET": "@" + name}, ready=False)
        daemon.wait_for_log("pass_finished")
        for number in range(8):
            daemon.config.write_text(CONFIG + f"# {number}\n")
            daemon.reload()
            wait_until(lambda: len(daemon.logs("config_reloaded")) > number, what="a reload")  # noqa: B023  waited for
        instance.remove("one")
        repaired(instance)
        assert daemon.terminate() == 0


def test_a_log_whose_reader_has_exited(instance: Instance, tmp_path: Path) -> None:
    """A log whose reader has exited does not end the daemon."""
    (tmp_path / "binfmtd.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "binfmtd", "run", "--config", str(tmp_path / "binfmtd.toml")]
    command += ["--state-dir", str(tmp_path / "state")]
    reading, writing = os.pipe()
    # As usual, without PYTHONUNBUFFERED: unwritten output must not change the exit status.
    daemon = instance.popen(command, stderr=writing, env=os.environ | {"PYTHONUNBUFFERED": ""})
    os.close(writing)
    repaired(instance)
    os.close(reading)
    for _ in range(3):
        instance.remove("one")
        repaired(instance)
    daemon.terminate()
    assert daemon.wait(10 * SLOWNESS) == 0


def test_two_that_agree(instance: Instance, start_daemon: StartDaemon) -> None:
    """With two daemons of equal config all proper entries stand after each drift, and both converge."""
    more = "".join(f'[handlers.h{n}]\nmagic = \'h{n}\'\ninterpreter = "/usr/bin/true"\nflags = "F"\n' for n in range(5))
    daemons = [start_daemon(CONFIG + more, directory=name) for name in ("host", "pod")]
    wanted = ["h0", "h1", "h2", "h3", "h4", "one"]
    for _ in range(4):
        instance.remove("status")
        wait_until(lambda: sorted(instance.names()) == wanted, what="all proper entries")
        instance.remove("h3")
        wait_until(lambda: sorted(instance.names()) == wanted, what="all proper entries again")
    for daemon in daemons:
        daemon.wait_converged()


def test_a_flush_is_no_contention(instance: Instance, start_daemon: StartDaemon) -> None:
    """However often everything is flushed, also while stand-ins serve, it is repaired at once, without contention."""
    daemon = start_daemon("settle = '200ms'\n" + CONFIG)
    for _ in range(25):
        instance.remove("status")
        wait_until(lambda: instance.names() != [], what="something that serves")
    repaired(instance)
    assert not daemon.logs("contention_started")


def test_stopping_in_contention_settles(instance: Instance, start_daemon: StartDaemon) -> None:
    """At SIGTERM every drifting entry gets its proper entry, also while the daemon backs off from its name."""
    daemon = start_daemon(CONFIG)
    while not daemon.logs("contention_started"):
        wait_until(lambda: "one" in instance.names(), what="one more repair")
        instance.remove("one")
    wait_until(lambda: "one" in instance.names(), what="the last repair before the pause")
    instance.remove("one")
    assert daemon.terminate() == 0
    assert instance.names() == ["one"]


def test_bricked_without_an_interpreter(instance: Instance, start_daemon: StartDaemon) -> None:
    """An entry that takes every program for a missing interpreter stops every exec as well, and is disabled."""
    start_daemon(CONFIG)
    instance.register(rb":brick:M::\x7fELF::/nowhere:")
    wait_until(lambda: instance.read("brick").startswith("disabled"), what="a disabled entry")
    assert instance.run(["true"]).returncode == 0


def test_bricked_under_a_declared_name(instance: Instance, start_daemon: StartDaemon) -> None:
    """An entry that stops every exec is disabled at once, also if the daemon backs off from its name."""
    daemon = start_daemon(CONFIG)
    while not daemon.logs("contention_started"):
        wait_until(lambda: "one" in instance.names(), what="one more repair")
        instance.remove("one")
    for _ in range(3):
        wait_until(lambda: "one" in instance.names(), what="a repair")
        instance.remove("one")
    instance.register(rb":one:M::\x7fELF::/usr/bin/true:")
    since = time.monotonic()
    wait_until(
        lambda: not instance.read("one").startswith("enabled\ninterpreter /usr/bin/true\nflags: \n"), what="an end"
    )
    assert instance.run(["true"]).returncode == 0, f"after {time.monotonic() - since:.1f} s"


def test_overflow_is_no_reload(instance: Instance, start_daemon: StartDaemon) -> None:
    """If the event queue overflows, everything is scanned, but the config is not read again."""
    daemon = start_daemon(CONFIG)
    daemon.config.write_text(CONFIG + "[handlers.two]\nmagic = 'two'\ninterpreter = \"/usr/bin/true\"\n")
    daemon.process.send_signal(19)
    with DirectoryWatch(instance.directory) as watch:
        for _ in range(10_000):
            instance.write("status", b"1")
            instance.write("one", b"1")
        instance.remove("one")
        assert any(event.mask == IN_Q_OVERFLOW for event in watch.pending()), "the daemon's queue overflowed, too"
    daemon.process.send_signal(18)
    repaired(instance)
    daemon.wait_converged()
    assert not daemon.logs("config_reloaded")
    assert instance.names() == ["one"]


def test_an_interpreter_that_is_touched_all_the_time(
    instance: Instance, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """A touched interpreter could be another file, but most of many touches cause no registration."""
    interpreter = install(tmp_path / "true", Path("/usr/bin/true").read_bytes())
    daemon = start_daemon(CONFIG.replace("/usr/bin/true", str(interpreter)))
    for number in range(1000):
        os.utime(interpreter, (number, number))
    daemon.wait_status(lambda status: status["repairs"], "a replacement")
    assert daemon.wait_converged()["repairs"] < 20
    assert instance.names() == ["one"]


def test_read_only_is_logged_once(instance: Instance, start_daemon: StartDaemon) -> None:
    """With drift that cannot be repaired, changes of other mounts cause no further log line."""
    daemon = start_daemon(CONFIG)
    where = instance.mount_point
    assert instance.shell("mount -t tmpfs t /mnt && mkdir /mnt/b && mount -t binfmt_misc b /mnt/b").returncode == 0
    assert instance.shell(f"mount -o remount,bind,ro {where}").returncode == 0
    daemon.wait_for_log("trouble")
    assert instance.shell("echo -1 > /mnt/b/one").returncode == 0
    before = daemon.status()["last_pass"]
    for _ in range(10):
        assert instance.shell("mkdir -p /mnt/c && mount -t tmpfs c /mnt/c && umount /mnt/c").returncode == 0
    assert instance.shell(f"mount -o remount,bind,rw {where}").returncode == 0
    repaired(instance)
    daemon.wait_status(lambda status: status["last_pass"] != before and status["state"] == "converged")
    assert len(daemon.logs("trouble")) == 1
    assert len(daemon.logs("trouble_over")) == 1


def test_status_after_everything_was_removed(instance: Instance, start_daemon: StartDaemon) -> None:
    """After on_stop = "remove" the last status does not claim entries that are removed."""
    daemon = start_daemon('on_stop = "remove"\n' + CONFIG)
    assert daemon.terminate() == 0
    assert instance.names() == []
    status = json.loads((daemon.state_directory / "status.json").read_text())
    assert status["state"] != "converged"
    assert [row["state"] for row in status["handlers"]] != ["registered"]


def test_leftovers_of_a_killed_writer_go(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Temporary files of a killed daemon are removed."""
    state = tmp_path / "daemon" / "state"
    state.mkdir(parents=True, mode=0o755)
    (state / ".status.json.0123abcd").write_text("{")
    start_daemon(CONFIG)
    assert sorted(path.name for path in state.iterdir()) == ["ledger.json", "lock", "status.json"]


@pytest.mark.parametrize("environment", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_paths_are_bytes_in_any_locale(
    instance: Instance, start_daemon: StartDaemon, tmp_path: Path, environment: dict[str, str]
) -> None:
    """A path that is not ASCII is found in any locale."""
    interpreter = install(tmp_path / "prawdziwy-\u0142\u00e9", Path("/usr/bin/true").read_bytes())
    start_daemon(CONFIG.replace("/usr/bin/true", str(interpreter)), environment=environment)
    assert str(interpreter) in instance.read("one")


def test_sigchld_is_ignored(instance: Instance, tmp_path: Path) -> None:
    """An inherited SIGCHLD disposition of SIG_IGN does not disturb the test for native architectures."""
    code = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    binfmtd = [sys.executable, "-m", "binfmtd"]
    argv = [sys.executable, "-c", code, *binfmtd, "arch", "--json", "--state-dir", str(tmp_path / "s")]
    result = instance.run(argv)
    assert result.stderr == ""
    rows = json.loads(result.stdout)
    assert len(rows) == len(CATALOG)
    assert any(row["native"] for row in rows)


@pytest.mark.usefixtures("private_instances")  # otherwise the test would need the state of the machine's instance
def test_a_native_probe_beside_a_registration(instance: Instance) -> None:
    """An emulator that is registered during the test for native architectures is not taken for the host itself."""
    emulator = f"/usr/bin/qemu-{FOREIGN}"
    if not os.path.exists(emulator):
        pytest.skip(f"{emulator} is not installed: apt-get install qemu-user")
    match = CATALOG[FOREIGN].match
    fields = [b"".join(b"\\x%02x" % byte for byte in part or b"") for part in (match.magic, match.mask)]
    instance.register(b":someone:M::%b:%b:%b:OCF" % (*fields, emulator.encode()))
    script = (
        "from binfmtd.host.native import find_native; from binfmtd.model.entry import ObservedState;"
        "print(*sorted(find_native(ObservedState())))"  # read before the emulator was registered
    )
    result = instance.run([sys.executable, "-c", script], stdin=subprocess.DEVNULL)
    assert result.stderr == ""
    assert FOREIGN not in result.stdout.split()


def test_a_native_probe_beside_process_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test for native architectures does not need the exit status that the loop of process 1 may collect before."""
    ours, wait = os.getpid(), os.waitpid

    def collected(child: int, options: int) -> tuple[int, int]:
        ended = wait(child, options)
        if os.getpid() == ours:
            raise ChildProcessError
        return ended

    monkeypatch.setattr(os, "waitpid", collected)
    assert find_native(None)


def test_a_native_probe_beside_a_thread_that_loads_modules() -> None:
    """The child process loads no module: another thread may hold the module's lock at the fork."""
    script = (
        "import os, sys; from binfmtd.host import native; loaded = set(); fork = os.fork\n"
        "def forked(): loaded.update(sys.modules); return fork()\n"
        "def ends(status): os.write(2, ' '.join(sys.modules.keys() - loaded).encode()); end(status)\n"
        "end, os._exit, os.fork = os._exit, ends, forked; native.find_native(None)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stderr == ""


def test_a_native_probe_that_may_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that cannot be started at a limit of processes has no result: what runs natively is kept for the boot.

    Then the table of families decides.
    """

    def limited(*_: object) -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "posix_spawn", limited)
    assert find_native(None)


def test_bricked_is_not_waited_for(instance: Instance, start_daemon: StartDaemon) -> None:
    """An entry that stops every exec is disabled before any name settles, and logged as an error."""
    daemon = start_daemon("settle = '1s'\n" + CONFIG)
    instance.register(rb":brick:M::\x7fELF::/usr/bin/env:")
    assert daemon.wait_for_log("entry_disabled", entry="brick")["level"] == "error"
    assert instance.read("brick").startswith("disabled")
    assert daemon.status()["last_pass"]["trigger"] == "start", "no pass was needed"


def test_drifting_while_a_stand_in_serves(instance: Instance, start_daemon: StartDaemon) -> None:
    """While only a stand-in serves, the status is drifting."""
    daemon = start_daemon("settle = '1s'\n" + CONFIG)
    instance.remove("one")
    status = daemon.wait_status(lambda status: status["state"] == "drifting", "drifting")
    assert [row["state"] for row in status["handlers"]] == ["stand_in"]
    daemon.wait_converged()
    assert instance.names() == ["one"]


def test_an_interpreter_that_comes_with_a_mount(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A handler is registered when a mount over its interpreter's directory makes the interpreter appear."""
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir(mode=0o755)
    full.mkdir(mode=0o755)
    install(full / "true", Path("/usr/bin/true").read_bytes())
    daemon = start_daemon(CONFIG.replace("/usr/bin/true", f"{empty}/true"))
    assert daemon.status()["state"] == "waiting"
    assert instance.shell(f"mount --bind {full} {empty}").returncode == 0
    repaired(instance)


@pytest.mark.parametrize("name", ["ledger.json", "foreign.json"])
def test_a_damaged_file_of_an_earlier_daemon(start_daemon: StartDaemon, name: str) -> None:
    """A damaged ledger, or list of foreign entries, is logged, and written anew: the status has no problem then."""
    daemon = start_daemon(CONFIG)
    assert daemon.terminate() == 0
    (daemon.state_directory / name).write_text("{broken")
    daemon = start_daemon(CONFIG)
    assert name in daemon.wait_for_log("ledger_lost")["reason"]
    daemon.wait_converged()


@pytest.mark.parametrize(("offset", "magic"), [(20, E_VERSION), (2, "/bin/sh")])
def test_a_late_magic_may_take_native_programs_too(
    instance: Instance, start_daemon: StartDaemon, offset: int, magic: str
) -> None:
    """The guard tests a match on the host's own programs and scripts, not only on the bytes that tell the file type."""
    bad = f"[handlers.bad]\noffset = {offset}\nmagic = '{magic}'\ninterpreter = \"/usr/bin/true\"\n"
    daemon = start_daemon(CONFIG + bad)
    assert instance.names() == ["one"]
    assert daemon.states()["bad"] == "refused"


def test_credentials_only_by_name(start_daemon: StartDaemon) -> None:
    """Flag C for all architectures at once is refused, since foreign set-uid programs would run as root."""
    daemon = start_daemon('[emulators]\nflags = "FPC"\n', ready=False)
    assert daemon.wait_exit() == 78
    assert "emulators.flags" in daemon.log_text()


def test_no_descriptor_is_left(instance: Instance, start_daemon: StartDaemon) -> None:
    """A daemon that may open too few descriptors does not end, and repairs again when it may open more."""
    daemon = start_daemon(CONFIG)
    _, most = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    least = max(map(int, os.listdir(f"/proc/{daemon.pid}/fd"))) + 1

    def reloads() -> int:
        return len(daemon.logs("config_reloaded")) + len(daemon.logs("config_rejected"))

    for limit in range(least, least + 4):
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (limit, most))
        instance.remove("one")
        for _ in range(2):  # when the second begins, the pass of the first has been made
            so_far = reloads()
            daemon.reload()
            daemon.wait_status(lambda _: reloads() > so_far, "the reload")  # noqa: B023  asked at once
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (most, most))
        repaired(instance)


def test_a_config_that_could_not_be_read(instance: Instance, start_daemon: StartDaemon) -> None:
    """A new config that could not be read for want of descriptors is read again when there are some, without an event.

    The shortage is logged once.
    """
    daemon = start_daemon(CONFIG, ("--log-level", "debug"))
    daemon.wait_for_log("modules_loaded")  # a thread opens their files
    daemon.config.write_text(CONFIG.replace("one", "two"))
    _, most = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)

    def free() -> int:
        return min(set(range(1000)) - set(map(int, os.listdir(f"/proc/{daemon.pid}/fd"))))

    limit = most
    while (lowest := free()) < limit:  # a thread may just have closed a file
        limit = lowest
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (limit, most))
    daemon.reload()
    assert "Too many open files" in daemon.wait_for_log("config_rejected")["reason"]
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (most, most))
    wait_until(lambda: "two" in instance.names(), what="the new config")
    assert len(daemon.logs("config_rejected")) == 1
