"""The kind of a file that no handler takes, by its bytes."""

import io
import struct
import tomllib
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.formats.file_types import Kind, kind_of


def kind(content: bytes, name: str = "") -> Kind:
    return kind_of(lambda offset, size: content[offset : offset + size], name)


def pe(
    machine: int = 0x8664, subsystem: int = 3, *, runtime: bool = False, plus: bool = True, directories: int = 16
) -> bytes:
    """Return the headers of a Windows program, at 0x80 as linkers place them."""
    optional = bytearray(240)
    optional[0:2] = b"\x0b\x02" if plus else b"\x0b\x01"
    optional[68:70] = subsystem.to_bytes(2, "little")
    table = 112 if plus else 96
    optional[table - 4 : table] = directories.to_bytes(4, "little")
    if runtime:
        optional[table + 112 : table + 116] = b"\0\x20\0\0"
    return (
        (b"MZ" + bytes(58) + struct.pack("<I", 0x80)).ljust(0x80, b"\0")
        + b"PE\0\0"
        + struct.pack("<H18x", machine)
        + optional
    )


def archive(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name in names:
            made.writestr(name, "content")
    return file.getvalue()


JAR_TOOLS_MARK = b"PK\x03\x04" + bytes(22) + struct.pack("<HH", 5, 4) + b"a.txt" + b"\xfe\xca\0\0"


@pytest.mark.parametrize(
    ("content", "word", "said"),
    [
        (b"", "empty", "an empty file"),
        (b"\0asm\x01\0\0\0", "wasm", "WebAssembly module"),
        (b"\0asm\x0d\0\x01\0", "wasm-component", "WebAssembly component"),
        (b"\xca\xfe\xba\xbe\0\0\0\x34", "java-class", "Java class"),
        (b"\xca\xfe\xba\xbe\0\0\0\x02", "mach-o", "macOS"),
        (b"\xcf\xfa\xed\xfe", "mach-o", "macOS"),
        (archive("META-INF/MANIFEST.MF", "A.class"), "jar", "jar"),
        (JAR_TOOLS_MARK, "jar", "jar"),
        (archive("a.txt"), "zip", "zip"),
        (pe(), "pe", "Windows program (PE, x86-64)"),
        (pe(0xAA64), "pe", "Windows program (PE, arm64)"),
        (pe(0x1234), "pe", "machine 0x1234"),
        (pe(runtime=True), "dotnet", ".NET"),
        (pe(0x14C, runtime=True, plus=False), "dotnet", ".NET"),
        (pe(runtime=True, directories=10), "pe", "Windows"),
        (pe(subsystem=10), "efi", "UEFI firmware"),
        (b"MZ" + bytes(10), "dos", "DOS"),
        (b"MZ" + bytes(100), "dos", "DOS"),
        (b"\xf3\x0d\r\n" + bytes(12), "python-bytecode", "compiled Python"),
        (b"BC\xc0\xde", "llvm-bitcode", "LLVM"),
        (b"\x1bLuaT", "lua-bytecode", "Lua"),
        (b"!<arch>\ndebian-binary", "archive", ".deb"),
        (b"\x1f\x8b\x08", "compressed", "gzip"),
        (b"\x28\xb5\x2f\xfd", "compressed", "zstd"),
        (b"name".ljust(257, b"\0") + b"ustar\0", "archive", "tar"),
        (b"#!" + b" " * 300, "script", "first line the kernel cannot use"),
        (b"\xef\xbb\xbf#!/bin/sh\n", "script", "byte order mark"),
        (b"echo hello\n", "text", "without #!"),
        ("echo gr\u00fc\u00dfe\n".encode("latin-1"), "text", "without #!"),
        (b"\1\2\3", "data", "begins with 01 02 03"),
    ],
)
def test_kinds(content: bytes, word: str, said: str) -> None:
    """Each kind of file is distinguished from all other kinds, and has a remedy."""
    found = kind(content)
    assert found.word == word
    assert said in found.description
    assert found.remedy


def test_a_jar_by_its_name() -> None:
    """A ZIP archive named .jar is a jar wherever its manifest is: some tools write that last."""
    assert kind(archive("a.txt"), "tool.jar").word == "jar"


def test_the_config_lines_are_a_config() -> None:
    """The proposed config is TOML that declares a handler with the magic of the file."""
    for content, magic in ((b"\0asm\x01\0\0\0", "\\x00asm"), (pe(), "MZ"), (b"BC\xc0\xde", "BC\\xc0\\xde")):
        (handler,) = tomllib.loads(kind(content).config)["handlers"].values()
        assert handler["magic"] == magic
        assert handler["interpreter"].startswith("/")


def test_a_script_that_is_in_order() -> None:
    """A script with an interpreter needs no remedy."""
    assert kind(b"#!/bin/sh\n") == Kind("script", "a script")


@given(st.binary(max_size=300), st.sampled_from([b"", b"MZ" + bytes(58), b"PK\x03\x04", b"\xca\xfe\xba\xbe"]))
def test_nothing_ends_in_an_error(noise: bytes, begin: bytes) -> None:
    """Every file has a description, whatever its content."""
    assert kind(begin + noise).description
