"""The facts that the checks need, each gathered once.

This module judges nothing and writes nothing.  Facts that take time, like versions, are gathered at first use.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Self

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.known_faults import Emulation, HostConditions
from binfmtd.cli.options import architectures
from binfmtd.cli.state import again, state_dir_to_read
from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.daemon.state_files.state_dir import running_pid
from binfmtd.errors import ConfigError, MountError, StateError, UsageError
from binfmtd.files.trust import Trust
from binfmtd.host.emulations import emulation, host_conditions
from binfmtd.host.interpreters import begins_as_script, file_identity, look_at, required_loader
from binfmtd.host.kernel_module import DEFAULT_DIRECTORY
from binfmtd.host.qemu_versions import is_qemu, versions
from binfmtd.kernel.instance import Instance, Observer
from binfmtd.kernel.mount import Mounted, find
from binfmtd.model.config import Config, HandlerSpec
from binfmtd.model.desired import DesiredState
from binfmtd.model.entry import ObservedState
from binfmtd.model.examine import Sight
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.resolve import resolve
from binfmtd.report.status_json import FILE_NAME, fits, read_status

_NO_CONFIG = "/nonexistent/binfmtd.toml"


class _Look(NamedTuple):
    given: argparse.Namespace
    directory: str  # where binfmt_misc is mounted, or should be
    mounted: Mounted | None
    mount_error: str
    observed: ObservedState | None
    state_dir: str
    pid: int | None  # of the daemon; 0 if the lock file does not contain it
    status: Mapping[str, Any] | None
    status_error: str  # empty if the status was read, or if no file exists
    config_path: str | None
    config: Config | None
    config_error: str
    facts: HostFacts


class Snapshot(_Look):
    """The facts at one moment.  A field is None if the thing is missing or unreadable: see its ``..._error``."""

    @classmethod
    def gather(cls, given: argparse.Namespace) -> Self:
        """Gather the facts.

        Config and architectures are those that ``given`` and the environment name, or else a running daemon's.
        """
        mounted, mount_error, observed = _instance(given.mount)
        directory = mounted.directory if mounted else given.mount or DEFAULT_DIRECTORY
        state_dir = state_dir_to_read(given)
        pid = running_pid(state_dir)
        status, status_error = _status(state_dir)
        if given.config is None and pid is not None and status is not None:
            used = status["config"]
            path = used["path"] if used["files"] else None  # the default need not exist
            named = used.get("architectures")  # an earlier version's status has none
            config, config_error = _config(path, lambda: named if fits(named, [str]) else None)
        else:
            path = given.config
            config, config_error = _config(path, lambda: architectures(given))
        facts = HostFacts(state_dir, writes=False)
        return cls(
            given,
            directory,
            mounted,
            mount_error,
            observed,
            state_dir,
            pid,
            status,
            status_error,
            path,
            config,
            config_error,
            facts,
        )

    def again(self, command: str) -> str:
        """Return a command of binfmtd with this command's own --config, --mount and --state-dir."""
        return again(self.given, command)

    @cached_property
    def declared(self) -> dict[str, HandlerSpec]:
        """The config's handlers, by entry name; empty without a valid config."""
        return {} if self.config is None else {spec.name: spec for spec in self.config.specs}

    @cached_property
    def desired(self) -> DesiredState:
        """The desired state: the config, resolved with the facts of this host."""
        if self.config is None:
            return DesiredState()
        return resolve(self.config, self.facts.gather(self.config, self.observed))

    @cached_property
    def candidates(self) -> dict[str, tuple[str, ...]]:
        """Architecture -> the paths at which the config, or the default if it is invalid, looks for its emulator."""
        from binfmtd.config.load import load

        try:
            config = load(self.config_path, trust=Trust.of_this_process(), architectures=("all",))
        except ConfigError:
            config = load(None, trust=Trust.of_this_process(), default=_NO_CONFIG, architectures=("all",))
        paths = {spec.architecture: spec.interpreters for spec in config.specs}
        return {name: paths.get(name, ()) for name in CATALOG}

    @cached_property
    def emulators(self) -> dict[str, str]:
        """Architecture -> the first of its candidates that is an executable file; without those that have none."""
        there = ((name, next(filter(file_identity, paths), None)) for name, paths in self.candidates.items())
        return {name: path for name, path in there if path is not None}

    @cached_property
    def interpreters(self) -> tuple[str, ...]:
        """The interpreter paths of all entries, each once."""
        entries = () if self.observed is None else self.observed.entries
        return tuple(dict.fromkeys(entry.registration.interpreter for entry in entries if entry.registration))

    @cached_property
    def untrusted(self) -> dict[str, str]:
        """Interpreter path -> how a user other than root and ours could change the file (files/trust.py).

        A relative path counts as untrusted, since it may lead anywhere.
        """
        paths = {*self.interpreters, *self.emulators.values()}
        facts = look_at((path for path in paths if path.startswith("/")), Trust.of_this_process())
        relative = {
            path: f"{path!r} is not an absolute path: the working directory decides which file runs"
            for path in paths
            if not path.startswith("/")
        }
        return relative | {path: known.untrusted for path, known in facts.items() if known.untrusted is not None}

    @cached_property
    def versions(self) -> dict[str, tuple[int, ...] | str]:
        """Path of a QEMU emulator -> the version that ``--version`` prints, or why it printed none.

        Untrusted files are not run.
        """
        paths = {*self.interpreters, *self.emulators.values()} - self.untrusted.keys()
        return versions(path for path in paths if is_qemu(path) and file_identity(path) is not None)

    @cached_property
    def conditions(self) -> HostConditions:
        """The facts about this host on which known faults of emulators depend."""
        return host_conditions()

    def emulation(self, registration: Registration) -> Emulation | None:
        """Return the emulator that an entry uses, with the version that it printed, or else the one in its file."""
        version = self.versions.get(registration.interpreter)
        return emulation(registration.interpreter, registration.flags, version if isinstance(version, tuple) else None)

    @cached_property
    def sights(self) -> dict[str, Sight]:
        """Interpreter path of an entry -> the facts by which ``model/examine.py`` judges it."""
        return {path: self._sight(path) for path in self.interpreters}

    def _sight(self, path: str) -> Sight:
        version = self.versions.get(path, ())
        return Sight(
            file_identity(path) is not None,
            required_loader(path),
            self.untrusted.get(path),
            version if isinstance(version, tuple) else (),
            begins_as_script(path),
        )

    def asks_for(self, flag: Flags) -> frozenset[str]:
        """Return the names of the entries for which the config asks for ``flag``."""
        return frozenset(name for name, spec in self.declared.items() if flag in spec.flags)


def _instance(named: str | None) -> tuple[Mounted | None, str, ObservedState | None]:
    try:
        mounted = find(named)
    except MountError as error:
        return None, str(error), None
    try:
        with Instance(mounted) as instance:
            return mounted, "", Observer().observe(instance)
    except MountError as error:
        return mounted, str(error), None


def _status(state_dir: str) -> tuple[Mapping[str, Any] | None, str]:
    try:
        return read_status(state_dir), ""
    except StateError as error:
        return None, str(error) if os.path.lexists(os.path.join(state_dir, FILE_NAME)) else ""


def _config(path: str | None, wanted: Callable[[], Sequence[str] | None]) -> tuple[Config | None, str]:
    from binfmtd.config.load import load

    try:
        return load(path, trust=Trust.of_this_process(), architectures=wanted()), ""
    except (ConfigError, UsageError) as error:
        return None, str(error)
