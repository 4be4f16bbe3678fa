"""The guard against matches that take the host's own programs, compared with headers written by hand."""

from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binfmtd.catalog.architectures import CATALOG
from binfmtd.errors import FormatError
from binfmtd.model.guard import NativeHeader, breaks_exec, takes_native
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Magic, Match, takes

AMD64 = NativeHeader(2, 1, 62)
S390X = NativeHeader(2, 2, 22)
PROGRAM = bytes.fromhex("7f454c46020101000000000000000000 0300 3e00") + bytes(236)  # /bin/true of any distribution


@pytest.mark.parametrize(
    ("match", "taken"),
    [
        (CATALOG["x86_64"].match, "native programs"),
        (CATALOG["i386"].match, None),
        (CATALOG["aarch64"].match, None),
        (Magic(b"\x7fELF"), "native programs"),
        (Magic(b"\x7f"), "native programs"),
        (Magic(b"ELF", offset=1), "native programs"),
        (Magic(b"\x3e\x00", offset=18), "native programs"),
        (Magic(b"\x02\x00", offset=16), "native programs"),
        (Magic(b"\x03\x00", offset=16), "native programs"),
        (Magic(b"\x03", offset=7), "native programs"),  # OSABI of Linux
        (Magic(b"\x01\x00", offset=16), None),  # object files
        (Magic(b"\x09", offset=7), None),  # OSABI of FreeBSD
        (Magic(b"\0" * 4, b"\0" * 4), "native programs"),
        (Magic(b"A", b"\0", offset=200), "native programs"),  # a mask of zeros takes every file
        (Magic(b"\x7fELF" + bytes(4) + b"AI\x02", b"\xff" * 4 + bytes(4) + b"\xff" * 3), None),  # AppImage
        (Magic(b"AI\x02", offset=8), None),
        (Magic(b"#!"), "scripts"),
        (Magic(b"#"), "scripts"),
        (Magic(b"!", offset=1), "scripts"),
        (Magic(b"#!/usr/bin/wasm"), "scripts"),
        (Magic(b"/usr/bin/env ", offset=2), "scripts"),
        (Magic(b"/usr/games/", offset=2), None),
        (Magic(b"MZ"), None),
        (Magic(b"\0asm"), None),
        (Magic(b"\xca\xfe\xba\xbe"), None),
        (Magic(b"PE\0\0", offset=64), None),
        (Magic(b"\0", offset=20), None),
        (Magic(b"\x7fELF" + bytes(16) + b"\1", b"\xff" * 4 + bytes(16) + b"\xff"), "native programs"),
        (Extension("jar"), None),
    ],
)
def test_what_a_match_takes_of_an_amd64_host(match: Match, taken: str | None) -> None:
    """The host's own programs and scripts are guarded; another architecture's or another format's files are not."""
    assert takes_native(match, AMD64) == taken


def test_bytes_that_all_native_programs_have() -> None:
    """A match on bytes that all native programs have beyond the identifying ones (here e_version) is refused, too."""
    head = CATALOG["x86_64"].match.magic + b"\x01\x00\x00\x00" + bytes(232)
    late = Magic(b"\x01\x00\x00\x00", offset=20)
    assert takes_native(late, AMD64) is None
    assert takes_native(late, AMD64, [head]) == "native programs"
    assert takes_native(Magic(b"\x02\x00\x00\x00", offset=20), AMD64, [head]) is None


