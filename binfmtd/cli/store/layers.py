"""Emulators from the layers of an image: from its tars, one on top of the other.

Only regular files with the name of an emulator are unpacked, each under a number in a directory of ours.  So no name in
a tar decides where anything is written.

* The path of a member is normalised; one with ``..`` is ignored.
* Links of both kinds count if they lead to an unpacked file of the same image; devices, FIFOs and the rest do not.
* A layer hides what the layers below it have: by whiteouts (``.wh.NAME``, ``.wh..wh..opq``), and by a member of another
  kind at the same path.  Whiteouts do not concern their own layer (image-spec, layer.md).
* A path through a link to a directory is another path: ``bin/qemu-arm`` is not ``usr/bin/qemu-arm``.

The limits are against bombs.  Headers are limited as well, since tarfile reads each of them into memory.
"""

import os
import posixpath
import re
import stat
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple, cast

from binfmtd.catalog.architectures import CATALOG
from binfmtd.errors import DAMAGE, StoreError
from binfmtd.files.atomic import MEBIBYTE, write_all

FILE_BYTES = 256 * MEBIBYTE  # of one emulator; the largest of QEMU's have 20 MiB
TOTAL_BYTES = 4096 * MEBIBYTE  # of all that is unpacked; QEMU's 33 have less than 500 MiB
ENTRIES = 1_000_000  # members of all layers; a whole Debian has 100,000
CANDIDATES = 1000  # files and links with the name of an emulator
LAYERS = 1000  # of one image; Docker's have 127 at most
DEEPEST = 32  # directories above an emulator; a deeper one is ignored
PATH_CHARACTERS = 1024  # of an emulator's path and of a link's target; a longer one is ignored
HEADER_BYTES = MEBIBYTE  # the headers of one member, with its long names and attributes
_CHUNK = MEBIBYTE
_STREAM_BYTES = tarfile.RECORDSIZE  # tarfile reads that much ahead

_NAME = re.compile(r"qemu-(?P<name>.+?)(?:-static)?")
_HIDES, _HIDES_ALL = ".wh.", ".wh..wh..opq"
_LINKS = 40  # as the kernel follows (path_resolution(7))


class Limits(NamedTuple):
    """The most that is read from one image."""

    file: int = FILE_BYTES
    total: int = TOTAL_BYTES
    entries: int = ENTRIES
    candidates: int = CANDIDATES
    headers: int = HEADER_BYTES
    layers: int = LAYERS


class Unpacked(NamedTuple):
    """A regular file: ``path`` is where it was unpacked."""

    path: str
    size: int


class Link(NamedTuple):
    """A symbolic link: ``target`` is a path in the image."""

    target: str


Node = Unpacked | Link


def architecture_of_file(name: str) -> str | None:
    """Return the architecture whose emulator a file of this name is, or None: qemu-arm and qemu-arm-static are arm's.

    Only QEMU's own names count.
    """
    match = _NAME.fullmatch(name)
    return match["name"] if match is not None and match["name"] in CATALOG else None


class Unpacker:
    """The emulators of one image or directory; ``directory`` is an empty one, where they are unpacked."""

    def __init__(self, directory: str, limits: Limits | None = None, step: Callable[[], None] = lambda: None) -> None:
        """``step`` is called now and then, to show progress."""
        self.members = 0
        self._limits = limits or Limits()
        self._step = step
        self._directory = directory
        self._nodes: dict[str, Node] = {}
        self._candidates = 0  # those that another layer hides count, too: they were unpacked
        self._layers = 0
        self._unpacked = 0
        self._bytes = 0

    def add_layer(self, stream: IO[bytes], source: str) -> None:
        """Read a tar without compression, the next layer; ``source`` is its name in messages.

        Raises StoreError if it cannot be read as a tar or exceeds a limit, and OSError.
        """
        self._layers += 1
        if self._layers > self._limits.layers:
            raise StoreError(f"{source}: there are more than {self._limits.layers} layers, which is the limit")
        layer = _Layer(self._nodes)
        guarded = Guarded(stream, source)
        try:
            guarded.allow(0, self._limits.headers)
            with guarded.tar() as archive:
                for member in members(archive):
                    if member.issparse() or member.size < 0:
                        raise StoreError(
                            f"{source}: {member.name!r} is a sparse file, or damaged: pack it again without those"
                        )
                    guarded.allow(member.size, self._limits.headers)
                    self._count(source)
                    self._add(archive, member, layer, source)
        except (tarfile.TarError, EOFError, *DAMAGE) as error:
            raise StoreError(f"{source}: it cannot be read as a tar ({error}): get it again") from None
        self._nodes = layer.merged()

    def add_directory(self, path: str) -> None:
        """Take the emulators that lie in a directory of this host; its own directories are not searched.

        Raises StoreError if they exceed a limit, and OSError.
        """
        with os.scandir(path) as listing:
            for entry in sorted(listing, key=lambda entry: entry.name):
                self._count(path)
                if architecture_of_file(entry.name) is None:
                    continue
                self._count_candidate(path)
                if entry.is_symlink():
                    self._nodes[entry.name] = Link(os.readlink(entry.path))  # a name in this directory, or ignored
                elif entry.is_file(follow_symlinks=False):
                    # Checked again: it may have been replaced by a FIFO or a link since.
                    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                    with open(os.open(entry.path, flags), "rb") as file:
                        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                            self._nodes[entry.name] = self._unpack(file, os.fstat(file.fileno()).st_size, entry.path)

    def found(self) -> dict[str, Unpacked]:
        """Return the path of each emulator in the image, links included, and its file; sorted by path."""
        files = ((path, self._follow(path)) for path in sorted(self._nodes))
        return {path: file for path, file in files if file is not None}

    def lost(self) -> list[str]:
        """Return the path of each link that leads to no unpacked file, sorted."""
        return [path for path in sorted(self._nodes) if self._follow(path) is None]

    def _follow(self, path: str) -> Unpacked | None:
        for _ in range(_LINKS):
            node = self._nodes.get(path)
            if not isinstance(node, Link):
                return node
            path = node.target
        return None

    def _add(self, archive: tarfile.TarFile, member: tarfile.TarInfo, layer: "_Layer", source: str) -> None:
        path = _normal(member.name)
        if not path:
            return
        directory, name = posixpath.split(path)
        if name == _HIDES_ALL:
            layer.hide_below(directory)
        elif name.startswith(_HIDES):
            layer.hide(posixpath.join(directory, name.removeprefix(_HIDES)))
        elif member.isdir():
            layer.drop(path)
        else:
            layer.drop_all(path)
            if architecture_of_file(name) is None or path.count("/") > DEEPEST:
                return
            if max(len(path), len(member.linkname)) > PATH_CHARACTERS:
                return
            self._count_candidate(source)
            if member.isreg():
                data = archive.extractfile(member)
                assert data is not None  # noqa: S101  it is None for other kinds only
                layer.own[path] = self._unpack(data, member.size, f"{source}: {path!r}")
            elif member.issym():
                layer.own[path] = Link(_link_target(path, member.linkname))
            elif member.islnk() and (node := layer.get(_normal(member.linkname) or "")) is not None:
                layer.own[path] = node

    def _unpack(self, data: IO[bytes], size: int, source: str) -> Unpacked:
        if size > self._limits.file:
            raise StoreError(f"{source} has {size} bytes, more than the {self._limits.file} that an emulator may have")
        self._bytes += size
        if self._bytes > self._limits.total:
            raise StoreError(f"{source}: its emulators have more than {self._limits.total} bytes, which is the limit")
        self._unpacked += 1
        path = os.path.join(self._directory, str(self._unpacked))
        written = 0
        with open(path, "xb", buffering=0) as file:
            while chunk := data.read(min(_CHUNK, size - written)):
                write_all(file.fileno(), chunk)
                written += len(chunk)
                self._step()
        if written < size:
            raise StoreError(f"{source} is cut off: get it again")
        return Unpacked(path, size)

    def _count(self, source: str) -> None:
        self.members += 1
        if self.members % 256 == 0:
            self._step()
        if self.members > self._limits.entries:
            raise StoreError(f"{source}: there are more than {self._limits.entries} files, which is the limit")

    def _count_candidate(self, source: str) -> None:
        self._candidates += 1
        if self._candidates > self._limits.candidates:
            raise StoreError(f"{source}: more than {self._limits.candidates} files have the name of an emulator")


