"""Handlers that come back after a reboot: one generated file in the host's binfmt.d, and emulators where it points to.

* systemd-binfmt registers at boot what binfmt.d says, long before any container runs.  Our one file there is generated,
  says so in its first line, and is replaced as a whole.
* What comes from a container's image would not be there after the boot.  So it is copied to the host, below EMULATORS
  and under its own path, since some emulators go by their name.
* The copies come first and the file after them, so that whenever we are killed no line points at nothing.  Who is at
  work on it holds a lock beside the file: containers share nothing else.
* A daemon does all of it in a thread, so that its repairs need not wait.
"""

import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

from binfmtd.daemon.look import Look
from binfmtd.errors import FormatError, PersistenceError
from binfmtd.files.atomic import copy_in_steps, make_directories, read_regular, remove_unfinished, write_atomically
from binfmtd.files.cure import cure
from binfmtd.files.host_root import HostRoot
from binfmtd.files.lock import AGAIN, FileLock
from binfmtd.formats.binfmt_d import GENERATED, is_generated, parse_conf, render_conf
from binfmtd.kernel.interpreters import leans_on
from binfmtd.model.config import Config
from binfmtd.model.desired import Fingerprint
from binfmtd.model.handler import Flags, Registration

DIRECTORY = "etc/binfmt.d"
CONF = f"{DIRECTORY}/binfmtd.conf"
LOCK = f"{DIRECTORY}/.binfmtd.lock"  # there while somebody is at work
EMULATORS = "var/lib/binfmtd/emulators"
BINDS = (
    "in a container bind the host's directories in (-v /etc/binfmt.d:/host/etc/binfmt.d "
    "-v /var/lib/binfmtd:/host/var/lib/binfmtd), or run it with --pid=host"
)
_SYSTEMD_BINFMT = ("usr/lib/systemd/systemd-binfmt", "lib/systemd/systemd-binfmt")
_PATIENCE = 30.0  # seconds that whoever takes back waits for it
_AGAIN_AFTER_FAILURE = 60.0  # seconds until what failed is tried again, unless a reload comes first


def outlasting(config: Config) -> Config:
    """The same, with F for each architecture: without it an entry does not outlive the container it comes from."""
    declarations = (
        declared._replace(flags=declared.flags | Flags.F) if declared.architecture else declared
        for declared in config.declarations
    )
    return config._replace(declarations=tuple(declarations))


def find_host(named: str | None, *, to_take_back: bool = False) -> HostRoot:
    """The host whose binfmt.d is meant; ``to_take_back``: also one without systemd.  Raises PersistenceError."""
    return HostRoot.find(named, DIRECTORY, BINDS, booted=not to_take_back)


