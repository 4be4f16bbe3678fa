"""The files and directories that decide what a path means.

* ``walk`` follows an absolute path as the kernel does: component by component, each symbolic link where it occurs,
  ``..`` from the real directory, and ELOOP after 40 links (path_resolution(7)).
* If a magic link of the kernel (/proc/PID/root, /proc/PID/fd/3) leads elsewhere than its text, the result is EXDEV.
* Nothing is opened.  A path that leads nowhere is no error of ``walk`` but a result, with its errno.
* ``watched`` contains every place whose change can change the result.  A file or a link is watched by its name, so a
  directory of 10,000 files costs no more than an empty one.  A directory on the way is watched as ITSELF, since an
  administrator may exchange it by rename: its other files raise no events, and it may be as busy as /tmp.
"""

import os
import stat
from collections.abc import MutableMapping
from errno import EACCES, ELOOP, ENOENT, ENOTDIR, EXDEV
from posixpath import dirname, join, split
from typing import NamedTuple

from binfmtd.errors import FormatError

ANY_NAME = "*"  # among names to watch: every change in the directory
ITSELF = ""  # likewise: the directory is moved or removed, or its owner or mode changes
LINKS = 40  # MAXSYMLINKS of include/linux/namei.h

Seen = MutableMapping[str, os.stat_result | int]
"""The results of lstat(2) in one round, by path: a stat result, or the errno.  Each round needs a new mapping."""


class Step(NamedTuple):
    """One component on the way: ``name`` in the real directory ``directory``.

    ``stat`` is the result of lstat(2), None if that failed.  The first step is the root directory, with an empty name.
    """

    directory: str
    name: str
    stat: os.stat_result | None

    @property
    def path(self) -> str:
        """The component's own path; only its last part may be a link."""
        return join(self.directory, self.name)


class Chain(NamedTuple):
    """A path, walked to its end.

    ``real`` and ``stat`` are those of the file that it leads to.  Both are None if there is none, and ``errno`` is the
    reason.  ``watched`` are pairs of a real existing directory and a name in it.
    """

    path: str
    steps: tuple[Step, ...]
    real: str | None
    stat: os.stat_result | None
    watched: tuple[tuple[str, str], ...]
    errno: int = 0
    magic: str | None = None  # the kernel's magic link that leads elsewhere than its text


def resolve(path: str, seen: Seen | None = None, root: str = "") -> Chain:
    """Follow ``path`` and return its chain.  Raises FormatError if it is not an absolute path.

    With a ``root``, follow it as a process with that root directory does (chroot(2)): no link and no ``..`` leads out
    of it.  Every path in the result is then as that process sees it.
    """
    if not path.startswith("/") or "\0" in path:
        raise FormatError(f"{path!r} is not an absolute path: begin it with '/'")
    seen = {} if seen is None else seen
    here, real, final = "/", "/", _lstat(f"{root}/", seen)
    steps = [Step("/", "", _or_none(final))]
    watched: dict[tuple[str, str], None] = {}  # a set that keeps its order
    links = 0
    magic: str | None = None
    pending = _names(path)

    def ends(errno: int, status: os.stat_result | None = None) -> Chain:
        if magic is not None and not _same(root + path, status):
            return Chain(path, tuple(steps), None, None, tuple(watched), EXDEV, magic)
        return Chain(path, tuple(steps), None if status is None else real, status, tuple(watched), errno)

    while pending:
        name = pending.pop()
        if name == ".":
            continue
        if name == "..":
            here = real = dirname(here)
            final = _lstat(root + here, seen)
            continue
        real = join(here, name)
        final = _lstat(root + real, seen)
        steps.append(Step(here, name, _or_none(final)))
        if isinstance(final, int):
            # This directory is watched by its name, too: a removed one raises no event while a process has it open.
            # One that may not be searched becomes searchable by chmod, which is an event on its name.
            directory = split(here)
            watched |= dict.fromkeys([directory] if final == EACCES else [directory, (here, name)])
            return ends(final)
        if stat.S_ISLNK(final.st_mode):
            watched[here, name] = None
            links += 1
            if links > LINKS:
                return ends(ELOOP)
            try:
                target = os.readlink(root + real)
            except OSError as error:
                return ends(error.errno or ENOENT)
            if final.st_size != len(os.fsencode(target)):  # true only of the kernel's magic links (proc(5))
                magic = real
            if target.startswith("/"):
                here = "/"
            # A link to "/" or ".." leaves no name to look up: it means the directory itself.
            real, final = here, _lstat(root + here, seen)
            pending += _names(target)
        elif stat.S_ISDIR(final.st_mode):
            watched[real, ITSELF] = None
            here = real
        elif pending:
            watched[here, name] = None
            return ends(ENOTDIR)
    watched[split(real)] = None
    return ends(final) if isinstance(final, int) else ends(0, final)


def _same(path: str, status: os.stat_result | None) -> bool:
    """Return True if stat(2), too, finds this file at ``path``; None stands for no file."""
    try:
        there = os.stat(path)
    except OSError:
        return status is None
    return status is not None and os.path.samestat(there, status)


def _names(path: str) -> list[str]:
    """Return the components, last one first.  A slash at the end requires a directory, as ``.`` does."""
    names = [name for name in path.split("/") if name]
    if path.endswith("/"):
        names.append(".")
    return names[::-1]


def _lstat(path: str, seen: Seen) -> os.stat_result | int:
    result = seen.get(path)
    if result is None:
        try:
            result = os.lstat(path)
        except OSError as error:
            result = error.errno or ENOENT
        seen[path] = result
    return result


def _or_none(result: os.stat_result | int) -> os.stat_result | None:
    return None if isinstance(result, int) else result
