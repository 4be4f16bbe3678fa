"""The manifest of a version: where its files come from, and what they have to be."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from binfmtd.errors import DAMAGE, FormatError, damage

LIMIT = 1 << 20  # bytes
PREFIX = "qemu-"

T = TypeVar("T")


class FileFacts(NamedTuple):
    """One file: its checksum in hexadecimal, its size in bytes, and what it says of its version, like ``9.2.2``.

    ``settings`` are the variables that it finds set (formats/elf_settings.py).
    """

    sha256: str
    size: int
    version: str | None
    settings: Mapping[str, str] = MappingProxyType({})


class Manifest(NamedTuple):
    """The content of the file.

    ``digest`` is that of the image, or of the archive that was imported; None for a directory.  ``platform_digest`` is
    the digest of this platform's manifest, if ``digest`` is that of an index.  ``created`` is a time in UTC.
    ``architectures`` are those that the administrator asked for; None: all that the source has.  ``files`` are by their
    names, sorted.
    """

    source: str
    digest: str | None
    platform_digest: str | None
    created: str
    architectures: tuple[str, ...] | None
    files: Mapping[str, FileFacts]

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files.values())

    @property
    def names(self) -> list[str]:
        """The architectures that have a file."""
        return [name.removeprefix(PREFIX) for name in self.files]

    @property
    def digests(self) -> dict[str, str]:
        """The sha256 of each architecture's file."""
        return {name.removeprefix(PREFIX): file.sha256 for name, file in self.files.items()}


def render(manifest: Manifest) -> bytes:
    """Return the file's content."""
    document = manifest._asdict() | {"files": {name: _facts(file) for name, file in manifest.files.items()}}
    return json.dumps(document, indent=2).encode() + b"\n"


def _facts(file: FileFacts) -> dict[str, Any]:
    facts = file._asdict()
    settings = dict(facts.pop("settings"))
    return facts | {"settings": settings} if settings else facts


def parse(data: bytes) -> Manifest:
    """Read the file's content.  Raises FormatError, with the damage."""
    try:
        document = json.loads(data)
        wanted = document["architectures"]
        return Manifest(
            _of(str, document["source"]),
            _text_or_none(document["digest"]),
            _text_or_none(document["platform_digest"]),
            _of(str, document["created"]),
            None if wanted is None else tuple(_of(str, name) for name in wanted),
            {name: _file(name, facts) for name, facts in sorted(document["files"].items())},
        )
    except DAMAGE as error:
        raise FormatError(damage(error)) from None


def _file(name: str, facts: Mapping[str, Any]) -> FileFacts:
    if not name.startswith(PREFIX) or "/" in name or not name.isprintable():  # a NUL can be in no file's name
        raise FormatError(f"it names the file {name!r}")
    settings = {name: _of(str, value) for name, value in facts.get("settings", {}).items()}
    return FileFacts(_of(str, facts["sha256"]), _of(int, facts["size"]), _text_or_none(facts["version"]), settings)


def _of(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise TypeError
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _of(str, value)
