"""A host whose /proc hides something: other users' processes (hidepid=2), or all but processes (subset=pid)."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.cli import BINFMTD, CHECKOUT, Result, run, unprivileged_python
from support.daemon import CONFIG
from support.instance import MOUNT_POINT, Instance
from support.open_directory import open_directory
from support.programs import install
from support.waiting import wait_until

pytestmark = pytest.mark.hosts

# A host mounts /proc with these options at boot.  Here a new one covers the old, and binfmt_misc is mounted again.
ELSEWHERE = "/run/elsewhere"
HOLDER = f"""
mount -t tmpfs -o mode=755 tmpfs /run
umount {MOUNT_POINT}
mount -t proc -o "$1" proc /proc
where={MOUNT_POINT}
test -d "$where" || where={ELSEWHERE}
[ "$2" = bare ] || {{ mkdir -p "$where" && mount -t binfmt_misc binfmt_misc "$where"; }}
echo ready
read -r _
"""
HIDDEN = ("hidepid=2", "subset=pid")


class Host:
    """One host; ``mounted`` is where it has binfmt_misc."""

    def __init__(self, instance: Instance, directory: Path, options: str, state: str) -> None:
        self.mounted = MOUNT_POINT if options == "hidepid=2" else ELSEWHERE
        self._state = f"{directory}/state"
        self._environment = [f"BINFMTD_STATE_DIR={self._state}", f"BINFMTD_CONFIG={directory}/binfmtd.toml"]
        (directory / "binfmtd.toml").write_text(CONFIG)
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", HOLDER, "sh", options, state]
        self._holder = instance.popen(unshare, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    def entering(self, *argv: str) -> list[str]:
        pid = self._holder.pid
        enter = ["nsenter", "-U", "--preserve-credentials", "-m", f"--pid=/proc/{pid}/ns/pid_for_children"]
        return [*enter, "-t", str(pid), "--", "env", *self._environment, *argv]

    def run(self, *argv: str) -> Result:
        return run(self.entering(*argv))

    def binfmtd(self, *arguments: str) -> Result:
        """Run a command of binfmtd as root; a traceback fails the test."""
        done = self.run(*BINFMTD, *arguments)
        assert "Traceback" not in done.stdout + done.stderr, done
        return done

    def binfmtd_as_user(self, *arguments: str) -> Result:
        """Run a command of binfmtd as an ordinary user; a traceback fails the test."""
        done = self.run(*unprivileged_python(), "-m", "binfmtd", *arguments, "--state-dir", self._state)
        assert "Traceback" not in done.stdout + done.stderr, done
        return done

    @contextmanager
    def daemon(self) -> Iterator["subprocess.Popen[str]"]:
        """Run the daemon; AssertionError unless it ends with 0."""
        daemon = subprocess.Popen(self.entering(*BINFMTD, "run"), stderr=subprocess.PIPE, text=True)
        try:
            converged = "1 handler in order\n"
            wait_until(
                lambda: self.binfmtd("status", "--check").stdout == converged, what="a daemon that has converged"
            )
            yield daemon
        finally:
            # The daemon's process is a child of nsenter, which does not pass signals on.
            self.run("sh", "-c", "kill $(head -n 1 $BINFMTD_STATE_DIR/lock)")
            _, log = daemon.communicate(timeout=60)
        assert daemon.returncode == 0, log
        assert "Traceback" not in log


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Instance(everybody=True) as instance:
        yield instance


@pytest.fixture
def directory() -> Iterator[Path]:
    """Yield a directory that every user may read."""
    with open_directory() as directory:
        yield directory


@pytest.fixture(params=HIDDEN)
def host(request: pytest.FixtureRequest, instance: Instance, directory: Path) -> Host:
    return Host(instance, directory, request.param, "mounted")


def test_the_daemon_and_its_commands(host: Host) -> None:
    """The daemon registers, repairs and reloads; each command prints what it prints on any host."""
    with host.daemon():
        assert host.run("sh", "-c", f"echo -1 >{host.mounted}/one").status == 0
        repaired = "1 handler in order, 1 repair"
        wait_until(lambda: host.binfmtd("status", "--check").stdout.strip() == repaired, what="the repair")
        assert "/usr/bin/true" in host.run("cat", f"{host.mounted}/one").stdout
        assert host.binfmtd("reload").stdout == f"the config is in force: {repaired}\n"
        assert host.binfmtd("plan").status == 0
        assert host.binfmtd("pause", "--for", "1m").status == host.binfmtd("resume").status == 0
        doctor = host.binfmtd("doctor", "--json")
        assert (doctor.status, doctor.json["failures"]) == (0, 0)
        second = host.binfmtd("run")
        assert (second.status, "already runs" in second.message) == (1, True)


def test_apply(host: Host) -> None:
    """`apply` registers once, and `plan` then finds nothing to do."""
    assert host.binfmtd("apply").status == 0
    assert host.binfmtd("plan").status == 0
    assert "/usr/bin/true" in host.run("cat", f"{host.mounted}/one").stdout


def test_an_ordinary_user(host: Host) -> None:
    """`status` and `doctor` of a user who may not open the daemon's lock know that the daemon runs, and when it ended.

    With subset=pid there is no /proc/locks.  They took the daemon for dead then, and proposed to kill it.
    """
    with host.daemon():
        status = host.binfmtd_as_user("status", "--check")
        assert (status.status, status.stdout, status.stderr) == (0, "1 handler in order\n", "")
        doctor = host.binfmtd_as_user("doctor", "--json").json
        assert [found["check"] for found in doctor["findings"] if found["level"] != "ok"] == ["dynamic"]
        assert "converged" in next(found["text"] for found in doctor["findings"] if found["section"] == "daemon")
    status = host.binfmtd_as_user("status", "--check")
    assert (status.status, status.message) == (
        3,
        "no daemon runs with this state directory: the last one wrote this status",
    )


def test_subset_pid_without_binfmt_misc(instance: Instance, directory: Path) -> None:
    """Without /proc/sys the messages name the mount option, and the daemon of doctor's command mounts it elsewhere."""
    host = Host(instance, directory, "subset=pid", "bare")
    for command in (("apply",), ("plan",), ("apply", "--own-instance"), ("sandbox", "--", "true")):
        done = host.binfmtd(*command)
        assert done.status == 1
        assert "it was mounted with subset=pid" in done.message, command
        assert "modprobe" not in done.message
    (failure,) = [found for found in host.binfmtd("doctor", "--json").json["findings"] if found["level"] == "failure"]
    assert (failure["section"], failure["check"]) == ("mount", "mounted")
    assert "it was mounted with subset=pid" in failure["text"]
    path = f"PATH={Path(sys.executable).parent}:{os.environ['PATH']}"
    remedy = host.entering("env", path, "sh", "-euc", failure["remedy"])
    with subprocess.Popen(remedy, stderr=subprocess.DEVNULL, start_new_session=True) as daemon:
        try:
            wait_until(lambda: host.binfmtd("status", "--check").status == 0, what="a daemon that serves")
            assert host.binfmtd("apply").status == 0
            assert host.binfmtd("plan").status == 0
        finally:
            os.killpg(daemon.pid, signal.SIGTERM)


