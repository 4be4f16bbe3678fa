"""ELF files of headers and segments, to be parsed and not to be run."""

import struct


def made(
    *segments: tuple[int, bytes],
    bits: int = 64,
    order: str = "<",
    machine: int = 183,
    e_type: int = 3,
    entry: int = 0x1000,
    flags: int = 0,
) -> bytes:
    """Return an ELF file with these segments, each with its p_type and content; the content comes last in the file."""
    ident = b"\x7fELF" + bytes((1 if bits == 32 else 2, 1 if order == "<" else 2, 1)) + bytes(9)
    word, size, each = ("I", 52, 32) if bits == 32 else ("Q", 64, 56)
    header = struct.pack(
        f"{order}16sHHI3{word}I6H",
        ident,
        e_type,
        machine,
        1,
        entry,
        size,
        0,
        flags,
        size,
        each,
        len(segments),
        0,
        0,
        0,
    )
    at, table, contents = size + each * len(segments), b"", b""
    for kind, content in segments:
        place = at + len(contents)
        if bits == 32:
            table += struct.pack(f"{order}8I", kind, place, 0, 0, len(content), 0, 4, 1)
        else:
            table += struct.pack(f"{order}2I6Q", kind, 4, place, 0, 0, len(content), 0, 1)
        contents += content
    return header + table + contents
