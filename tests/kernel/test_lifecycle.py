"""The daemon as a process: one per state directory, idle without work, as process 1, and with bad input."""

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from support.adversary import OTHER, Adversary
from support.daemon import CONFIG, StartDaemon
from support.instance import Instance
from support.programs import install
from support.waiting import SLOWNESS, deadline_in, wait_until

HEAP_BYTES = 64 << 20  # HEAP_MAX_SIZE in malloc/arena.c of glibc, on 64 bits


def test_one_daemon_a_state_directory(instance: Instance, start_daemon: StartDaemon) -> None:
    """A second daemon ends with 1 and the first one's process id; with another state directory it runs."""
    first = start_daemon(CONFIG)
    second = start_daemon(CONFIG, ready=False)
    assert second.wait_exit() == 1
    assert str(first.pid) in second.log_text()
    assert "already runs" in second.log_text()
    assert len(second.log_text().splitlines()) == 1
    start_daemon(CONFIG, directory="another")
    wait_until(lambda: instance.names() == ["one"], what="the entry, under two daemons that agree")


def test_the_lock_goes_with_its_holder(start_daemon: StartDaemon) -> None:
    """A killed daemon leaves nothing that prevents the next one from starting."""
    start_daemon(CONFIG).kill()
    assert start_daemon(CONFIG).terminate() == 0


def test_sigterm_again_and_again(start_daemon: StartDaemon) -> None:
    """SIGTERM sent until the daemon has ended gives exit status 0, also while Python itself is ending."""
    daemon = start_daemon(CONFIG)

    def ended() -> bool:
        daemon.process.terminate()
        return daemon.process.poll() is not None

    deadline = deadline_in(10)
    while not ended():
        assert time.monotonic() < deadline
    assert daemon.process.returncode == 0


def start_with_signal(
    instance: Instance, directory: Path, number: signal.Signals, when: str
) -> subprocess.Popen[bytes]:
    """Start a daemon that gets a signal before it can answer; ``directory`` has its state, and its log as ``log``."""
    (directory / "c.toml").write_text(CONFIG)
    arguments = ["run", "--config", str(directory / "c.toml"), "--state-dir", str(directory / "state")]
    with (directory / "log").open("wb") as log:
        process: subprocess.Popen[bytes] = instance.popen(
            [sys.executable, "-c", MOMENTS[when].format(int(number)), *arguments, "--log-format", "json"],
            stdout=log,
            stderr=log,
        )
    return process


# Blocks the signal and sends it to itself, then becomes the daemon.
HELD_BY_THE_PARENT = """
import os, signal, sys
signal.signal({0}, signal.SIG_DFL)  # nohup, under which these tests may run, ignores SIGHUP
signal.pthread_sigmask(signal.SIG_BLOCK, [{0}])
os.kill(os.getpid(), {0})
os.execv(sys.executable, [sys.executable, "-m", "binfmtd", *sys.argv[1:]])
"""
# Sends the signal to itself when the command is known, but its module is not loaded yet.
BEFORE_THE_COMMAND = """
import importlib, os
from binfmtd.cli.main import entry
load = importlib.import_module
def kill_and_load(name, package=None):
    if name == "binfmtd.cli.commands.run":
        os.kill(os.getpid(), {0})
    return load(name, package)
importlib.import_module = kill_and_load
entry()
"""
MOMENTS = {"the interpreter starts": HELD_BY_THE_PARENT, "the command is loaded": BEFORE_THE_COMMAND}


@pytest.mark.parametrize("when", MOMENTS)
def test_sigterm_while_it_starts(instance: Instance, tmp_path: Path, when: str) -> None:
    """SIGTERM during the start is held until the daemon can answer: status 0, and neither 143 nor the signal itself."""
    assert start_with_signal(instance, tmp_path, signal.SIGTERM, when).wait(10 * SLOWNESS) == 0
    assert '"stopped"' in (tmp_path / "log").read_text()


