"""Tars made by hand, also with members that tar(1) would not write."""

import io
import tarfile
from collections.abc import Iterable
from typing import NamedTuple


class Member(NamedTuple):
    """One member; ``kind`` is its type in the header, ``size`` another size than that of ``data`` to claim."""

    name: str
    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    link: str = ""
    size: int | None = None


def directory(name: str) -> Member:
    return Member(name, kind=tarfile.DIRTYPE)


def symlink(name: str, target: str) -> Member:
    return Member(name, kind=tarfile.SYMTYPE, link=target)


def hard_link(name: str, target: str) -> Member:
    return Member(name, kind=tarfile.LNKTYPE, link=target)


def tar(members: Iterable[Member], *, end: bool = True) -> bytes:
    """Return a tar with these members; without its ``end`` a reader finds no more than that the file ends."""
    parts = []
    for member in members:
        info = tarfile.TarInfo(member.name)
        info.type, info.linkname = member.kind, member.link
        info.size = len(member.data) if member.size is None else member.size
        parts += [info.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape"), member.data, bytes(-len(member.data) % 512)]
    return b"".join(parts) + (bytes(1024) if end else b"")


def stream(members: Iterable[Member]) -> io.BytesIO:
    return io.BytesIO(tar(members))
