"""The directory of versions: STORE/NAME/qemu-ARCH, with STORE/NAME/manifest.json.

A version is there as a whole or not at all, and never changes:

* A command prepares it in STORE/.new-RANDOM, with an fsync of each file, and renames it to STORE/NAME.
* To remove it, a command renames it to STORE/.old-RANDOM first.  That takes no room, so a full disk can be emptied.
* A command holds a lock (flock) on the directory that it prepares; the kernel releases it if the command is killed.
  The next command that changes the store removes such directories that are not locked, and each STORE/.old-RANDOM.
* STORE/.lock is held for each rename, so that two commands do not add one name.
"""

import fcntl
import hashlib
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from errno import EACCES, EPERM, EXDEV
from typing import NamedTuple

from binfmtd.errors import FormatError, StoreError, UsageError
from binfmtd.files.atomic import directories, make_directories, read_regular, sync_directory, write_atomically
from binfmtd.files.cure import cure
from binfmtd.files.lock import FileLock
from binfmtd.files.trust import Trust, untrusted
from binfmtd.formats import store_manifest as manifests
from binfmtd.formats.store_manifest import FileFacts, Manifest
from binfmtd.model.emulator_version import LOST_FOUND, MANIFEST, STORE, check_version

LOCK = ".lock"
_PATIENCE = 60.0  # seconds; the lock is held for a rename, or while the files of a killed command are removed
_LEFTOVER = re.compile(r"\.(new|old)-[0-9a-f]{16}")
_VERSION = "version"  # in the directory of a version that is prepared
_MOST_BYTES = 1 << 20  # of a file that are hashed between two steps


class Problem(NamedTuple):
    """A difference between a version and its manifest; ``file`` is empty if it concerns the version as a whole."""

    file: str
    problem: str


