"""Which files make up the config, when they last changed, and what to watch to learn that they do.

* The config file, then ``conf.d/*.toml`` beside it, sorted by the bytes of their names; hidden files are not read
  (editors keep locks and swap files there).
* Where there is no config file, the directory that would hold it counts: an editor may have taken the file away for a
  moment.
"""

import os
from dataclasses import dataclass
from errno import ENOENT
from time import time

from binfmtd.errors import ConfigError
from binfmtd.files.chain import ANY_NAME, walk

DEFAULT_PATH = "/etc/binfmtd/binfmtd.toml"


@dataclass(frozen=True, slots=True)
class Look:
    """What is there now.  ``identities`` differ from another look's if anything changed in between."""

    files: tuple[str, ...]
    directory: tuple[str, ...]  # conf.d, if it is there
    identities: tuple[tuple[int, ...] | None, ...]
    newest: float  # the latest change, in seconds since the epoch


def look_for(path: str | None, default: str = DEFAULT_PATH) -> Look:
    """Find the files of the config at ``path``, or at ``default`` if that is None.  Raises ConfigError."""
    main = os.path.abspath(default if path is None else path)
    directory = os.path.join(os.path.dirname(main), "conf.d")
    files = [main] if path is not None or _is_there(main) else []
    parent = () if files else (os.path.dirname(main),)  # an editor may have taken the file away for a moment
    present = (directory,) if _is_there(directory) else ()
    if present:
        try:
            names = os.listdir(directory)
        except OSError as error:
            raise unreadable(directory, error) from error
        shown = (name for name in names if name.endswith(".toml") and not name.startswith("."))
        files += (os.path.join(directory, name) for name in sorted(shown, key=os.fsencode))
    identities: list[tuple[int, ...] | None] = []
    newest = 0
    for name in (*parent, *present, *files):
        try:
            found = os.stat(name)
        except OSError:
            identities.append(None)  # whoever reads it says why
            continue
        identities.append((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
        newest = max(newest, found.st_mtime_ns, found.st_ctime_ns)
    return Look(tuple(files), present, tuple(identities), newest / 1e9)


def _is_there(path: str) -> bool:
    """Whether there is anything, a dangling link too: that is a mistake, not an absence."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unreadable(path, error) from error
    return True


def age(path: str | None) -> float:
    """Seconds since somebody last changed any of it, by the clock on the wall; 0 if that cannot be told."""
    try:
        return time() - look_for(path).newest
    except ConfigError:
        return 0.0


def watched(path: str | None) -> dict[str, set[str]]:
    """Directory -> names to watch: each link on the way to a file, its conf.d, and whatever comes into that.

    A ConfigMap's update is the switch of the link ``..data``, which is on the way.
    """
    main = os.path.abspath(path or DEFAULT_PATH)
    directory = os.path.join(os.path.dirname(main), "conf.d")
    try:
        files = look_for(path).files
    except ConfigError:
        files = ()
    found: dict[str, set[str]] = {}
    for name in {main, directory, *files}:
        for parent, child in walk(name).watched:
            found.setdefault(parent, set()).add(child)
    if os.path.isdir(directory):
        found.setdefault(os.path.realpath(directory), set()).add(ANY_NAME)
    return found


def unreadable(path: str, error: OSError) -> ConfigError:
    """The error for a file that cannot be read."""
    if error.errno == ENOENT:
        remedy = (
            "a link that leads nowhere: mend or remove it" if os.path.islink(path) else "create it, or name another"
        )
    else:
        remedy = "make it readable for whom the daemon runs as, or name another"
    return ConfigError(f"{shown(path)}: cannot be read: {error.strerror}: {remedy}")


def shown(path: str) -> str:
    """A path as it may stand in a message."""
    return path if path.isprintable() else repr(path)
