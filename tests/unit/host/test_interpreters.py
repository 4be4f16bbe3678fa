"""The file that an interpreter needs to start, read from its own file."""

import json
from pathlib import Path

import pytest
from support.elf_files import made
from support.programs import install

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program
from binfmtd.files.trust import Trust
from binfmtd.host.interpreters import look_at, required_loader

LINKER = b"/lib/ld.so.1\0"


@pytest.mark.parametrize(
    ("content", "needed"),
    [
        (b"#!/usr/bin/python3 -u\n", "/usr/bin/python3"),
        (b"#! /bin/sh\n", "/bin/sh"),
        (b"#!", None),
        (b"", None),
        (b"\x7fELF", None),
        (b"\x7fELF\x09\x01" + bytes(64), None),
        (made((1, bytes(1 << 20)), (3, LINKER)), "/lib/ld.so.1"),  # patchelf moves it to the end of the file
        (made((1, b""), (3, LINKER))[:100], None),
        (tiny_program(CATALOG["s390x"]), None),
    ],
)
def test_what_it_needs(tmp_path: Path, content: bytes, needed: str | None) -> None:
    """A script needs what its first line names, a dynamic program its linker; any other file needs nothing known."""
    file = tmp_path / "program"
    file.write_bytes(content)
    assert required_loader(str(file)) == needed


def test_no_file(tmp_path: Path) -> None:
    """A missing file needs nothing."""
    assert required_loader(str(tmp_path / "missing")) is None


@pytest.mark.parametrize(
    ("content", "fails"),
    [
        (b"", "the file is empty"),
        (bytes(100), "the file is neither an ELF program nor a script"),
        (tiny_program(CATALOG["arm"]), ""),
        (b"#!/bin/sh\n", ""),
    ],
)
def test_a_damaged_interpreter(tmp_path: Path, content: bytes, fails: str) -> None:
    """A file that is no program at all is known to fail; of several interpreters another one serves then."""
    path = install(tmp_path / "interpreter", content)
    assert look_at([str(path)], Trust.of_this_process())[str(path)].fails == fails


@pytest.mark.parametrize(
    ("manifest", "version"),
    [
        (b'"version": "5.2.0"', (5, 2, 0)),
        (b'"version": null', ()),
        (b'"version": "other"', ()),
        (b'"size": "damaged"', ()),
        (None, ()),
    ],
)
def test_the_version_in_a_manifest(tmp_path: Path, manifest: bytes | None, version: tuple[int, ...]) -> None:
    """The manifest of a store has the version of an emulator; a file elsewhere, or a damaged manifest, has none."""
    path = install(tmp_path / "qemu-arm", b"")
    facts = {"sha256": "00", "size": 1}
    whole = {"source": "x", "digest": None, "platform_digest": None, "created": "x", "architectures": None}
    document = json.dumps(whole | {"files": {"qemu-arm": facts}}).encode()
    if manifest is not None:
        (tmp_path / "manifest.json").write_bytes(document.replace(b'"size": 1', b'"size": 1, ' + manifest))
    assert look_at([str(path)], Trust.of_this_process())[str(path)].version == version
