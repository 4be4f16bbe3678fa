"""A JSON document in the state directory that is valid until the next boot.

Entries and their inode numbers do not outlive a boot, so a document of another boot is ignored.  A file that cannot be
read or written is a ``problem`` to report, and never a reason to stop repairing.

A command writes a document when it changes.  The daemon must not wait for a disk: there ``deferred`` files only take
note of the new content, and a thread writes them (``state_writer``).
"""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from binfmtd.errors import FormatError
from binfmtd.files.atomic import read_state, write_state
from binfmtd.files.cure import cure

T = TypeVar("T")


class BootFile:
    """One file; without a state directory nothing is read or kept."""

    def __init__(self, state_dir: str | None, name: str, schema: int, boot_id: str) -> None:
        """``schema`` is the version of the content."""
        self.deferred = False  # ``put`` does not write: a thread calls ``sync``
        self.problem: str | None = None  # why the file could not be read or written
        self._path = None if state_dir is None else os.path.join(state_dir, name)
        self._stamp = {"schema": schema, "boot_id": boot_id}
        self._wanted: tuple[Callable[[], Mapping[str, Any]], str] | None = None
        self._written: object = None  # what was wanted when the file was written last

    def read(self, parse: Callable[[Any], T], loss: str) -> T | None:
        """What ``parse`` makes of this boot's content, or None; ``loss`` says what it means if it is damaged."""
        if self._path is None:
            return None
        try:
            content = json.loads(read_state(self._path))
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

    def put(self, content: Callable[[], Mapping[str, Any]], loss: str) -> None:
        """Have the file contain what ``content`` returns, from now on; ``loss`` says what a failure means.

        ``content`` may be called in another thread, so it must work on values that do not change.
        """
        self._wanted = content, loss
        if not self.deferred:
            self.sync()

    def put_again(self) -> None:
        """Have it contain the same as before: it is written only if another program has removed it."""
        if not self.deferred:
            self.sync()

    def sync(self) -> bool:
        """Write the file if its content has changed, or if another program has removed it; False if that failed."""
        wanted = self._wanted
        if self._path is None or wanted is None or (wanted is self._written and os.path.lexists(self._path)):
            return True
        content, loss = wanted
        text = json.dumps({**self._stamp, **content()}, indent=1).encode("ascii")
        try:
            write_state(self._path, text)
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror}: {loss}; {cure(error)}"
            return False
        self._written, self.problem = wanted, None
        return True

    def write(self, content: Mapping[str, Any], loss: str) -> bool:
        """Replace the file now; False if that failed."""
        self._wanted, self._written = (lambda: content, loss), None
        return self.sync()