@pytest.mark.parametrize("deed", ["remove", "replace", "flush", "disable"])
def test_another_program_undoes_each_repair_while_it_starts(
    instance: Instance, start_daemon: StartDaemon, deed: str
) -> None:
    """The daemon becomes ready all the same: otherwise systemd would kill it, and start it again, without end."""
    with Adversary(instance, deed) as adversary:
        daemon = start_daemon(CONFIG + OTHER)
        assert daemon.terminate() == 0
        assert adversary.stop() > 0


@pytest.mark.parametrize("when", MOMENTS)
def test_sighup_while_it_starts(instance: Instance, tmp_path: Path, when: str) -> None:
    """SIGHUP during the start is held until the daemon can answer, and causes a reload after the first pass."""
    daemon = start_with_signal(instance, tmp_path, signal.SIGHUP, when)
    wait_until(
        lambda: "config_reloaded" in (tmp_path / "log").read_text() or daemon.poll() is not None, what="the reload"
    )
    daemon.terminate()
    assert daemon.wait(10 * SLOWNESS) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_other_commands_while_they_start(
    instance: Instance, tmp_path: Path, number: signal.Signals
) -> None:
    """Other commands hold no signal: SIGTERM ends `wait` with 143, also if its parent had blocked the signal."""
    code = HELD_BY_THE_PARENT.format(int(number))
    waiting = instance.popen([sys.executable, "-c", code, "wait", "s390x", "--state-dir", str(tmp_path)])
    assert waiting.wait(10 * SLOWNESS) == 128 + number


def test_idle_it_sleeps(start_daemon: StartDaemon) -> None:
    """Without work the daemon is not scheduled at all: its only timer is resync."""
    daemon = start_daemon(CONFIG)

    def switches() -> list[str]:
        lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
        return [line for line in lines if "ctxt_switches" in line]

    def asleep() -> bool:
        """Return True if the daemon sleeps, and does not wake up for 1.5 seconds."""
        before = switches()
        try:
            daemon.process.wait(1.5)
        except subprocess.TimeoutExpired:
            return switches() == before
        return False

    wait_until(asleep, what="a second and a half without waking up")


def test_resync_finds_drift_without_an_event(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Every `resync` a full scan finds drift without an event: here an ancestor of the interpreter is renamed."""
    directory = tmp_path / "above" / "below"
    directory.mkdir(parents=True)
    install(directory / "true", Path("/usr/bin/true").read_bytes())
    text = CONFIG.replace("/usr/bin/true", str(directory / "true")).replace('flags = "F"', "")
    daemon = start_daemon('resync = "1s"\n' + text)
    assert instance.names() == ["one"]
    os.rename(tmp_path / "above", tmp_path / "aside")
    wait_until(lambda: instance.names() == [], what="the end of an entry that leads nowhere")
    daemon.wait_status(lambda status: status["state"] == "waiting")


def test_threads_share_one_heap(start_daemon: StartDaemon) -> None:
    """No thread has a heap of its own, which glibc would keep: 64 MiB of addresses, the end not in use."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc has such heaps")
    daemon = start_daemon(CONFIG)
    for _ in range(3):
        daemon.reload()
        daemon.wait_converged()
    heaps = []
    for line in Path(f"/proc/{daemon.pid}/maps").read_text().splitlines():
        addresses, permissions, *_ = line.split()
        begin, end = (int(address, 16) for address in addresses.split("-"))
        if permissions == "---p" and end % HEAP_BYTES == 0 and end - begin > HEAP_BYTES // 2:
            heaps.append(line)
    assert heaps == []


def test_nothing_is_held_open(instance: Instance, start_daemon: StartDaemon) -> None:
    """Between passes the daemon has no descriptor on the mount, so that `umount` works; repairs leak none."""
    daemon = start_daemon(CONFIG, ("--log-level", "debug"))
    daemon.wait_for_log("modules_loaded")  # a thread opens their files

    def descriptors() -> list[str]:
        directory = f"/proc/{daemon.pid}/fd"
        found = []
        for name in os.listdir(directory):
            try:
                found.append(os.readlink(f"{directory}/{name}"))
            except OSError:
                continue
        return sorted(link.split(":")[0] for link in found)

    wait_until(lambda: "socket" not in descriptors(), what="the end of what READY=1 was sent by")
    before = descriptors()
    assert not [link for link in before if "binfmt_misc" in link]
    for _ in range(20):
        instance.remove("status")
        wait_until(lambda: instance.names() == ["one"], what="the repair")
    daemon.wait_converged()
    wait_until(lambda: descriptors() == before, what=f"the end of the last pass, and {before} again")
    assert instance.run(["umount", instance.mount_point]).returncode == 0


