"""The status as a file, status.json in the state directory: one JSON document.

It is replaced after each pass that changed something, and once more at the end.  It is fresh only while the daemon
holds its lock: check the lock first, then read.

``read_status`` checks the document against ``SHAPE``, so that its readers can rely on each key and each type.  A
document that does not fit is damaged.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from binfmtd.errors import FormatError, StateError
from binfmtd.files.atomic import read_state, write_state

FILE_NAME = "status.json"
_BEFORE = "status.before.json"  # the last daemon's, from the start of the next one until its history is taken over
SCHEMA = 1

_TEXT_OR_NONE = (str, None)
_HAPPENED = {
    "first_at": str,
    "at": str,
    "event": str,
    "times": int,
    "drift": _TEXT_OR_NONE,
    "reason": str,
    "detail": _TEXT_OR_NONE,
    "served_ms": (float, None),
    "took_ms": (float, None),
}
SHAPE: Mapping[
    str, Any
] = {  # a type; a tuple: one of these; a list: any number of this; a mapping: at least these keys
    "state": str,
    "problem": _TEXT_OR_NONE,
    "lacking": _TEXT_OR_NONE,
    "mount": ({"directory": str, "read_only": bool, "host_unmounted": bool}, None),
    "seal": {"state": str, "reason": str},
    "config": {"path": str, "files": [str], "generation": int, "loaded_at": str, "error": _TEXT_OR_NONE},
    "handlers": [
        {
            "name": str,
            "architecture": _TEXT_OR_NONE,
            "state": str,
            "reason": str,
            "interpreter": str,
            "candidates": [str],
            "flags": str,
            "priority": int,
            "repairs": int,
        }
    ],
    "contended": [str],
    "paused": [{"name": str, "until": _TEXT_OR_NONE}],
    "probed": {"at": _TEXT_OR_NONE, "error": _TEXT_OR_NONE, "architectures": [{}]},
    "foreign": [{"name": str, "enabled": bool}],
    "foreign_count": {"enabled": int, "disabled": int},
    "log_lines_dropped": int,
    "passes": int,
    "repairs": int,
    "last_pass": ({"id": str, "at": str, "trigger": str, "actions": int}, None),
    "history": [({**_HAPPENED, "entry": str}, {**_HAPPENED, "entries": [str], "count": int})],
}


def render_json(document: Mapping[str, Any]) -> bytes:
    """Return the document as JSON, which begins with the version of its structure."""
    return json.dumps({"schema": SCHEMA, **document}, indent=1).encode("ascii")


def write_status(state_dir: str, document: Mapping[str, Any]) -> None:
    """Replace the status file.  Raises OSError."""
    write_state(os.path.join(state_dir, FILE_NAME), render_json(document))


def remove_status(state_dir: str) -> None:
    """Remove the status file, which is out of date and cannot be replaced."""
    with suppress(OSError):
        os.unlink(os.path.join(state_dir, FILE_NAME))


def status_written(state_dir: str) -> bool:
    """Return True if the file exists: another process may have removed it."""
    return os.path.lexists(os.path.join(state_dir, FILE_NAME))


def set_aside(state_dir: str) -> None:
    """Rename the status of the last daemon, before the next one takes the lock.

    A status counts as fresh while the lock is held, so the next daemon's lock would make the last one's status fresh.
    """
    with suppress(OSError):  # there is none, or the directory is not writable, which the first status reports
        os.rename(os.path.join(state_dir, FILE_NAME), os.path.join(state_dir, _BEFORE))


def take_history(state_dir: str) -> list[Any]:
    """Return the history of the last daemon, whose status was set aside, and remove that status.

    It is empty if that status cannot be read.
    """
    try:
        rows = read_status(state_dir, _BEFORE)["history"]
    except StateError:
        rows = []
    with suppress(OSError):
        os.unlink(os.path.join(state_dir, _BEFORE))
    return rows if isinstance(rows, list) else []


def read_status(state_dir: str, name: str = FILE_NAME) -> dict[str, Any]:
    """Read the status file.  Raises StateError if there is none, or if it cannot be read or does not fit ``SHAPE``."""
    path = os.path.join(state_dir, name)
    try:
        content = json.loads(read_state(path))
    except FileNotFoundError:
        raise StateError(
            f"{path} does not exist: no daemon has run with this state directory, or a daemon is starting; start "
            "`binfmtd run`, or name the daemon's state directory with --state-dir"
        ) from None
    except PermissionError as error:
        raise StateError(f"{path}: {error.strerror}: run this as the daemon's user or as root") from None
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}: name the daemon's state directory with --state-dir") from None
    except FormatError as error:
        raise StateError(f"{error}, or name the daemon's state directory with --state-dir") from None
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and (content.get("schema") != SCHEMA or not content.keys() >= SHAPE.keys()):
        raise StateError(f"{path} was written by another version of binfmtd: restart the daemon")
    if not isinstance(content, dict) or not fits(content, SHAPE):
        raise StateError(f"{path} is damaged: reload the daemon, which writes it again")
    return content


def fits(value: object, shape: Any) -> bool:
    """Return True if a value of JSON has this shape; the comment at ``SHAPE`` describes how one is written."""
    if shape is None:
        return value is None
    if isinstance(shape, type):
        return type(value) is shape
    if isinstance(shape, tuple):
        return any(fits(value, alternative) for alternative in shape)
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
    return isinstance(value, dict) and all(
        key in value and fits(value[key], value_shape) for key, value_shape in shape.items()
    )
