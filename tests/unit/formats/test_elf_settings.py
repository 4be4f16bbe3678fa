"""Settings inside of a program: what is added, what stays, and which files and settings are refused."""

import struct
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.elf_files import made

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.entry_code import ENTRY_CODE
from binfmtd.catalog.program import tiny_program
from binfmtd.errors import FormatError
from binfmtd.formats.elf import parse_elf
from binfmtd.formats.elf_settings import MOST_BYTES, MOST_SETTINGS, add_settings, settings_of

HEADER, SEGMENT = struct.Struct("<16s2HI3QI6H"), struct.Struct("<2I6Q")
LOAD, NOTE, PHDR, INTERP = 1, 4, 6, 3
X86_64, AARCH64 = 62, 183
NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,9}", fullmatch=True).filter(lambda name: not name.startswith("LD_"))
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
SETTINGS = st.dictionaries(NAMES, VALUES, min_size=1, max_size=6)
CPU = {"QEMU_CPU": "max,-avx512f"}

Segment = tuple[int, int, int, int, int, int, int, int]  # type, flags, offset, address, physical, sizes, align


def elf(*segments: Segment, machine: int = X86_64, e_type: int = 2, entry: int = 0x400100, size: int = 0x1000) -> bytes:
    ident = b"\x7fELF\2\1\1" + bytes(9)
    header = HEADER.pack(ident, e_type, machine, 1, entry, 64, 7, 0, 64, 56, len(segments), 64, 0, 0)
    return (header + b"".join(SEGMENT.pack(*segment) for segment in segments)).ljust(size, b"x")


def load(
    offset: int = 0, address: int = 0x400000, *, flags: int = 5, size: int = 0x1000, bss: int = 0, align: int = 4096
) -> Segment:
    return (LOAD, flags, offset, address, address, size, size + bss, align)


def segments_of(content: bytes) -> list[Segment]:
    header = HEADER.unpack_from(content)
    return list(SEGMENT.iter_unpack(content[header[5] : header[5] + 56 * header[10]]))


def found(content: bytes) -> dict[str, str]:
    return settings_of(lambda offset, size: content[offset : offset + size])


