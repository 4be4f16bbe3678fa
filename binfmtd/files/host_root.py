"""The host's root directory: our own, or the part of the host's that a container can reach.

* A container finds the host's root, or directories of it, bound in at HOST.  With ``--pid=host`` it reaches the root
  of the host's process 1.
* Files that are to outlast the container must not lie in it: a directory below HOST has to be on another mount than the
  container's root.
* No link in a host's root that is not our own is followed, because it would be resolved in our root.
* Other users must not be able to write to the files that systemd reads there as root, nor to those that our lines
  name.
"""

import os
import stat
from typing import NamedTuple

from binfmtd.errors import PersistenceError
from binfmtd.files.environment import booted_with_systemd, init_lives_elsewhere, shares_root_with_init
from binfmtd.files.trust import Trust, judge
from binfmtd.formats.mountinfo import parse_mountinfo

HOST = "/host"
_INIT_ROOT = "/proc/1/root"


class HostRoot(NamedTuple):
    """The host's root directory, as we see it; ``binds`` is the advice how a container gets what it needs."""

    path: str
    binds: str = ""

    @classmethod
    def find(cls, named: str | None, needed: str, binds: str, *, booted: bool = True) -> "HostRoot":
        """Return ``named``, or the first that serves: HOST if ``needed`` is bound in there, process 1's root, our own.

        HOST and process 1's root are for containers.  Raises PersistenceError if there is none; with ``booted``, also
        if systemd would not read the files at the next boot.
        """
        shared = shares_root_with_init()
        if named is not None:
            path = os.path.abspath(named)
            if not os.path.isdir(path):
                where = "name the directory where the host's root is mounted, or omit --host-root"
                raise PersistenceError(f"{named} is not a directory: {where}")
            if path == "/" and shared is False and not booted_with_systemd():
                raise PersistenceError(f"{named} is this container's own root, from which no system boots: {binds}")
            return cls(path, binds)
        if shared is not True and _is_bound_in(os.path.join(HOST, needed)):
            return cls(HOST, binds)
        if shared is not True and init_lives_elsewhere():
            return cls(_INIT_ROOT, binds)
        if booted_with_systemd() or (shared is True and not booted):
            return cls("/", binds)
        raise PersistenceError(
            f"no program here would register handlers after a reboot: systemd reads {needed}, but this system was not "
            f"booted with systemd: {binds}; on a host without systemd, start the daemon at boot instead"
        )

    @property
    def foreign(self) -> bool:
        """True if the host's root is another directory than ours, so that files outside of it are not the host's."""
        return self.path != "/"

    def below(self, name: str) -> str:
        """Return the path of a file or directory of the host, as we see it."""
        return os.path.join(self.path, name.lstrip("/"))

    def check(self, directory: str) -> None:
        """Raise PersistenceError for a directory that would not outlast us or that other users could write to."""
        path = self.below(directory)
        if self.path not in ("/", _INIT_ROOT) and not _is_bound_in(path):
            raise PersistenceError(f"{path} is not on the host, and would be lost with this container: {self.binds}")
        trust = Trust.of_this_process()
        path = self.path
        for name in directory.split("/"):
            path = os.path.join(path, name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                return  # we make it
            except OSError as error:
                raise PersistenceError(f"{path}: {error.strerror}: make it accessible") from None
            if stat.S_ISLNK(status.st_mode) and self.foreign:
                elsewhere = "which names another place in this container than on the host"
                raise PersistenceError(f"{path} is a link, {elsewhere}: bind-mount the real directory there")
            if reason := judge(path, status.st_uid, status.st_mode, trust):
                raise PersistenceError(reason)


def _is_bound_in(path: str) -> bool:
    """Return True if a path is on another mount than our root directory; False if the mount table is unreadable."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            table = parse_mountinfo(file.read())
    except OSError:
        return False
    return any(line.point != "/" and f"{path}/".startswith(f"{line.point}/") for line in table)
