"""A virtual machine whose kernel enforces a security module, and the daemon's work there, step by step.

The daemon is the installed command, with the paths of a host: its config is ``/etc/binfmtd/binfmtd.toml``, its state
lies in ``/run/binfmtd``, and it mounts the machine's own instance.
"""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon
from support.instance import MOUNT_POINT, Instance, made_for_tests
from support.waiting import wait_until

BINFMTD = "/usr/local/bin/binfmtd"  # as `make install` installs it
CONFIG = Path("/etc/binfmtd/binfmtd.toml")
RUN = Path("/run/binfmtd")
TWO = 'architectures = ["arm64", "riscv64"]\n'
NAMES = {"qemu-aarch64", "qemu-riscv64"}
PROBING = 60  # seconds, of an ordinary machine: Python starts once more, and 33 programs run


class Machine(Instance):
    """The own instance of a virtual machine; commands in it begin with ``confining``, which gives them their label."""

    def __init__(self, confining: Sequence[str] = (), binfmtd: str = BINFMTD) -> None:
        if not made_for_tests():
            pytest.skip("takes a virtual machine of `make test-security`")
        self._commands: list[subprocess.Popen[Any]] = []
        self._lock = None
        self.directory = Path(MOUNT_POINT)
        self.confining = confining
        self._binfmtd = binfmtd

    def entering(self, argv: list[str]) -> list[str]:
        return [*self.confining, self._binfmtd, *argv[3:]]  # instead of: python -m binfmtd

    def close(self) -> None:
        for command in self._commands:
            command.kill()
            command.wait()
        while self.mounted():
            subprocess.run(["mount", "-o", "remount,rw", MOUNT_POINT], check=True)
            self.remove("status")
            subprocess.run(["umount", MOUNT_POINT], check=True)

    def mounted(self) -> bool:
        return os.path.exists(self.path("status"))


@contextmanager
def starting(machine: Machine) -> Iterator["Start"]:
    """Yield ``start(config)``, which starts the daemon and waits until it is ready; at the end it is killed."""
    started: list[Daemon] = []

    def start(config: str) -> Daemon:
        shutil.rmtree(RUN / "state", ignore_errors=True)
        CONFIG.parent.mkdir(exist_ok=True)
        CONFIG.write_text(config)
        daemon = Daemon(machine, RUN, None, ["--real-time"])
        started.append(daemon)
        daemon.wait_ready()
        return daemon

    try:
        yield start
    finally:
        for daemon in started:
            daemon.close()
            print(daemon.log_text())  # noqa: T201  pytest shows it if the test failed
        machine.close()


Start = Callable[[str], Daemon]


def registers_and_repairs(start: Start, machine: Machine) -> None:
    """The daemon mounts binfmt_misc, registers, and repairs a removal, a flush and an unmount."""
    daemon = start(TWO)
    assert set(machine.names()) == NAMES
    old = machine.inode("qemu-aarch64")
    machine.remove("qemu-aarch64")
    machine.wait_registered_anew("qemu-aarch64", old)
    machine.remove("status")
    wait_until(lambda: set(machine.names()) == NAMES, what="a repair after a flush")
    daemon.wait_converged()
    subprocess.run(["umount", MOUNT_POINT], check=True)
    wait_until(lambda: machine.mounted() and set(machine.names()) == NAMES, what="a repair after an unmount")
    assert daemon.logs("real_time")


def finds_what_runs_natively(start: Start, machine: Machine) -> None:
    """With ``architectures = ["all"]`` each emulator gets a handler, and x86-64, which runs natively, gets none."""
    start("")
    names = set(machine.names())
    assert names > NAMES
    assert not names & {"qemu-x86_64", "qemu-i386"}


def reloads(start: Start, machine: Machine) -> None:
    """A reload puts a new config in force, and keeps the old one in force beside an invalid one."""
    daemon = start(TWO)
    CONFIG.write_text('architectures = ["riscv64"]\n')
    daemon.reload()
    wait_until(lambda: machine.names() == ["qemu-riscv64"], what="the new config")
    CONFIG.write_text("architectures = 1\n")
    daemon.reload()
    error = daemon.wait_status(lambda status: status["config"]["error"], "an error")["config"]["error"]
    assert str(CONFIG) in error
    assert machine.names() == ["qemu-riscv64"]


def probes(start: Start, machine: Machine) -> None:  # noqa: ARG001  as the others
    """The daemon's probe executes the programs of both architectures in their emulators, in a chroot."""
    probe_succeeds(start(TWO + 'probe = "after-repair"\n'))


def probe_succeeds(daemon: Daemon) -> None:
    """Wait for a probe of TWO, and assert that it ran each program in its emulator, in a chroot."""
    probed = daemon.wait_status(lambda status: any(status["probed"].values()), "a probe", PROBING)["probed"]
    assert probed["error"] is None
    rows = {row["name"]: row for row in probed["architectures"]}
    for name in ("aarch64", "riscv64"):
        assert (rows[name]["runs"], rows[name]["natively"], rows[name]["in_chroot"]) == (True, False, True)


def seals(start: Start, machine: Machine) -> None:
    """The instance is sealed, holds its entries over an unmount, and is mounted again."""
    daemon = start(TWO + "sealed = true\n")
    daemon.wait_status(lambda status: status["seal"]["state"] == "sealed", "a seal")
    with pytest.raises(OSError, match="Read-only") as refused:
        machine.remove("qemu-aarch64")
    assert refused.value.errno == errno.EROFS
    inodes = machine.inodes()
    subprocess.run(["umount", MOUNT_POINT], check=True)
    wait_until(machine.mounted, what="the mount")
    assert machine.inodes() == inodes


def stops(start: Start, machine: Machine) -> None:
    """With ``on_stop = "remove"`` a sealed daemon takes its entries back and opens the seal."""
    daemon = start(TWO + 'sealed = true\non_stop = "remove"\n')
    assert daemon.terminate() == 0
    assert machine.all_names() == []
    machine.register(b":odd:E::odd::/usr/bin/true:")


STEPS = (registers_and_repairs, finds_what_runs_natively, reloads, probes, seals, stops)


class KernelLog:
    """The kernel's log from now on."""

    def __init__(self) -> None:
        Path("/proc/sys/kernel/printk_ratelimit").write_text("0")  # log each denial
        self._mark = f"binfmtd's tests: mark {len(self._lines())}"
        Path("/dev/kmsg").write_text(f"{self._mark}\n")

    def __call__(self) -> list[str]:
        lines = self._lines()
        return lines[next(i for i, line in enumerate(lines) if self._mark in line) + 1 :]

    def _lines(self) -> list[str]:
        return subprocess.run(["dmesg"], check=True, capture_output=True, text=True).stdout.splitlines()