@pytest.mark.parametrize("name", CATALOG)
def test_an_architecture_takes_no_other_hosts_programs(name: str) -> None:
    """On each host only handlers for its own kind of program are refused, of all in the catalog."""
    header = CATALOG[name].header
    host = NativeHeader(header.bits // 32, 1 if header.byte_order == "little" else 2, header.e_machine)
    refused = {other for other, row in CATALOG.items() if takes_native(row.match, host)}
    alike = {
        other
        for other, row in CATALOG.items()
        if (row.header.bits, row.header.byte_order, row.header.e_machine)
        == (header.bits, header.byte_order, header.e_machine)
    }
    assert name in refused
    assert refused <= alike


@given(
    magic=st.lists(st.sampled_from(b"\x7f\0\2#!"), min_size=1, max_size=4).map(bytes),
    offset=st.integers(0, 17),
    osabi=st.sampled_from([0, 3]),
    e_type=st.sampled_from([2, 3]),
)
def test_no_native_program_is_taken_by_what_passes(magic: bytes, offset: int, osabi: int, e_type: int) -> None:
    """A match on the identifying bytes that passes the guard takes no program and no script of this host."""
    match = Magic(magic, offset=offset)
    program = b"\x7fELF\2\1\1" + bytes((osabi,)) + bytes(8) + bytes((e_type, 0, 62, 0))
    if takes_native(match, AMD64) is None:
        assert not takes(match, program)
        assert offset > 1 or not takes(match, b"#!/bin/sh\n")


def test_a_big_endian_host_has_big_endian_headers() -> None:
    """e_type and e_machine are compared in the host's own byte order."""
    assert takes_native(CATALOG["s390x"].match, S390X) == "native programs"
    assert takes_native(Magic(b"\x00\x02\x00\x16", offset=16), S390X) == "native programs"
    assert takes_native(Magic(b"\x02\x00\x16\x00", offset=16), S390X) is None


def test_the_header_is_read_from_a_program() -> None:
    """Class, byte order and machine are read from a program, the machine in the program's byte order."""
    assert NativeHeader.parse(PROGRAM) == AMD64
    assert NativeHeader.parse(b"\x7fELF\2\2\1" + bytes(9) + b"\0\2\0\x16") == S390X


@pytest.mark.parametrize("head", [b"", b"#!/bin/sh\n" * 9, PROGRAM[:19], b"\x7fELF\2\3" + PROGRAM[6:]])
def test_what_is_no_elf_program_has_no_header(head: bytes) -> None:
    """A script, a file that is too short, or an invalid byte order is a FormatError."""
    with pytest.raises(FormatError, match="not an ELF program"):
        NativeHeader.parse(head)


ALL_ELF = Registration(Magic(b"\x7fELF"), "/i", Flags.NONE)
ESCAPES = PROGRAM[:7] + b"\x09" + PROGRAM[8:]  # OSABI of FreeBSD: runs all the same
FOREIGN = PROGRAM[:18] + b"\xb7\0" + PROGRAM[20:]


def says(match: Match, interpreter: str) -> Registration:
    return Registration(match, interpreter, Flags.NONE)


@pytest.mark.parametrize(
    ("registration", "standing", "files", "stops"),
    [
        (ALL_ELF, (), {"/i": PROGRAM}, True),
        (ALL_ELF, (), {}, True),  # it is unknown what F opened: in the end a program of this host
        (ALL_ELF, (), {"/i": b"#!/bin/sh\n", "/bin/sh": PROGRAM}, True),
        (ALL_ELF, (), {"/i": b"#! \t/a\n", "/a": b"#!/b -x\n", "/b": PROGRAM}, True),
        (ALL_ELF, (), {"/i": b"no program"}, True),
        (ALL_ELF, (), {"/i": b"#!\n"}, True),
        (ALL_ELF, (says(Extension("odd"), "/odd"),), {"/i": b"MZ", "/odd": PROGRAM}, True),
        (says(ALL_ELF.match, "/i.odd"), (says(Extension("odd"), "/odd"),), {"/i.odd": b"MZ", "/odd": PROGRAM}, True),
        (says(ALL_ELF.match, "/i.odd"), (says(Extension("odd"), "/i.odd"),), {"/i.odd": b"MZ"}, True),
        (says(CATALOG["x86_64"].match, "/i"), (), {"/i": FOREIGN}, True),
        (says(CATALOG["x86_64"].match, "/i"), (says(CATALOG["aarch64"].match, "/q"),), {"/i": FOREIGN}, True),
        (says(Magic(PROGRAM[:8]), "/i"), (), {"/i": ESCAPES}, False),
        (says(Magic(PROGRAM[:8]), "/i"), (), {"/i": b"#!/b\n", "/b": ESCAPES}, False),
        (says(Magic(PROGRAM[:8]), "/i"), (ALL_ELF,), {"/i": ESCAPES}, True),
        (says(CATALOG["aarch64"].match, "/i"), (), {"/i": PROGRAM}, False),
        (says(CATALOG["i386"].match, "/i"), (), {"/i": PROGRAM}, False),
        (says(Magic(b"AI\x02", offset=8), "/i"), (), {"/i": PROGRAM}, False),
        (says(Magic(b"#!"), "/i"), (), {"/i": b"#!/i\n"}, False),  # programs run, so an administrator can remove it
        (says(Extension("11"), "/i.11"), (), {}, False),
    ],
)
def test_what_stops_every_exec(
    registration: Registration, standing: tuple[Registration, ...], files: dict[str, bytes], stops: bool
) -> None:
    """An entry stops every exec if it takes our own program and, however long the way, leads to nothing that runs."""
    assert breaks_exec(registration, lambda: standing, AMD64, [PROGRAM], lambda path: files.get(path, b"")) is stops


def test_a_program_of_another_kind_than_our_own_counts() -> None:
    """The guard tests programs of several kinds: one that is not position-independent has other addresses.

    Python may be such a program.
    """
    program = PROGRAM[:72].ljust(72, b"\0") + b"\x40" + PROGRAM[73:].ljust(183, b"\0")
    late = says(Magic(b"\x40", offset=72), "/i")
    assert takes_native(late.match, AMD64, [PROGRAM, program]) == "native programs"
    assert breaks_exec(late, tuple, AMD64, [PROGRAM, program], lambda _: program)
    assert not breaks_exec(late, tuple, AMD64, [PROGRAM, program], lambda _: PROGRAM)
    assert not breaks_exec(late, tuple, AMD64, [PROGRAM], lambda _: program)


def test_an_entry_that_takes_no_program_costs_nothing() -> None:
    """For an entry that takes no program the other entries are not listed: of thousands each would be compared."""
    beside = mock.Mock()
    assert not breaks_exec(says(CATALOG["aarch64"].match, "/i"), beside, AMD64, [PROGRAM], lambda _: b"")
    beside.assert_not_called()


def test_without_a_native_program_to_compare_with() -> None:
    """If /proc/self/exe cannot be read, no entry counts as one that stops every exec."""
    assert not breaks_exec(says(Magic(b"\0"), "/i"), tuple, AMD64, [], lambda _: b"")
