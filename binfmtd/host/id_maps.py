"""The users and groups of a new user namespace: which ids to map, and writing the maps.

* A process may map one id by itself, its own (user_namespaces(7)).  More ids are mapped from outside: by newuidmap(1)
  and newgidmap(1), which allow the ranges of a user in /etc/subuid and /etc/subgid, or by a process with CAP_SETUID and
  CAP_SETGID.
* Only a process of the outer namespace can do that, so a child process that stays there does it.
"""

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

Range = tuple[int, int, int]  # the first id inside, the first outside, how many
_ALL = 1 << 32
_HELPERS = {"uid": "newuidmap", "gid": "newgidmap"}


class Ids(NamedTuple):
    """The id maps of a user namespace; ``helpers``: newuidmap and newgidmap have to write them."""

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]
    helpers: bool = False

    def has(self, uid: int) -> bool:
        """Return True if a user has this id in the namespace; False for the overflow id of those who have none."""
        return any(inside <= uid < inside + count for inside, _, count in self.uids)

    def without(self, root: int, group: int) -> "Ids":
        """Return the maps of a namespace inside this one, where ``root`` and ``group`` become 0.

        The ids after them become 1 and so on; the ids before them follow after the last one.  So a tree of files that
        belongs to ``root`` is root's inside.
        """
        return Ids(_shifted(self.uids, root), _shifted(self.gids, group))


def one(inside: int, group: int, uid: int, gid: int) -> Ids:
    """Return the maps of a single user and group: ``uid`` and ``gid`` outside, ``inside`` and ``group`` inside."""
    return Ids(((inside, uid, 1),), ((group, gid, 1),))


def to_be_had(uid: int, gid: int) -> Ids | None:
    """Return maps with all ids that this process may map; None if it may map only its own.

    For root: all ids of this namespace.  For another user: its own id as 0, then its first range in /etc/subuid and
    /etc/subgid.
    """
    if uid == 0:
        uids, gids = _here("uid"), _here("gid")
        return Ids(uids, gids) if uids and gids else None
    more_uids, more_gids = _subordinate("/etc/subuid", uid), _subordinate("/etc/subgid", uid)
    if not more_uids or not more_gids:
        return None
    return Ids(((0, uid, 1), (1, *more_uids)), ((0, gid, 1), (1, *more_gids)), helpers=True)


def enter(flags: int, ids: Ids) -> str | None:
    """Move into new namespaces (``flags`` of unshare(2)) with these ids; return None, or why the ids cannot be mapped.

    If they cannot, the new user namespace has no ids yet.  Raises OSError if there can be no such namespace.
    """
    from binfmtd.host.syscalls import unshare

    us, go, going = os.getpid(), *os.pipe2(os.O_CLOEXEC)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    helper = os.fork()
    if helper == 0:
        os.close(going)
        os.close(reading)
        _help(us, ids, go, writing)
    os.close(go)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        try:
            unshare(flags)
            os.write(going, b".")
        finally:
            os.close(going)
            why = answer.read().decode("utf-8", "backslashreplace")
            os.waitpid(helper, 0)
    return why or None


def _help(whose: int, ids: Ids, go: int, writing: int) -> None:
    """Write the maps of process ``whose`` once it has its namespace, then end this process."""
    try:
        if os.read(go, 1):
            os.write(writing, _write(whose, ids).encode())
    finally:
        os._exit(0)


def _write(whose: int, ids: Ids) -> str:
    for kind, ranges in (("uid", ids.uids), ("gid", ids.gids)):
        if ids.helpers:
            command = [_HELPERS[kind], str(whose), *(str(number) for id_range in ranges for number in id_range)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except OSError as error:
                return f"{_HELPERS[kind]}: {error.strerror}"
            if done.returncode != 0:
                return " ".join(done.stderr.split()) or f"{_HELPERS[kind]}: exit status {done.returncode}"
        else:
            try:
                with open(f"/proc/{whose}/{kind}_map", "w", encoding="ascii") as file:
                    file.write("".join(f"{inside} {outside} {count}\n" for inside, outside, count in ranges))
            except OSError as error:
                return f"{kind}_map: {error.strerror}"
    return ""


def _here(kind: str) -> tuple[Range, ...]:
    """Return the ids of this namespace, each mapped to itself in a namespace inside this one."""
    with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
        starts_and_counts = [(int(inside), int(count)) for inside, _, count in map(str.split, file)]
    return tuple((start, start, min(count, _ALL - 1 - start)) for start, count in starts_and_counts)


def _subordinate(path: str, uid: int) -> tuple[int, int] | None:
    """Return start and length of the first range that the file gives this user; None if it gives none."""
    import pwd

    names = {str(uid)}
    with suppress(KeyError):  # a user without a name
        names.add(pwd.getpwuid(uid).pw_name)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            rows: Sequence[list[str]] = [line.strip().split(":") for line in file]
    except OSError:
        return None
    for row in rows:
        if len(row) == 3 and row[0] in names and row[1].isdecimal() and row[2].isdecimal() and int(row[2]):
            return int(row[1]), int(row[2])
    return None


def _shifted(ranges: Sequence[Range], first: int) -> tuple[Range, ...]:
    """Return maps of all these ids, numbered from 0 on: ``first`` and those after it, then those before it."""
    after, before = [], []
    for inside, _, count in ranges:
        end = inside + count
        if end > first:
            after.append((max(inside, first), end))
        if inside < first:
            before.append((inside, min(end, first)))
    shifted, place = [], 0
    for start, end in (*after, *before):
        shifted.append((place, start, end - start))
        place += end - start
    return tuple(shifted)
