"""Reading the config: the check of its owners, a consistent read, and the conversion to a Config.

* No config file means "all", unless the caller named one.  An empty file means "all" too, so a file that is being
  written must not be read half-way.  So the versions of all files are noted before and after reading, and the read is
  repeated until they are equal.  (A reload waits until no process has written for a while: see ``age`` in source.py.)
* Ownership is checked before content: a file that another user can write to is not even parsed.
* pydantic is imported with the first file; without any it is not needed, and would double the daemon's memory.
"""

from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypeVar

from binfmtd.config import include, merge
from binfmtd.config.build import build
from binfmtd.config.file_versions import DEFAULT_PATH, FileVersions, shown, unreadable
from binfmtd.config.source import look_for
from binfmtd.errors import ConfigError, FormatError
from binfmtd.files.atomic import read_regular
from binfmtd.files.package import check_version
from binfmtd.files.paths import Seen, resolve
from binfmtd.files.trust import Trust, way_untrusted
from binfmtd.model.config import Config

if TYPE_CHECKING:
    from binfmtd.config.schema import ConfigFile

PATIENCE = 2.0  # seconds in all for files that keep changing
NAP = 0.01

T = TypeVar("T")
Contents = tuple[tuple[str, bytes], ...]  # the files, in order: path as shown, and its bytes


def load(
    path: str | None,
    *,
    trust: Trust,
    default: str = DEFAULT_PATH,
    architectures: Sequence[str] | None = None,
) -> Config:
    """Read ``path``, or ``default`` if that is None, and the files in conf.d beside it.

    ``architectures`` replace those of the files; one that runs natively on this host gets no handler, unless forced.
    Raises ConfigError, whose message is one line with file, key and remedy.
    """
    return make(read(path, trust=trust, default=default), trust=trust, architectures=architectures)


def read(path: str | None, *, trust: Trust, default: str = DEFAULT_PATH) -> Contents:
    """Return the contents of the files, valid or not: the first half of ``load``.  Raises ConfigError."""
    return _read_when_still(lambda: look_for(path, default), lambda look: _read(look, trust))


def make(contents: Contents, *, trust: Trust, architectures: Sequence[str] | None = None) -> Config:
    """Return the config that the contents declare: the second half of ``load``.  Raises ConfigError."""
    merged = merge.merge(_parsed(contents))
    if architectures is not None:
        merged.top["architectures"] = list(architectures)
        merged.origins["architectures",] = merge.Origin("command line", "architectures")
    sources = tuple(file for file, _ in contents)
    config = build(merged, sources, _included(merged.top.get("include", ()), trust))
    return config if architectures is None else _where_they_help(config)._replace(architectures=tuple(architectures))


def _read_when_still(look: Callable[[], FileVersions], read: Callable[[FileVersions], T]) -> T:
    """Repeat ``read`` until nothing changed meanwhile.  An error of it counts only if nothing changed.

    Raises _StillChangesError after PATIENCE seconds.
    """
    give_up = monotonic() + PATIENCE
    before = look()
    while True:
        outcome: T | ConfigError
        try:
            outcome = read(before)
        except ConfigError as error:
            outcome = error
        after = look()
        if after == before:
            if isinstance(outcome, ConfigError):
                raise outcome
            return outcome
        before = after
        if monotonic() >= give_up:
            raise _StillChangesError(
                f"{shown((*before.files, *before.directories, DEFAULT_PATH)[0])}: still changes after {PATIENCE:g} s: "
                "write a temporary file and rename it over this one, then load the config again"
            )
        sleep(NAP)


def _where_they_help(config: Config) -> Config:
    """Have each architecture left out where it runs natively.

    A list for many hosts (a CI's, say) contains their own architecture, too.  In one host's config it would be meant.
    """
    specs = (spec._replace(unless_native=spec.architecture is not None) for spec in config.specs)
    return config._replace(specs=tuple(specs))


class _StillChangesError(ConfigError):
    """Files that still changed after PATIENCE seconds."""


def _included(words: Sequence[str], trust: Trust) -> include.Included:
    try:
        return _read_when_still(lambda: include.look_for(words), lambda _: include.read(words, trust))
    except _StillChangesError as error:  # a package manager writes there, which must not leave us without a config
        included = include.read(words, trust)
        return included._replace(warnings=(*included.warnings, str(error)))


def _read(look: FileVersions, trust: Trust) -> Contents:
    seen: Seen = {}
    ways = {path: resolve(path, seen) for path in (*look.directories, *look.files)}
    for path, way in ways.items():
        if reason := way_untrusted(way, trust):
            raise ConfigError(f"{shown(path)}: cannot be trusted: {reason}")
    contents: list[tuple[str, bytes]] = []
    for file in look.files:
        try:
            contents.append((shown(file), read_regular(file, judged=ways[file].stat)))
        except OSError as error:
            raise unreadable(file, error) from error
        except FormatError as error:
            raise ConfigError(f"{shown(file)}: cannot be read: {error}") from error
    return tuple(contents)


def _parsed(contents: Contents) -> "list[tuple[str, ConfigFile]]":
    parsed = []
    errors: list[ConfigError] = []
    for file, data in contents:
        try:
            parsed.append((file, _parse(file, data)))
        except ConfigError as error:
            errors.append(error)
    if errors:
        first, *later = errors
        first.others += tuple(message for error in later for message in (str(error), *error.others))
        raise first
    return parsed


def _parse(file: str, data: bytes) -> "ConfigFile":
    check_version("binfmtd.config.parse")
    from binfmtd.config.parse import parse  # imports pydantic, which takes longer than all the rest

    try:
        return parse(data.decode("utf-8-sig"), file)  # editors on Windows begin a file with a BOM
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}: line {line} is not UTF-8 (byte {error.start}): save the file as UTF-8") from error
