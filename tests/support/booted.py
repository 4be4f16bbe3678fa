"""A Debian with real systemd as process 1, booted by systemd-nspawn, with binfmtd as `make install` installs it.

It boots in its own user namespace, and so mounts its own binfmt_misc.  mmdebstrap makes the tree from Debian's packages
once and keeps it in build/systemd; each machine gets a copy.  Python and binfmtd's dependencies are Debian's packages.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from binfmtd.catalog.names import find
from support import Closing, downloads
from support.cli import CHECKOUT, Result, run
from support.instance import namespace_of_its_own
from support.programs import exits_with, foreign_program, install
from support.slices import ordinary_scheduling
from support.waiting import SLOWNESS, wait_until

BUILD = CHECKOUT / "build" / "systemd"
PACKAGES = ("dbus", "python3-pydantic", "python3-pyinotify", "python3-structlog", "systemd", "systemd-sysv")
SUITE = "trixie"  # has what binfmtd takes; another suite's systemd can be tried without it
MMDEBSTRAP = ("mmdebstrap", "--quiet", "--variant=minbase")
APT_OPTIONS = ("--dpkgopt=force-unsafe-io", '--aptopt=Acquire::Check-Valid-Until "false"')
UNIT = "binfmtd.service"
BINFMT_UNIT = "systemd-binfmt.service"
ENTRY = "qemu-riscv64"
MOUNT_POINT = "/proc/sys/fs/binfmt_misc"
PROGRAM = "/root/foreign"
CONFIG = "/etc/binfmtd/binfmtd.toml"
DROP_INS = f"/etc/systemd/system/{UNIT}.d"
# systemd-nspawn makes /proc/sys read-only, and an automount does not work in a user namespace.
MOUNTING = f"""
[Unit]
DefaultDependencies=no
Before=systemd-binfmt.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=mount -o remount,bind,rw /proc/sys
ExecStart=mount -t binfmt_misc binfmt_misc {MOUNT_POINT}
"""
# Control groups of version 2, whatever this host mounts; in a mount namespace, and removed at the end.
BOOT = """
mount -t cgroup2 none /sys/fs/cgroup
group=/sys/fs/cgroup/binfmtd-test-$$
mkdir "$group"
(echo 0 >"$group/cgroup.procs"; exec "$@" </dev/null)
find "$group" -depth -type d -exec rmdir {} +
"""
NSPAWN = (
    "systemd-nspawn",
    "--quiet",
    "--register=no",
    "--keep-unit",
    "--console=pipe",
    "--private-users=pick",
)


class System(ABC):
    """A Debian, by default with systemd as process 1; ``root`` is its root directory, seen from here."""

    root: Path

    @abstractmethod
    def entering(self, *argv: str) -> list[str]:
        """Return the command that executes ``argv`` on it, as root."""

    def run(self, *argv: str) -> Result:
        """Run a command on it to its end, as root."""
        return run(self.entering("env", "-i", "PATH=/usr/sbin:/usr/bin", *argv), timeout=300 * SLOWNESS)

    def is_up(self) -> bool:
        """Wait until the boot has ended; return False if process 1 does not answer yet."""
        return self.run("systemctl", "is-system-running", "--wait").stdout.strip() in ("running", "degraded")

    def systemctl(self, *arguments: str) -> Result:
        """Run ``systemctl ARGUMENT...``, and assert that it succeeds."""
        done = self.run("systemctl", *arguments)
        assert done.status == 0, (done.stderr, self.run("journalctl", "--unit", UNIT, "--lines=30").stdout)
        return done

    def show(self, name: str) -> str:
        """Return a property of the service."""
        return self.systemctl("show", "--property", name, "--value", UNIT).stdout.strip()

    def journal(self, event: str = "") -> list[dict[str, Any]]:
        """Return the service's journal, or the lines of one log event: all that processes have sent by now.

        The daemon itself may send a line later than it does what the line is about.
        """
        self.run("journalctl", "--sync")  # returns when journald has taken in what was sent before
        lines = self.run("journalctl", "--unit", UNIT, "--output=json", "--all").stdout.splitlines()
        found: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [line for line in found if not event or f"event={event}" in str(line["MESSAGE"]).split()]

    def restart_systemd_binfmt(self) -> Result:
        """Restart systemd-binfmt, which flushes at its end and at its start, however often that was done before."""
        self.run("systemctl", "reset-failed", BINFMT_UNIT)  # resets the start limit: five in ten seconds
        return self.run("systemctl", "restart", BINFMT_UNIT)

    def unmount(self) -> None:
        """Unmount binfmt_misc; the kernel refuses that for as long as a process, such as the daemon, reads an entry."""
        wait_until(lambda: self.run("umount", MOUNT_POINT).status == 0, 30, "an unmount")

    def entries(self) -> list[str]:
        """List all entries, those of Debian's own packages as well."""
        return sorted({*self.run("ls", MOUNT_POINT).stdout.split()} - {"register", "status"})

    def answer(self) -> int:
        """Run the foreign program in a shell; return the emulator's exit status, or the shell's without a handler."""
        return self.run("sh", "-c", PROGRAM).status

    def write(self, path: str, text: str) -> None:
        """Write a file of the machine, in a directory such as /etc that no mount covers there."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


class NspawnMachine(Closing, System):
    """A root directory that systemd-nspawn starts, from its boot to ``close``, with a binfmt_misc of its own.

    A subclass makes ``root``, then calls ``_boot``.
    """

    init: str  # the name of process 1
    boot_seconds: int

    def _boot(self, directory: Path, *arguments: str) -> None:
        """Start it with these arguments of systemd-nspawn, and wait until it is up; ``directory`` gets its log."""
        self._log = (directory / "console.log").open("wb")
        nspawn = [*NSPAWN, f"--directory={self.root}", *arguments]
        self._nspawn = subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", "sh", "-c", BOOT, "sh", *nspawn],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self._leader = wait_until(self._find_leader, 60, "process 1 of the machine")
            namespace_of_its_own(self._leader)  # and so no binfmt_misc of ours
            wait_until(self.is_up, self.boot_seconds, "a system that is up")
        except BaseException as error:
            error.add_note(self.console())
            self.close()
            raise

    def close(self) -> None:
        """Kill process 1 of the machine, as a power cut would; the kernel then kills its other processes."""
        for leader in self._leaders():
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(leader, 9)
        self._nspawn.wait(60 * SLOWNESS)
        self._log.close()
        shutil.rmtree(self.root)

    def ordinary_scheduling(self) -> AbstractContextManager[None]:
        """Give process 1, and so what it starts meanwhile, ordinary scheduling in place of the tests' own."""
        return ordinary_scheduling(self._leader)

    def console(self) -> str:
        """Return what the machine has printed since its boot."""
        return Path(self._log.name).read_text(errors="replace")

    def entering(self, *argv: str) -> list[str]:
        return ["nsenter", "--target", str(self._leader), "--all", "--", *argv]

    def _leaders(self) -> list[int]:
        """Return the children of systemd-nspawn, which is the shell's only child."""
        return [leader for nspawn in _children(self._nspawn.pid) for leader in _children(nspawn)]

    def _find_leader(self) -> int:
        """Return the id of the machine's process 1 in our namespace, or 0."""
        assert self._nspawn.poll() is None, self.console()
        return next((leader for leader in self._leaders() if _name(leader) == self.init), 0)


