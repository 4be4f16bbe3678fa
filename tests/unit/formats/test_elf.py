"""Reading ELF files: real ones of this machine, constructed ones, and damaged ones."""

import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.elf_files import made

from binfmtd.catalog.architectures import CATALOG, Architecture
from binfmtd.catalog.program import tiny_program
from binfmtd.formats.elf import ET_EXEC, ET_REL, ElfFile, parse_elf
from binfmtd.model.guard import NativeHeader

LINKER = b"/lib/ld-linux-aarch64.so.1\0"


def parse(content: bytes) -> ElfFile | None:
    return parse_elf(lambda offset, size: content[offset : offset + size])


def level_note(needed: int) -> bytes:
    """Return a GNU property note: first another property, then GNU_PROPERTY_X86_ISA_1_NEEDED."""
    properties = struct.pack("<III4x", 0xC0000002, 4, 3) + struct.pack("<III4x", 0xC0008002, 4, needed)
    return struct.pack("<III4s", 4, len(properties), 5, b"GNU") + properties


@pytest.mark.parametrize("row", CATALOG.values(), ids=CATALOG)
def test_each_architecture(row: Architecture) -> None:
    """Class, byte order and machine are read as in the catalog; a tiny program has no dynamic linker."""
    found = parse(tiny_program(row))
    header = row.header
    assert found is not None
    assert (found.bits, found.byte_order, found.machine) == (header.bits, header.byte_order, header.e_machine)
    assert (found.e_flags, found.e_type, found.linker, found.damage) == (header.e_flags, ET_EXEC, None, None)
    assert found.entry > 0


def test_a_real_program() -> None:
    """The program of this Python is of the host's kind; if it is dynamic, its linker exists."""
    content = Path(sys.executable).resolve().read_bytes()
    found, native = parse(content), NativeHeader.parse(content)
    assert found is not None
    assert (found.bits // 32, found.machine, found.damage) == (native.elf_class, native.machine, None)
    assert found.linker is None or Path(found.linker).exists()


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("filler", [0, 100_000])
def test_the_dynamic_linker(bits: int, order: str, filler: int) -> None:
    """The dynamic linker is the path of the first PT_INTERP, wherever it stands in the file."""
    found = parse(made((1, bytes(filler)), (3, LINKER), (3, b"/other\0"), bits=bits, order=order))
    assert found is not None
    assert (found.linker, found.damage) == (LINKER[:-1].decode(), None)


@pytest.mark.parametrize(("needed", "level"), [(1, None), (3, "v2"), (7, "v3"), (15, "v4")])
def test_the_level_it_needs(needed: int, level: str | None) -> None:
    """The level is x86-64's, as linkers note it; notes of other machines mean something else."""
    note = level_note(needed)
    found = parse(made((0x6474E553, note), machine=62))
    assert found is not None
    assert found.level == level
    other = parse(made((0x6474E553, note)))
    assert other is not None
    assert other.level is None


@pytest.mark.parametrize("note", [b"", b"GNU", level_note(15)[:24], level_note(15)[:16], b"x" * 64])
def test_damaged_notes_give_no_level(note: bytes) -> None:
    """A damaged note gives no level, and no error."""
    found = parse(made((0x6474E553, note), machine=62))
    assert found is not None
    assert found.level is None


WHOLE = made((3, LINKER))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (WHOLE[:40], "cut off within its ELF header"),
        (WHOLE[:70], "cut off within its program headers"),
        (WHOLE[:-4], "contains no path"),
        (made((3, b"/lib/ld.so")), "contains no path"),
        (made((3, b"\0")), "contains no path"),
        (made(), "program headers have a wrong size or number"),
        (WHOLE[:54] + b"\x20\0" + WHOLE[56:], "program headers have a wrong size or number"),
    ],
)
def test_damage(content: bytes, said: str) -> None:
    """A file that no kernel loads has a reason, and its machine and word size are read all the same."""
    found = parse(content)
    assert found is not None
    assert found.damage is not None
    assert said in found.damage
    assert (found.machine, found.bits) == (183, 64)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_loaded_segments(bits: int, order: str) -> None:
    """The loaded segments are those with bytes in the file, also if the file is cut off; others do not count."""
    content = made((1, b"code"), (1, bytes(1000)), (4, b"note"), (1, b""), bits=bits, order=order)
    found, shorter = parse(content), parse(content[:-800])
    assert found is not None
    first = len(content) - len(b"note") - 1004
    loads = [(load.offset, load.in_file, load.in_memory, load.writable) for load in found.loads]
    assert loads == [(first, 4, 0, False), (first + 4, 1000, 0, False)]  # `made` gives them no memory
    assert found.loads[-1].end == len(content) - len(b"note")
    assert found == shorter


def test_an_object_file_has_no_segments() -> None:
    """An object file has no segments, and is not damaged by that."""
    found = parse(made(e_type=ET_REL))
    assert found is not None
    assert (found.e_type, found.damage) == (ET_REL, None)


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF", b"MZ" + bytes(100), b"\x7fELF\x03\x01" + bytes(58), b"\x7fELF\x02\x03" + bytes(58)]
)
def test_no_elf_file(content: bytes) -> None:
    """Another kind of file, or one with an invalid class or byte order, is no ELF file."""
    assert parse(content) is None


@given(st.binary(max_size=200), st.integers(0, 90), st.sampled_from([bytes(range(8)), b"\xff" * 8]))
def test_nothing_ends_in_an_error(noise: bytes, at: int, over: bytes) -> None:
    """No content of a file raises an error."""
    parse(b"\x7fELF\x02\x01" + noise)
    parse(WHOLE[:at] + over + WHOLE[at + 8 :])
