"""Matches: derived from the header, equal to those that QEMU and Debian register, and without a common file."""

from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.catalog.architectures import CATALOG, Architecture
from binfmtd.catalog.elf import GENERAL_RULE, Compared, ElfHeader, derive_match
from binfmtd.catalog.program import tiny_program
from binfmtd.model.match import overlap, takes

# Literals, not derived from anything: name, magic and mask as QEMU and Debian register them.
REGISTERED = Path(__file__).with_name("registered.txt").read_text().splitlines()
EXPECTED = {name: (magic, mask) for name, magic, mask in map(str.split, REGISTERED[1:])}

HEADERS = st.builds(
    ElfHeader,
    st.sampled_from([32, 64]),
    st.sampled_from(["little", "big"]),
    st.integers(1, 0xFFFF),
    st.integers(0, 0xFFFFFFFF),
)


def with_type(program: bytes, header: ElfHeader, e_type: int) -> bytes:
    """Return the program with another e_type."""
    return program[:16] + e_type.to_bytes(2, header.byte_order) + program[18:]


def patched(program: bytes, place: int, value: int) -> bytes:
    """Return the program with one byte changed."""
    return program[:place] + bytes((value,)) + program[place + 1 :]


def test_table_is_of_the_whole_catalog() -> None:
    """Each architecture's match is compared with a literal."""
    assert list(EXPECTED) == list(CATALOG)


@pytest.mark.parametrize("name", EXPECTED)
def test_match_is_what_everybody_registers(name: str) -> None:
    """Magic and mask equal those of QEMU and Debian byte for byte, so entries of each are in sync with ours."""
    match = CATALOG[name].match
    assert match.mask is not None
    assert (match.magic.hex(), match.mask.hex(), match.offset) == (*EXPECTED[name], 0)


def test_twenty_one_follow_the_general_rule() -> None:
    """21 architectures follow the general rule, and every deviation from it changes a match."""
    assert sum(row.compared == GENERAL_RULE for row in CATALOG.values()) == 21
    for row in CATALOG.values():
        assert (row.match == derive_match(row.header)) == (row.compared == GENERAL_RULE), row.name


@pytest.mark.parametrize("name", CATALOG)
def test_match_takes_its_own_program_and_no_other(name: str) -> None:
    """Of the 33 tiny programs each match takes exactly one: its own."""
    taken = [other for other, row in CATALOG.items() if takes(CATALOG[name].match, tiny_program(row))]
    assert taken == [name]


def test_no_two_matches_share_a_file() -> None:
    """No header, not even an invented one, is taken by two matches, so the order of their entries never matters."""
    for one, other in combinations(CATALOG.values(), 2):
        assert not overlap(one.match, other.match), (one.name, other.name)


@pytest.mark.parametrize("name", CATALOG)
def test_match_takes_programs_and_shared_objects_only(name: str) -> None:
    """A match takes position-independent programs (e_type 3), but no object files (1) or core dumps (4)."""
    row = CATALOG[name]
    program = tiny_program(row)
    taken = [e_type for e_type in range(8) if takes(row.match, with_type(program, row.header, e_type))]
    assert taken == [2, 3]


@pytest.mark.parametrize("name", CATALOG)
def test_match_takes_what_linkers_mark_as_gnu_or_freestanding(name: str) -> None:
    """A match takes EI_OSABI 0 and 3 (Linux), the values that native toolchains write."""
    row = CATALOG[name]
    assert all(takes(row.match, patched(tiny_program(row), 7, osabi)) for osabi in (0, 3))


@given(header=HEADERS, other=HEADERS)
def test_a_match_takes_only_its_own_headers(header: ElfHeader, other: ElfHeader) -> None:
    """A match takes a program if, and only if, class, byte order and machine are its own; e_flags do not count."""
    same = (header.bits, header.byte_order, header.e_machine) == (other.bits, other.byte_order, other.e_machine)
    assert takes(derive_match(header), tiny_program(Architecture("its own", header, b"")))
    assert takes(derive_match(header), tiny_program(Architecture("another", other, b""))) == same


@given(header=HEADERS, bit=st.integers(0, 31))
def test_compared_flags_decide_between_equal_headers(header: ElfHeader, bit: int) -> None:
    """A bit of e_flags that is compared decides alone between headers that are equal otherwise."""
    match = derive_match(header, Compared(e_flags=1 << bit))
    flipped = ElfHeader(header.bits, header.byte_order, header.e_machine, header.e_flags ^ 1 << bit)
    rest = ElfHeader(header.bits, header.byte_order, header.e_machine, header.e_flags ^ (0xFFFFFFFF & ~(1 << bit)))
    assert takes(match, tiny_program(Architecture("same bit", rest, b"")))
    assert not takes(match, tiny_program(Architecture("other bit", flipped, b"")))


@pytest.mark.parametrize(
    ("compared", "place"),
    [
        (Compared(ei_data=0xFE), 5),
        (Compared(ei_version=0xFE), 6),
        (Compared(ei_abiversion=0xFE), 8),
        (Compared(e_machine=0xFFFE), 18),
    ],
)
def test_an_uncompared_bit_is_let_through(compared: Compared, place: int) -> None:
    """A bit that a deviation leaves out may differ in its own byte; every other bit still counts."""
    header = ElfHeader(64, "little", 62)
    program = tiny_program(Architecture("any", header, b""))
    lowest = patched(program, place, program[place] ^ 1)
    assert takes(derive_match(header, compared), lowest)
    assert not takes(derive_match(header), lowest)
    assert not takes(derive_match(header, compared), patched(program, place, program[place] ^ 2))
