"""Images made by hand, as OCI layouts: of tars, with any compression, for any platforms (image-spec)."""

import gzip
import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.tars import Member, tar

_OCI = "application/vnd.oci.image"
AMD64 = "linux/amd64"


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


def _zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-1"], input=data, capture_output=True, check=True).stdout


_COMPRESSIONS = {"": lambda data: data, "+gzip": _gzip, "+zstd": _zstd}


class Layout:
    """An OCI layout in a new directory; ``digests`` are those of its images, by their names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.digests: dict[str, str] = {}
        self._entries: list[dict[str, Any]] = []
        (directory / "blobs" / "sha256").mkdir(parents=True)
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def add(self, name: str, *layers: Sequence[Member], compression: str = "+gzip", platform: str = AMD64) -> str:
        """Add an image of these layers, and return its digest."""
        return self._list(name, self._image(layers, compression, platform))

    def add_index(self, name: str, images: Mapping[str, Sequence[Member]]) -> str:
        """Add an image for several platforms, with one layer for each, and return the digest of the index."""
        manifests = []
        for platform, layer in images.items():
            system, machine, *variant = platform.split("/")
            described = {"os": system, "architecture": machine} | ({"variant": variant[0]} if variant else {})
            manifests.append(self._image([layer], "+gzip", platform) | {"platform": described})
        kind = f"{_OCI}.index.v1+json"
        return self._list(
            name, self._blob(kind, _json({"schemaVersion": 2, "mediaType": kind, "manifests": manifests}))
        )

    def blob(self, digest: str) -> Path:
        return self.directory / "blobs" / digest.replace(":", "/")

    def manifest(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.blob(self.digests[name]).read_bytes())
        return document

    def _image(self, layers: Sequence[Sequence[Member]], compression: str, platform: str) -> dict[str, Any]:
        tars = [tar(layer) for layer in layers]
        system, machine, *_ = platform.split("/")
        rootfs = {"type": "layers", "diff_ids": [_digest(each) for each in tars]}
        config = {"architecture": machine, "os": system, "config": {}, "rootfs": rootfs}
        kind = f"{_OCI}.manifest.v1+json"
        compress = _COMPRESSIONS[compression]
        document = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": self._blob(f"{_OCI}.config.v1+json", _json(config)),
            "layers": [self._blob(f"{_OCI}.layer.v1.tar{compression}", compress(each)) for each in tars],
        }
        return self._blob(kind, _json(document))

    def _blob(self, kind: str, data: bytes) -> dict[str, Any]:
        self.blob(_digest(data)).write_bytes(data)
        return {"mediaType": kind, "digest": _digest(data), "size": len(data)}

    def _list(self, name: str, entry: dict[str, Any]) -> str:
        self._entries.append(entry | {"annotations": {"org.opencontainers.image.ref.name": name}})
        (self.directory / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": self._entries}))
        digest: str = entry["digest"]
        self.digests[name] = digest
        return digest


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
