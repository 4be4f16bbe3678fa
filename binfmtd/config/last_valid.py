"""The last valid config: a copy of its files in the state directory, for a start while the files are invalid.

A running daemon keeps its config when a reload is refused; a daemon that starts has none to keep.  The copy is one JSON
file, so that it is replaced as a whole.  It is judged like any config: if another user could write to it, it is not
used.
"""

import json
import os

from binfmtd.config.file_versions import shown, unreadable
from binfmtd.config.load import Contents
from binfmtd.errors import DAMAGE, ConfigError, FormatError, damage
from binfmtd.files.atomic import read_regular, write_atomically
from binfmtd.files.cure import cure
from binfmtd.files.paths import resolve
from binfmtd.files.trust import Trust, way_untrusted

FILE_NAME = "last-valid.json"
_SCHEMA = 1
_LIMIT = 16 << 20  # bytes: the files of a config may have a mebibyte each


def keep_last_valid(state_dir: str, contents: Contents) -> str | None:
    """Replace the copy; return the reason with its remedy if that failed, else None."""
    path = os.path.join(state_dir, FILE_NAME)
    files = [[file, data.decode()] for file, data in contents]
    try:
        write_atomically(path, json.dumps({"schema": _SCHEMA, "files": files}).encode("ascii"), 0o600)
    except OSError as error:
        unsaved = "this config was not saved, so the daemon cannot start with it while the files are invalid"
        return f"{path}: {error.strerror}: {unsaved}: {cure(error)}"
    return None


def read_last_valid(state_dir: str, trust: Trust) -> Contents:
    """Return the files as they were when they were valid.  Raises ConfigError if there is no usable copy."""
    path = os.path.join(state_dir, FILE_NAME)
    way = resolve(path)
    if reason := way_untrusted(way, trust):
        raise ConfigError(f"{shown(path)}: cannot be trusted: {reason}")
    try:
        content = json.loads(read_regular(path, _LIMIT, judged=way.stat))
        if content["schema"] != _SCHEMA:
            raise FormatError(f"schema {content['schema']!r} is not {_SCHEMA}")
        return tuple((str(file), str(text).encode()) for file, text in content["files"])
    except FileNotFoundError:
        raise ConfigError(f"{shown(path)} does not exist") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except DAMAGE as error:
        raise ConfigError(f"{shown(path)}: is damaged: {damage(error)}") from None
