"""Files as exec(2) finds them: the permission to execute one, its first bytes, and the result of the ELF loader.

* With a root directory, all paths are those of a process inside it, as after chroot(2).  A file that the kernel has
  opened already (flag F) lies outside of it.
* Permissions are those of this process: its user, groups and capabilities.
* Sources: fs/exec.c (do_open_execat), fs/namei.c (may_open), fs/binfmt_elf.c (load_elf_binary).
"""

import os
import stat
from collections.abc import Callable
from errno import EACCES, EIO, ELIBBAD, ENOENT, ENOEXEC, ENOTDIR, EXDEV
from shlex import quote

from binfmtd.catalog.architectures import CATALOG
from binfmtd.errors import FormatError
from binfmtd.files.atomic import KINDS, reading
from binfmtd.files.paths import Chain, resolve
from binfmtd.formats.elf import ET_DYN, ET_EXEC, ElfFile, parse_elf
from binfmtd.formats.mountinfo import parse_mountinfo
from binfmtd.host.facts import OWN_PROGRAM, native_header
from binfmtd.host.interpreters import HEAD_BYTES, read_head
from binfmtd.model.entry import Entry
from binfmtd.model.execution import Opened, Refusal

UNSEEN = -1  # not an errno of the kernel: this process may not find out


class Programs:
    """The files that a process with this root directory can execute.

    ``native`` returns the architectures of the catalog that run here without an emulator.  It is called only for a file
    that is not of the kind of our own program.
    """

    def __init__(self, root: str, native: Callable[[], frozenset[str]], granted: str | None = None) -> None:
        """Treat the path ``granted`` as executable, whatever its permissions are."""
        self._root = root.rstrip("/")
        self._granted = granted
        self._native = native
        self._header = native_header()

    def granting(self, path: str) -> "Programs | None":
        """Return a copy that treats this path as executable; None if this one does already."""
        return None if path == self._granted else Programs(self._root, self._native, path)

    @property
    def rooted(self) -> bool:
        """True if this is about another root directory than ours."""
        return bool(self._root)

    def open(self, path: str) -> Opened | Refusal:
        """Return the file that a path leads to, or the kernel's refusal; ``UNSEEN`` if we may not read the file."""
        way = self.resolve(path)
        if way is None:
            return Refusal(EACCES, "an empty path means the current directory", "name a file")
        if way.errno == EXDEV and not self._root:  # a magic link (proc(5)): the kernel follows it, and so does stat
            try:
                return self._opened(path, path, os.stat(path))
            except OSError as error:  # its text leads to a file, and the link itself to none
                return Refusal(error.errno or ENOENT, f"{path}: {error.strerror}")
        if way.real is None or way.stat is None:
            return _nowhere(path, way)
        return self._opened(path, self.place(way), way.stat)

    def opened_by(self, entry: Entry) -> Opened | Refusal:
        """Return the file now at the interpreter's path, as if F had opened it; our own program if we can read none."""
        path = entry.registration.interpreter if entry.registration else ""
        readable = os.path.isfile(path) and os.access(path, os.R_OK)
        return Opened(read_head(path), path) if readable else Opened(read_head(OWN_PROGRAM), "")

    def load(self, file: Opened) -> Refusal | None:  # noqa: PLR0911  each case has its own result
        """Return None if the ELF loader runs the program, else its refusal."""
        if not file.place:
            return None
        elf = self.elf(file.place)
        if elf is None or not self.is_native(elf) or elf.e_type not in (ET_EXEC, ET_DYN):
            return Refusal(ENOEXEC, "no entry takes it, and this host does not run it natively")
        if elf.damage:
            return Refusal(ENOEXEC, elf.damage, "reinstall it")
        if elf.linker is None:
            return None
        linker = self.open(elf.linker)
        if isinstance(linker, Refusal):
            return Refusal(linker.errno, f"its dynamic linker (PT_INTERP): {linker.reason}", linker.remedy)
        if os.stat(linker.place).st_size < (64 if elf.bits == 64 else 52):
            return Refusal(EIO, f"its dynamic linker {elf.linker} is cut off", "reinstall it")
        ld_so = self.elf(linker.place)
        if ld_so is None or (ld_so.bits, ld_so.byte_order, ld_so.machine) != (elf.bits, elf.byte_order, elf.machine):
            return Refusal(ELIBBAD, f"its dynamic linker {elf.linker} is for another machine", "reinstall it")
        return None

    def resolve(self, path: str) -> Chain | None:
        """Walk to a path; a relative one begins in our directory, or in a given root.  None for an empty path."""
        if not path:
            return None
        return resolve(os.path.join("/" if self._root else _working_directory(), path), root=self._root)

    def place(self, way: Chain) -> str:
        """Return the path at which this process finds the file that a walk leads to."""
        return self._root + (way.real or way.path)

    def elf(self, place: str) -> ElfFile | None:
        """Return the headers of a file; None if it is not an ELF file, or cannot be read."""
        try:
            with reading(place) as read:
                return parse_elf(read)
        except (OSError, FormatError):
            return None

    def is_set_id(self, file: Opened) -> bool:
        """Return True if a file is set-uid or set-gid: it is to run as its owner or its group."""
        try:
            return bool(os.stat(file.place).st_mode & (stat.S_ISUID | stat.S_ISGID))
        except OSError:
            return False

    def size(self, file: Opened) -> int:
        """Return the size of a file in bytes; 0 if it cannot be read."""
        try:
            return os.stat(file.place).st_size
        except OSError:
            return 0

    def is_execute_only(self, file: Opened) -> bool:
        """Return True if the mode of a file lets some users execute it but not read it."""
        try:
            mode = os.stat(file.place).st_mode
        except OSError:
            return False
        return any(mode & execute and not mode & read for read, execute in _READ_AND_EXECUTE)

    def is_native(self, elf: ElfFile) -> bool:
        """Return True if this host's own loader takes programs of this machine."""
        what = (elf.bits, elf.byte_order, elf.machine)
        own = self._header
        if what == (32 if own.elf_class == 1 else 64, "little" if own.byte_order == 1 else "big", own.machine):
            return True
        rows = [
            row for row in CATALOG.values() if (row.header.bits, row.header.byte_order, row.header.e_machine) == what
        ]
        return bool(rows) and any(row.name in self._native() for row in rows)

    def _opened(self, path: str, place: str, status: os.stat_result) -> Opened | Refusal:
        if not stat.S_ISREG(status.st_mode):
            return _no_file(path, status.st_mode)
        try:
            ours = place if self._root else path
            if path != self._granted and (refusal := _forbidden(path, place, status, ours)):
                return refusal
            with reading(place) as read:
                return Opened(read(0, HEAD_BYTES), place)
        except PermissionError:
            reason = f"{path} is executable but not readable for you, so its handler cannot be determined"
            return Refusal(UNSEEN, reason, "run this as root")
        except (OSError, FormatError) as error:
            return Refusal(EIO, f"{path} cannot be read: {error}", "see dmesg")


