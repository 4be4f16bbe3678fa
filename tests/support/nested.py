"""Systems that contain systems: systemd-nspawn in systemd-nspawn, and LXC in LXC.

Each system is in a user namespace of its own, inside of that of the system around it.  All of them have one tree, with
systemd-nspawn and LXC.  binfmt_misc is mounted in none but a machine of ``Booted``, until ``mounting.service`` starts.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from support import Closing
from support.booted import CONFIG, PACKAGES, System, make_root
from support.cli import Result
from support.private_host import PrivateHost
from support.programs import exits_with, install
from support.waiting import wait_until

NESTING_PACKAGES = (*PACKAGES, "lxc", "systemd-container")
# They wait for a network.
MASKED = ("lxc.service", "lxc-net.service")
ONE_HANDLER = 'architectures = ["riscv64"]\n'
# A new sysfs or /proc may be mounted in a user namespace only where a whole one is visible (fs/namespace.c,
# mount_too_revealing), and systemd-nspawn hides parts of both.
OUTER_OPTIONS = ("--private-network", "--bind=/sys:/media:norbind")
INNER_OPTIONS = ("--private-network", "--bind=/proc:/mnt:norbind", "--bind=/media:/media:norbind")
INNER = "inner"
MACHINES = "/var/lib/machines"
# systemd-nspawn remounts a directory of /run, which has flags that this user namespace may not clear, unless another
# file system is mounted there.  The ids of the inner container are those of the outer one: with others systemd-nspawn
# would have to create device nodes.
START = """
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=755 tmpfs /run/systemd/nspawn
exec systemd-nspawn "$@"
"""
# The network namespace belongs to the outer user namespace.
NAMESPACES = ("--user", "--mount", "--pid", "--ipc", "--uts")
NSPAWN = ("--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe", "--link-journal=no")
LXC_CONFIG = """
lxc.include = /usr/share/lxc/config/common.conf
lxc.include = /usr/share/lxc/config/userns.conf
lxc.include = /usr/share/lxc/config/nesting.conf
lxc.idmap = u 0 {first} {count}
lxc.idmap = g 0 {first} {count}
lxc.rootfs.path = dir:{root}
lxc.net.0.type = empty
lxc.cgroup.dir.container = {group}/container
lxc.cgroup.dir.monitor = {group}/monitor
lxc.cgroup.dir.monitor.pivot = {group}/pivot
lxc.apparmor.profile = unconfined
"""
LXC_FIRST = 1000  # the first id of a container, in the system around it
LXC_HOST_COUNT, LXC_INNER_COUNT = 60000, 30000
# The users of a container have to reach its root directory, and pytest closes the directory of the tests to them.
LXC_PATH = "/run/binfmtd-test"
PREPARE = f"""
for file in /etc/subuid /etc/subgid; do echo root:{LXC_FIRST}:{LXC_HOST_COUNT} >>$file; done
mkdir {LXC_PATH}
mount --bind "$1" {LXC_PATH}
"""


def make_nesting_root(root: Path, emulator: int) -> None:
    """Make the root directory of a system, with an emulator that exits with this status."""
    make_root(root, packages=NESTING_PACKAGES, masked=MASKED)
    configure(root, emulator)


def configure(root: Path, emulator: int) -> None:
    """Install an emulator that exits with this status, and declare one handler."""
    install(root / "usr/bin/qemu-riscv64", exits_with(emulator))
    (root / CONFIG.lstrip("/")).write_text(ONE_HANDLER)


class InnerNspawn(Closing, System):
    """A container of systemd-nspawn that a machine of systemd-nspawn boots; its tree is made by ``make_nesting_root``.

    ``options`` are more options of systemd-nspawn.
    """

    def __init__(self, outer: System, options: Sequence[str] = ()) -> None:
        self._outer = outer
        self.root = outer.root / f"{MACHINES}/{INNER}".lstrip("/")
        service = ("systemd-run", "--quiet", "--collect", f"--unit={INNER}", "--property=Delegate=yes")
        unshare = ("unshare", "--mount", "--propagation=private", "sh", "-euc", START, "sh")
        place = ("--private-users=identity", f"--directory={MACHINES}/{INNER}")
        started = outer.run(*service, *unshare, *NSPAWN, *INNER_OPTIONS, *place, *options)
        assert started.status == 0, started.stderr
        self._leader = wait_until(self._find_leader, 60, "process 1 of the inner container")
        try:
            wait_until(self.is_up, 60, "an inner container that is up")
        except BaseException:
            self.close()
            raise

    def _find_leader(self) -> str:
        """Return the id of its process 1 in the outer machine; "" if it has not started yet."""
        log = self._outer.run("journalctl", f"--unit={INNER}", "--output=cat", "--lines=20").stdout
        assert self.runs, log
        main = self._outer.run("systemctl", "show", "--property=MainPID", "--value", INNER).stdout.strip()
        script = f"for child in $(cat /proc/{main}/task/{main}/children); do echo $child $(cat /proc/$child/comm); done"
        found = [words[0] for words in self._outer.run("sh", "-c", script).rows if words[1:] == ["systemd"]]
        return found[0] if found else ""

    @property
    def runs(self) -> bool:
        """True from its start to its end."""
        return self._outer.run("systemctl", "is-active", INNER).stdout.strip() in ("active", "deactivating")

    def entering(self, *argv: str) -> list[str]:
        return self._outer.entering("nsenter", "--target", self._leader, *NAMESPACES, "--", *argv)

    def close(self) -> None:
        """Kill all its processes, if it still runs."""
        self._outer.run("systemctl", "kill", "--signal=KILL", INNER)
        self.wait_end()

    def wait_end(self) -> None:
        """Wait for the end of its unit."""
        wait_until(lambda: not self.runs, 60, "the end of the inner container")


class LxcHost(PrivateHost):
    """A private host whose root may give the ids of a container to LXC."""

    name = f"binfmtd-test-{os.getpid()}"
    groups = (("", name),)

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, [], mounted=True)
        self.lxc = directory / "lxc"
        self.lxc.mkdir()
        prepared = self.run("sh", "-euc", PREPARE, "sh", str(self.lxc))
        assert prepared.status == 0, prepared.stderr

    def make_roots(self, outer_emulator: int, inner_emulator: int) -> None:
        """Make the root directories of a container and of one in it; their emulators exit with these statuses."""
        outer = self.lxc / self.name / "rootfs"
        inner = outer / f"var/lib/lxc/{INNER}/rootfs"
        make_nesting_root(outer, outer_emulator)
        make_nesting_root(inner, inner_emulator)
        for name in ("subuid", "subgid"):
            with (outer / "etc" / name).open("a") as file:
                file.write(f"root:{LXC_FIRST}:{LXC_INNER_COUNT}\n")
        for root in (inner, outer):
            shift_owners(root, LXC_FIRST)
            for directory in (root.parent, root.parent.parent):
                directory.chmod(0o755)


class Lxc(Closing, System):
    """A container of LXC, on a host or in another container, from its start to ``close``; ``more`` lines of its config.

    ``around`` enters what is around it.
    """

    def __init__(self, host: LxcHost, outer: "Lxc | None" = None, more: str = "") -> None:
        self._host, self._outer = host, outer
        self._name = host.name if outer is None else INNER
        self._path = LXC_PATH if outer is None else "/var/lib/lxc"
        seen = host.lxc if outer is None else outer.root / "var/lib/lxc"
        self.root = seen / self._name / "rootfs"
        count = LXC_HOST_COUNT if outer is None else LXC_INNER_COUNT
        root = f"{self._path}/{self._name}/rootfs"
        config = LXC_CONFIG.format(first=LXC_FIRST, count=count, root=root, group=self._name)
        (self.root.parent / "config").write_text(config + more)
        started = self._around("lxc-start", "-o", f"{self._path}/{self._name}/log")
        assert started.status == 0, (started, (self.root.parent / "log").read_text())
        try:
            wait_until(self.is_up, 60, "a container of LXC that is up")
        except BaseException:
            self.close()
            raise

    def _around(self, program: str, *arguments: str) -> Result:
        """Run a program of LXC for this container in what is around it."""
        command = (program, "-P", self._path, "-n", self._name, *arguments)
        return self._host.run(*command) if self._outer is None else self._outer.run(*command)

    def entering(self, *argv: str) -> list[str]:
        command = ("lxc-attach", "-P", self._path, "-n", self._name, "--", *argv)
        return self._host.entering(command) if self._outer is None else self._outer.entering(*command)

    def write(self, path: str, text: str) -> None:
        super().write(path, text)
        owner = os.stat(self.root)
        os.chown(self.root / path.lstrip("/"), owner.st_uid, owner.st_gid)

    def close(self) -> None:
        """Kill the container's processes."""
        self._around("lxc-stop", "--kill")

    def power_off(self) -> None:
        """Stop the container as `poweroff` in it does, and wait for its end."""
        self._around("lxc-stop", "--nokill", "--timeout=60")


def shift_owners(root: Path, first: int) -> None:
    """Give each file of a root directory the owner that it has in a container whose ids begin with ``first``."""
    for directory, directories, files in os.walk(root):
        for path in (os.path.join(directory, name) for name in (".", *directories, *files)):
            if path.endswith("/.") and directory != str(root):
                continue  # its parent has listed it
            status = os.lstat(path)
            os.lchown(path, status.st_uid + first, status.st_gid + first)
            if not os.path.islink(path):
                os.chmod(path, status.st_mode & 0o7777)  # chown has removed set-uid