def test_subset_pid_and_an_owner_without_a_mapping(directory: Path) -> None:
    """In a user namespace an emulator of an unmapped owner is accepted with subset=pid, too, as it is without.

    The kernel's overflow id is read from /proc/sys, which is not there.
    """
    interpreter = install(directory / "interpreter", Path("/usr/bin/true").read_bytes())
    os.chown(interpreter, 12345, 12345)
    for path in (CHECKOUT, directory):
        assert os.stat(path).st_uid == 0
    with Instance() as instance:  # with root alone
        host = Host(instance, directory, "subset=pid", "mounted")
        (directory / "binfmtd.toml").write_text(CONFIG.replace("/usr/bin/true", str(interpreter)))
        assert host.run("stat", "-c", "%u", str(interpreter)).stdout == "65534\n"
        assert host.binfmtd("apply").status == 0
        assert str(interpreter) in host.run("cat", f"{host.mounted}/one").stdout


def test_a_state_directory_that_is_closed(host: Host) -> None:
    """If permissions hide the state directory, `status` gives an ordinary user a message, with subset=pid, too."""
    with host.daemon():
        assert host.run("sh", "-c", "chmod 700 $BINFMTD_STATE_DIR").status == 0
        done = host.binfmtd_as_user("status")
        assert (done.status, done.stdout) == (1, "")
        assert done.message