class Persistence:
    """The generated file of one host, kept in step with what is desired; without a host, of nobody."""

    def __init__(self, host: HostRoot | None = None) -> None:
        """Raises PersistenceError where the file could not be written, would not last, or is not ours."""
        self._host = host or HostRoot("/")
        self._off = host is None
        self._steps: Iterator[bool] | None = None
        self._not_before = 0.0
        self._lines: dict[str, Registration] = {}
        self._adding = False
        self._wanted: object = None  # what the steps are for, or were
        self._failed: object = None  # what they could not do, and may try again then
        self._retry_at = 0.0
        self.file = self._host.below(CONF)
        self.problem: str | None = None  # why a reboot would lose the handlers
        self.left_out: dict[str, str] = {}  # handlers that the file cannot have, and why
        self.warnings: list[str] = []  # what may not work after a reboot
        if host is not None:
            host.check(DIRECTORY)
            self.rules()

    def check_reader(self) -> None:
        """Raise PersistenceError if the host surely has nothing that reads the file at boot."""
        if (
            not self._off
            and os.path.isdir(self._host.below("usr/lib/systemd"))
            and not any(os.path.exists(self._host.below(each)) for each in _SYSTEMD_BINFMT)
        ):
            raise PersistenceError(
                f"{self._host.below(_SYSTEMD_BINFMT[0])} is not there, so nothing would read {CONF} at boot: install "
                "systemd-binfmt, or run the daemon at boot instead"
            )

    @property
    def off(self) -> bool:
        """Tell if nothing is to come back after a reboot."""
        return self._off

    def want(self, look: Look, config: Config, failed: Collection[str] = (), *, adding: bool = False) -> None:
        """Say what should come back after a reboot: what is desired, but for what the kernel refused (``failed``).

        ``adding``: and what the file says already.  What the host's binfmt.d has anyhow it need not have twice.
        """
        if self._off:
            return
        included = {each.name for each in config.declarations if each.included and not self._host.foreign}
        skipped = included.union(failed, look.plan.served_elsewhere)
        lines: dict[str, Registration] = {}
        copies: dict[str, str] = {}
        versions: list[Fingerprint | None] = []
        self.left_out = {}
        for handler in look.desired.handlers:
            if not handler.enabled or handler.name in skipped:
                continue
            registration = handler.registration
            copied = self._host.foreign and Flags.F in registration.flags  # without F the path is meant in other roots
            if copied:
                registration = registration._replace(interpreter=_copy_of(registration.interpreter))
            try:
                render_conf([(handler.name, registration)])
            except FormatError as error:
                self.left_out[handler.name] = f"not for {self.file}: {error}"
                continue
            lines[handler.name] = registration
            if copied:
                copies[registration.interpreter] = handler.registration.interpreter
                versions.append(look.desired.fingerprints.get(handler.registration.interpreter))
        if (lines, versions) == self._failed and time.monotonic() < self._retry_at:
            return
        if (lines, versions) == self._wanted and (self._steps is not None or self._in_step_or_unreadable()):
            return
        self._wanted = lines, versions
        self._lines, self._adding = lines, adding
        self._steps, self._not_before = self._bring(copies), 0.0
        self.warnings = [
            f"{source} needs {needed}, which is not copied: on the host it works only if it is there, too"
            for source in copies.values()
            if (needed := leans_on(source)) is not None
        ]
        if look.plan.served_elsewhere:
            served = ", ".join(f"{name} to {by}" for name, by in sorted(look.plan.served_elsewhere.items()))
            self.warnings.append(f"left to entries of others, which may or may not come back: {served}")

    def step(self) -> bool:
        """Do a bit of the work.  True when it has ended, well or with a ``problem``; then it has to be wanted anew."""
        if self._steps is None or time.monotonic() < self._not_before:
            return False
        try:
            self._not_before = 0.0 if next(self._steps) else time.monotonic() + AGAIN
        except StopIteration:
            self.problem = None
        except OSError as error:
            self._fail(f"{error.filename or self.file}: {error.strerror}: {cure(error)}")
        except PersistenceError as error:
            self._fail(str(error))
        else:
            return False
        self._steps = None
        return True

    def _fail(self, problem: str) -> None:
        """Say why, and do not copy hundreds of megabytes again with each pass."""
        self.problem = problem
        self._failed, self._wanted = self._wanted, None
        self._retry_at = time.monotonic() + _AGAIN_AFTER_FAILURE

    def retry(self) -> None:
        """Somebody may have mended what failed."""
        self._failed = None

    def finish(self) -> None:
        """Do all of it.  Raises PersistenceError."""
        while self._steps is not None:
            time.sleep(max(0.0, self._not_before - time.monotonic()))
            self.step()
        if self.problem is not None:
            raise PersistenceError(self.problem)

    def bring(self, look: Look, config: Config, failed: Collection[str]) -> bool:
        """Do all of it for a daemon, in a thread; False if there was nothing to do.  A failure is a ``problem``."""
        self.want(look, config, failed)
        if self._steps is None:
            return False
        with suppress(PersistenceError):
            self.finish()
        return True

    def in_step(self) -> bool:
        """Whether the file says what is wanted.  Raises PersistenceError."""
        there = self.rules()
        if self._adding:
            return self._lines.items() <= there.items()
        return list(self._lines.items()) == list(there.items())

    def _in_step_or_unreadable(self) -> bool:
        try:
            return self.in_step()
        except PersistenceError:
            return False  # writing it will say why

    def rules(self) -> dict[str, Registration]:
        """What the file says now.  Raises PersistenceError if it cannot be read or is not ours."""
        try:
            text = read_regular(self.file)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise PersistenceError(f"{self.file}: {error.strerror}: {cure(error)}") from None
        except FormatError as error:
            raise PersistenceError(f"{self.file}: {error}") from None
        if not is_generated(text):
            raise PersistenceError(
                f"{self.file} was written by somebody else (it does not begin with {GENERATED.decode()!r}): "
                "move it away, or give it another name"
            )
        return {rule.name: rule.registration for rule in parse_conf(text)[0]}

    def take_back(self) -> bool:
        """Remove the file and then the copies; whether there was anything.  Raises PersistenceError."""
        if not any(map(os.path.lexists, (self.file, self._host.below(EMULATORS)))):
            return False
        there = False
        lock = FileLock(self._host.below(LOCK))
        try:
            if not lock.wait(_PATIENCE):
                raise PersistenceError(f"somebody else is at work on {self.file}: try again when that has ended")
            try:
                self.rules()  # it must still be ours
                with suppress(FileNotFoundError):
                    os.unlink(self.file)
                    there = True
                with suppress(FileNotFoundError):
                    shutil.rmtree(self._host.below(EMULATORS))
                    there = True
            finally:
                lock.give_back()
        except OSError as error:
            raise PersistenceError(f"{error.filename or self.file}: {error.strerror}: {cure(error)}") from None
        return there

    def _bring(self, copies: Mapping[str, str]) -> Iterator[bool]:
        """The steps, each of some milliseconds; False where somebody else has to be waited for."""
        make_directories(self._host.below(DIRECTORY))
        lock = FileLock(self._host.below(LOCK))
        while not lock.take():
            yield False
        try:
            emulators = self._host.below(EMULATORS)
            _clean(emulators)
            if copies:
                self._host.check(EMULATORS)
            for copy, source in copies.items():
                for _ in copy_in_steps(source, self._host.below(copy)):
                    yield True
            there = self.rules()
            lines = there | self._lines if self._adding else self._lines
            if not lines:
                with suppress(FileNotFoundError):
                    os.unlink(self.file)
            elif list(lines.items()) != list(there.items()):
                write_atomically(self.file, render_conf(lines.items(), _COMMENTS), durable=True)
            yield True
            _clean(emulators, {self._host.below(each.interpreter) for each in lines.values()})
        finally:
            lock.give_back()


_COMMENTS = (
    "It is replaced as a whole: do not edit it.  `binfmtd export --remove` takes it away, and what it points to.",
)


def _copy_of(interpreter: str) -> str:
    """Where the host has a copy: below EMULATORS, whatever the path says."""
    return f"/{EMULATORS}{os.path.normpath('/' + interpreter.lstrip('/'))}"


def is_copy_of(path: str, interpreter: str) -> bool:
    """Whether a path of the generated file means this interpreter, or a copy of it."""
    return path in (interpreter, _copy_of(interpreter))


def _clean(directory: str, wanted: Collection[str] | None = None) -> None:
    """Remove what a killed copying left and, given what is ``wanted``, other copies and directories left empty."""
    for parent, _, names in os.walk(directory, topdown=False):
        remove_unfinished(parent)
        if wanted is None:
            continue
        for name in names:
            path = os.path.join(parent, name)
            if path not in wanted:
                with suppress(FileNotFoundError):
                    os.unlink(path)
        with suppress(OSError):  # not empty
            os.rmdir(parent)
