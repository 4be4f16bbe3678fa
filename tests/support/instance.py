"""A private instance of the real binfmt_misc for a test, in its own user namespace; never the host's.

A *holder* process runs in a new user and mount namespace, where binfmt_misc is mounted over an empty file system.
Without that cover a child namespace would see, and could write to, the instance that it inherits.  The cover is mounted
in a namespace above the holder's, so no process inside can unmount it: whatever a test does, the host's instance stays
hidden.  The holder blocks on its standard input, so it ends with the test process; the kernel then drops the instance
and its entries.

Tests reach the instance through ``/proc/PID/root``, also as an ordinary user; nsenter runs commands inside.

Linux 6.7 and later have an instance per user namespace; older kernels have one for the whole machine.  A virtual
machine that was made for these tests lends its own to one test after another; the holder then has a mount namespace
only.  The instance of any other machine is never used.
"""

import fcntl
import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from binfmtd.formats.register_line import encode_line
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Match
from binfmtd.model.stand_in import is_stand_in
from support import Closing
from support.waiting import SLOWNESS, wait_until

MOUNT_POINT = "/proc/sys/fs/binfmt_misc"
LENT_LOCK = "/run/binfmtd-test-instance"
CONTROL_FILES = frozenset({"register", "status"})
COMMAND_SECONDS = 60 * SLOWNESS
UNSHARE = ("unshare", "-Um", "--propagation", "private")
UNSHARE_MOUNTS = ("unshare", "-m", "--propagation", "private")
ROOT_ALONE = ("--map-root-user",)
USERS = 65536  # of an ordinary system
HOLDER = f"""
mount -t binfmt_misc binfmt_misc {MOUNT_POINT} || exit 4
echo ready
read -r _
"""
COVER = f"""
mount -t tmpfs tmpfs {MOUNT_POINT} || exit 3
exec "$@" sh -c '{HOLDER}'
"""
# Entries outlive their mounts where the machine has one instance for all.
CLEAN = f"""
mount -t binfmt_misc binfmt_misc {MOUNT_POINT}
mount -o remount,rw {MOUNT_POINT}
echo -1 > {MOUNT_POINT}/status
echo 1 > {MOUNT_POINT}/status
"""


class UnavailableError(Exception):
    """This machine can give a test no instance; the message has the reason."""


class LentOutError(UnavailableError):
    """The one instance that this machine has is in use."""


class NotPrivateError(Exception):
    """The instance is not private: a test must not touch it."""


