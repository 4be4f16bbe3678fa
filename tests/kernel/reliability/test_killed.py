"""After a kill at any point of a repair or a reload the next start converges and leaves nothing behind."""

import json
import os
import random
import select
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from support import Times
from support.daemon import Daemon, StartDaemon
from support.instance import MOUNT_POINT, Instance
from support.programs import FOREIGN, exits_with, foreign_program, install
from support.waiting import DirectoryWatch, deadline_in

from binfmtd.catalog.architectures import CATALOG
from binfmtd.daemon.mount_search import WRITTEN
from binfmtd.kernel.mount import created_at
from binfmtd.model.stand_in import is_stand_in, stand_in_name

SEED = 5
LONGEST_SECONDS = 0.2  # by then all is repaired or reloaded, and the kill meets an idle daemon
MOST_EVENTS = 30
ARCHITECTURES = ("alpha", "sh4", "mips", "ppc64le", "hppa", "sparc64")
EXECUTED = FOREIGN
RESTORED = "WSLInterop"
LINES = {
    RESTORED: b":WSLInterop:M::MZ::/init:P",
    "py thon\\": b":py thon\\:E::pyc::/usr/bin/python3:",
    "above": b":above:M::\\x7fELF\\x02\\x01\\x01\\x00\\xff::/usr/bin/false:",
}


class World:
    """The config, the foreign entries beside it, and random changes to both."""

    def __init__(self, instance: Instance, directory: Path, seed: int) -> None:
        self.instance = instance
        self.random = random.Random(seed)  # noqa: S311  the same kills in each run
        self.interpreter = directory / "interpreter"
        self.version = 0
        self.program = foreign_program(directory / "program", CATALOG[EXECUTED])
        self.upgrade()
        self.foreign: dict[str, tuple[int | None, str]] = {}
        self.put_foreign()
        self.change()

    def put_foreign(self) -> None:
        for name, line in LINES.items():
            if name not in self.instance.names():
                self.instance.register(line)
            self.foreign[name] = (self.instance.inode(name), self.instance.read(name))

    def change(self) -> str:
        """Declare other handlers at random, and return the config."""
        self.declared = {EXECUTED, *self.random.sample(ARCHITECTURES, 3)}
        flags = self.random.choice(["F", "FP", "OF"])
        config = f'architectures = {json.dumps(sorted(self.declared))}\nsettle = "5ms"\n'
        config += f'[emulators]\npaths = ["{self.interpreter}"]\nflags = "{flags}"\n'
        self.ranked = self.random.random() < 0.5
        if self.ranked:  # two for the same files
            for name, magic, priority in (("high", "onetwo", 1), ("low", "one", 0)):
                config += f"[handlers.{name}]\nmagic = '\\x00{magic}'\npriority = {priority}\nflags = \"F\"\n"
                config += f'interpreter = "{self.interpreter}"\n'
        self.config = config
        return config

    def names(self) -> set[str]:
        """Return the names of all declared entries."""
        return {f"qemu-{name}" for name in self.declared} | ({"high", "low"} if self.ranked else set())

    def upgrade(self) -> None:
        self.version = self.version % 100 + 1
        install(self.interpreter, exits_with(self.version))

    def disturb(self, daemon: Daemon) -> None:
        """Make some of the changes to which a daemon reacts."""
        if self.random.random() < 0.3:  # first: a replaced entry that is no longer declared stays
            daemon.config.write_text(self.change())
            daemon.reload()
        for _ in range(self.random.randrange(1, 4)):
            with suppress(FileNotFoundError, FileExistsError):  # the daemon may still be repairing the previous one
                self._disturb()

    def _disturb(self) -> None:
        names = sorted(self.names())
        match self.random.randrange(5):
            case 0:
                self.instance.remove(self.random.choice(names))
            case 1:
                for name in names:
                    self.instance.remove(name)
            case 2:  # a flush removes foreign entries as well, for good, unless the config restores them
                self.instance.remove("status")
                self.foreign = {RESTORED: (None, self.foreign[RESTORED][1])}
            case 3:
                name = self.random.choice(names)
                self.instance.remove(name)
                self.instance.register(b":%s:M::changed::/usr/bin/false:" % name.encode())
            case 4:
                self.upgrade()

    def check(self, daemon: Daemon) -> None:
        """Assert that exactly the desired state stands at READY=1."""
        declared = self.names()
        names = self.instance.names()
        ranked = {stand_in_name(name) for name in ("high", "low")}  # these share files: temporary stand-ins
        stand_ins = {name for name in self.instance.all_names() if is_stand_in(name)}
        assert stand_ins == {stand_in_name(name) for name in declared} - ranked
        assert set(names) == declared | self.foreign.keys()
        assert not self.ranked or names.index("high") < names.index("low")
        for name, (inode, text) in self.foreign.items():
            assert self.instance.read(name) == text
            assert inode in (None, self.instance.inode(name)), f"{name} was registered again"
        ledger = json.loads((daemon.state_directory / "ledger.json").read_text())
        recorded = {name: record["inode"] for name, record in ledger["entries"].items()}
        assert recorded == {name: self.instance.inode(name) for name in declared | stand_ins}
        assert self.instance.run([str(self.program)], errors="replace").returncode == self.version