class Booted(NspawnMachine):
    """One machine, from its boot to ``close``; ``root`` is its root directory, seen from here.

    Its Debian has these ``packages``; ``options`` are more options of mmdebstrap, ``masked`` units that it does
    not start, ``nspawn`` more options of systemd-nspawn.  binfmtd is ``installed`` if the suite can run it.
    """

    init = "systemd"
    boot_seconds = 300

    def __init__(
        self,
        directory: Path,
        suite: str = SUITE,
        packages: Sequence[str] = PACKAGES,
        options: Sequence[str] = (),
        masked: Sequence[str] = (),
        nspawn: Sequence[str] = (),
        *,
        installed: bool = True,
    ) -> None:
        self.root = directory / "root"
        self._packages = directory / "packages"
        make_root(self.root, suite, packages, options, masked, installed=installed)
        wanted = self.root / "etc/systemd/system/sysinit.target.wants"
        wanted.mkdir(parents=True, exist_ok=True)
        (wanted / "mounting.service").symlink_to("../mounting.service")
        self._boot(directory, "--boot", *nspawn)

    def install_emulator(self, status: int) -> None:
        """Install or upgrade a package with dpkg; its emulator for riscv64 exits with this status."""
        content = self._packages / f"emulator-{status}"
        (content / "DEBIAN").mkdir(parents=True, exist_ok=True)
        (content / "usr/bin").mkdir(parents=True, exist_ok=True)
        install(content / "usr/bin/qemu-riscv64", exits_with(status))
        (content / "DEBIAN/control").write_text(
            f"Package: test-emulator\nVersion: {status}\nArchitecture: all\nMaintainer: nobody <n@example.org>\n"
            "Description: an emulator that answers with one exit status\n"
        )
        package = f"{content.name}.deb"
        _checked("dpkg-deb", "--root-owner-group", "--build", str(content), str(self.root / "root" / package))
        done = self.run("dpkg", "--install", f"/root/{package}")
        assert done.status == 0, done.stderr


def make_root(
    root: Path,
    suite: str = SUITE,
    packages: Sequence[str] = PACKAGES,
    options: Sequence[str] = (),
    masked: Sequence[str] = (),
    *,
    installed: bool = True,
) -> None:
    """Make a root directory of such a system."""
    root.mkdir(parents=True)
    _checked("tar", "--extract", f"--file={make_tree(suite, packages, options)}", f"--directory={root}")
    furnish(root, masked, installed=installed and suite == SUITE)


def furnish(root: Path, masked: Sequence[str] = (), *, installed: bool = True) -> None:
    """Install binfmtd, a foreign program and ``mounting.service``, which is not enabled; mask units."""
    if installed:
        _checked("make", "-C", str(CHECKOUT), "install", "PREFIX=/usr", f"DESTDIR={root}")
    (root / "etc/systemd/system/mounting.service").write_text(MOUNTING)
    for unit in masked:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    foreign_program(root / PROGRAM.lstrip("/"), find("riscv64"))


def make_tree(suite: str = SUITE, packages: Sequence[str] = PACKAGES, options: Sequence[str] = ()) -> Path:
    """Return the archive of a root directory from Debian's packages, which is made once."""
    command = (*MMDEBSTRAP, f"--include={','.join(packages)}", *APT_OPTIONS, *options, suite)
    recipe = hashlib.sha256("\0".join(command).encode()).hexdigest()[:12]
    tree = BUILD / f"{recipe}.tar"
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another of pytest's processes may be making it
        if not tree.exists():
            unfinished = tree.with_suffix(".unfinished.tar")
            downloads.make([*command, str(unfinished)], unfinished)
            unfinished.rename(tree)
    return tree


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _checked(*command: str) -> None:
    done = run(command, timeout=downloads.MAKE_SECONDS, cwd="/")
    assert done.status == 0, f"{' '.join(command)}: exit status {done.status}\n{done.stdout}{done.stderr}"
