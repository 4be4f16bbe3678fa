"""The kinds of files that no handler takes, and the programs that usually run them.

A kind follows from a file's first bytes, as a match of the kernel does.  Sources: the formats' own specifications, and
for Debian's handlers the packages' files in /usr/share/binfmts.  The kinds of ELF files are in ``elf_types``.
"""

from shlex import quote
from typing import NamedTuple

from binfmtd.formats.elf import Read
from binfmtd.model.shebang import parse_shebang

START_BYTES = 4096  # that decide the kind; only a PE header is read elsewhere


class Kind(NamedTuple):
    """The kind of a file.

    ``word`` is for programs, ``description`` for people.  ``remedy`` is the way to get a handler, or what to do
    instead.  ``config`` is the text for binfmtd's config, and ``architecture`` QEMU's name of the file's architecture.
    """

    word: str
    description: str
    remedy: str = ""
    config: str = ""
    architecture: str | None = None


def kind_of(read: Read, name: str = "") -> Kind:  # noqa: PLR0911  each case has its own answer
    """Return the kind of a file that is not ELF; ``name`` decides where its bytes do not."""
    start = read(0, START_BYTES)
    if not start:
        return Kind("empty", "an empty file", "check that it was written completely (a shell runs it and does nothing)")
    if parse_shebang(start):
        return Kind("script", "a script")
    if start.startswith(b"#!"):
        return Kind(
            "script",
            "a script whose first line the kernel cannot use",
            "name an interpreter after #!, and have its path end within the first 255 bytes",
        )
    if start.startswith(b"\xef\xbb\xbf#!"):
        return Kind(
            "script",
            "a script that begins with a byte order mark (EF BB BF) instead of #!",
            f"remove the mark: sed -i '1s/^\\xef\\xbb\\xbf//' {quote(name)}",
        )
    if start.startswith(b"MZ"):
        return _windows(start, read)
    if start.startswith(b"PK\x03\x04"):
        return _archive(start, name)
    if start.startswith(b"\xca\xfe\xba\xbe"):
        return _cafebabe(start)
    if start[2:4] == b"\r\n" and start[1] in (0x0C, 0x0D, 0x0E) and len(start) >= 16:
        return _PYTHON
    for magic, kind in _KINDS:
        if start.startswith(magic):
            return kind
    if start[257:262] == b"ustar":
        return Kind("archive", "a tar archive", "unpack it, and execute what is in it")
    if _is_text(start):
        return Kind(
            "text",
            "a text without #! in its first line",
            "begin it with #!/bin/sh, or with #! and the path of its interpreter (a shell runs it without that; exec, "
            "sudo, systemd and most languages do not)",
        )
    return Kind(
        "data",
        f"data of no known kind, which begins with {start[:8].hex(' ')}",
        "if there is an interpreter for it, declare a handler with its magic or extension",
    )


_PYTHON = Kind(
    "python-bytecode",
    "compiled Python",
    "run it with the Python that compiled it; Debian's packages pythonX.Y-minimal and binfmt-support install a handler",
)
_MACHO = Kind("mach-o", "a Mach-O program, of macOS", "build it for Linux, or try darling, which has no usual handler")
_WASMTIME = (
    "install wasmtime, and declare a handler (config/presets/wasm.toml)",
    '[handlers.wasm]\nmagic = \'\\x00asm\'\ninterpreter = "/usr/bin/wasmtime"\nflags = "F"',
)
_COMPRESSED = "unpack it, and execute what is in it"
_KINDS = (
    (b"\0asm\x01\0\0\0", Kind("wasm", "a WebAssembly module", *_WASMTIME)),
    (b"\0asm", Kind("wasm-component", "a WebAssembly component", *_WASMTIME)),
    (
        b"BC\xc0\xde",
        Kind(
            "llvm-bitcode",
            "LLVM bitcode",
            "Debian's packages llvm-runtime and binfmt-support install a handler",
            "[handlers.llvm]\nmagic = 'BC\\xc0\\xde'\ninterpreter = \"/usr/bin/lli\"",
        ),
    ),
    (b"\xce\xfa\xed\xfe", _MACHO),
    (b"\xcf\xfa\xed\xfe", _MACHO),
    (b"\xfe\xed\xfa\xce", _MACHO),
    (b"\xfe\xed\xfa\xcf", _MACHO),
    (b"\x1bLua", Kind("lua-bytecode", "compiled Lua", "run it with the lua that compiled it")),
    (b"!<arch>\n", Kind("archive", "an ar archive: a static library or a .deb", "this is not a program")),
    (b"\x1f\x8b", Kind("compressed", "compressed with gzip", _COMPRESSED)),
    (b"\xfd7zXZ\0", Kind("compressed", "compressed with xz", _COMPRESSED)),
    (b"BZh", Kind("compressed", "compressed with bzip2", _COMPRESSED)),
    (b"\x28\xb5\x2f\xfd", Kind("compressed", "compressed with zstd", _COMPRESSED)),
    (b"hsqs", Kind("archive", "a squashfs image", "mount it, and execute what is in it")),
)
_PE_MACHINES = {
    0x14C: "i386",
    0x8664: "x86-64",
    0xAA64: "arm64",
    0x1C4: "arm",
    0x5064: "riscv64",
    0x6264: "loongarch64",
}
_EFI = range(10, 14)  # subsystems: application, boot service driver, runtime driver, ROM


