"""Which users and groups a new user namespace has, and how it comes to have them.

* A process may map one id by itself, its own (user_namespaces(7)).  More are mapped from outside: by newuidmap(1) and
  newgidmap(1), which allow what /etc/subuid and /etc/subgid give a user, or by who has CAP_SETUID and CAP_SETGID.
* Only a process of the outer namespace can do that, so a child that stays there does it.
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
    """The maps of a user namespace; ``helpers``: newuidmap and newgidmap have to write them."""

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]
    helpers: bool = False

    def without(self, root: int, group: int) -> "Ids":
        """One in a namespace with these ids, where ``root`` and ``group``, and what follows them, become 0 and so on.

        Those before them stay known, behind the last.  So a tree of files that belongs to ``root`` is root's own.
        """
        return Ids(_shifted(self.uids, root), _shifted(self.gids, group))


def one(inside: int, group: int, uid: int, gid: int) -> Ids:
    """A user and a group alone."""
    return Ids(((inside, uid, 1),), ((group, gid, 1),))


def to_be_had(uid: int, gid: int) -> Ids | None:
    """More than ourselves: for root all that there are here, else those of /etc/subuid and /etc/subgid, after us.

    None where there are no more.
    """
    if uid == 0:
        uids, gids = _here("uid"), _here("gid")
        return Ids(uids, gids) if uids and gids else None
    more_uids, more_gids = _subordinate("/etc/subuid", uid), _subordinate("/etc/subgid", uid)
    if not more_uids or not more_gids:
        return None
    return Ids(((0, uid, 1), (1, *more_uids)), ((0, gid, 1), (1, *more_gids)), helpers=True)


def enter(flags: int, ids: Ids) -> str | None:
    """Move into a new user namespace (and more: ``flags``) with these ids; why not, where they cannot be had.

    Then the namespace has none yet.  Raises OSError where there can be no such namespace.
    """
    from binfmtd.kernel.syscalls import unshare

    us, go, going = os.getpid(), *os.pipe2(os.O_CLOEXEC)
    said, saying = os.pipe2(os.O_CLOEXEC)
    helper = os.fork()
    if helper == 0:
        os.close(going)
        os.close(said)
        _help(us, ids, go, saying)
    os.close(go)
    os.close(saying)
    with os.fdopen(said, "rb") as answer:
        try:
            unshare(flags)
            os.write(going, b".")
        finally:
            os.close(going)
            why = answer.read().decode("utf-8", "backslashreplace")
            os.waitpid(helper, 0)
    return why or None


def _help(whose: int, ids: Ids, go: int, saying: int) -> None:
    """Write the maps when the other one has its namespace; ends this process."""
    try:
        if os.read(go, 1):
            os.write(saying, _write(whose, ids).encode())
    finally:
        os._exit(0)


def _write(whose: int, ids: Ids) -> str:
    for kind, ranges in (("uid", ids.uids), ("gid", ids.gids)):
        if ids.helpers:
            command = [_HELPERS[kind], str(whose), *(str(number) for each in ranges for number in each)]
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
    """The ids that this namespace has, each to be the same in one below it."""
    with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
        starts_and_counts = [(int(inside), int(count)) for inside, _, count in map(str.split, file)]
    return tuple((start, start, min(count, _ALL - 1 - start)) for start, count in starts_and_counts)


def _subordinate(path: str, uid: int) -> tuple[int, int] | None:
    """The first range that a user has there: its start and its length."""
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
    """The same ids, beginning with ``first``: what lay before it comes last."""
    after, before = [], []
    for inside, _, count in ranges:
        end = inside + count
        if end > first:
            after.append((max(inside, first), end))
        if inside < first:
            before.append((inside, min(end, first)))
    found, place = [], 0
    for start, end in (*after, *before):
        found.append((place, start, end - start))
        place += end - start
    return tuple(found)