def wait_for_events(watch: DirectoryWatch, number: int) -> None:
    """Wait until so many events have come, or no more are to be expected."""
    deadline = deadline_in(LONGEST_SECONDS)
    while number > 0 and (remaining := deadline - time.monotonic()) > 0:
        select.select([watch], [], [], remaining)
        number -= len(watch.pending())


def test_killed_at_any_point(instance: Instance, start_daemon: StartDaemon, times: Times, tmp_path: Path) -> None:
    """After a kill at any point (1,000 times) the next daemon converges, and no foreign entry has changed.

    No surplus stand-in is left, and the ledger is complete.
    """
    (tmp_path / "files").mkdir(mode=0o755)
    world = World(instance, tmp_path / "files", SEED)
    for _ in range(times(1000)):
        daemon = start_daemon(world.config)
        world.check(daemon)
        world.put_foreign()
        moment = world.random.randrange(MOST_EVENTS)
        with DirectoryWatch(instance.directory) as watch:
            world.disturb(daemon)
            wait_for_events(watch, moment)
            daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
        daemon.close()
    world.check(start_daemon(world.config))


def is_of_this_instance(instance: Instance, ledger: Path) -> bool:
    """Return True if the ledger is that of the instance which is mounted now."""
    created = created_at(str(instance.directory), os.stat(instance.directory).st_dev)
    return bool(json.loads(ledger.read_text())["instance"] == created)


@pytest.mark.usefixtures("private_instances")  # on a host the daemon mounts it itself
def test_killed_in_another_instance(instance: Instance, start_daemon: StartDaemon, times: Times) -> None:
    """After a kill in a new instance (500 times) the next daemon recognises all entries as its own.

    This includes entries that were registered a moment before the kill.  The ledger is written before them, but a disk
    that hangs delays them by WRITTEN seconds at most; then the next daemon cannot recognise them.
    """
    config = f'architectures = {json.dumps(ARCHITECTURES)}\n[emulators]\npaths = ["/bin/true"]\n'
    moments = random.Random(SEED)  # noqa: S311  the same kills in each run
    for _ in range(times(500)):
        daemon = start_daemon(config)
        with ExitStack() as stack:
            with daemon.stopped():
                instance.shell(f"umount -l {MOUNT_POINT}; mount -t binfmt_misc binfmt_misc {MOUNT_POINT}", check=True)
                watch = stack.enter_context(DirectoryWatch(instance.directory))
                began = time.monotonic()
            wait_for_events(watch, moments.randrange(MOST_EVENTS))
            daemon.kill()
        took = time.monotonic() - began
        daemon.close()
        registered = instance.all_names()
        if registered and not is_of_this_instance(instance, daemon.state_directory / "ledger.json"):
            assert took >= WRITTEN, f"registered before the ledger was written: {registered}"
            instance.remove("status")
        again = start_daemon("architectures = []\n")
        assert (instance.all_names(), again.status()["foreign"]) == ([], []), f"of {registered}"
        again.terminate()
        again.close()