class Prepared:
    """A version that is being prepared: ``place`` is for files that are needed meanwhile, ``files`` is what stays."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.files = os.path.join(place, _VERSION)

    def directory(self, name: str) -> str:
        """Make a directory for files that are needed meanwhile, and return its path.  Raises OSError."""
        os.mkdir(path := os.path.join(self.place, name), 0o700)
        return path


class Store:
    """The versions in one directory, which need not exist; a relative path counts from the working directory."""

    def __init__(self, path: str, step: Callable[[], None] = lambda: None) -> None:
        """``step`` is called now and then while files are read, to show progress."""
        self.path = os.path.abspath(path)
        self._step = step

    def names(self) -> list[str]:
        """Return the names of all versions, damaged ones included, sorted.  Raises OSError."""
        return list(filter(self.is_version, self._listed()))

    def others(self) -> list[str]:
        """Return the names of all else in the directory but hidden files, sorted.  Raises OSError."""
        return [name for name in self._listed() if not self.is_version(name)]

    def _listed(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.path) if name != LOST_FOUND and name[0] != ".")
        except FileNotFoundError:
            return []

    def directory(self, name: str) -> str:
        """Return the directory of a version."""
        return os.path.join(self.path, name)

    def is_version(self, name: str) -> bool:
        """Return True for a directory with a manifest, or whose files could all be those of a damaged version.

        The path of the store may be wrong: in /var/lib each directory would be a version that is not used.
        """
        try:
            files = os.listdir(self.directory(name))
        except PermissionError:
            return True  # an ordinary user cannot know
        except OSError:
            return False
        if all(file == MANIFEST or file.startswith(manifests.PREFIX) for file in files):
            return bool(files)
        try:
            self._parsed(name)
        except (OSError, FormatError):
            return False
        return True

    def command(self, words: str) -> str:
        """Return the command with these words that is for this store."""
        return f"binfmtd emulators {words}" + ("" if self.path == STORE else f" --store {shlex.quote(self.path)}")

    def check_exists(self, name: str) -> None:
        """Raise UsageError, with the versions that exist, unless this one does."""
        if name not in (names := self.names()):
            there = f"it has {', '.join(names)}" if names else "it is empty"
            raise UsageError(f"no version {name!r} is in the store {self.path}: {there}")

    def read(self, name: str) -> Manifest:
        """Return the manifest of a version.  Raises StoreError if it is missing or damaged."""
        path = os.path.join(self.directory(name), MANIFEST)
        try:
            return self._parsed(name)
        except OSError as error:
            if error.errno in (EACCES, EPERM):
                raise StoreError(f"{path}: {error.strerror}: {cure(error)}") from None
            why = f"{path}: {error.strerror}"
        except FormatError as error:
            why = f"{path}: {error}"
        if not self.is_version(name):
            raise StoreError(f"{self.directory(name)} is no version of emulators: rename it, or name another store")
        raise StoreError(f"{why}: run `{self.command(f'remove {name}')}`, and add the version again")

    def _parsed(self, name: str) -> Manifest:
        return manifests.parse(read_regular(os.path.join(self.directory(name), MANIFEST), manifests.LIMIT))

    def readable(self) -> Iterator[tuple[str, Manifest]]:
        """Yield each version whose manifest can be read."""
        for name in self.names():
            with suppress(StoreError):
                yield name, self.read(name)

    def check_trust(self) -> None:
        """Raise StoreError, with the remedy, if another user can change the store or a directory on its way."""
        if reason := untrusted(self.path, Trust.of_this_process()):
            raise StoreError(f"the store {self.path}: {reason}")

    @contextmanager
    def preparing(self) -> Iterator[Prepared]:
        """Yield the place for a new version, and remove it at the end; ``add`` takes the version from there.

        A store's directory that was missing is made, and removed again if nothing was added.  Raises StoreError, also
        for each OSError that is about the store: nothing is then left in it.
        """
        self.check_trust()
        try:
            with directories(self.path):
                self.check_trust()
                place, lock = self._place()
                try:
                    self._check_executable()
                    os.mkdir(os.path.join(place, _VERSION), 0o700)
                    yield Prepared(place)
                finally:
                    _remove_tree(place)
                    os.close(lock)
        except OSError as error:
            raise self._failed(error, "nothing was added") from error

    def _place(self) -> tuple[str, int]:
        """Make a hidden directory for one command, and return it with the descriptor of its lock.

        Raises StoreError and OSError.
        """
        with suppress(FileNotFoundError):  # another command that failed has just removed the directory that it had made
            return self._new_place()
        make_directories(self.path)
        return self._new_place()

    def _new_place(self) -> tuple[str, int]:
        with self._locked():
            self._remove_leftovers()
            os.mkdir(place := self._hidden("new"), 0o700)
            return place, _lock(place)

    def add(self, prepared: Prepared, name: str, manifest: Manifest) -> bool:
        """Add a prepared version; return False if the same files are there under this name.

        Raises StoreError if other files are, or if the manifest would be too long to be read, and OSError.
        """
        data = manifests.render(manifest)
        if len(data) > manifests.LIMIT:  # settings can do that: each file has up to 64 KiB of them
            raise StoreError(
                f"the manifest of {name} would have {len(data)} bytes, and {manifests.LIMIT} are allowed: use shorter "
                "settings, or fewer architectures with --arch"
            )
        write_atomically(os.path.join(prepared.files, MANIFEST), data, durable=True)
        os.chmod(prepared.files, 0o755)  # noqa: S103  each user may execute the emulators
        sync_directory(prepared.files)
        with self._locked():
            if os.path.lexists(self.directory(name)):
                self.check_same(name, manifest.digests)
                return False
            os.rename(prepared.files, self.directory(name))
            sync_directory(self.path)
        return True

    def find(self, name: str) -> Manifest | None:
        """Return the manifest of a version, or None if there is none.  Raises StoreError if it is damaged."""
        return self.read(name) if os.path.lexists(self.directory(name)) else None

    def check_same(self, name: str, digests: Mapping[str, str]) -> None:
        """Raise StoreError unless the version has just these files, whole: a sha256 for each architecture."""
        there = self.read(name)
        if there.digests != digests:
            raise StoreError(
                f"the store {self.path} has a version {name} with other files, from {there.source}: choose another "
                f"name with --name, or run `{self.command(f'remove {name}')}` first"
            )
        self.check_whole(name)

    def check_whole(self, name: str) -> None:
        """Raise StoreError if a version differs from its manifest, and OSError."""
        if problems := self.verify(name):
            first = " ".join(part for part in problems[0] if part)
            raise StoreError(
                f"the store {self.path} has version {name}, but damaged ({first}): run "
                f"`{self.command(f'remove {name}')}`, and add it again"
            )

    def remove(self, name: str) -> bool:
        """Remove a version, where it can be renamed in one step for every reader; return False if there is none.

        Raises StoreError.
        """
        self.check_trust()
        try:
            with self._locked():
                self._remove_leftovers()
                if not self.is_version(name):
                    return False
                place = self._hidden("old")
                try:
                    os.rename(self.directory(name), place)
                except OSError as error:
                    if error.errno != EXDEV:
                        raise
                    place = self.directory(name)  # overlayfs renames no directory that is in an image's lower layer
                sync_directory(self.path)
            _remove_tree(place)
        except OSError as error:
            raise self._failed(error, f"{name} may be left") from error
        return True

    def verify(self, name: str) -> list[Problem]:
        """Compare the files of a version with its manifest, and return all differences.  Raises OSError."""
        try:
            manifest = self.read(name)
        except StoreError as error:
            return [Problem("", str(error))]
        directory = self.directory(name)
        problems = []
        if reason := untrusted(directory, Trust.of_this_process()):
            problems.append(Problem("", reason))
        for file, facts in manifest.files.items():
            if problem := self._differs(os.path.join(directory, file), facts):
                problems.append(Problem(file, problem))
        try:
            present = set(os.listdir(directory))
        except FileNotFoundError:
            return [Problem("", "another command has just removed it")]
        extra = sorted(present - manifest.files.keys() - {MANIFEST})
        return problems + [Problem(file, "is not in the manifest") for file in extra]

    def _differs(self, path: str, facts: FileFacts) -> str | None:  # noqa: PLR0911  each difference has its own text
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return "is missing"
        if not stat.S_ISREG(status.st_mode):
            return "is not a regular file"
        if status.st_size != facts.size:
            return f"has {status.st_size} bytes instead of {facts.size}"
        if not status.st_mode & 0o111:
            return "is not executable"
        if reason := untrusted(path, Trust.of_this_process()):
            return reason
        if (digest := sha256_of(path, self._step)) != facts.sha256:
            return f"has the sha256 {digest} instead of {facts.sha256}"
        return None

    def remove_leftovers(self) -> None:
        """Remove what killed commands have left.  Raises StoreError."""
        if not os.path.isdir(self.path):
            return
        self.check_trust()
        try:
            with self._locked():
                self._remove_leftovers()
        except OSError as error:
            raise self._failed(error, "what killed commands left stays") from error

    def _hidden(self, kind: str) -> str:
        return os.path.join(self.path, f".{kind}-{os.urandom(8).hex()}")

    def _remove_leftovers(self) -> None:
        """Remove what killed commands have left.  STORE/.lock is held, so none is made and not yet locked."""
        for name in os.listdir(self.path):
            if (leftover := _LEFTOVER.fullmatch(name)) is None:
                continue
            place = os.path.join(self.path, name)
            if leftover[1] == "old":  # its command may be at work; then both remove it
                _remove_tree(place)
                continue
            try:
                lock = _lock(place, fcntl.LOCK_NB)
            except (FileNotFoundError, BlockingIOError):
                continue  # its command has just ended, and removes it without STORE/.lock; or it works there
            _remove_tree(place)
            os.close(lock)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(os.path.join(self.path, LOCK))
        if not lock.wait(_PATIENCE):
            raise StoreError(f"another command is changing the store {self.path}: run this again when that has ended")
        try:
            yield
        finally:
            lock.give_back()

    def _check_executable(self) -> None:
        if os.statvfs(self.path).f_flag & os.ST_NOEXEC:
            raise StoreError(
                f"the store {self.path}: its file system is mounted with noexec, so the kernel executes no emulator "
                "from there: remount it with exec, or choose another directory with --store"
            )

    def _failed(self, error: OSError, then: str) -> StoreError:
        where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else self.path
        if where.startswith(f"{self.path}/"):
            where = self.path  # its hidden directories say nothing to an administrator
        return StoreError(f"{where}: {error.strerror or error}: {cure(error)} ({then})")


def sha256_of(path: str, step: Callable[[], None] = lambda: None) -> str:
    """Return the checksum of a file, in hexadecimal; ``step`` is called after each mebibyte.  Raises OSError."""
    result = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_MOST_BYTES):
            result.update(chunk)
            step()
    return result.hexdigest()


def checked_name(name: str) -> str:
    """Return the name of a version.  Raises UsageError if a version cannot have it."""
    try:
        check_version(name)
    except FormatError as error:
        raise UsageError(str(error)) from None
    return name


def _lock(directory: str, flags: int = 0) -> int:
    """Lock a directory, and return the descriptor that has the lock.  Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_tree(path: str) -> None:
    """Remove a directory with all that it contains, or a file; what cannot be removed stays."""
    import shutil

    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        os.unlink(path)
