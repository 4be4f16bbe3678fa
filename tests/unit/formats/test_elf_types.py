"""The kind of an ELF file, in the catalog's words."""

import tomllib

import pytest
from support.elf_files import made

from binfmtd.catalog.architectures import CATALOG, Architecture
from binfmtd.catalog.names import find
from binfmtd.catalog.program import tiny_program
from binfmtd.formats.elf import parse_elf
from binfmtd.formats.elf_types import architecture_of, elf_kind, libc_of
from binfmtd.formats.escapes import decode
from binfmtd.formats.file_types import Kind
from binfmtd.model.match import Magic, takes

HEAD = 256


def kind(content: bytes) -> Kind:
    elf = parse_elf(lambda offset, size: content[offset : offset + size])
    assert elf is not None
    return elf_kind(elf, content[:HEAD])


def changed(content: bytes, at: int, data: bytes) -> bytes:
    return content[:at] + data + content[at + len(data) :]


ARM64 = tiny_program(CATALOG["aarch64"])


@pytest.mark.parametrize("row", CATALOG.values(), ids=CATALOG)
def test_each_architecture(row: Architecture) -> None:
    """A program is described by architecture, word size and byte order; the remedy is QEMU, and a valid config line."""
    found = kind(tiny_program(row))
    assert (found.word, found.architecture) == ("elf", row.name)
    for said in (f"for {row.name}", f"{row.header.bits} bits", f"{row.header.byte_order} endian", "static"):
        assert said in found.description
    assert found.remedy == "install QEMU's emulators"
    (name,) = tomllib.loads(found.config)["architectures"]
    assert find(name) is row


@pytest.mark.parametrize(
    ("linker", "libc"),
    [
        ("/lib64/ld-linux-x86-64.so.2", "glibc"),
        ("/lib/ld-linux-aarch64.so.1", "glibc"),
        ("/lib/ld64.so.1", "glibc"),
        ("/lib/ld.so.1", "glibc"),
        ("/lib/ld-musl-armhf.so.1", "musl"),
        ("/system/bin/linker64", "Android's bionic"),
        ("/lib/ld-uClibc.so.0", "uClibc"),
        ("/lib/ld64-uClibc.so.0", "uClibc"),
        ("/libexec/ld-elf.so.1", "FreeBSD's"),
        ("/nix/store/abc-glibc/lib/ld-linux-x86-64.so.2", "glibc, of Nix"),
        ("/opt/mine", ""),
    ],
)
def test_whose_libc(linker: str, libc: str) -> None:
    """The C library is derived from the path of the dynamic linker, which the description names."""
    assert libc_of(linker) == libc
    said = kind(made((3, linker.encode() + b"\0"), bits=32, machine=40, flags=0x05000000)).description
    assert f"loaded by {linker}" in said
    assert f"({libc})" in said or not libc


@pytest.mark.parametrize(("flags", "name"), [(0x05000400, "armhf"), (0x05000200, "armel")])
def test_the_two_arm_ports(flags: int, name: str) -> None:
    """Arm programs with hard and soft float are named after Debian's ports armhf and armel."""
    assert f"arm ({name})" in kind(made((3, b"/lib/ld.so\0"), bits=32, machine=40, flags=flags)).description


def test_an_appimage() -> None:
    """The handler that is proposed for an AppImage takes it, and no other architecture's programs.

    QEMU's match does not: it wants zeros where an AppImage has its own bytes.
    """
    content = changed(ARM64, 8, b"AI\x02")
    found = kind(content)
    assert (found.word, found.architecture) == ("appimage", "aarch64")
    assert not takes(CATALOG["aarch64"].match, content)
    (handler,) = tomllib.loads(found.config)["handlers"].values()
    match = Magic(decode(handler["magic"]), decode(handler["mask"]))
    assert takes(match, content)
    assert [row.name for row in CATALOG.values() if takes(match, tiny_program(row))] == ["aarch64"]
    assert architecture_of(content) is CATALOG["aarch64"]


@pytest.mark.parametrize(
    ("content", "word", "said"),
    [
        (changed(ARM64, 16, b"\x01\0"), "elf-object", "object file"),
        (changed(ARM64, 16, b"\x04\0"), "elf-object", "core dump"),
        (changed(ARM64, 16, b"\x77\0"), "elf-object", "e_type 119"),
        (changed(ARM64, 7, b"\x09"), "elf", "for FreeBSD"),
        (changed(ARM64, 18, b"\xfe\xfe"), "elf", "machine 65278, which is not in the catalog"),
        (ARM64[:50], "elf", "cut off"),
        (changed(changed(ARM64, 16, b"\x03\0"), 24, bytes(8)), "elf-library", "shared library"),
    ],
)
def test_what_no_emulator_helps(content: bytes, word: str, said: str) -> None:
    """For a file that no emulator can run the reason is described, and no handler is proposed."""
    found = kind(content)
    assert found.word == word
    assert said in found.description
    assert (found.remedy != "", found.config) == (True, "")
