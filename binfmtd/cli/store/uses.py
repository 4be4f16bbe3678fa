"""Uses of a version: the handlers of the config, and the registered entries, whose interpreter is a file of it."""

import argparse
import os
from collections.abc import Iterable
from typing import NamedTuple

from binfmtd.config.load import load
from binfmtd.errors import ConfigError, MountError
from binfmtd.files.trust import Trust
from binfmtd.kernel.instance import Instance, Observer
from binfmtd.kernel.mount import find
from binfmtd.model.emulator_version import version_of
from binfmtd.model.stand_in import stand_in_name


class Uses(NamedTuple):
    """The names of handlers and entries, by version; ``problem`` is the fault of a config that cannot be read."""

    handlers: dict[str, list[str]]
    entries: dict[str, list[str]]
    problem: str | None = None

    def of(self, version: str) -> str:
        """Return in words what uses the version; empty if nothing does."""
        words = [
            f"{kind}{'' if len(names) == 1 else 's'} {', '.join(names)}"
            for kind, names in (
                ("the handler", self.handlers.get(version, [])),
                ("the entry", self.entries.get(version, [])),
            )
            if names
        ]
        return " and ".join(words).replace("the entrys ", "the entries ")


def find_uses(given: argparse.Namespace, store: str) -> Uses:
    """Find out what uses the versions of a store; ``given`` has --config and --mount.

    If binfmt_misc cannot be read, no entries are known.
    """
    handlers: dict[str, list[str]] = {}
    problem = None
    try:
        specs = load(given.config, trust=Trust.of_this_process()).specs
    except ConfigError as error:
        problem, specs = str(error), ()
    for spec in specs:
        for version in versions_of(spec.interpreters, store):
            handlers.setdefault(version, []).append(spec.name)
    entries: dict[str, list[str]] = {}
    for name, interpreter in _entries(given.mount):
        for version in versions_of((interpreter,), store):
            entries.setdefault(version, []).append(name)
    return Uses(handlers, entries, problem)


def versions_of(paths: Iterable[str], store: str) -> list[str]:
    """Return the versions to which these paths, or the files that they lead to, belong."""
    real = os.path.realpath(store)
    found = {version_of(path, store) for path in paths} | {version_of(os.path.realpath(path), real) for path in paths}
    return sorted(version for version in found if version is not None)


def _entries(mount: str | None) -> list[tuple[str, str]]:
    """Return the name and the interpreter of each entry, without the stand-ins of those that are there."""
    try:
        with Instance(find(mount)) as instance:
            entries = Observer().observe(instance).entries
    except MountError:
        return []
    covered = {stand_in_name(entry.name) for entry in entries}
    return sorted(
        (entry.name, entry.registration.interpreter)
        for entry in entries
        if entry.registration is not None and entry.name not in covered
    )
