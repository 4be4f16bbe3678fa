"""A root tree of Debian 12 without Python, with the one file in it: a chroot in a private instance of binfmt_misc.

Its /tmp is mounted with ``noexec``, and /run is empty, so that a program which unpacks itself would be noticed.
"""

import shutil
import subprocess
from pathlib import Path

from binfmtd.catalog.names import find
from binfmtd.catalog.program import tiny_program
from support.booted import CONFIG, PROGRAM, make_tree
from support.cli import Result, run
from support.downloads import MAKE_SECONDS
from support.instance import Instance
from support.programs import install

SUITE = "bookworm"
PACKAGES = ("libgcc-s1",)  # each minimal tree has it
EMULATOR = "/usr/bin/qemu-riscv64"
MOUNTS = """
mount --rbind /proc "$0/proc"
mount --rbind /dev "$0/dev"
mount -t tmpfs -o noexec,mode=1777 tmpfs "$0/tmp"
mount -t tmpfs -o mode=755 tmpfs "$0/run"
"""


class Bare:
    """The tree, in which ``program`` is both commands; the mounts end with the instance."""

    def __init__(self, instance: Instance, directory: Path, program: Path) -> None:
        self.instance = instance
        self.root = directory / "root"
        self.root.mkdir()
        archive = make_tree(SUITE, PACKAGES)
        command = ["tar", "--extract", f"--file={archive}", f"--directory={self.root}", "--exclude=./dev/*"]
        done = run(command, timeout=MAKE_SECONDS)
        assert done.status == 0, done.stderr
        shutil.copy(program, self.path("/usr/bin/binfmtd"))
        self.path("/usr/bin/binfmt").symlink_to("binfmtd")
        self.path(CONFIG).parent.mkdir()
        install(self.path(PROGRAM), tiny_program(find("riscv64")))
        done = run(instance.entering(["sh", "-euc", MOUNTS, str(self.root)]))
        assert done.status == 0, done.stderr

    def path(self, inside: str) -> Path:
        """Return the path of a file of the tree, seen from here."""
        return self.root / inside.lstrip("/")

    def command(self, *argv: str) -> list[str]:
        """Return the command that executes ``argv`` in the tree, to be run in the instance."""
        return ["chroot", str(self.root), "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *argv]

    def run(self, *argv: str) -> Result:
        """Run a command in the tree to its end."""
        return run(self.instance.entering(self.command(*argv)))

    def start(self, log: Path, *argv: str) -> "subprocess.Popen[bytes]":
        """Start a command in the tree; its output goes to a file."""
        with log.open("wb") as output:
            return self.instance.popen(
                self.command(*argv), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    def files(self) -> set[str]:
        """Return the files of the tree and of its /tmp, but none of /run."""
        return set(self.run("find", "/", "/tmp", "-xdev", "-type", "f").stdout.splitlines())  # noqa: S108  the tree's