def test_state_files_are_plain(start_daemon: StartDaemon) -> None:
    """Ledger and status are whole JSON documents with mode 0644, in a directory that only the owner can write to."""
    daemon = start_daemon(CONFIG)
    assert os.stat(daemon.state_directory).st_mode & 0o7777 == 0o755
    for name in ("ledger.json", "status.json"):
        path = daemon.state_directory / name
        json.loads(path.read_text())
        assert os.stat(path).st_mode & 0o7777 == 0o644


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("architectures = [", ["binfmtd.toml", "line"]),
        ("architecture = []", ["binfmtd.toml", "architecture", "architectures"]),
        ('architectures = ["aarm64"]', ["binfmtd.toml", "architectures", "aarm64", "arm64"]),
        ("settle = 20", ["binfmtd.toml", "settle", "20ms"]),
    ],
)
def test_invalid_config_at_the_start(start_daemon: StartDaemon, config: str, words: list[str]) -> None:
    """An invalid config at the start is fatal: status 78, and one line with file, key and remedy."""
    daemon = start_daemon(config, ready=False)
    assert daemon.wait_exit() == 78
    (line,) = daemon.log_text().splitlines()
    for word in words:
        assert word in line


def test_refused_by_the_kernel(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A registration that the kernel refuses is reported with the meaning of the errno; other handlers register."""
    where = tmp_path / "noexec"
    where.mkdir()
    script = f"mount -t tmpfs -o noexec,mode=0755 t {where} && cp /usr/bin/true {where}"
    assert instance.shell(script).returncode == 0
    daemon = start_daemon(CONFIG + f'[handlers.bad]\nmagic = \'bad\'\ninterpreter = "{where}/true"\nflags = "F"\n')
    assert instance.names() == ["one"]
    row = next(row for row in daemon.status()["handlers"] if row["name"] == "bad")
    assert row["state"] == "failed"
    assert "EACCES" in row["reason"]
    assert "noexec" in row["reason"]
    assert daemon.status()["state"] == "degraded"
    assert len(daemon.logs("registration_failed")) == 1, "it is not tried again and again"
    instance.remove("one")
    wait_until(lambda: instance.names() == ["one"], what="a repair beside the failed one")
    assert len(daemon.logs("registration_failed")) == 1
    assert instance.shell(f"mount --options-mode ignore -o remount,exec,mode=0755 {where}").returncode == 0
    wait_until(lambda: sorted(instance.names()) == ["bad", "one"], what="another try after the mount table changed")


def test_takes_native_programs(instance: Instance, start_daemon: StartDaemon) -> None:
    """A handler that would stop every exec is refused, the other handlers are registered."""
    daemon = start_daemon(CONFIG + "[handlers.all]\nmagic = '\\x7fELF'\ninterpreter = \"/usr/bin/true\"\n")
    assert instance.names() == ["one"]
    row = next(row for row in daemon.status()["handlers"] if row["name"] == "all")
    assert row["state"] == "refused"
    assert "native programs" in row["reason"]
    assert instance.run(["true"]).returncode == 0


def test_as_process_one(instance: Instance, tmp_path: Path) -> None:
    """As process 1 of a container the daemon handles SIGTERM and SIGHUP, reaps orphans, and logs JSON by default."""
    (tmp_path / "c.toml").write_text(CONFIG)
    log = tmp_path / "log"
    command = [sys.executable, "-m", "binfmtd", "run", "--config", str(tmp_path / "c.toml")]
    command += ["--state-dir", str(tmp_path / "state")]
    with log.open("wb") as stderr:
        parent = instance.popen(["unshare", "--pid", "--fork", "--kill-child", *command], stderr=stderr)
    wait_until(lambda: "one" in instance.names(), what="the entry")
    (daemon,) = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    enter = ["nsenter", "-t", daemon, "-m", "-p", "--"]
    # The inner shell ends at once, and the process that it started becomes the daemon's child.
    orphan = "(sh -c 'exec 3>&-; true' &) ; true"
    instance.run([*enter, "sh", "-c", orphan], check=True)

    def children() -> str:
        return Path(f"/proc/{daemon}/task/{daemon}/children").read_text()

    wait_until(lambda: children() == "", what="no zombies")
    os.kill(int(daemon), 1)
    wait_until(lambda: "config_reloaded" in log.read_text(), what="a reload")
    os.kill(int(daemon), 15)
    assert parent.wait(10 * SLOWNESS) == 0
    assert all(json.loads(line) for line in log.read_text().splitlines())


def test_a_notify_socket_without_a_reader(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A service manager that has exited is no error; an abstract socket can be used."""
    name = f"binfmtd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        daemon = start_daemon(CONFIG, environment={"NOTIFY_SOCKET": "@" + name}, ready=False)
        listener.settimeout(10 * SLOWNESS)
        assert listener.recv(4096) == b"STATUS=1 handler in order"
        assert listener.recv(4096) == b"READY=1"
    assert daemon.terminate() == 0
    gone = start_daemon(CONFIG, environment={"NOTIFY_SOCKET": str(tmp_path / "gone")}, ready=False)
    gone.wait_for_log("pass_finished")
    assert gone.terminate() == 0


def test_a_notify_socket_that_is_full(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """READY=1 comes although the service manager did not read for a while, and the kernel's queue was full."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other,
            suppress(BlockingIOError),
        ):
            while True:
                other.sendto(b"another service's", str(path))
        daemon = start_daemon(CONFIG, environment={"NOTIFY_SOCKET": str(path)}, ready=False)
        daemon.wait_converged()
        listener.settimeout(10 * SLOWNESS)
        received = [b""]
        while received[-1] != b"READY=1":
            received.append(listener.recv(4096))
        assert received[-2] == b"STATUS=1 handler in order"
    assert daemon.terminate() == 0


def test_watchdog(start_daemon: StartDaemon) -> None:
    """If the service manager sets a watchdog, the loop pings repeatedly; otherwise never."""
    watched = start_daemon(CONFIG, environment={"WATCHDOG_USEC": "200000"}, directory="watched")
    wait_until(lambda: watched.notifications.count("WATCHDOG=1") >= 3, what="three pings")
    assert watched.terminate() == 0
    alone = start_daemon(CONFIG)
    assert alone.terminate() == 0
    assert "WATCHDOG=1" not in alone.notifications


def test_the_status_in_a_sentence(instance: Instance, start_daemon: StartDaemon) -> None:
    """`systemctl status` shows how many handlers are in order, and how many repairs were made."""
    daemon = start_daemon(CONFIG)
    assert "STATUS=1 handler in order" in daemon.notifications
    (name,) = instance.names()
    instance.remove(name)
    wait_until(lambda: "STATUS=1 handler in order, 1 repair" in daemon.notifications, what="the repair in the sentence")


def test_without_the_permission_to_write(instance: Instance, tmp_path: Path) -> None:
    """A daemon that may not write from the start ends with an error, instead of waiting."""
    (tmp_path / "c.toml").write_text(CONFIG)
    assert instance.shell(f"chmod 0 {instance.mount_point}/register").returncode == 0
    drop = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override", "--no-new-privs"]
    command = [sys.executable, "-m", "binfmtd", "run", "--config", str(tmp_path / "c.toml")]
    result = instance.run([*drop, *command, "--state-dir", str(tmp_path / "state")], timeout=30 * SLOWNESS)
    assert result.returncode == 1
    assert "Permission denied: run as root" in result.stderr
    assert "Traceback" not in result.stderr