_READ_AND_EXECUTE = (
    (stat.S_IRUSR, stat.S_IXUSR),
    (stat.S_IRGRP, stat.S_IXGRP),
    (stat.S_IROTH, stat.S_IXOTH),
)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed, or its path leads out of our root: the kernel follows this link all the same
        return "/proc/self/cwd"


def _forbidden(path: str, place: str, status: os.stat_result, ours: str) -> Refusal | None:
    """Return why we may not execute an existing file; None if we may.  ``ours`` is its path for us.  Raises OSError."""
    if os.statvfs(place).f_flag & os.ST_NOEXEC:
        point = _mount_point(place)
        remedy = "copy it elsewhere" + (f", or as root: mount -o remount,bind,exec {quote(point)}" if point else "")
        return Refusal(EACCES, f"{path} lies on {point or 'a file system'}, which is mounted noexec", remedy)
    if os.access(place, os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        return None
    mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
    if not status.st_mode & 0o111:
        return Refusal(EACCES, f"{path} has no execute permission ({mode})", f"chmod +x {quote(ours)}")
    owner = f"owner {status.st_uid}, group {status.st_gid}"
    return Refusal(EACCES, f"{path} is not executable for you ({mode}, {owner})", "have its owner allow it")


def _mount_point(place: str) -> str:
    """Return the mount point of the mount that an existing file lies on; "" if our mount table does not show it.

    A bind mount may have the device number of the mount around it, so the mount's own id has to be compared.
    """
    descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
            mount_id = next(int(value) for key, value in map(bytes.split, file) if key == b"mnt_id:")
        with open("/proc/self/mountinfo", "rb") as file:
            table = parse_mountinfo(file.read())
    except (OSError, StopIteration):
        return ""
    finally:
        os.close(descriptor)
    return next((line.point for line in table if line.mount_id == mount_id), "")


def _nowhere(path: str, way: Chain) -> Refusal:
    """Return why a walk leads to no file, with the component at which it fails."""
    last = way.steps[-1]
    if way.errno == ENOENT:
        itself = last.path == os.path.normpath(way.path)
        lost = f"{path} does not exist" if itself else f"{path} does not exist: {last.path} is missing"
        return Refusal(ENOENT, lost)
    if way.errno == EACCES:
        return Refusal(EACCES, f"{path}: you may not search the directory {last.directory}", "have its owner allow it")
    if way.errno == ENOTDIR:
        return Refusal(ENOTDIR, f"{path}: {last.path} is not a directory")
    if way.errno == EXDEV:
        return Refusal(UNSEEN, f"{path}: the kernel's own link {way.magic} cannot be followed with --root")
    return Refusal(way.errno or ENOENT, f"{path}: {os.strerror(way.errno or ENOENT)}")


def _no_file(path: str, mode: int) -> Refusal:
    return Refusal(EACCES, f"{path} is {KINDS.get(stat.S_IFMT(mode), 'not a regular file')}", "name a regular file")
