"""Who else could change a file: the guard for interpreters and for the config.

* The file and every directory on its way, links included, must belong to root or to who runs us, and be writable by
  nobody else.
* A link's own mode means nothing; its owner counts, since in a sticky directory the owner may replace it.
* A sticky directory is as good as the owner of what lies in it: others can neither rename nor remove that.
* What cannot be written because of how it is mounted counts as not writable (read_only.py); its owner still counts.
* In a user namespace, an owner without a mapping shows as the overflow id.  It cannot be judged, and passes.
* POSIX ACLs need no look of their own: their mask shows as the group bits of the mode (acl(5)).
"""

import os
import stat
from contextlib import suppress
from typing import NamedTuple

from binfmtd.files.chain import Chain, Seen, walk
from binfmtd.files.read_only import unwritable
from binfmtd.files.whereabouts import in_user_namespace, shares_root_with_init

OTHERS_MAY_WRITE = 0o022


class Trust(NamedTuple):
    """Whom we trust besides root: ourselves (``euid``) and, in a user namespace, the ``unmapped`` overflow id.

    ``contained``: our root is not the host's, so a read-only mount may count.
    """

    euid: int
    unmapped: int | None = None
    contained: bool = False

    @classmethod
    def of_this_process(cls) -> "Trust":
        """Ask the system."""
        unmapped = None
        if in_user_namespace():
            with suppress(OSError, ValueError), open("/proc/sys/kernel/overflowuid", "rb") as file:
                unmapped = int(file.read())
        return cls(os.geteuid(), unmapped, shares_root_with_init() is False)

    def owner(self, uid: int) -> bool:
        """Whether what this user owns may decide what runs."""
        return uid in (0, self.euid, self.unmapped)


def untrusted(path: str, trust: Trust, seen: Seen | None = None) -> str | None:
    """Say in one line who else could change ``path`` and what to do about it, or None if nobody could.

    Only what exists is judged.  ``seen`` are the lstat results of this round.  Raises FormatError if ``path`` is not
    absolute.
    """
    return way_untrusted(walk(path, seen), trust)


def way_untrusted(way: Chain, trust: Trust) -> str | None:
    """The same for a path that has been walked: what is judged is what ``way.stat`` says of the file."""
    for step in way.steps:
        if step.stat is not None and (reason := judge(step.path, step.stat.st_uid, step.stat.st_mode, trust)):
            return reason
    return None


def judge(path: str, uid: int, mode: int, trust: Trust) -> str | None:
    """The same for one file, directory or link alone: its owner, and its mode as in ``st_mode``."""
    what = f"{path!r} (owner {uid}, mode {stat.S_IMODE(mode):04o})"
    if not trust.owner(uid):
        ours = "root" if trust.euid == 0 else f"root or user {trust.euid}"
        return f"{what} belongs to somebody else: run chown -h {trust.euid} {path!r}, or use a path that {ours} owns"
    if stat.S_ISLNK(mode) or not mode & OTHERS_MAY_WRITE:
        return None
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return None
    if unwritable(path, contained=trust.contained):
        return None
    return f"{what} can be written by others: run chmod go-w {path!r}"
