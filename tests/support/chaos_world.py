"""The system under the chaos test: an instance, the daemon in it, and interpreters.

The instance is mounted a second time, for the test only.  So a mount that covers the first one, or makes it read-only,
hinders only the daemon.
"""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from binfmtd.model.stand_in import is_stand_in
from support.chaos_model import Entry, Handler, Interpreter, Kind, Policy, Seen
from support.daemon import Daemon
from support.exec_loop import TESTS, execute
from support.instance import MOUNT_POINT, Instance
from support.programs import exits_with, install
from support.waiting import wait_until

SIDE = "/mnt/side"
MOUNT = f"mount -t binfmt_misc binfmt_misc {MOUNT_POINT} && mount -t binfmt_misc side {SIDE}"


class World:
    """One instance and one daemon, from their start to ``close``.

    ``names`` are the handlers' interpreters, which a test may change, ``others`` those of foreign entries.
    """

    def __init__(self, directory: Path, names: tuple[str, ...], others: tuple[str, ...]) -> None:
        self._directory = directory
        self._instance = Instance()
        self._instance.shell(f"mount -t tmpfs t /mnt && mkdir {SIDE} && mount -t binfmt_misc side {SIDE}", check=True)
        self._instance.directory = Path(f"/proc/{self._instance.pid}/root{SIDE}")
        self.daemon: Daemon | None = None
        self.generation = 0
        self._config = config_text({}, Policy())
        self._stopped = self._covered = self._read_only = False
        self._statuses = 0  # of the programs so far
        (directory / "bin").mkdir(mode=0o755)
        self.interpreters: dict[str, Interpreter] = {}
        for name in (*names, *others):
            path = directory / "bin" / name
            if name.startswith("link"):
                (directory / "bin" / "to").mkdir(mode=0o755)
                path.symlink_to("to/current")
            self.upgrade(str(path), by_rename=True)
        self._programs = directory / "programs"
        self._programs.mkdir()
        self._executor = self._instance.popen(
            [sys.executable, "-c", "from support.chaos_world import execute_all; execute_all()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(TESTS)},
        )

    def close(self) -> None:
        if self.daemon is not None:
            self.daemon.close()
        self._instance.close()

    def path(self, name: str) -> str:
        """Return the path of an interpreter."""
        return str(self._directory / "bin" / name)

    # The daemon

    def log(self) -> str:
        return "" if self.daemon is None else self.daemon.log_text()

    def configure(self, handlers: Mapping[str, Handler], policy: Policy) -> None:
        self._config = config_text(handlers, policy)
        if self.daemon is not None:
            self.daemon.config.write_text(self._config)

    def start(self) -> None:
        """Start the daemon unless it runs, and wait until it is ready."""
        if self.daemon is not None:
            return
        self.daemon = Daemon(self._instance, self._directory / "daemon", self._config, ("--mount", MOUNT_POINT))
        self.daemon.wait_ready(60)
        self.generation = 1

    def kill(self) -> None:
        if self.daemon is not None:
            self.daemon.close()
            texts = [line for line in self.daemon.logs() if line["event"] is None]
            assert not texts, f"a traceback: {texts}"
        self.daemon, self._stopped = None, False

    def terminate(self) -> None:
        """End the daemon by SIGTERM, and assert that it exits with 0."""
        assert self.daemon is not None
        assert self.daemon.terminate(60) == 0, self.daemon.log_text()
        self.kill()

    def pause(self) -> None:
        if self.daemon is not None:
            self.daemon.process.send_signal(signal.SIGSTOP)
            self._stopped = True

    def reload(self) -> None:
        if self.daemon is not None:
            self.daemon.reload()
            self.generation += 1

    def reload_refused(self, text: str) -> None:
        """Reload an invalid config, and write the valid one back, or no daemon could start."""
        assert self.daemon is not None
        known = len(self.daemon.logs("config_rejected"))
        self.daemon.config.write_text(text)
        self.daemon.reload()
        daemon = self.daemon
        wait_until(lambda: len(daemon.logs("config_rejected")) > known, 60, "config_rejected")
        self.daemon.config.write_text(self._config)

    # The instance

    def put(self, name: str, handler: Handler) -> Entry | None:
        """Register as another program; None if the kernel refuses, or the daemon has replaced the entry already."""
        try:
            self._instance.register(line(name, handler))
            entry = Entry.parse(self._instance.inode(name), self._instance.read(name))
        except OSError:
            return None
        return entry if entry.does(handler) else None  # the daemon may have put its own there already

    def write(self, name: str, data: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._instance.write(name, data)

    def cover(self) -> None:
        if not self._covered:
            self._shell(f"mount -t tmpfs cover {MOUNT_POINT}")
            self._covered = True

    def make_read_only(self) -> None:
        if not self._read_only and not self._covered:
            # The kernel refuses it with EBUSY while a file is open for writing, as in a write of the daemon's.  So a
            # daemon that was stopped in the middle of one has to go on meanwhile.
            remount = f"mount -o remount,bind,ro {MOUNT_POINT}"
            if self._stopped and self.daemon is not None:
                self.daemon.process.send_signal(signal.SIGCONT)
            wait_until(lambda: self._instance.shell(remount).returncode == 0, what=remount)
            if self._stopped:
                self.pause()
            self._read_only = True

    def clear(self) -> None:
        """Undo ``cover``, ``make_read_only`` and ``pause``."""
        if self._stopped and self.daemon is not None:
            self.daemon.process.send_signal(signal.SIGCONT)
        if self._covered:
            self._unmount()
        if self._read_only:
            self._shell(f"mount -o remount,bind,rw {MOUNT_POINT}")
        self._stopped = self._covered = self._read_only = False

    def another_instance(self, *, noticed: bool) -> None:
        """Unmount the instance, which drops all entries, and mount another: at once, or once the status shows it."""
        self.clear()
        self._unmount()
        self._shell(f"umount {SIDE}")
        if noticed and self.daemon is not None:
            self.daemon.wait_status(lambda status: status["mount"] is None, "no mount", 60)
        self._shell(MOUNT)

    def _unmount(self) -> None:
        umount = f"umount {MOUNT_POINT}"  # busy while the daemon has it open
        wait_until(lambda: self._instance.shell(umount).returncode == 0, 60, umount)

    def _shell(self, script: str) -> None:
        self._instance.shell(script, check=True)

    # Interpreters

    def upgrade(self, path: str, *, by_rename: bool) -> None:
        """Put another program at the path, as dpkg or alternatives do, or with a moment in between without a file."""
        self._statuses = self._statuses % 250 + 1
        content = exits_with(self._statuses)
        self.interpreters[path] = Interpreter(self._statuses)
        if os.path.islink(path):
            directory = Path(path).parent / "to"
            target = install(directory / f"version-{self._statuses}", content)
            (directory / "new").symlink_to(target.name)
            os.rename(directory / "new", directory / "current")
        elif by_rename:
            install(Path(path), content)
        else:
            Path(path).unlink(missing_ok=True)
            Path(path).write_bytes(content)
            Path(path).chmod(0o755)

    def mend(self, path: str) -> None:
        """Restore the interpreter's mode; a missing one comes back as another program."""
        if os.path.exists(path):
            Path(path).chmod(0o755)
            self.interpreters[path] = Interpreter(self.interpreters[path].status)
        else:
            self.upgrade(path, by_rename=True)

    def spoil(self, path: str, how: str) -> None:
        """Remove the interpreter or its x bits, or make it writable by all users."""
        if how == "unlink":
            os.unlink(os.path.realpath(path))
        else:
            Path(path).chmod(0o644 if how == "chmod" else 0o757)
        state = "untrusted" if how == "untrusted" else "absent"
        error = {"unlink": os.strerror(errno.ENOENT), "chmod": os.strerror(errno.EACCES)}.get(how, "")
        self.interpreters[path] = Interpreter(self.interpreters[path].status, state, error)

    # Observation

    def look(self) -> Seen | None:
        """Return a snapshot, or None while a reload is under way."""
        assert self.daemon is not None
        assert self.daemon.process.poll() is None, "the daemon has ended"
        if self.daemon.status()["config"]["generation"] != self.generation:
            return None
        return Seen(
            self.entries(),
            self._instance.read("status") == "enabled\n",
            self.daemon.status(),
            self._document("ledger.json").get("entries", {}),
            {_name(record["line"]): record for record in self._document("foreign.json").get("entries", [])},
            {path: _fingerprint(path) for path in self.interpreters},
            self._entries(filter(is_stand_in, self._instance.all_names())),
            self.listed(),
        )

    def entries(self) -> dict[str, Entry]:
        """Return the proper entries, newest first; those that vanish meanwhile are left out."""
        return self._entries(self._instance.names())

    def listed(self) -> tuple[str, ...]:
        """Return the names of all entries and stand-ins, newest first."""
        return tuple(self._instance.all_names())

    def _entries(self, names: Iterable[str]) -> dict[str, Entry]:
        found = {}
        for name in names:
            try:
                found[name] = Entry.parse(self._instance.inode(name), self._instance.read(name))
            except FileNotFoundError:
                continue
        return found

    def execute(self, programs: Mapping[str, bytes]) -> list[int | str]:
        """Return the exit status of each program, or the text of its error."""
        for name, content in programs.items():
            if not (self._programs / name).exists():
                install(self._programs / name, content)
        process = self._executor
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([str(self._programs / name) for name in programs]) + "\n")
        process.stdin.flush()
        found: list[int | str] = json.loads(process.stdout.readline())
        return found

    def _document(self, name: str) -> dict[str, Any]:
        assert self.daemon is not None
        path = self.daemon.state_directory / name
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found


def execute_all() -> None:
    """Run the process that executes: it reads a list of programs per line, and prints a list of their outcomes."""
    for request in sys.stdin:
        sys.stdout.write(json.dumps([execute(program) for program in json.loads(request)]) + "\n")
        sys.stdout.flush()


def line(name: str, handler: Handler) -> bytes:
    """Return the line to write to ``register``."""
    kind = handler.kind
    fields = ["", name, "M", str(kind.offset), _escaped(kind.magic), _escaped(kind.mask)]
    if kind.extension:
        fields[2:] = ["E", "", kind.extension, ""]
    return "|".join([*fields, handler.interpreter, handler.flags]).encode("utf-8", "surrogateescape")


def _name(text: str) -> str:
    """Return the name in a registration line, whose first character is the delimiter."""
    return text.split(text[0])[1]


def config_text(handlers: Mapping[str, Handler], policy: Policy) -> str:
    lines = ["architectures = []"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in vars(policy).items()]
    for name, each in handlers.items():
        lines.append(f"[handlers.{json.dumps(name, ensure_ascii=False)}]")
        lines += [f"{key} = {value}" for key, value in _kind_keys(each.kind).items()]
        lines.append(f'interpreter = "{each.interpreter}"\nflags = "{each.flags}"\npriority = {each.priority}')
        lines.append(f"enabled = {json.dumps(each.enabled)}")
    return "\n".join(lines) + "\n"


def _kind_keys(kind: Kind) -> dict[str, str]:
    if kind.extension:
        return {"extension": f'"{kind.extension}"'}
    keys = {"magic": f"'{_escaped(kind.magic)}'", "offset": str(kind.offset)}
    return keys | ({"mask": f"'{_escaped(kind.mask)}'"} if kind.mask else {})


def _escaped(text: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text)


def _fingerprint(path: str) -> list[int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
