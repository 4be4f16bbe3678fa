"""Files and directories to import from: their kind, by their content, and what they say of the images in them."""

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zlib
from collections.abc import Callable
from enum import Enum
from itertools import islice
from typing import IO, Any, NamedTuple

from binfmtd.cli.store.images import MANIFEST_BYTES, one_image, parse_json
from binfmtd.cli.store.layers import ENTRIES, Guarded, members
from binfmtd.errors import DAMAGE, FormatError, StoreError, UsageError
from binfmtd.files.atomic import read_regular, read_start

_DEB = b"!<arch>\ndebian-binary"  # deb(5)
_ZSTD = b"\x28\xb5\x2f\xfd"
_LAYOUT, _INDEX, _DOCKER = "oci-layout", "index.json", "manifest.json"
_REF_NAME = "org.opencontainers.image.ref.name"
_WANTED = "name a `docker save` or OCI archive, an OCI layout, a directory with qemu-* files, or a .deb"


class Kind(Enum):
    """The kind of a source."""

    DIRECTORY = "directory"
    OCI_LAYOUT = "oci"
    OCI_ARCHIVE = "oci-archive"
    DOCKER_ARCHIVE = "docker-archive"
    DEB = "deb"


class Source(NamedTuple):
    """A source; for images ``reference`` is skopeo's, and ``digest`` that of the image, if the source has one."""

    kind: Kind
    path: str
    reference: str = ""
    digest: str | None = None


def look_at(path: str, image: str | None, step: Callable[[], None] = lambda: None) -> Source:
    """Find out the kind of a file or directory, and which image is meant; ``image`` is the name of one, or None.

    Raises UsageError if it is none of the kinds, or the image is not known, StoreError if it is damaged, and OSError.
    """
    source = _kind(path, image, step)
    if source.reference and ":" in source.path:
        raise UsageError(f"{source.path}: skopeo takes no path with a colon: rename it")
    return source


def _kind(path: str, image: str | None, step: Callable[[], None]) -> Source:
    path = os.path.abspath(path)
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        if os.path.isfile(os.path.join(path, _LAYOUT)):
            return _oci(Kind.OCI_LAYOUT, path, _listed(path, _in_directory(path)), image)
        return _without_images(Source(Kind.DIRECTORY, path), image)
    try:
        head = read_start(path, len(_DEB))
    except FormatError:
        raise UsageError(f"{path}: it is neither a regular file nor a directory: {_WANTED}") from None
    if head == _DEB:
        return _without_images(Source(Kind.DEB, path), image)
    if head.startswith(_ZSTD):
        raise UsageError(f"{path}: it is compressed with zstd: run `zstd -d` on it first")
    documents = _in_archive(path, head, step)
    tags = _tags(path, documents[_DOCKER]) if _DOCKER in documents else None
    listed = _listed(path, documents[_INDEX]) if _INDEX in documents else []
    # Docker writes both files.  Only manifest.json has whole names, and all images (moby issues 47210 and 51389).
    if tags is not None and (len(tags) > 1 or len(dict(listed)) != 1):
        place = one_image(tags, image, path)
        return Source(Kind.DOCKER_ARCHIVE, path, f"docker-archive:{path}" + (f":@{place}" if len(tags) > 1 else ""))
    if listed:
        return _oci(Kind.OCI_ARCHIVE, path, listed, image)
    raise UsageError(f"{path}: it is no archive with an image: {_WANTED}")


def _without_images(source: Source, image: str | None) -> Source:
    if image is not None:
        raise UsageError(f"{source.path}: it has no images, so --image has no meaning: leave it out")
    return source


def _listed(path: str, text: bytes) -> list[tuple[str, str]]:
    """Read index.json (image-spec, image-layout.md): return digest and name of each image or index for platforms."""
    place = f"{path}: {_INDEX}"
    index = parse_json(text, place)
    try:
        return [
            (str(entry["digest"]), str((entry.get("annotations") or {}).get(_REF_NAME) or ""))
            for entry in index["manifests"] or ()  # null: Docker 25.0 left out images without a name
        ]
    except DAMAGE:
        raise StoreError(f"{place}: it is no OCI index: get it again") from None


def _oci(kind: Kind, path: str, listed: list[tuple[str, str]], image: str | None) -> Source:
    by_digest: dict[str, list[str]] = {}
    for digest, name in listed:  # an image is listed once for each of its names
        by_digest.setdefault(digest, []).extend([name] if name else [])
    digest = [*by_digest][one_image(list(by_digest.values()), image, path)]
    if len(listed) == 1:
        return Source(kind, path, f"{kind.value}:{path}", digest)
    # Of two names for one image skopeo takes either.
    if not by_digest[digest]:
        raise UsageError(f"{path}: the image has no name, so skopeo cannot choose it: save it alone")
    return Source(kind, path, f"{kind.value}:{path}:{image or by_digest[digest][0]}", digest)


def _tags(path: str, text: bytes) -> list[list[str]]:
    """Read manifest.json of `docker save`: return the tags of each image."""
    images: Any = parse_json(b'{"images":' + text + b"}", f"{path}: {_DOCKER}")["images"]
    try:
        return [[str(tag) for tag in entry.get("RepoTags") or ()] for entry in images]
    except DAMAGE:
        raise StoreError(f"{path}: {_DOCKER}: it is no list of images: get it again") from None


def _in_directory(path: str) -> bytes:
    try:
        return read_regular(os.path.join(path, _INDEX), MANIFEST_BYTES)
    except FormatError as error:
        raise StoreError(str(error)) from None


def _in_archive(path: str, head: bytes, step: Callable[[], None]) -> dict[str, bytes]:
    """Return the JSON files at the top of a tar, which tell its kind; none if it is no tar."""
    documents: dict[str, bytes] = {}
    try:
        with _opened(path, head) as file:
            guarded = Guarded(file, path)
            guarded.allow(0)
            with guarded.tar() as archive:
                for member in islice(members(archive), ENTRIES):
                    if member.issparse() or member.size < 0:
                        break
                    guarded.allow(member.size)
                    step()
                    name = member.name.removeprefix("./")
                    if member.isreg() and name in (_INDEX, _DOCKER) and member.size <= MANIFEST_BYTES:
                        data = archive.extractfile(member)
                        documents[name] = data.read() if data else b""
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, *DAMAGE) as error:
        if isinstance(error, OSError) and error.errno is not None:  # gzip and bzip2 raise one without it
            raise
        raise UsageError(f"{path}: it is no archive, or damaged ({error}): {_WANTED}") from None
    return documents


def _opened(path: str, head: bytes) -> IO[bytes]:
    """Open a file, decompressed if it begins as one of gzip, bzip2 or xz.  Raises OSError."""
    if head.startswith(b"\x1f\x8b"):
        return gzip.open(path)  # type: ignore[return-value]  # it is no IO by inheritance
    if head.startswith(b"BZh"):
        return bz2.open(path)
    if head.startswith(b"\xfd7zXZ"):
        return lzma.open(path)
    return open(path, "rb")
