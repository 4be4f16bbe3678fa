"""Files that pass for emulators: static programs of this host that print a version as QEMU's do, and exit."""

import struct

import pytest

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program
from binfmtd.cli.store.choice import name_of
from binfmtd.host.facts import native_header


def tiny_emulator(version: str | None, content: bytes = b"") -> bytes:
    """Return a program of some 200 bytes that prints this version; with None it prints nothing.

    ``content`` is appended, so that two files with one version can differ.
    """
    text = b"" if version is None else f"qemu-any version {version}\nCopyright\n".encode()
    machine = name_of(native_header())
    if machine == "x86_64":
        # mov eax, 1; mov edi, 1; lea rsi, [rip + 16]; mov edx, len; syscall; mov eax, 60; xor edi, edi; syscall
        code = bytes.fromhex("b801000000 bf01000000 488d3510000000 ba") + struct.pack("<I", len(text))
        code += bytes.fromhex("0f05 b83c000000 31ff 0f05")
    elif machine == "aarch64":
        # mov x8, 64; mov x0, 1; adr x1, 28; mov x2, len; svc 0; mov x8, 93; mov x0, 0; svc 0; nop
        instructions: tuple[int, ...] = (0xD2800808, 0xD2800020, 0x100000E1, 0xD2800002 | len(text) << 5, 0xD4000001)
        instructions += (0xD2800BA8, 0xD2800000, 0xD4000001, 0xD503201F)
        code = struct.pack(f"<{len(instructions)}I", *instructions)
    else:
        pytest.skip(f"the tests have no tiny emulator for {machine}")
    return tiny_program(CATALOG[machine]._replace(exit42=code + text)) + content
