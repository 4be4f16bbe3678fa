"""Handlers that come back after a reboot: one generated file in the host's binfmt.d, and emulators where it points to.

* systemd-binfmt registers at boot what binfmt.d says, long before any container runs.  Our one file there is generated,
  says so in its first line, and is replaced as a whole.
* What comes from a container's image would not be there after the boot.  So it is copied to the host, below EMULATORS
  and under its own path, since some emulators go by their name.
* The copies come first and the file after them, so that whenever we are killed no line points at nothing.
* Copying goes in steps of a millisecond or so, between which a daemon can repair.
"""

import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from binfmtd.daemon.reconcile import Look
from binfmtd.errors import FormatError, PersistenceError
from binfmtd.files.atomic import copy_in_steps, read_regular, remove_unfinished, write_atomically
from binfmtd.files.whereabouts import booted_with_systemd, init_lives_elsewhere
from binfmtd.formats.binfmt_d import GENERATED, Rule, is_generated, parse_conf, render_conf
from binfmtd.formats.mountinfo import parse_mountinfo
from binfmtd.kernel.interpreters import leans_on
from binfmtd.kernel.mount import MOUNT_TABLE
from binfmtd.model.config import Config
from binfmtd.model.desired import Fingerprint
from binfmtd.model.handler import Flags, Registration

CONF = "etc/binfmt.d/binfmtd.conf"
EMULATORS = "var/lib/binfmtd/emulators"
HOST = "/host"  # where a container finds the host's directories
_INIT_ROOT = "/proc/1/root"
_SYSTEMD_BINFMT = ("usr/lib/systemd/systemd-binfmt", "lib/systemd/systemd-binfmt")
_BIND = (
    "in a container bind the host's directories in (-v /etc/binfmt.d:/host/etc/binfmt.d "
    "-v /var/lib/binfmtd:/host/var/lib/binfmtd), or run it with --pid=host"
)


def outlasting(config: Config) -> Config:
    """The same, with F for each architecture: without it an entry does not outlive the container it comes from."""
    declarations = (
        replace(declared, flags=declared.flags | Flags.F) if declared.architecture else declared
        for declared in config.declarations
    )
    return replace(config, declarations=tuple(declarations))


@dataclass(frozen=True, slots=True)
class Host:
    """Where the host's root directory is, as we see it.  Raises PersistenceError."""

    root: str

    @classmethod
    def find(cls, named: str | None) -> "Host":
        """``named``, or what is bound in at HOST, or the root of the host's process 1, or our own."""
        if named is not None:
            return cls(os.path.realpath(named))
        if _bound_in(os.path.join(HOST, os.path.dirname(CONF))):
            return cls(HOST)
        if init_lives_elsewhere():
            return cls(_INIT_ROOT)
        if booted_with_systemd():
            return cls("/")
        raise PersistenceError(
            f"nothing here would register handlers after a reboot: {CONF} is for systemd, and this system was not "
            f"booted with it: {_BIND}; on a host without systemd, run the daemon at boot instead"
        )

    @property
    def foreign(self) -> bool:
        """Whether the interpreters that we see are not the host's."""
        return self.root != "/"

    def path(self, below: str) -> str:
        """A path of the host, as we see it."""
        return os.path.join(self.root, below.lstrip("/"))

    def check(self, directory: str) -> None:
        """Refuse a directory that is not the host's, or that a link leads somewhere else."""
        path = self.path(directory)
        if self.root not in ("/", _INIT_ROOT) and not _bound_in(path):
            raise PersistenceError(f"{path} is not the host's, and would end with this container: {_BIND}")
        if self.foreign and (link := self._link(directory)):
            raise PersistenceError(f"{link} is a link, and leads elsewhere here: bind the real directory in there")
        systemd = self.path("usr/lib/systemd")
        if os.path.isdir(systemd) and not any(os.path.exists(self.path(each)) for each in _SYSTEMD_BINFMT):
            raise PersistenceError(
                f"{self.path(_SYSTEMD_BINFMT[0])} is not there, so nothing would read {CONF} at boot: install "
                "systemd-binfmt, or run the daemon at boot instead"
            )

    def _link(self, below: str) -> str | None:
        """A link on the way, which the kernel would follow from our root and not from the host's."""
        path = self.root
        for name in below.split("/"):
            path = os.path.join(path, name)
            if os.path.islink(path):
                return path
        return None


