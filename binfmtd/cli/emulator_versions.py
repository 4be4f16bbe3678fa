"""The versions that ``binfmtd sandbox --emulators`` names, and the config for each of them.

The daemon of a run reads copies of the config's files, and one more in conf.d, which comes last and chooses the
emulator of each architecture::

    include = []
    [emulators.aarch64]
    interpreter = "/var/lib/binfmtd/emulators/9.2.2/qemu-aarch64"

Included rules are left out because they could take the place of these handlers.  A QEMU before 6.0 does not see flag P
and gets handlers without it.  Everything is checked before the first
run: a build is long, and a run without the emulator that was asked for would look like a failure of that emulator.
"""

import argparse
import os
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program
from binfmtd.cli import options
from binfmtd.config.load import Contents, make, read
from binfmtd.errors import FormatError, UsageError
from binfmtd.files.atomic import make_directories, write_atomically
from binfmtd.files.trust import Trust
from binfmtd.formats.register_line import check_interpreter
from binfmtd.formats.toml import quoted
from binfmtd.host.interpreters import file_identity
from binfmtd.model.config import PLACEHOLDER, Config
from binfmtd.model.desired import QEMU_SEES_P_FROM
from binfmtd.model.emulator_version import STORE, SYSTEM, check_version, command_to_add, interpreter_pattern
from binfmtd.model.handler import Flags
from binfmtd.model.match import takes


class Version(NamedTuple):
    """A version to try: its name as it was given, and the contents of its config's files."""

    name: str
    contents: Contents

    def write_config(self, directory: str) -> str:
        """Write the config's files below a directory; return the path of its main file, which is empty."""
        main = os.path.join(directory, "config", "binfmtd.toml")
        make_directories(rest := os.path.join(directory, "config", "conf.d"))
        for number, (_, data) in enumerate((("", b""), *self.contents)):
            # Writable by us alone, whatever the umask is: the daemon refuses any other config.
            write_atomically(os.path.join(rest, f"{number:04}.toml") if number else main, data)
        return main


def find_versions(given: argparse.Namespace) -> list[Version]:
    """Return the versions that ``--emulators`` names.

    Raises UsageError for one that does not exist or lacks an emulator, and ConfigError.
    """
    trust = Trust.of_this_process()
    contents, architectures = read(given.config, trust=trust), options.architectures(given)
    path = given.store or os.environ.get("BINFMTD_STORE")
    store = Store(path or _store_of(make(contents, trust=trust, architectures=architectures)))
    words = [word for word in re.split(r"[\s,]+", given.emulators) if word]
    if not words:
        raise UsageError(f"--emulators is empty: name versions, separated by commas; {store.choice}")
    versions = []
    for word in words:
        pattern = None if word == SYSTEM else _pattern(word, store)
        source = f"--emulators {word}"
        apart = (*contents, (source, overlay(pattern)), (source, _APART))
        config = make(apart, trust=trust, architectures=architectures)
        _check(word, config, store, given.mount)
        flags = {} if pattern is None else _flags_without_p(config)
        versions.append(Version(word, (*contents, (source, overlay(pattern, flags)))))
    return versions


def _store_of(config: Config) -> str:
    return next((spec.store for spec in config.specs if spec.store), STORE)


