"""``include``: binfmt.d files as declared state, so that a host's own rules are kept without being rewritten.

* ``"binfmt.d"`` means systemd's four directories, with its precedence and masking; an absolute path is one directory.
* Nothing in these files makes the config invalid, because they belong to other programs.  A file or line that cannot be
  read, trusted or parsed is a warning with its place, and all else counts.
* A directory that other users could write to is left out before a file in it can hide or mask other files.
* A file that binfmtd generated is left out.  It derives from a config, and would declare what that has dropped since.
"""

import os
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from binfmtd.catalog.names import did_you_mean
from binfmtd.config.file_versions import FileVersions, look_at, shown, unreadable
from binfmtd.errors import FormatError
from binfmtd.files.atomic import read_regular
from binfmtd.files.binfmt_d import DIRECTORIES, conf_files
from binfmtd.files.paths import Seen, resolve
from binfmtd.files.trust import Trust, untrusted, way_untrusted
from binfmtd.formats.binfmt_d import Rule, is_generated, parse_conf

SYSTEMD = "binfmt.d"
_LISTED = 10  # bad lines of a file that are reported; a mebibyte can have half a million


class Included(NamedTuple):
    """The rules in the order in which they count, each with its file; and the warnings about the rest."""

    rules: tuple[tuple[str, Rule], ...] = ()
    warnings: tuple[str, ...] = ()


NOTHING = Included()


def is_word(word: str) -> bool:
    """Return True if ``include`` may contain this word."""
    return word == SYSTEMD or (word.startswith("/") and not set("\0\n") & set(word))


def check_word(word: str) -> str:
    """Return ``word`` if ``include`` may contain it; raises FormatError otherwise."""
    if not is_word(word):
        hint = did_you_mean(word, (SYSTEMD,))
        raise FormatError(
            f'{word!r} cannot be included{f" ({hint})" if hint else ""}: write "{SYSTEMD}" for systemd\'s '
            "directories, or the absolute path of a directory"
        )
    return word


def of_systemd(file: str) -> bool:
    """Return True if systemd-binfmt reads this file, too, and registers its rules at each boot."""
    return os.path.dirname(file) in DIRECTORIES


def look_for(words: Iterable[str]) -> FileVersions:
    """Look at all files and directories whose change could change the included rules."""
    directories = tuple(dict.fromkeys(chain.from_iterable(map(_directories, words))))
    return look_at(chain.from_iterable(conf_files([directory])[0] for directory in directories), directories)


def read(words: Iterable[str], trust: Trust) -> Included:
    """Read all included files, in the order of the words."""
    rules: list[tuple[str, Rule]] = []
    warnings: list[str] = []
    seen: Seen = {}
    for word in words:
        for file in _files(word, trust, seen, warnings):
            data = _read(file, trust, seen, warnings)
            if data is None or is_generated(data):
                continue
            good, bad = parse_conf(data)
            rules += ((file, rule) for rule in good)
            listed = bad[:_LISTED]
            warnings += (f"{shown(file)}:{problem.line}: not included: {problem.reason}" for problem in listed)
            if more := len(bad) - len(listed):
                remedy = "check that this is a binfmt.d file"
                warnings.append(f"{shown(file)}: {more} more bad lines were not included: {remedy}")
    return Included(tuple(rules), tuple(warnings))


def _directories(word: str) -> Sequence[str]:
    return DIRECTORIES if word == SYSTEMD else (word,)


def _files(word: str, trust: Trust, seen: Seen, warnings: list[str]) -> Sequence[str]:
    trusted = []
    for directory in _directories(word):
        if reason := untrusted(directory, trust, seen):
            warnings.append(f"{shown(directory)}: not included: cannot be trusted: {reason}")
        else:
            trusted.append(directory)
        if word != SYSTEMD and not os.path.exists(directory):
            remedy = "create it, or remove it from `include`"
            warnings.append(f"include: directory {shown(directory)} does not exist: {remedy}")
    files, errors = conf_files(trusted)
    warnings += (str(unreadable(str(error.filename), error)) for error in errors)
    return files


def _read(file: str, trust: Trust, seen: Seen, warnings: list[str]) -> bytes | None:
    way = resolve(file, seen)
    if reason := way_untrusted(way, trust):
        warnings.append(f"{shown(file)}: not included: cannot be trusted: {reason}")
        return None
    try:
        return read_regular(file, judged=way.stat)
    except OSError as error:
        warnings.append(str(unreadable(file, error)))
    except FormatError as error:
        warnings.append(f"{shown(file)}: not included: {error}")
    return None
