"""The other programs that manage binfmt_misc on this system, found by their files.

Sources: systemd-binfmt.service(8) and systemd.unit(5) for the directories of units and for masking; update-binfmts(8)
of Debian's binfmt-support, which keeps a file for each of its formats in /var/lib/binfmts.
"""

import glob
import os
from contextlib import suppress
from typing import NamedTuple

from binfmtd.errors import FormatError
from binfmtd.files.atomic import read_regular
from binfmtd.files.binfmt_d import DIRECTORIES, conf_files
from binfmtd.formats.binfmt_d import is_generated, parse_conf

UNITS = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
FORMATS = "/var/lib/binfmts"
_SCRIPTS = "/var/lib/dpkg/info"
_KINDS = frozenset({".preinst", ".postinst", ".prerm", ".postrm"})
_PROGRAMS = ("/usr/sbin/update-binfmts", "/sbin/update-binfmts")


class Rules(NamedTuple):
    """The contents of binfmt.d: the files that count, the names that they register, and the errors in them."""

    files: tuple[str, ...]
    names: tuple[str, ...]
    ours: tuple[str, ...]  # files that binfmtd wrote
    problems: tuple[str, ...]
    unreadable: tuple[str, ...]


def unit_file(unit: str) -> str | None:
    """Return the file of a unit, or None if there is none.  The file of a masked unit is a link to /dev/null."""
    return next((path for path in (os.path.join(where, unit) for where in UNITS) if os.path.lexists(path)), None)


def masked(path: str) -> bool:
    """Return True if a unit's file masks it, so that systemd does not start it."""
    return os.path.realpath(path) == os.devnull


def rules() -> Rules:
    """Read systemd's binfmt.d directories as systemd-binfmt does."""
    files, errors = conf_files(DIRECTORIES)
    names: dict[str, None] = {}
    ours, problems, unreadable = [], [], [str(error) for error in errors]
    for path in files:
        try:
            text = read_regular(path)
        except (OSError, FormatError) as error:
            unreadable.append(str(error))
            continue
        if is_generated(text):
            ours.append(path)
        file_rules, wrong = parse_conf(text)
        names |= dict.fromkeys(rule.name for rule in file_rules)
        problems += [f"{path}:{problem.line}: {problem.reason}" for problem in wrong]
    return Rules(tuple(files), tuple(names), tuple(ours), tuple(problems), tuple(unreadable))


def packages_that_register() -> tuple[str, ...]:
    """Return Debian's packages whose scripts call update-binfmts, which registers nothing while binfmt_misc is sealed.

    dpkg keeps the scripts as /var/lib/dpkg/info/PACKAGE.postinst and so on (deb-postinst(5)).
    """
    packages = set()
    for path in glob.glob(f"{_SCRIPTS}/*.p*"):
        name, kind = os.path.splitext(os.path.basename(path))
        if kind in _KINDS:
            with suppress(OSError), open(path, "rb") as file:
                if b"update-binfmts" in file.read():
                    packages.add(name.partition(":")[0])
    return tuple(sorted(packages))


def debian_formats() -> tuple[str, ...] | None:
    """Return the formats of update-binfmts, sorted; None if it is not installed."""
    if not any(map(os.path.exists, _PROGRAMS)) and not os.path.isdir(FORMATS):
        return None
    try:
        return tuple(sorted(os.listdir(FORMATS)))
    except OSError:
        return ()
