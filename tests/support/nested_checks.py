"""Assertions about binfmtd in nested systems: whose instance serves, what it repairs, and which remedies it names."""

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from support.booted import ENTRY, MOUNT_POINT, UNIT, System
from support.cli import BINFMTD, CHECKOUT, Result, run
from support.private_host import PrivateHost
from support.programs import exits_with, install
from support.waiting import wait_until

CONFIG = 'architectures = ["riscv64"]\n[emulators]\npaths = ["{directory}/qemu-{{name}}"]\n'


class HostDaemon:
    """The daemon on a private host."""

    def __init__(self, host: PrivateHost) -> None:
        self._host = host

    def command(self, *arguments: str) -> list[str]:
        """Return the command that runs binfmtd as root of the host."""
        settings = (f"PYTHONPATH={CHECKOUT}", f"BINFMTD_CONFIG={self._host.directory}/binfmtd.toml")
        return self._host.entering(["env", *settings, *BINFMTD, *arguments])

    def repairs(self) -> int:
        """Return how many repairs it has made."""
        return int(run(self.command("status", "--json")).json["repairs"])

    def wait_repaired(self, before: int) -> None:
        """Wait for a repair after the first ``before``, until nothing is left to repair."""
        wait_until(lambda: is_repaired(run(self.command("status", "--json")).json, before), what="the repair")


@contextmanager
def daemon_on(host: PrivateHost, emulator: int) -> Iterator[HostDaemon]:
    """Run the daemon on a private host, with one handler; its emulator exits with this status."""
    install(host.directory / "qemu-riscv64", exits_with(emulator))
    (host.directory / "binfmtd.toml").write_text(CONFIG.format(directory=host.directory))
    daemon = HostDaemon(host)
    with (host.directory / "binfmtd.log").open("wb") as log:
        process = subprocess.Popen(daemon.command("run"), stderr=log)
    try:
        wait_until(lambda: run(daemon.command("status", "--check")).status == 0, 30, "the host's daemon")
        assert ENTRY in host.instance.names()
        yield daemon
    finally:
        host.run("sh", "-c", "kill $(head -n 1 /run/binfmtd/lock)")
        assert process.wait(60) == 0


def assert_owner(system: System, text: str) -> None:
    """Assert what doctor says about the owner of the instance."""
    doctor = system.run("binfmtd", "doctor", "--json").json
    (owner,) = [found for found in doctor["findings"] if found["section"] == "user_namespace"]
    assert text in owner["text"]


def assert_not_mounted(system: System, bind: str, *, served: bool = True) -> None:
    """Assert what the commands say without binfmt_misc: `apply` and doctor name the option ``bind`` of the manager.

    ``served``: an outer instance has a working emulator.
    """
    assert system.entries() == []
    done = system.run("binfmtd", "apply")
    assert done.status == 1
    assert "this is a user namespace" in done.message
    assert f"bind the host's into it (in a container: {bind})" in done.message
    assert "--own-instance" in done.message
    status = system.run("binfmtd", "status")
    assert (status.status, "no daemon has run" in status.message) == (1, True)
    doctor = system.run("binfmtd", "doctor", "--json").json
    (mount,) = [found for found in doctor["findings"] if found["section"] == "mount"]
    if served:
        assert (mount["level"], "programs of riscv64 run (tested)" in mount["text"]) == ("ok", True)
    else:
        assert (mount["level"], mount["remedy"]) == ("failure", "binfmtd run --own-instance")
        assert bind in mount["text"]
    (owner,) = [found for found in doctor["not_seen"] if found["section"] == "user_namespace"]
    assert "if an instance was ever mounted in this user namespace, the host's is hidden for good" in owner["text"]


def assert_follows_the_remedy(system: System) -> None:
    """Assert that the service waits, that its status names commands, and that it serves once these have run."""
    system.systemctl("start", "--no-block", UNIT)

    def problem_in_both() -> str:
        """Return the problem once systemd and the status file have it: the daemon writes the file later."""
        problem: str = status(system).get("problem") or ""
        return problem if "this is a user namespace" in problem and problem == system.show("StatusText") else ""

    problem = wait_until(problem_in_both, 30, "the reason")
    assert "--own-instance" not in problem, "the service may not mount"
    commands = re.findall("`([^`]+)`", problem)
    assert [command.split()[0] for command in commands] == ["mount", "systemctl"]
    for command in commands:
        assert system.run("sh", "-c", command).status == 0, command
    wait_until(lambda: system.show("StatusText") == "1 handler in order", 30, "a daemon that serves")
    assert ENTRY in system.entries()


def use_own_instance(system: System) -> None:
    """Mount an instance of its own, and start the service on it."""
    system.systemctl("start", "mounting.service")
    system.systemctl("restart", UNIT)
    assert ENTRY in system.entries(), "READY=1 comes when every handler is registered"
    assert system.run("binfmtd", "status", "--check").status == 0


def assert_repairs(system: System) -> None:
    """Assert that the daemon repairs a flush, and what a restart of systemd-binfmt removes."""

    def flush() -> Result:
        return system.run("sh", "-c", f"echo -1 >{MOUNT_POINT}/status")

    for disturb in (flush, system.restart_systemd_binfmt):
        before = repairs(system)
        done = disturb()
        assert done.status == 0, done.stderr
        wait_repaired(system, before)
    assert system.run("binfmtd", "status", "--check").status == 0


def wait_repaired(system: System, before: int) -> None:
    """Wait for a repair after the first ``before``, until nothing is left to repair and the entry is there.

    A restart of systemd-binfmt flushes twice, so the first repair may be one of two.
    """

    def repaired() -> bool:
        return is_repaired(status(system), before) and ENTRY in system.entries()

    wait_until(repaired, 30, "the repair")


def is_repaired(document: Mapping[str, Any], before: int) -> bool:
    """Return True if the status has a repair after the first ``before``, and no drift that is open."""
    return bool(document.get("repairs", 0) > before and document["state"] == "converged")


def status(system: System) -> dict[str, Any]:
    """Return the daemon's status; an empty one as long as it has written none."""
    done = system.run("binfmtd", "status", "--json")
    found: dict[str, Any] = done.json if done.stdout else {}
    return found


def repairs(system: System) -> int:
    """Return how many repairs the daemon has made."""
    return int(status(system)["repairs"])


def inodes(system: System) -> list[str]:
    """Return the entries with their inode numbers, which are new with each registration."""
    return sorted(system.run("ls", "-ai", MOUNT_POINT).stdout.splitlines())