class Instance(Closing):
    """One private instance, from its mount to ``close``.

    The user who runs the test is root inside, and the only user; with ``everybody``, which takes root, the first
    ``users`` of this machine keep their ids.  Raises UnavailableError if this machine forbids it, and NotPrivateError
    if the instance is not private.

    ``lent`` is true if it is a test machine's own: then there is one at a time, root is the machine's root, and the
    user namespace is the first.
    """

    mount_point = MOUNT_POINT  # as seen from inside

    def __init__(self, *, everybody: bool = False, users: int = USERS) -> None:
        self._commands: list[subprocess.Popen[Any]] = []
        self._lock: int | None = None
        try:
            self._hold(self._private(users if everybody else None))
        except UnavailableError:
            if not made_for_tests():
                raise
            self._lock = _lend()
            try:
                self._hold([*UNSHARE_MOUNTS, "sh", "-c", HOLDER])
            except BaseException:
                os.close(self._lock)
                raise

    @property
    def lent(self) -> bool:
        return self._lock is not None

    def _private(self, users: int | None) -> list[str]:
        maps = ROOT_ALONE if users is None else (f"--map-users=0,0,{users}", f"--map-groups=0,0,{users}")
        unshare = [*UNSHARE, *maps]
        # With --map-users unshare starts a child process, which outlives a failed unshare and keeps our pipes open.
        refused = subprocess.run([*UNSHARE, *ROOT_ALONE, "true"], capture_output=True, text=True, check=False)
        if refused.returncode != 0:
            raise UnavailableError(f"a new user namespace could not be made: {refused.stderr.strip()}")
        return [*unshare, "sh", "-c", COVER, "sh", *unshare]

    def _hold(self, command: list[str]) -> None:
        """Start the holder, and check that its instance is private and empty."""
        pipe = subprocess.PIPE
        self._holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self._holder.stdout is not None
        try:
            if self._holder.stdout.readline() != "ready\n":
                raise UnavailableError(self._refusal())
            self.pid = self._holder.pid
            self.directory = Path(f"/proc/{self.pid}/root{MOUNT_POINT}")
            self._namespace = namespace_of_its_own(self.pid, "mnt" if self.lent else "user")
            refuse_mounted_here(self.directory)
            if names := self.names():
                raise NotPrivateError(f"the new instance is not empty, so another program uses it: {names}")
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

    def close(self) -> None:
        """End what still runs inside, then the holder; the kernel drops the entries with the last mount."""
        for pid in _members(self._namespace) - {self.pid}:
            _kill_member(pid, self._namespace)
        for command in self._commands:
            command.kill()  # nsenter may not have entered yet
            command.wait(COMMAND_SECONDS)
            for stream in (command.stdin, command.stdout, command.stderr):
                if stream is not None:
                    stream.close()
        if self._lock is not None:
            with suppress(OSError):  # it may be unmounted
                self.shell(f"mount -o remount,rw {MOUNT_POINT}")
                self.remove("status")  # by our own write first: some entries let every exec fail
            subprocess.run([*UNSHARE_MOUNTS, "sh", "-euc", CLEAN], check=True)
        self._end_holder()
        if self._lock is not None:
            os.close(self._lock)

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
        """List the entries as the kernel does, newest first, which is the precedence; without stand-ins."""
        return [name for name in self.all_names() if not is_stand_in(name)]

    def all_names(self) -> list[str]:
        """List all entries, with stand-ins."""
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
        """Return the entry's inode number: new with every registration."""
        return os.stat(self.path(name)).st_ino

    def wait_registered_anew(self, name: str, before: int, deadline_seconds: float = 10) -> int:
        """Wait until the entry has another inode number than ``before``; return that number."""

        def found() -> int:
            inode = self.all_inodes().get(name, before)
            return inode if inode != before else 0

        return wait_until(found, deadline_seconds, f"a new registration of {name!r}")

    def inodes(self) -> dict[str, int]:
        """Return name -> inode number, without stand-ins, from one listing: so none vanishes in between."""
        return {name: inode for name, inode in self.all_inodes().items() if not is_stand_in(name)}

    def all_inodes(self) -> dict[str, int]:
        """Return name -> inode number, with stand-ins."""
        with os.scandir(os.fsencode(self.directory)) as listing:
            found = {entry.name.decode("utf-8", "surrogateescape"): entry.inode() for entry in listing}
        return {name: inode for name, inode in found.items() if name not in CONTROL_FILES}

    def write(self, name: str, data: bytes, *, truncate: bool = False) -> None:
        """Write once; with ``truncate`` as a shell's ``>`` does, which raises IN_MODIFY before the write."""
        descriptor = os.open(self.path(name), os.O_WRONLY | (os.O_TRUNC if truncate else 0))
        try:
            written = os.write(descriptor, data)
        finally:
            os.close(descriptor)
        assert written == len(data), f"the kernel took {written} of {len(data)} bytes"

    def register(self, line: bytes) -> None:
        """Register one entry; OSError where the kernel refuses it."""
        self.write("register", line)

    def add(self, name: str, match: Match, interpreter: Path | str, flags: Flags | str = "F") -> None:
        """Register one entry, given by its fields."""
        flags = Flags.parse(flags) if isinstance(flags, str) else flags
        self.register(encode_line(name, Registration(match, str(interpreter), flags)))

    def remove(self, name: str) -> None:
        """Remove one entry, or with ``status`` all."""
        self.write(name, b"-1")

    def entering(self, argv: list[str]) -> list[str]:
        """Return the command that executes ``argv`` inside, as root there; it starts in ``/``."""
        namespaces = ["-m"] if self.lent else ["-U", "--preserve-credentials", "-m"]
        return ["nsenter", *namespaces, "-t", str(self.pid), "--", *argv]

    def run(self, argv: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end; its output is captured as text unless ``options`` say otherwise."""
        defaults: dict[str, Any] = {"capture_output": True, "text": True, "timeout": COMMAND_SECONDS, "check": False}
        return subprocess.run(self.entering(argv), **(defaults | options))  # noqa: PLW1510  it is among the defaults

    def popen(self, argv: list[str], *, privileged: bool = False, **options: Any) -> subprocess.Popen[Any]:
        """Start a command inside; its process id is the command's own, and ``close`` ends it.

        With ``privileged`` it enters the mount namespace only, and so keeps the caller's privileges.
        """
        entering = ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "--", *argv] if privileged else self.entering(argv)
        command = subprocess.Popen(entering, **options)
        self._commands.append(command)
        return command

    def shell(self, script: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a shell script inside."""
        return self.run(["sh", "-euc", script], **options)


def made_for_tests() -> bool:
    """Return True on a virtual machine of tests/kernels: its runner and its kernel's command line have the mark."""
    by_variable = os.environ.get("BINFMTD_TEST_MACHINE") == "1"
    return by_variable and "binfmtd.test-machine" in Path("/proc/cmdline").read_text().split()


def _lend() -> int:
    """Lock the machine's own instance; return the lock, whose closing gives it back.  Raises LentOutError."""
    lock = os.open(LENT_LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise LentOutError("this kernel has one instance for the whole machine, and it is lent out") from None
    return lock


def namespace_of_its_own(pid: int, kind: str = "user") -> str:
    """Return the namespace of a process, of ``kind`` as in /proc/PID/ns; NotPrivateError if it is ours."""
    namespace = _namespace(pid, kind)
    if namespace == _namespace("self", kind):
        raise NotPrivateError(f"process {pid} is in our own {kind} namespace")
    return namespace


def refuse_mounted_here(directory: Path) -> None:
    """Raise NotPrivateError if the binfmt_misc in ``directory`` is mounted anywhere in our own mount namespace."""
    device = os.stat(directory).st_dev
    # The mount table and not the mount point: looking at that would trigger the host's automount.
    for mount in map(str.split, Path("/proc/self/mountinfo").read_text().splitlines()):
        major, _, minor = mount[2].partition(":")
        if mount[mount.index("-") + 1] == "binfmt_misc" and device == os.makedev(int(major), int(minor)):
            raise NotPrivateError(f"{directory} is an instance that is mounted here too, at {mount[4]}")


def _namespace(pid: int | str, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def _members(namespace: str) -> set[int]:
    found = set()
    kind = namespace.partition(":")[0]
    for name in filter(re.compile(r"\d+").fullmatch, os.listdir("/proc")):
        try:
            if _namespace(name, kind) == namespace:
                found.add(int(name))
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return found


def _kill_member(pid: int, namespace: str) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Checked again with the pidfd open: before that another process may have got the number.
        if _namespace(pid, namespace.partition(":")[0]) == namespace:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        pass
    finally:
        os.close(descriptor)
