"""Incus on a private host, with Debian's package unpacked: no package manager starts the daemon of this machine.

A container's tree is an image of Incus without binfmtd, which is installed before the container starts.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from support import downloads
from support.booted import System, furnish, make_tree
from support.cli import CHECKOUT, Result, run
from support.nested import MASKED, NESTING_PACKAGES, configure
from support.private_host import PrivateHost
from support.waiting import wait_until

BUILD = CHECKOUT / "build" / "hosts"
PROGRAMS = ("usr/libexec/incus", "usr/bin", "usr/sbin")
CONTAINERS = "var/lib/incus/storage-pools/default/containers"
IMAGE = "image"
FIRST, COUNT = 1000000, 65536  # the ids of a container
PRESEED = """
storage_pools:
- name: default
  driver: dir
profiles:
- name: default
  devices:
    root: {path: /, pool: default, type: disk}
"""
METADATA = "architecture: {}\ncreation_date: 1\nproperties: {{description: a Debian}}\n"
PREPARE = f"""
for file in /etc/subuid /etc/subgid; do echo root:{FIRST}:{COUNT} >>$file; done
mkdir -p /var/lib/incus /var/log/incus
"""
RAW = """
lxc.cgroup.dir.container = {group}/container
lxc.cgroup.dir.monitor = {group}/monitor
lxc.cgroup.dir.monitor.pivot = {group}/pivot
"""


def unpack() -> Path:
    """Return the directory with the files of Debian's package and of those that it depends on; it is made once."""
    directory = BUILD / "incus"
    if not (directory / "usr/libexec/incus/incusd").exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(directory, ignore_errors=True)
        command = ["mmdebstrap", "--quiet", "--variant=extract", "--include=incus-base", "trixie", str(directory)]
        downloads.make(command, directory)
    return directory


class IncusHost(PrivateHost):
    """A private host on which incusd runs."""

    name = f"binfmtd-test-{os.getpid()}"
    groups = (("", name),)
    users = 4294967295  # all that the kernel has

    def __init__(self, directory: Path, package: Path) -> None:
        libraries = directory / "libraries"
        libraries.mkdir(parents=True)
        programs = ":".join(str(package / place) for place in PROGRAMS)
        # This machine's own come first: those of another version would not fit its programs.
        self._settings = [f"PATH=/usr/sbin:/usr/bin:/sbin:/bin:{programs}", f"LD_LIBRARY_PATH={libraries}"]
        self._settings += ["INCUS_SECURITY_APPARMOR=false"]
        for library in package.glob("usr/lib/*-linux-gnu/*.so.*"):
            if not (Path("/") / library.relative_to(package)).exists():
                (libraries / library.name).symlink_to(library.resolve())
        super().__init__(directory, [], mounted=True)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def entering(self, argv: Sequence[str], directory: Path | None = None) -> list[str]:
        return super().entering(["env", *self._settings, *argv], directory)

    def incus(self, *arguments: str, standard_input: str = "") -> Result:
        """Run a command of Incus, and assert that it succeeds."""
        done = run(self.entering(["incus", *arguments]), input=standard_input, timeout=120)
        assert done.status == 0, (arguments, done, (self.directory / "incusd.log").read_text()[-4000:])
        return done

    def _start(self) -> None:
        prepared = self.run("sh", "-euc", PREPARE)
        assert prepared.status == 0, prepared.stderr
        self._incusd = self.start_logged("incusd", ["incusd", "--group=root"])
        assert self.run("incusd", "waitready", "--timeout=60").status == 0, (self.directory / "incusd.log").read_text()
        self.incus("admin", "init", "--preseed", standard_input=PRESEED)
        (self.directory / "metadata.yaml").write_text(METADATA.format(platform.machine()))
        metadata = self.directory / "metadata.tar"
        subprocess.run(["tar", "-C", str(self.directory), "-cf", str(metadata), "metadata.yaml"], check=True)
        self.incus("image", "import", str(metadata), str(make_tree(packages=NESTING_PACKAGES)), f"--alias={IMAGE}")

    def close(self) -> None:
        super().close()
        self._incusd.wait(60)


class IncusContainer(System):
    """A container of Incus, made from the image; its emulator exits with this status."""

    def __init__(self, host: IncusHost, name: str, emulator: int) -> None:
        self._host, self._name = host, name
        host.incus("create", IMAGE, name)
        self.set_raw()
        self.root = host.root / CONTAINERS / name / "rootfs"
        furnish(self.root, masked=MASKED)
        configure(self.root, emulator)

    def entering(self, *argv: str) -> list[str]:
        return self._host.entering(["incus", "exec", self._name, "--", *argv])

    def start(self) -> None:
        """Start it; Incus gives its files the owners that they have in the container."""
        self._host.incus("start", self._name)
        wait_until(self.is_up, 60, "a container of Incus that is up")

    def stop(self) -> None:
        """Stop it as `poweroff` in it does."""
        self._host.incus("stop", self._name)

    def set_raw(self, lines: str = "") -> None:
        """Set the lines of its config that Incus hands to LXC, and those that name its control groups."""
        self._host.incus("config", "set", self._name, f"raw.lxc={RAW.format(group=self._host.name)}{lines}")
