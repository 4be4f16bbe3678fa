"""The versions of the config's files at one moment, and the error for a file that cannot be read."""

import os
from collections.abc import Iterable
from errno import EACCES, EIO, ELOOP, ENOENT, EPERM
from typing import NamedTuple

from binfmtd.errors import PASSING, Again, ConfigError
from binfmtd.files.cure import cure

DEFAULT_PATH = "/etc/binfmtd/binfmtd.toml"


class FileVersions(NamedTuple):
    """The files at one moment.  ``identities`` differ from another look's if anything changed in between."""

    files: tuple[str, ...]
    directories: tuple[str, ...]  # those that the files were found in
    identities: tuple[tuple[int, ...] | None, ...]
    newest: float  # the latest change, in seconds since the epoch


def look_at(files: Iterable[str], directories: Iterable[str] = (), others: Iterable[str] = ()) -> FileVersions:
    """Look at all of these; ``others`` count only for ``identities`` and ``newest``."""
    files, directories = tuple(files), tuple(directories)
    identities: list[tuple[int, ...] | None] = []
    newest = 0
    for name in (*others, *directories, *files):
        try:
            status = os.stat(name)
        except OSError:
            identities.append(None)  # reading the file reports the reason
            continue
        identities.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        newest = max(newest, status.st_mtime_ns, status.st_ctime_ns)
    return FileVersions(files, directories, tuple(identities), newest / 1e9)


def unreadable(path: str, error: OSError) -> ConfigError:
    """Return the error for a file that cannot be read, with the remedy for its errno.

    Its ``again`` is LATER if the system lacks something at the moment, or its disk fails.
    """
    if error.errno == ENOENT:
        remedy = (
            "the link leads to no existing file: correct or remove it"
            if os.path.islink(path)
            else "create it, or name another"
        )
    elif error.errno == ELOOP:
        remedy = "the link leads back to itself: correct or remove it"
    elif error.errno in (EACCES, EPERM):
        remedy = "make it readable for the daemon's user, or name another"
    else:
        remedy = f"{cure(error)}, or name another"
    refusal = ConfigError(f"{shown(path)}: cannot be read: {error.strerror}: {remedy}")
    if error.errno in PASSING or error.errno == EIO:
        refusal.again = Again.LATER
    return refusal


def shown(path: str) -> str:
    """Return a path for a message: quoted and escaped if it contains unprintable characters."""
    return path if path.isprintable() else repr(path)
