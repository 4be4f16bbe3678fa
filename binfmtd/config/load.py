"""Reading the config: whether it can be trusted, whether it holds still, and what it says.

* No config file means "all", unless one was named.  An empty one means "all" too, so a file that is being written must
  not be read half-way: all is looked at, read, and looked at again, until nothing changed in between.  (A reload waits
  until nobody has written for a while: see ``age`` in source.py.)
* Ownership comes before content: what somebody else can write is not even parsed.
* pydantic comes with the first file; without any it is not needed.
"""

from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypeVar

from binfmtd.config import include, merge
from binfmtd.config.build import build
from binfmtd.config.look import DEFAULT_PATH, Look, shown, unreadable
from binfmtd.config.source import look_for
from binfmtd.errors import ConfigError, FormatError
from binfmtd.files.atomic import read_regular
from binfmtd.files.chain import Seen, walk
from binfmtd.files.trust import Trust, way_untrusted
from binfmtd.model.config import Config

if TYPE_CHECKING:
    from binfmtd.config.schema import ConfigFile

PATIENCE = 2.0  # seconds in all for files that keep changing
NAP = 0.01

T = TypeVar("T")
Contents = tuple[tuple[str, bytes], ...]  # the files, in order: path as shown, and what it says


def load(
    path: str | None,
    *,
    trust: Trust,
    default: str = DEFAULT_PATH,
    architectures: Sequence[str] | None = None,
) -> Config:
    """Read ``path``, or ``default`` if that is None, and what lies in conf.d beside it.

    ``architectures`` take the place of the files' own, where they do not run natively.  Raises ConfigError, whose
    message is one line with file, key and remedy.
    """
    return make(read(path, trust=trust, default=default), trust=trust, architectures=architectures)


def read(path: str | None, *, trust: Trust, default: str = DEFAULT_PATH) -> Contents:
    """The first half of ``load``: what the files say, valid or not.  Raises ConfigError."""
    return _read_when_still(lambda: look_for(path, default), lambda look: _read(look, trust))


def make(contents: Contents, *, trust: Trust, architectures: Sequence[str] | None = None) -> Config:
    """The second half of ``load``: the config that the files come to.  Raises ConfigError."""
    merged = merge.merge([(file, _parse(file, data)) for file, data in contents])
    if architectures is not None:
        merged.top["architectures"] = list(architectures)
        merged.origins["architectures",] = merge.Origin("command line", "architectures")
    sources = tuple(file for file, _ in contents)
    config = build(merged, sources, _included(merged.top.get("include", ()), trust))
    return config if architectures is None else _where_they_help(config)


def _read_when_still(look: Callable[[], Look], read: Callable[[Look], T]) -> T:
    """Read, again and again until nothing changed meanwhile; an error counts only if nothing moved."""
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
                "write it beside and rename it over, then load it again"
            )
        sleep(NAP)


def _where_they_help(config: Config) -> Config:
    """A list for many hosts (a CI's, say) names their own architecture, too; in a config it would be meant."""
    declarations = (each._replace(unless_native=each.architecture is not None) for each in config.declarations)
    return config._replace(declarations=tuple(declarations))


class _StillChangesError(ConfigError):
    """Somebody went on writing for as long as we waited."""


def _included(words: Sequence[str], trust: Trust) -> include.Included:
    try:
        return _read_when_still(lambda: include.look_for(words), lambda _: include.read(words, trust))
    except _StillChangesError as error:  # a package manager at work: its files are no reason to have no config
        found = include.read(words, trust)
        return found._replace(warnings=(*found.warnings, str(error)))


def _read(look: Look, trust: Trust) -> Contents:
    seen: Seen = {}
    ways = {path: walk(path, seen) for path in (*look.directories, *look.files)}
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
            raise ConfigError(f"{shown(file)}: not read: {error}") from error
    return tuple(contents)


def _parse(file: str, data: bytes) -> "ConfigFile":
    from binfmtd.config.parse import parse  # and with it pydantic, which takes longer than all the rest

    try:
        return parse(data.decode(), file)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}: line {line} is not UTF-8 (byte {error.start}): save the file as UTF-8") from error
