"""A JSON document in the state directory that is worth something until the next boot.

Entries and their numbers do not outlive a boot, so what was written in another one is as good as not there.  A file
that cannot be read or written is a ``problem`` to tell, and never a reason to stop repairing.
"""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from binfmtd.errors import FormatError
from binfmtd.files.atomic import read_regular, write_atomically

T = TypeVar("T")


class BootFile:
    """One file; without a state directory nothing is read or kept."""

    def __init__(self, state_dir: str | None, name: str, schema: int, boot_id: str) -> None:
        """``schema`` is the version of the content."""
        self._path = None if state_dir is None else os.path.join(state_dir, name)
        self._stamp = {"schema": schema, "boot_id": boot_id}
        self.problem: str | None = None  # why the file could not be read or written

    def read(self, parse: Callable[[Any], T], loss: str) -> T | None:
        """What ``parse`` makes of this boot's content, or None; ``loss`` says what it means if it is damaged."""
        if self._path is None:
            return None
        try:
            content = json.loads(read_regular(self._path))
            if content["schema"] != self._stamp["schema"]:
                raise FormatError(f"schema {content['schema']!r} is not {self._stamp['schema']}")
            return parse(content) if content["boot_id"] == self._stamp["boot_id"] else None
        except FileNotFoundError:
            return None
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror}: {loss}"
        except (FormatError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            self.problem = f"{self._path}: {error}: {loss}"
        return None

    def there(self) -> bool:
        """Whether the file is where it was put: somebody may have removed it."""
        return self._path is None or os.path.lexists(self._path)

    def write(self, content: Mapping[str, Any], loss: str) -> bool:
        """Replace the file; False if that failed, and ``loss`` says what that means."""
        if self._path is None:
            return True
        try:
            write_atomically(self._path, json.dumps({**self._stamp, **content}, indent=1).encode("ascii"))
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror}: {loss}"
            return False
        self.problem = None
        return True