class Store:
    """The store, as this command sees it: a directory with the names of versions."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    @property
    def names(self) -> list[str]:
        """The names of the versions, sorted; none if the directory cannot be read."""
        found = []
        with suppress(OSError), os.scandir(self.path) as listing:
            for entry in listing:
                with suppress(FormatError):
                    check_version(entry.name)  # not the directories in which versions are being written
                    if entry.is_dir():
                        found.append(entry.name)
        return sorted(found)

    @property
    def choice(self) -> str:
        """Text for a message: what ``--emulators`` may name."""
        there = f"has {', '.join(names)}" if (names := self.names) else "has no versions"
        return f"the store {self.path} {there}; {SYSTEM} and absolute paths with {PLACEHOLDER} can be named as well"


def _pattern(word: str, store: Store) -> str:
    """Return the pattern of paths that a word means, other than SYSTEM.  Raises UsageError."""
    if "/" in word:
        try:
            check_interpreter(word)
        except FormatError:
            raise UsageError(f"--emulators: {word!r} is no absolute path: write one, or a version's name") from None
        if PLACEHOLDER not in word:
            raise UsageError(
                f"--emulators: {word!r} is one file for all architectures: put {PLACEHOLDER} in the place of the "
                f"architecture, like /opt/qemu/bin/qemu-{PLACEHOLDER}"
            )
        return word
    try:
        check_version(word)
    except FormatError as error:
        raise UsageError(f"--emulators: {error}; {store.choice}") from None
    if word not in store.names:
        add = f"to add it, run `{command_to_add(word)}`"
        raise UsageError(f"--emulators: there is no version {word!r}: {store.choice}; {add}")
    return interpreter_pattern(store.path, word)


def overlay(pattern: str | None, flags: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """Return the file of conf.d that gives all architectures these emulators; None: the distribution's.

    ``flags`` are those of the architectures that need others than the config's.
    """
    lines = ["include = []"]
    for name in CATALOG:
        lines.append(f"[emulators.{name}]")
        if pattern is None:
            lines.append(f"version = {quoted(SYSTEM)}")
        else:
            lines.append(f"interpreter = {quoted(pattern.replace(PLACEHOLDER, name))}")
        if name in flags:
            lines.append(f"flags = {quoted(flags[name])}")
    return "".join(f"{line}\n" for line in lines).encode()


# Names of entries that no handler of the config has: so none replaces an architecture's in the config that is checked.
_APART = "".join(f"[emulators.{name}]\nentry = 'apart-{name}'\n" for name in CATALOG).encode()


def _check(word: str, config: Config, store: Store, mount: str | None) -> None:
    """Raise UsageError if the config would have programs run by anything but this version."""
    declared = [spec for spec in config.specs if spec.architecture is not None]
    missing = [spec for spec in declared if not any(map(file_identity, spec.interpreters))]
    there = {spec.architecture for spec in declared if spec not in missing}
    _refuse_others(word, there, config)
    by_name = [spec for spec in missing if not spec.from_all]
    if any(spec.unless_native for spec in by_name):
        from binfmtd.cli.context import observe
        from binfmtd.daemon.interpreters.host_facts import HostFacts

        native = HostFacts(None, writes=False).native(observe(mount))
        by_name = [spec for spec in by_name if not (spec.unless_native and spec.architecture in native)]
    if by_name:
        names = ", ".join(str(spec.architecture) for spec in by_name)
        paths = " or ".join(by_name[0].interpreters)
        raise UsageError(
            f"--emulators: {word} has no emulator for {names} (no executable file: {paths}): leave the architecture "
            f"out with --arch, or name other versions; {store.choice}"
        )
    if len(missing) == len(declared):
        raise UsageError(
            f"--emulators: {word} has no emulator for any architecture that the config or --arch names: name other "
            f"architectures with --arch, or other versions; {store.choice}"
        )


def _flags_without_p(config: Config) -> dict[str, str]:
    """Return the flags that each architecture has without P, if this is a QEMU that does not see P; else nothing.

    Such a QEMU would take argv[0] for the program's first argument.  One emulator counts for all: those of a version
    are built together.
    """
    from binfmtd.host.emulations import version_in

    specs = {spec.architecture: spec for spec in config.specs if spec.architecture and Flags.P in spec.flags}
    path = next((spec.interpreters[0] for spec in specs.values() if file_identity(spec.interpreters[0])), "")
    version = version_in(path)
    if not version or version >= QEMU_SEES_P_FROM:
        return {}
    return {name: (spec.flags & ~Flags.P).letters for name, spec in specs.items()}


def _refuse_others(word: str, there: Collection[str | None], config: Config) -> None:
    """Raise UsageError if a handler that is none of the version's takes programs of these architectures."""
    others = [spec for spec in config.specs if spec.architecture is None and spec.enabled]
    for name, architecture in CATALOG.items() if others else ():
        program = tiny_program(architecture)
        if other := next((spec for spec in others if name in there and takes(spec.match, program)), None):
            raise UsageError(
                f"--emulators: the handler {other.name!r} takes programs of {name}, so {word} would not run them: "
                f"name a config without it with --config ({other.source})"
            )
