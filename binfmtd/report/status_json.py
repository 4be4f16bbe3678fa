"""The status as a file, status.json in the state directory: one JSON document.

It is replaced after each pass that changed something, and once more at the end.  It is fresh only while the daemon's
lock is held: ask for that first, then read.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from binfmtd.errors import FormatError, StateError
from binfmtd.files.atomic import read_state, write_state

FILE_NAME = "status.json"
SCHEMA = 1
KEYS = frozenset(
    {
        "state",
        "mount",
        "config",
        "handlers",
        "contended",
        "paused",
        "probed",
        "foreign",
        "foreign_count",
        "passes",
        "repairs",
        "last_pass",
        "history",
    }
)


def write_status(state_dir: str, document: Mapping[str, Any]) -> None:
    """Replace the status file.  Raises OSError."""
    text = json.dumps({"schema": SCHEMA, **document}, indent=1)
    write_state(os.path.join(state_dir, FILE_NAME), text.encode("ascii"))


def status_written(state_dir: str) -> bool:
    """Whether the file is there: somebody may have removed it."""
    return os.path.lexists(os.path.join(state_dir, FILE_NAME))


def forget_status(state_dir: str) -> None:
    """Remove what the last daemon said; for the next one, before it has something to say.

    Its lock makes a status fresh, and it would do so for one of before it began.
    """
    with suppress(OSError):  # it is written anew in a moment, or that fails and is said
        os.unlink(os.path.join(state_dir, FILE_NAME))


def read_status(state_dir: str) -> dict[str, Any]:
    """Read the status file; raises StateError where there is none or it cannot be understood."""
    path = os.path.join(state_dir, FILE_NAME)
    try:
        content = json.loads(read_state(path))
    except FileNotFoundError:
        raise StateError(
            f"{path} is not there: no daemon has run with this state directory, or one is just starting; start "
            "`binfmtd run`, or name its directory with --state-dir"
        ) from None
    except PermissionError as error:
        raise StateError(f"{path}: {error.strerror}: run this as the daemon's user or as root") from None
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}: name the daemon's state directory with --state-dir") from None
    except FormatError as error:
        raise StateError(f"{error}, or name the daemon's state directory with --state-dir") from None
    except (ValueError, RecursionError):
        raise StateError(f"{path} is damaged: the daemon writes it anew with its next pass") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not content.keys() >= KEYS:
        raise StateError(f"{path} was written by another version of binfmtd: restart the daemon")
    return content
