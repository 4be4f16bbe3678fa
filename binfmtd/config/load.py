"""Reading the config: which files there are, whether they can be trusted, and whether they hold still.

* The config file, then ``conf.d/*.toml`` beside it, sorted by the bytes of their names; hidden files are not read
  (editors keep locks and swap files there).
* No config file means "all", unless one was named.  An empty one means "all" too, so a file that is being written must
  not be read half-way: all is looked at, read, and looked at again, until nothing changed in between.
* Ownership comes before content: what somebody else can write is not even parsed.
* This module is cheap to import; pydantic comes with the first ``load``.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from errno import ENOENT
from time import monotonic, sleep, time

from binfmtd.errors import ConfigError, FormatError
from binfmtd.files.atomic import read_regular
from binfmtd.files.chain import Seen
from binfmtd.files.trust import Trust, untrusted
from binfmtd.model.config import Config

DEFAULT_PATH = "/etc/binfmtd/binfmtd.toml"
PATIENCE = 2.0  # seconds in all for files that keep changing
NAP = 0.01


def load(
    path: str | None,
    *,
    trust: Trust,
    wait_until_quiet: float = 0.0,
    default: str = DEFAULT_PATH,
    architectures: Sequence[str] | None = None,
) -> Config:
    """Read ``path``, or ``default`` if that is None, and what lies in conf.d beside it.

    ``wait_until_quiet``, in seconds and well below two, is how long nothing must have changed before the files count
    as written; for a reload, which may come while somebody writes.  ``architectures`` take the place of the files' own.
    Raises ConfigError, whose message is one line with
    file, key and remedy.
    """
    contents = _read_when_still(path, default, trust, wait_until_quiet)
    from binfmtd.config import build, merge, schema  # pydantic takes longer than all the rest

    parsed = [(file, schema.parse(_text(file, data), file)) for file, data in contents]
    merged = merge.merge(parsed)
    if architectures is not None:
        merged.top = merged.top.model_copy(update={"architectures": list(architectures)})
    return build.build(merged, tuple(file for file, _ in parsed))


@dataclass(frozen=True, slots=True)
class _Look:
    """What is there now.  ``identities`` differ from another look's if anything changed in between."""

    files: tuple[str, ...]
    directory: tuple[str, ...]  # conf.d, if it is there
    identities: tuple[tuple[int, ...] | None, ...]
    newest: float  # the latest change, in seconds since the epoch


def _read_when_still(path: str | None, default: str, trust: Trust, quiet: float) -> list[tuple[str, bytes]]:
    since = monotonic()
    give_up = since + PATIENCE
    look = _look(path, default)
    while True:
        # By the clock on the wall, or by having watched it ourselves: that clock may have gone backwards.
        still = time() - look.newest >= quiet or monotonic() - since >= quiet
        failure: ConfigError | None = None
        contents: list[tuple[str, bytes]] = []
        if still:
            try:
                contents = _read(look, trust)
            except ConfigError as error:
                failure = error
        again = _look(path, default)
        if again != look:
            look, since = again, monotonic()
        elif still and failure is not None:
            raise failure
        elif still:
            return contents
        if monotonic() >= give_up:
            raise ConfigError(
                f"{_shown(look.files[0] if look.files else default)}: still changes after {PATIENCE:g} s: "
                "write it beside and rename it over, then load it again"
            )
        sleep(NAP)


def _look(path: str | None, default: str) -> _Look:
    main = os.path.abspath(default if path is None else path)
    directory = os.path.join(os.path.dirname(main), "conf.d")
    files = [main] if path is not None or _is_there(main) else []
    parent = () if files else (os.path.dirname(main),)  # an editor may have taken the file away for a moment
    present = (directory,) if _is_there(directory) else ()
    if present:
        try:
            names = os.listdir(directory)
        except OSError as error:
            raise _unreadable(directory, error) from error
        shown = (name for name in names if name.endswith(".toml") and not name.startswith("."))
        files += (os.path.join(directory, name) for name in sorted(shown, key=os.fsencode))
    identities: list[tuple[int, ...] | None] = []
    newest = 0
    for name in (*parent, *present, *files):
        try:
            found = os.stat(name)
        except OSError:
            identities.append(None)  # _read says why
            continue
        identities.append((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
        newest = max(newest, found.st_mtime_ns, found.st_ctime_ns)
    return _Look(tuple(files), present, tuple(identities), newest / 1e9)


def _is_there(path: str) -> bool:
    """Whether there is anything, a dangling link too: that is a mistake, not an absence."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(path, error) from error
    return True


def _read(look: _Look, trust: Trust) -> list[tuple[str, bytes]]:
    seen: Seen = {}
    for path in (*look.directory, *look.files):
        if reason := untrusted(path, trust, seen):
            raise ConfigError(f"{_shown(path)}: cannot be trusted: {reason}")
    contents: list[tuple[str, bytes]] = []
    for file in look.files:
        try:
            contents.append((_shown(file), read_regular(file)))
        except OSError as error:
            raise _unreadable(file, error) from error
        except FormatError as error:
            raise ConfigError(f"{_shown(file)}: not read: {error}") from error
    return contents


def _text(file: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}: line {line} is not UTF-8 (byte {error.start}): save the file as UTF-8") from error


def _unreadable(path: str, error: OSError) -> ConfigError:
    if error.errno == ENOENT:
        remedy = (
            "a link that leads nowhere: mend or remove it" if os.path.islink(path) else "create it, or name another"
        )
    else:
        remedy = "make it readable for whom the daemon runs as, or name another"
    return ConfigError(f"{_shown(path)}: cannot be read: {error.strerror}: {remedy}")


def _shown(path: str) -> str:
    return path if path.isprintable() else repr(path)
