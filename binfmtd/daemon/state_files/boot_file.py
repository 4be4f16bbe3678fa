"""A JSON document in the state directory that is valid until the next boot.

Entries and their inode numbers do not outlive a boot, so a document of another boot is ignored.  If a file cannot be
read or written, ``problem`` is the reason to report, and repairs go on.

A command writes a document when it changes.  The daemon must not wait for a disk: a ``deferred`` file only keeps the
new content, and a thread writes it (``state_writer``).
"""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from binfmtd.errors import DAMAGE, FormatError, damage
from binfmtd.files.atomic import read_state, write_state
from binfmtd.files.cure import cure

T = TypeVar("T")


class BootFile:
    """One file.  Without a state directory nothing is read or written."""

    def __init__(self, state_dir: str | None, name: str, schema: int, boot_id: str) -> None:
        """``schema`` is the version of the content; a file of another version is a ``problem``."""
        self.deferred = False  # True: ``put`` does not write, and a thread calls ``sync``
        self.problem: str | None = None  # why the file could not be read or written
        self._path = None if state_dir is None else os.path.join(state_dir, name)
        self._stamp = {"schema": schema, "boot_id": boot_id}
        self._wanted: tuple[Callable[[], Mapping[str, Any]], str] | None = None
        self._written: object = None  # the value of ``_wanted`` that the file contains

    def read(self, parse: Callable[[Any], T], loss: str) -> T | None:
        """Return what ``parse`` makes of this boot's content; None if there is none, or on an error.

        ``loss`` is the consequence of an error, for ``problem``.
        """
        if self._path is None:
            return None
        try:
            content = json.loads(read_state(self._path))
            if content["schema"] != self._stamp["schema"]:
                raise FormatError(
                    f"the file has schema {content['schema']!r}, and this version reads {self._stamp['schema']}"
                )
            return parse(content) if content["boot_id"] == self._stamp["boot_id"] else None
        except FileNotFoundError:
            return None
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror}: {loss}"
        except DAMAGE as error:
            self.problem = f"{self._path}: {damage(error)}: {loss}"
        return None

    def put(self, content: Callable[[], Mapping[str, Any]], loss: str) -> None:
        """Have the file contain what ``content`` returns; ``loss`` is the consequence of a failure, for ``problem``.

        A thread may call ``content``, so it must work on values that do not change.
        """
        self._wanted = content, loss
        if not self.deferred:
            self.sync()

    def put_again(self) -> None:
        """Write the same content once more if another program has removed the file, or the last write failed."""
        if not self.deferred:
            self.sync()

    def sync(self) -> bool:
        """Write the file if its content is new, or another program has removed it; return False if that fails."""
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
        """Replace the file now; return False if that fails."""
        self._wanted, self._written = (lambda: content, loss), None
        return self.sync()
