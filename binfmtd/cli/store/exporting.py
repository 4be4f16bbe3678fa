"""A version as an OCI archive: a tar of an image layout with one image, whose only layer has the files in usr/bin.

The same version gives the same bytes: names are sorted, times are 0, owners are root.  ``binfmtd emulators import``
reads the archive, and so does any program that takes such an image (``skopeo copy oci-archive:FILE docker://...``).
The layer is not compressed, so its digest and size are known before the archive is written.
"""

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from binfmtd.cli.store.directory import Store
from binfmtd.errors import StoreError, UsageError
from binfmtd.files.atomic import sync_directory, write_all
from binfmtd.files.cure import cure
from binfmtd.formats.store_manifest import FileFacts

_CHUNK = 1 << 20
_DIRECTORY = "usr/bin"
_END = bytes(2 * tarfile.BLOCKSIZE)
_OCI = "application/vnd.oci.image"


def export(store: Store, name: str, path: str, goarch: str | None, step: Callable[[], None] = lambda: None) -> str:
    """Write a version to the file at ``path``, which is replaced if it exists; return the digest of the image.

    Raises StoreError if a file of the version differs from its manifest, or if the archive cannot be written.
    """
    manifest = store.read(name)
    path = os.path.abspath(path)
    if os.path.lexists(path) and not os.path.isfile(path):
        raise UsageError(f"{path}: it is not a regular file: name a file for the archive")
    layer = hashlib.sha256()
    size = 0
    for chunk in _layer(store, name, manifest.files, step):
        layer.update(chunk)
        size += len(chunk)
    digest = f"sha256:{layer.hexdigest()}"
    blobs, image = _documents(digest, size, name, goarch)
    beside = f"{path}.{os.urandom(4).hex()}"
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            # For a directory without a member skopeo calls chown(2), which it may not do for an ordinary user.
            write_all(descriptor, _header("blobs/", 0) + _header("blobs/sha256/", 0))
            for text_name, text in sorted(blobs.items()):
                write_all(descriptor, _header(text_name, len(text)) + text + _padding(len(text)))
            write_all(descriptor, _header(_blob(digest), size))
            for chunk in _layer(store, name, manifest.files, step):
                write_all(descriptor, chunk)
            write_all(descriptor, _padding(size) + _END)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(beside, path)
        sync_directory(os.path.dirname(path))
    except BaseException as error:
        with suppress(OSError):
            os.unlink(beside)
        if isinstance(error, OSError):
            raise StoreError(f"{path}: {error.strerror}: {cure(error)}") from None
        raise
    return image


def _documents(layer: str, size: int, name: str, goarch: str | None) -> tuple[dict[str, bytes], str]:
    """Return the small files of the layout by their names, and the digest of the image (image-spec)."""
    platform = {"architecture": goarch or "unknown", "os": "linux"}
    config = _json({**platform, "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer]}})
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": _descriptor(f"{_OCI}.config.v1+json", _digest(config), len(config)),
            "layers": [_descriptor(f"{_OCI}.layer.v1.tar", layer, size)],
        }
    )
    entry = {
        **_descriptor(f"{_OCI}.manifest.v1+json", _digest(manifest), len(manifest)),
        "platform": platform,
        "annotations": {"org.opencontainers.image.ref.name": name},
    }
    index = _json({"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": [entry]})
    blobs = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": index,
        _blob(_digest(config)): config,
        _blob(_digest(manifest)): manifest,
    }
    return blobs, _digest(manifest)


def _layer(store: Store, name: str, files: Mapping[str, FileFacts], step: Callable[[], None]) -> Iterator[bytes]:
    """Yield the layer's tar.  Raises StoreError if a file is not the one in the manifest."""
    yield _header("usr/", 0) + _header(f"{_DIRECTORY}/", 0)
    for file, facts in files.items():
        path = os.path.join(store.directory(name), file)
        yield _header(f"{_DIRECTORY}/{file}", facts.size, 0o755)
        read, left = hashlib.sha256(), facts.size
        try:
            with open(path, "rb", buffering=0) as content:
                while chunk := content.read(min(_CHUNK, left)):
                    read.update(chunk)
                    left -= len(chunk)
                    yield chunk
                    step()
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}: run `{store.command(f'verify {name}')}`") from None
        if left or read.hexdigest() != facts.sha256:
            raise StoreError(f"{path} is not as it was added: run `{store.command(f'verify {name}')}`")
        yield _padding(facts.size)
    yield _END


def _header(name: str, size: int, mode: int = 0o644) -> bytes:
    """Return the header of a tar for one member; a name that ends with a slash is a directory's."""
    member = tarfile.TarInfo(name.rstrip("/"))
    member.size, member.mode = size, mode
    if name.endswith("/"):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
    return member.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _json(document: object) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest, "size": size}