def _windows(start: bytes, read: Read) -> Kind:
    """Return the kind of a DOS, Windows, .NET or EFI program (the PE format's specification, "PE File Format")."""
    at = int.from_bytes(start[0x3C:0x40], "little")
    header = read(at, 512) if len(start) >= 0x40 else b""
    if not header.startswith(b"PE\0\0"):
        return Kind("dos", "a DOS program", "run it in dosbox, or dosemu2")
    machine = int.from_bytes(header[4:6], "little")
    cpu = _PE_MACHINES.get(machine, f"machine {machine:#x}")
    optional = header[24:]
    if int.from_bytes(optional[68:70], "little") in _EFI:
        return Kind("efi", f"a program for UEFI firmware ({cpu})", "it runs in the firmware, before Linux starts")
    directories = 96 if optional[:2] == b"\x0b\x01" else 112  # PE32, PE32+
    has = int.from_bytes(optional[directories - 4 : directories], "little")
    runtime = optional[directories + 14 * 8 : directories + 14 * 8 + 4]  # the CLR runtime header's address
    if has > 14 and any(runtime):
        return Kind(
            "dotnet",
            "a .NET program (PE)",
            "run it as `dotnet FILE`, or install Debian's package mono-runtime and declare a handler",
            '[handlers.cli]\nextension = "exe"\ninterpreter = "/usr/bin/mono"',
        )
    return Kind(
        "pe",
        f"a Windows program (PE, {cpu})",
        "install Debian's packages wine and wine-binfmt, which installs a handler in binfmt.d",
        "[handlers.wine]\nmagic = 'MZ'\ninterpreter = \"/usr/bin/wine\"",
    )


def _archive(start: bytes, name: str) -> Kind:
    """Return the kind of a zip archive.

    A jar's first file is META-INF/, or its extra field begins with 0xCAFE (java.util.jar).
    """
    length = int.from_bytes(start[26:28], "little")
    first = start[30 : 30 + length]
    marked = start[30 + length : 32 + length] == b"\xfe\xca"
    if first.startswith(b"META-INF/") or marked or name.endswith(".jar"):
        return Kind(
            "jar",
            "a Java archive (jar)",
            "install Debian's package default-jre-headless, and declare a handler (config/presets/java.toml); it takes "
            "files named *.jar",
            '[handlers.jar]\nextension = "jar"\ninterpreter = "/usr/bin/jexec"',
        )
    return Kind("zip", "a zip archive", "unpack it; a Python zip application has to begin with #!/usr/bin/env python3")


def _cafebabe(start: bytes) -> Kind:
    """Return the kind of a Java class or a universal Mach-O file, which begin alike.

    The number that follows is Java's version, 45 in the first one, or a number of machines, which is always lower.
    """
    if int.from_bytes(start[4:8], "big") & 0xFFFF < 45:
        return Kind("mach-o", "a universal Mach-O program, of macOS", _MACHO.remedy)
    return Kind(
        "java-class",
        "a Java class",
        "run it as `java CLASS` (Debian's package default-jre-headless), or put it into a jar",
    )


def _is_text(start: bytes) -> bool:
    """Return True if there is no control character but blanks and escape; bytes above 0x7f may be anything."""
    return not any(byte < 0x20 and byte not in b"\t\n\v\f\r\x1b" for byte in start)