class _Layer:
    """One layer while it is read: its ``own`` nodes, and what it hides of those below."""

    def __init__(self, below: dict[str, Node]) -> None:
        self.own: dict[str, Node] = {}
        self._below = below
        self._above = {parent for path in below for parent in _parents(path)}
        self._hidden = set[str]()
        self._hidden_below = set[str]()

    def get(self, path: str) -> Node | None:
        """Return the node that a hard link to ``path`` means."""
        return self.own.get(path) or self._below.get(path)

    def hide(self, path: str) -> None:
        """Hide what the layers below have at the path and below it."""
        if path in self._below:
            self._hidden.add(path)
        self.hide_below(path)

    def hide_below(self, directory: str) -> None:
        """Hide what the layers below have in a directory."""
        if directory in self._above and directory not in self._hidden_below:
            self._hidden_below.add(directory)
            self._hidden |= {path for path in self._below if directory in _parents(path)}

    def drop(self, path: str) -> None:
        """Take a directory at the path: no file is there any more."""
        self.own.pop(path, None)
        if path in self._below:
            self._hidden.add(path)

    def drop_all(self, path: str) -> None:
        """Take something that is no directory at the path: nothing else is there, nor below it."""
        self.own.pop(path, None)
        self.hide(path)

    def merged(self) -> dict[str, Node]:
        """Return the nodes of all layers so far."""
        return {path: node for path, node in self._below.items() if path not in self._hidden} | self.own


class Guarded:
    """A file that ends with StoreError when more is read than is allowed at that point."""

    def __init__(self, stream: IO[bytes], source: str) -> None:
        self._stream = stream
        self._source = source
        self._left = 0  # bytes

    def allow(self, data: int, headers: int = HEADER_BYTES) -> None:
        """Allow the data of one member, and the headers of the next, from here on."""
        self._left = data + headers + 2 * _STREAM_BYTES

    def read(self, size: int = -1, /) -> bytes:
        """Read as the file does.  Raises StoreError."""
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise StoreError(f"{self._source}: the headers of a file in it are too long: check where it comes from")
        return data

    def tar(self) -> tarfile.TarFile:
        """Open the file as a tar without compression, to be read once.  Raises tarfile.TarError."""
        return tarfile.open(fileobj=cast("IO[bytes]", self), mode="r|")  # it only reads


def members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar that is read once, and keep none of them.  Raises tarfile.TarError and others."""
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # it is documented with TarFile's parameter ``stream``
        yield member


def _normal(path: str) -> str | None:
    """Return the path from the root of the image, without a slash in front; None if it contains ``..``."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return None if ".." in parts else "/".join(parts)


def _link_target(path: str, target: str) -> str:
    """Return the path that a symbolic link at ``path`` leads to; ``..`` at the root stays there (chroot(2))."""
    return posixpath.normpath(posixpath.join("/", posixpath.dirname(path), target)).lstrip("/")


def _parents(path: str) -> Iterator[str]:
    """Yield the directories above a path; the last one is the root, an empty text."""
    while path:
        path = posixpath.dirname(path)
        yield path
