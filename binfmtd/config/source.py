"""The files of the config, the time of their last change, and the paths to watch for the next one.

* The config is the config file, then ``conf.d/*.toml`` beside it, sorted by the bytes of their names.  Hidden files are
  not read (editors keep locks and swap files there).
* If the config file is missing, changes of the nearest directory on the way to it count.  An editor may have removed
  the file for a moment, or an administrator may be exchanging a directory by rename.
"""

import os
from collections.abc import Iterable
from time import time

from binfmtd.config import include
from binfmtd.config.file_versions import DEFAULT_PATH, FileVersions, look_at, unreadable
from binfmtd.config.tables import tables
from binfmtd.errors import ConfigError, FormatError
from binfmtd.files.atomic import read_regular
from binfmtd.files.paths import ANY_NAME, Seen, resolve


def look_for(path: str | None, default: str = DEFAULT_PATH) -> FileVersions:
    """Find the files of the config at ``path``, or at ``default`` if that is None.  Raises ConfigError."""
    main = os.path.abspath(default if path is None else path)
    directory = os.path.join(os.path.dirname(main), "conf.d")
    files = [main] if path is not None or _is_there(main) else []
    parent = () if files else (_nearest(main),)  # the file may be missing for a moment
    present = (directory,) if _is_there(directory) else ()
    if present:
        try:
            names = os.listdir(directory)
        except OSError as error:
            raise unreadable(directory, error) from error
        shown = (name for name in names if name.endswith(".toml") and not name.startswith("."))
        files += (os.path.join(directory, name) for name in sorted(shown, key=os.fsencode))
    return look_at(files, present, parent)


def _is_there(path: str) -> bool:
    """Return True if the path exists, also as a dangling link, which is a mistake and not an absence."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unreadable(path, error) from error
    return True


def _nearest(path: str, seen: Seen | None = None) -> str:
    """Return the last existing directory on the way to a path that does not exist."""
    return resolve(path, seen).steps[-1].directory


def age(path: str | None) -> float:
    """Return the seconds since the config or an included file last changed, by the wall clock; 0 if unknown.

    For a missing path, as between the two steps of an exchange by rename, the nearest directory counts.
    """
    try:
        look = look_for(path)
    except ConfigError:
        return 0.0
    also = include.look_for(included(look.files))
    seen: Seen = {}
    names = (*look.files, *also.directories, *also.files)
    nearest = {_nearest(name, seen) for name in names if not os.path.exists(name)}
    return time() - max(look.newest, also.newest, look_at((), nearest).newest)


def watched(path: str | None) -> dict[str, set[str]]:
    """Return directory -> names to watch for changes of the config.

    These are each link and directory on the way to a file, conf.d, and every name in conf.d and in the included
    directories.  An update of a ConfigMap switches the link ``..data``, which is on the way.
    """
    main = os.path.abspath(path or DEFAULT_PATH)
    try:
        files = look_for(path).files
    except ConfigError:
        files = ()
    also = include.look_for(included(files))
    directories = (os.path.join(os.path.dirname(main), "conf.d"), *also.directories)
    names_by_directory: dict[str, set[str]] = {}
    seen: Seen = {}
    for name in {main, *directories, *files, *also.files}:
        for parent, child in resolve(name, seen).watched:
            names_by_directory.setdefault(parent, set()).add(child)
    for directory in directories:
        if os.path.isdir(directory):
            names_by_directory.setdefault(os.path.realpath(directory), set()).add(ANY_NAME)
    return names_by_directory


def included(files: Iterable[str]) -> tuple[str, ...]:
    """Return the valid words of ``include`` in these files at this moment, even if the files are no valid config.

    The daemon watches included files, too, while the config is invalid.
    """
    words: list[object] = []
    for file in files:
        try:
            value = tables(read_regular(file).decode("utf-8-sig")).get("include")
        except (OSError, FormatError, ValueError, RecursionError):
            continue
        words = value if isinstance(value, list) else words
    return tuple(word for word in words if isinstance(word, str) and include.is_word(word))
