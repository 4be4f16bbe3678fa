"""The search for binfmt.d files, as systemd-binfmt does it.

Source: binfmt.d(5); src/basic/conf-files.c; tried with systemd 257.

* The files ``*.conf`` of all directories are read in one sequence, in the order of the bytes of their names.  Hidden
  files are not read.
* Of two with the same name only the one in the earlier directory counts, whatever it is: also a dangling link, or a
  directory.
* A link to /dev/null, or an empty file, masks its name: it has no rules, and files of that name in later directories do
  not count.
"""

import os
import stat
from collections.abc import Iterable

DIRECTORIES = ("/etc/binfmt.d", "/run/binfmt.d", "/usr/local/lib/binfmt.d", "/usr/lib/binfmt.d")
"""systemd's own, the highest precedence first."""

_DEV_NULL = os.makedev(1, 3)


def conf_files(directories: Iterable[str]) -> tuple[tuple[str, ...], tuple[OSError, ...]]:
    """Return the files to read, in order, and the errors of directories that exist and cannot be listed."""
    by_name: dict[str, str] = {}
    errors: list[OSError] = []
    for directory in directories:
        try:
            names = os.listdir(directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            errors.append(error)
            continue
        for name in names:
            if name.endswith(".conf") and not name.startswith("."):
                by_name.setdefault(name, os.path.join(directory, name))
    in_order = (by_name[name] for name in sorted(by_name, key=os.fsencode))
    return tuple(path for path in in_order if not masks(path)), tuple(errors)


def masks(path: str) -> bool:
    """Return True if this file has no rules and only masks the files of its name in later directories."""
    try:
        status = os.stat(path)
    except OSError:
        return False  # reading the file reports the reason
    if stat.S_ISCHR(status.st_mode):
        return status.st_rdev == _DEV_NULL
    return stat.S_ISREG(status.st_mode) and status.st_size == 0
