"""A real binfmt_misc of the test's own, in a user namespace of its own; never the host's.

A *holder* process stands in a new user and mount namespace, where binfmt_misc is mounted over an empty file system:
without that a child namespace sees, and may write to, the instance that it inherits.  The empty file system is mounted
in a namespace above the holder's, so nobody inside can unmount it: whatever a test does, the host's stays covered.  The
holder blocks on its standard input, so it goes when the test process goes, and the instance and its entries with it.

From outside everything is reached through ``/proc/PID/root``, also by an ordinary user; commands run inside by nsenter.
Instances per user namespace exist from Linux 6.7 on.
"""

import os
import re
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

MOUNT_POINT = "/proc/sys/fs/binfmt_misc"
CONTROL_FILES = frozenset({"register", "status"})
COMMAND_SECONDS = 60
UNSHARE = ("unshare", "-Um", "--propagation", "private")
ROOT_ALONE = ("--map-root-user",)
EVERYBODY = ("--map-users=0,0,65536", "--map-groups=0,0,65536")
HOLDER = f"""
mount -t binfmt_misc binfmt_misc {MOUNT_POINT} || exit 4
echo ready
read -r _
"""
COVER = f"""
mount -t tmpfs tmpfs {MOUNT_POINT} || exit 3
exec "$@" sh -c '{HOLDER}'
"""


class UnavailableError(Exception):
    """This machine does not lend out instances; the message says why."""


class NotPrivateError(Exception):
    """What was started is not an instance of its own: a test must not touch it."""