class Persistence:
    """The generated file of one host, kept in step with what is desired; without a host, of nobody."""

    def __init__(self, host: Host | None = None) -> None:
        """Raises PersistenceError where the file could not be written or would not last."""
        self._host = host or Host("/")
        self._off = host is None
        self._steps: Iterator[None] | None = None
        self._lines: list[tuple[str, Registration]] = []
        self._wanted: object = None  # what the steps are for, or were
        self.file = self._host.path(CONF)
        self.problem: str | None = None  # why a reboot would lose the handlers
        self.warnings: list[str] = []  # what may not work after it
        if host is not None:
            host.check(os.path.dirname(CONF))
            self._read()

    @property
    def due_at(self) -> float:
        """When there is something to do (monotonic, in seconds): now, as long as there is anything left."""
        return float("inf") if self._steps is None else 0.0

    def want(self, look: Look, config: Config, *, adding: bool = False) -> None:
        """Say what should come back after a reboot: what is desired, but for what binfmt.d has anyhow.

        ``adding``: and what the file says already.  Raises PersistenceError.
        """
        if self._off:
            return
        included = {declared.name for declared in config.declarations if declared.included}
        skipped = included | look.plan.served_elsewhere.keys()
        lines: list[tuple[str, Registration]] = []
        copies: dict[str, str] = {}
        versions: list[Fingerprint | None] = []
        for handler in look.desired.handlers:
            if not handler.enabled or handler.name in skipped:
                continue
            registration = handler.registration
            path = registration.interpreter
            if self._host.foreign and Flags.F in registration.flags:  # without F the path is meant in other roots
                copies[f"/{EMULATORS}{path}"] = path
                versions.append(look.desired.fingerprints.get(path))
                registration = replace(registration, interpreter=f"/{EMULATORS}{path}")
            lines.append((handler.name, registration))
        if adding:
            named = {name for name, _ in lines}
            earlier, _ = parse_conf(self._read() or b"")
            lines = [(rule.name, rule.registration) for rule in earlier if rule.name not in named] + lines
        if (lines, versions) != self._wanted or self._seen() != _render(lines):
            self._wanted = lines, versions
            self._lines = lines
            self._steps = self._bring(lines, copies)
            self.warnings = [
                f"{source} needs {needed}, which is not copied: on the host it works only if it is there, too"
                for source in copies.values()
                if (needed := leans_on(source)) is not None
            ]

    def step(self) -> bool:
        """Do a bit of the work.  True when it has ended, well or with a ``problem``; then it has to be wanted anew."""
        if self._steps is None:
            return False
        try:
            next(self._steps)
        except StopIteration:
            self.problem = None
        except OSError as error:
            self.problem = f"{error.filename or self.file}: {error.strerror}: make room, or make it writable"
            self._wanted = None
        except PersistenceError as error:
            self.problem = str(error)
            self._wanted = None
        else:
            return False
        self._steps = None
        return True

    def finish(self) -> None:
        """Do all of it.  Raises PersistenceError."""
        while self._steps is not None:
            self.step()
        if self.problem is not None:
            raise PersistenceError(self.problem)

    def in_step(self) -> bool:
        """Whether the file says what is wanted.  Raises PersistenceError."""
        return self._read() == _render(self._lines)

    def take_back(self) -> list[Rule]:
        """Remove the file and the copies; returns what the file said.  Raises PersistenceError."""
        text = self._read()
        rules, _ = parse_conf(text or b"")
        try:
            if text is not None:
                os.unlink(self.file)
            copies = self._host.path(EMULATORS)
            if os.path.isdir(copies):
                shutil.rmtree(copies)
        except OSError as error:
            raise PersistenceError(f"{error.filename or self.file}: {error.strerror}: make it writable") from None
        return list(rules)

    def _seen(self) -> bytes | None:
        try:
            return self._read()
        except PersistenceError:
            return None  # writing it will say why

    def _read(self) -> bytes | None:
        try:
            text = read_regular(self.file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PersistenceError(f"{self.file}: {error.strerror}: make it readable") from None
        except FormatError as error:
            raise PersistenceError(f"{self.file}: {error}") from None
        if not is_generated(text):
            raise PersistenceError(
                f"{self.file} was written by somebody else (it does not begin with {GENERATED.decode()!r}): "
                "move it away, or give it another name"
            )
        return text

    def _bring(self, lines: list[tuple[str, Registration]], copies: dict[str, str]) -> Iterator[None]:
        if copies:
            self._host.check(EMULATORS)
        for copy, source in copies.items():
            yield from copy_in_steps(source, self._host.path(copy))
        text = _render(lines)
        if self._read() != text:
            os.makedirs(os.path.dirname(self.file), exist_ok=True)
            write_atomically(self.file, text, durable=True)
        yield
        _remove_others(self._host.path(EMULATORS), {self._host.path(each.interpreter) for _, each in lines})


def _render(lines: Iterable[tuple[str, Registration]]) -> bytes:
    comments = (
        "It is replaced as a whole: do not edit it.  `binfmtd export --remove` takes it away, and what it points to.",
    )
    return render_conf(lines, comments)


def _remove_others(directory: str, wanted: Collection[str]) -> None:
    """Remove the copies that no line points to any more, and directories that are left empty."""
    for parent, _, names in os.walk(directory, topdown=False):
        remove_unfinished(parent)
        for name in names:
            path = os.path.join(parent, name)
            if path not in wanted:
                with suppress(FileNotFoundError):
                    os.unlink(path)
        with suppress(OSError):  # not empty
            os.rmdir(parent)


def _bound_in(path: str) -> bool:
    """Whether a path is on another mount than our root directory."""
    try:
        with open(MOUNT_TABLE, "rb") as file:
            table = parse_mountinfo(file.read())
    except OSError:
        return False
    return any(line.point != "/" and f"{path}/".startswith(f"{line.point}/") for line in table)
