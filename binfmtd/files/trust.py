"""The guard for interpreters and for the config: no other user may be able to change the file.

* The file and every directory on its way, links included, must belong to root or to the user that runs us, and only
  the owner may have the right to write.
* A link's own mode means nothing; its owner counts, since in a sticky directory the owner may replace it.
* A sticky directory may be writable: a user can neither rename nor remove a file in it that another user owns.
* A file that cannot be written because of its mount counts as not writable (read_only.py); its owner still counts.
* In a user namespace, an owner without a mapping appears as the overflow id.  It cannot be judged, and is accepted.
* POSIX ACLs need no check: their mask appears as the group bits of the mode (acl(5)).
"""

import os
import stat
from contextlib import suppress
from typing import NamedTuple

from binfmtd.files.environment import in_user_namespace, shares_root_with_init
from binfmtd.files.paths import Chain, Seen, resolve
from binfmtd.files.read_only import unwritable

OTHERS_MAY_WRITE = 0o022
_DEFAULT_OVERFLOW = 65534  # DEFAULT_OVERFLOWUID in include/linux/highuid.h


class Trust(NamedTuple):
    """The trusted users besides root: our own (``euid``) and, in a user namespace, the ``unmapped`` overflow id.

    ``contained``: our root is not the host's, so a read-only mount may count.
    """

    euid: int
    unmapped: int | None = None
    contained: bool = False

    @classmethod
    def of_this_process(cls) -> "Trust":
        """Return the values for this process, from the system."""
        unmapped = None
        if in_user_namespace():
            unmapped = _DEFAULT_OVERFLOW  # where /proc lacks that file (mount option subset=pid)
            with suppress(OSError, ValueError), open("/proc/sys/kernel/overflowuid", "rb") as file:
                unmapped = int(file.read())
        return cls(os.geteuid(), unmapped, shares_root_with_init() is False)

    def owner(self, uid: int) -> bool:
        """Return True if files of this user may decide which program runs."""
        return uid in (0, self.euid, self.unmapped)


def untrusted(path: str, trust: Trust, seen: Seen | None = None) -> str | None:
    """Return why another user could change ``path``, with the remedy, in one line; None if none could.

    Only existing files are judged.  ``seen`` are the lstat results of this round.  Raises FormatError if ``path`` is
    not absolute.
    """
    return way_untrusted(resolve(path, seen), trust)


def way_untrusted(way: Chain, trust: Trust) -> str | None:
    """Return why another user could change a walked path, with the remedy; None if none could.

    The steps are judged by the lstat results in ``way``, the file by ``way.stat``.
    """
    for step in way.steps:
        if step.stat is not None and (reason := judge(step.path, step.stat.st_uid, step.stat.st_mode, trust)):
            return reason
    return None


def judge(path: str, uid: int, mode: int, trust: Trust) -> str | None:
    """Return why another user could change one file, directory or link, with the remedy; None if none could.

    ``uid`` is its owner, and ``mode`` is as in ``st_mode``.  The directories above it are not judged.
    """
    what = f"{path!r} (owner {uid}, mode {stat.S_IMODE(mode):04o})"
    if not trust.owner(uid):
        ours = "root" if trust.euid == 0 else f"root or user {trust.euid}"
        return f"{what} belongs to another user: run `chown -h {trust.euid} {path!r}`, or use a path that {ours} owns"
    if stat.S_ISLNK(mode) or not mode & OTHERS_MAY_WRITE:
        return None
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return None
    if unwritable(path, contained=trust.contained):
        return None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return f"{what} is writable by other users, and neither a file nor a directory: use another path"
    return f"{what} is writable by other users: run `chmod go-w {path!r}`"