@st.composite
def programs(draw: st.DrawFn) -> bytes:
    """Draw a static program: some segments in order, with other program headers among them, and a tail."""
    align = draw(st.sampled_from([0x1000, 0x10000]))
    base = draw(st.sampled_from([0, 0x400000]))
    segments, offset, gap = [], 0, 0
    for number in range(draw(st.integers(1, 4))):
        size = draw(st.integers(0x200, 3 * align))
        segments.append(load(offset, base + offset + gap, flags=5 if number == 0 else 6, size=size, align=align))
        offset = -(-(offset + size) // align) * align
        gap += draw(st.integers(0, 2)) * align
    segments[-1] = (*segments[-1][:6], segments[-1][6] + draw(st.integers(0, 100000)), align)
    for kind in draw(st.lists(st.sampled_from([NOTE, PHDR, 7]), max_size=3)):
        segments.insert(draw(st.integers(0, len(segments))), (kind, 4, 64, base + 64, base + 64, 56, 56, 8))
    machine, e_type = draw(st.sampled_from([X86_64, AARCH64])), 3 if base == 0 else 2
    return elf(
        *segments, machine=machine, e_type=e_type, entry=base + 0x180, size=offset + draw(st.integers(0, 300000))
    )


@given(program=programs(), settings=SETTINGS)
def test_added(program: bytes, settings: dict[str, str]) -> None:
    """The settings are found again; nothing of the file changes but three fields of its header, and a segment more."""
    content = add_settings(program, settings)
    assert found(content) == settings
    before, after = HEADER.unpack_from(program), HEADER.unpack_from(content)
    assert content[64 : len(program)] == program[64:]
    assert [place for place in range(14) if before[place] != after[place]] == [4, 5, 10]
    (place,) = (place for place, each in enumerate(segments_of(content)) if (each[0], each[2]) == (LOAD, after[5]))
    left = segments_of(content)
    added = left.pop(place)
    assert [each for each in left if each[0] != PHDR] == [each for each in segments_of(program) if each[0] != PHDR]
    for each in left:
        if each[0] == PHDR:
            assert each[2:7] == (added[2], added[3], added[3], 56 * after[10], 56 * after[10])
    _, flags, offset, address, _, size, memory, align = added
    loads = [each for each in segments_of(content) if each[0] == LOAD]
    assert loads[-1] == added
    assert all(one[3] + one[6] <= other[3] for one, other in pairwise(loads))
    assert (flags, size, memory) == (5, len(content) - offset, size)
    assert address % align == offset % align == 0
    assert address - offset == loads[0][3] - loads[0][2]
    assert address <= after[4] < address + size


@given(program=programs(), first=SETTINGS, second=SETTINGS)
def test_added_twice(program: bytes, first: dict[str, str], second: dict[str, str]) -> None:
    """A program that has settings takes more, and the later ones win."""
    assert found(add_settings(add_settings(program, first), second)) == first | second


@given(data=st.binary(max_size=300), program=programs(), place=st.integers(0, 400), settings=SETTINGS)
def test_any_file(data: bytes, program: bytes, place: int, settings: dict[str, str]) -> None:
    """Any content is either refused with one error, or its settings are found again; to look for them never fails."""
    for content in (data, program[:place] + data + program[place + len(data) :], program[: place * 8]):
        found(content)
        try:
            carrying = add_settings(content, settings)
        except FormatError:
            continue
        assert found(carrying).items() >= settings.items()


@given(program=programs(), place=st.integers(1, 600), byte=st.integers(0, 255))
def test_a_damaged_segment(program: bytes, place: int, byte: int) -> None:
    """A byte of the added segment that differs makes other settings or none, never an exception."""
    content = bytearray(add_settings(program, CPU))
    assume(place < len(content))
    content[-place] = byte
    found(bytes(content))
    found(bytes(content[:-place]))


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (b"#!/bin/sh\n", "not an ELF program"),
        (elf(load())[:70], "damaged: it is cut off"),
        (tiny_program(CATALOG["riscv64"]), "another machine"),
        (made((LOAD, b"x"), bits=32, machine=X86_64), "another machine"),
        (elf(load(), e_type=1), "not a program"),
        (elf(load(), (INTERP, 4, 0x200, 0, 0, 5, 5, 1), size=0x200) + b"/lib\0", r"dynamic \(it needs /lib\)"),
        (elf((NOTE, 4, 0, 0, 0, 8, 8, 4)), "its entry point is in none"),
        (elf(load(flags=4)), "its entry point is in none"),
        (elf(load(0x1000, 0x500000), load()), "not in order"),
        (elf(load(align=0x3000, address=0x300000), entry=0x300100), "not aligned"),
        (elf(load(0x10, 0x400000)), "not aligned"),
        (elf(load(address=1 << 47), entry=(1 << 47) + 9), "no program can be loaded"),
        (elf(load(bss=100 << 20)), "bytes of zeros"),
        (elf(load(), *[(NOTE, 4, 0, 0, 0, 8, 8, 4)] * 72, size=0x2000), "73 program headers"),
        (elf(load(), machine=AARCH64, entry=0x400102), "no jump leads"),
    ],
)
def test_refused(program: bytes, reason: str) -> None:
    """A file that cannot carry settings is refused, with the reason, and has none."""
    with pytest.raises(FormatError, match=reason):
        add_settings(program, CPU)
    assert found(program) == {}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "no setting is given"),
        ({"qemu_cpu": "max"}, "'qemu_cpu' cannot be the name"),
        ({"QEMU CPU": "max"}, "'QEMU CPU' cannot be the name"),
        ({"": "max"}, "'' cannot be the name"),
        ({"LD_PRELOAD": "/x"}, "LD_PRELOAD cannot be a setting"),
        ({"A": "x\0y"}, "the value of A contains a NUL"),
        ({f"A{number}": "" for number in range(MOST_SETTINGS + 1)}, "there are 65 settings"),
        ({"A": "x" * MOST_BYTES}, "the settings have 65539 bytes"),
    ],
)
def test_refused_settings(settings: dict[str, str], reason: str) -> None:
    """Names and values that no environment should have are refused, and too many of them."""
    with pytest.raises(FormatError, match=reason):
        add_settings(elf(load()), settings)


def test_the_most() -> None:
    """As many and as long settings as are allowed are found again."""
    many = {f"A{number:02}": "" for number in range(MOST_SETTINGS)}
    many["A00"] = "x" * (MOST_BYTES - MOST_SETTINGS * 5)
    assert found(add_settings(elf(load()), many)) == many
    parsed = add_settings(elf(load()), many)
    assert parse_elf(lambda offset, size: parsed[offset : offset + size]) is not None


def test_a_jump_to_itself() -> None:
    """A file made so that the code of its settings jumps to itself ends no command: its settings are found."""
    content = bytearray(add_settings(elf(load()), CPU))
    code = ENTRY_CODE[X86_64]
    place = bytes(content).index(code.code[: code.jump])
    content[place : place + len(code.code)] = code.jumping(0)
    assert found(bytes(content)) == CPU
