"""References to images, their manifests, and the manifest for this platform in an index.

Sources: the OCI distribution-spec and image-spec (image-index.md, manifest.md), and Docker's manifest v2, schema 2.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from binfmtd.errors import DAMAGE, StoreError, UsageError, damage

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TRANSPORT = re.compile(r"[a-z-]+:(//|[./])")
_VARIANTS = ("", "v8", "v7", "v6", "v5")  # of two manifests for a machine, the first; amd64 and others have no variant
MANIFEST_BYTES = 4 << 20  # the limit of the distribution-spec


class Reference(NamedTuple):
    """An image in a registry, like ``docker.io/tonistiigi/binfmt:qemu-v9.2.2@sha256:...``.

    ``name`` is without tag and digest.  skopeo completes it: without a registry it is docker.io's.
    """

    name: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read a reference, as docker takes it.  Raises UsageError."""
        plain = text.removeprefix("docker://")
        if _TRANSPORT.match(plain) or plain.startswith(("/", "./", "../")) or plain.endswith((".tar", ".deb")):
            raise UsageError(f"{text!r} is not an image in a registry: use `binfmtd emulators import` for a file")
        plain, at, digest = plain.partition("@")
        if at and _DIGEST.fullmatch(digest) is None:
            raise UsageError(f"{text!r}: a digest is sha256: and 64 hexadecimal digits")
        directory, slash, last = plain.rpartition("/")
        last, colon, tag = last.partition(":")
        if not last or (colon and not tag) or not plain.isprintable() or " " in plain:
            raise UsageError(f"{text!r} is not the name of an image: write it like docker.io/tonistiigi/binfmt:latest")
        return cls(f"{directory}{slash}{last}", tag or None, digest or None)

    @property
    def registry(self) -> str:
        """The registry, as docker finds it in the name."""
        first, slash, _ = self.name.partition("/")
        return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"

    @property
    def for_skopeo(self) -> str:
        """The reference for skopeo, which takes no tag beside a digest."""
        if self.digest:
            return f"docker://{self.name}@{self.digest}"
        return f"docker://{self.name}:{self.tag or 'latest'}"

    def at(self, digest: str) -> "Reference":
        """Return the reference to a manifest of the same repository."""
        return self._replace(digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")


def parse_json(data: bytes, source: str) -> dict[str, Any]:
    """Read a JSON object.  Raises StoreError, with the ``source``."""
    try:
        document = json.loads(data)
    except DAMAGE as error:
        raise StoreError(f"{source}: {damage(error)}: get it again") from None
    if not isinstance(document, dict):
        raise StoreError(f"{source}: it is not a JSON object: get it again")
    return document


def platform_digest(document: dict[str, Any], goarch: str | None, source: str) -> str | None:
    """Return the digest of the manifest for Linux on this machine, if the document is an index; else None.

    Raises StoreError if the index has none, with the platforms that it has.
    """
    if document.get("schemaVersion") != 2:
        raise StoreError(f"{source}: its manifest is of schema 1: push the image again with a current docker or skopeo")
    if "manifests" not in document:
        return None
    try:
        platforms = [(_platform(entry), str(entry["digest"])) for entry in document["manifests"]]
    except DAMAGE as error:
        raise StoreError(f"{source}: its index cannot be used: {damage(error)}") from None
    ours = [
        (_VARIANTS.index(variant) if variant in _VARIANTS else len(_VARIANTS), digest)
        for (system, machine, variant), digest in platforms
        if system == "linux" and machine == goarch
    ]
    if not ours:
        there = sorted({"/".join(part for part in platform if part) for platform, _ in platforms} - {"unknown/unknown"})
        raise StoreError(
            f"{source}: it has no image for linux/{goarch or 'this machine'}, only for {', '.join(there) or 'none'}: "
            "choose another image"
        )
    return min(ours, key=lambda found: found[0])[1]


def _platform(entry: dict[str, Any]) -> tuple[str, str, str]:
    platform = entry.get("platform") or {}
    return str(platform.get("os", "")), str(platform.get("architecture", "")), str(platform.get("variant") or "")


def layer_files(document: dict[str, Any], source: str) -> list[str]:
    """Return the names of the layers' files in skopeo's ``dir:``, the lowest layer first.  Raises StoreError."""
    try:
        digests = [str(layer["digest"]) for layer in document["layers"]]
    except DAMAGE as error:
        raise StoreError(f"{source}: its manifest cannot be used: {damage(error)}") from None
    if bad := [digest for digest in digests if _DIGEST.fullmatch(digest) is None]:
        raise StoreError(f"{source}: its manifest names the layer {bad[0]!r}: push the image again")
    return [digest.removeprefix("sha256:") for digest in digests]


def one_image(names: Sequence[Sequence[str]], wanted: str | None, source: str) -> int:
    """Return which image of an archive is meant; ``names`` are those of each image.

    Raises UsageError if that is not known, or unless one has the name ``wanted``.
    """
    known = ", ".join(sorted({name for image in names for name in image})) or "none with a name"
    if wanted is not None:
        places = [place for place, image in enumerate(names) if wanted in image]
        if not places:
            raise UsageError(f"{source}: it has no image {wanted!r}: it has {known}")
        if len(places) > 1:
            raise UsageError(f"{source}: {len(places)} images in it have the name {wanted!r}: save the one alone")
        return places[0]
    if len(names) != 1:
        raise UsageError(f"{source}: it has {len(names)} images ({known}): choose one with --image")
    return 0