class Instance:
    """One private instance, from its mount to ``close``.

    Whoever runs the test is root in there, and alone; with ``everybody``, which takes root, all of this machine's users
    are who they are.  Raises UnavailableError where this machine forbids it, and NotPrivateError where the instance is
    not one of its own.
    """

    mount_point = MOUNT_POINT  # as seen from inside

    def __init__(self, *, everybody: bool = False) -> None:
        self._commands: list[subprocess.Popen[Any]] = []
        unshare = [*UNSHARE, *(EVERYBODY if everybody else ROOT_ALONE)]
        # With --map-users unshare has a helper, which outlives it where it fails, and holds our pipes open for ever.
        refused = subprocess.run([*UNSHARE, *ROOT_ALONE, "true"], capture_output=True, text=True, check=False)
        if refused.returncode != 0:
            raise UnavailableError(f"a new user namespace could not be made: {refused.stderr.strip()}")
        self._holder = subprocess.Popen(
            [*unshare, "sh", "-c", COVER, "sh", *unshare],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        try:
            if self._holder.stdout.readline() != "ready\n":
                raise UnavailableError(self._refusal())
            self.pid = self._holder.pid
            self.directory = Path(f"/proc/{self.pid}/root{MOUNT_POINT}")
            self._namespace = namespace_of_its_own(self.pid)
            refuse_mounted_here(self.directory)
            if names := self.names():
                raise NotPrivateError(f"the new instance is not empty, so it is somebody else's: {names}")
        except BaseException:
            self._end_holder()
            raise

    def _refusal(self) -> str:
        _, stderr = self._holder.communicate(timeout=COMMAND_SECONDS)
        release = os.uname().release
        why = {
            3: "an empty file system could not be mounted in a new user namespace",
            4: f"a new user namespace cannot have its own binfmt_misc (Linux 6.7 and later; this is {release})",
        }.get(self._holder.returncode, "a new user namespace could not be made")
        return f"{why}: {stderr.strip()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what still runs inside, then the holder; the kernel drops the entries with the last mount."""
        for pid in _members(self._namespace) - {self.pid}:
            _kill_member(pid, self._namespace)
        for command in self._commands:
            command.wait(COMMAND_SECONDS)
            for stream in (command.stdin, command.stdout, command.stderr):
                if stream is not None:
                    stream.close()
        self._end_holder()

    def _end_holder(self) -> None:
        self._holder.kill()
        self._holder.wait()
        for stream in (self._holder.stdin, self._holder.stdout, self._holder.stderr):
            assert stream is not None
            stream.close()

    def path(self, name: str) -> bytes:
        """Return the path of an entry, ``register`` or ``status`` from outside."""
        return os.fsencode(self.directory) + b"/" + name.encode("utf-8", "surrogateescape")

    def names(self) -> list[str]:
        """List the entries as the kernel does: newest first, which is the precedence."""
        listed = [name.decode("utf-8", "surrogateescape") for name in os.listdir(os.fsencode(self.directory))]
        return [name for name in listed if name not in CONTROL_FILES]

    def read(self, name: str) -> str:
        """Return the text of an entry's file, or of ``status``."""
        descriptor = os.open(self.path(name), os.O_RDONLY)
        try:  # in one read: a second one may be of another text
            return os.read(descriptor, 8192).decode("utf-8", "surrogateescape")
        finally:
            os.close(descriptor)

    def inode(self, name: str) -> int:
        """Return the entry's identity: new with every registration."""
        return os.stat(self.path(name)).st_ino

    def inodes(self) -> dict[str, int]:
        """Name -> identity, from one listing: so nothing vanishes in between."""
        with os.scandir(os.fsencode(self.directory)) as listing:
            found = {entry.name.decode("utf-8", "surrogateescape"): entry.inode() for entry in listing}
        return {name: inode for name, inode in found.items() if name not in CONTROL_FILES}

    def write(self, name: str, data: bytes, *, truncate: bool = False) -> None:
        """Write once; with ``truncate`` as a shell's ``>`` does, which sends a MODIFY before anything is written."""
        descriptor = os.open(self.path(name), os.O_WRONLY | (os.O_TRUNC if truncate else 0))
        try:
            written = os.write(descriptor, data)
        finally:
            os.close(descriptor)
        assert written == len(data), f"the kernel took {written} of {len(data)} bytes"

    def register(self, line: bytes) -> None:
        """Register one entry; OSError where the kernel refuses it."""
        self.write("register", line)

    def remove(self, name: str) -> None:
        """Remove one entry, or with ``status`` all."""
        self.write(name, b"-1")

    def entering(self, argv: list[str]) -> list[str]:
        """Return the command that executes ``argv`` inside, as root there; it starts in ``/``."""
        return ["nsenter", "-U", "--preserve-credentials", "-m", "-t", str(self.pid), "--", *argv]

    def run(self, argv: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end; its output is captured as text unless ``options`` say otherwise."""
        defaults: dict[str, Any] = {"capture_output": True, "text": True, "timeout": COMMAND_SECONDS, "check": False}
        return subprocess.run(self.entering(argv), **(defaults | options))  # noqa: PLW1510  it is among the defaults

    def popen(self, argv: list[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command inside; its process id is the command's own, and ``close`` ends it."""
        command = subprocess.Popen(self.entering(argv), **options)
        self._commands.append(command)
        return command

    def shell(self, script: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a shell script inside."""
        return self.run(["sh", "-euc", script], **options)


def namespace_of_its_own(pid: int) -> str:
    """Return the user namespace of a process; NotPrivateError if it is ours."""
    namespace = _namespace(pid)
    if namespace == os.readlink("/proc/self/ns/user"):
        raise NotPrivateError(f"process {pid} is in our own user namespace")
    return namespace


def refuse_mounted_here(directory: Path) -> None:
    """Raise NotPrivateError if the binfmt_misc in ``directory`` is mounted anywhere in our own mount namespace."""
    device = os.stat(directory).st_dev
    # The mount table and not the mount point: looking at that would trigger the host's automount.
    for mount in map(str.split, Path("/proc/self/mountinfo").read_text().splitlines()):
        major, _, minor = mount[2].partition(":")
        if mount[mount.index("-") + 1] == "binfmt_misc" and device == os.makedev(int(major), int(minor)):
            raise NotPrivateError(f"{directory} is an instance that is mounted here too, at {mount[4]}")


def _namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/user")


def _members(namespace: str) -> set[int]:
    found = set()
    for name in filter(re.compile(r"\d+").fullmatch, os.listdir("/proc")):
        try:
            if _namespace(int(name)) == namespace:
                found.add(int(name))
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
    return found


def _kill_member(pid: int, namespace: str) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Asked again with the descriptor in hand: the number may have gone to another process.
        if _namespace(pid) == namespace:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        pass
    finally:
        os.close(descriptor)
