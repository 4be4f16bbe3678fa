"""Settings inside of a static program: environment variables that it finds set, in whatever root it is executed.

``add_settings`` appends one segment to an emulator, and makes its code the entry point::

    program headers     a copy of the program's own, with one for this segment; e_phoff leads here
    code                catalog/entry_code.py
    table               its settings
    strings             QEMU_CPU=max,-avx512f

The result stays one static program, so flag F opens all of it.  The rules:

* A variable that the caller of exec has set stays as it is, also if it is empty.
* argv and all strings keep their addresses.  In the auxiliary vector only AT_PHDR and AT_ENTRY lead to the segment.
* Nothing else changes: the segment is appended, above all others in memory, so bss and the brk area are as before.
* The difference of address and offset is that of the first segment.  Before 5.18 Linux computes AT_PHDR as if the
  program headers were in the first segment (fs/binfmt_elf.c, create_elf_tables), and that is right here, too.
* A program that has settings can get more.  The code of the new ones runs first, so they win.

Source: elf(5), and for what the kernel requires fs/binfmt_elf.c (load_elf_phdrs, load_elf_binary).

Example: ``add_settings(emulator, {"QEMU_CPU": "max,-avx512f"})``.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from binfmtd.catalog.entry_code import ENTRY_CODE
from binfmtd.errors import FormatError
from binfmtd.formats.elf import ET_DYN, ET_EXEC, Read, parse_elf

MOST_SETTINGS = 64
MOST_BYTES = 65536  # of all names and values together
_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
_HEADER = struct.Struct("<16s2HI3QI6H")
_PROGRAM_HEADER = struct.Struct("<2I6Q")
_NUMBER = struct.Struct("<I")
_SETTING = struct.Struct("<2I")
_PT_LOAD, _PT_PHDR = 1, 6
_EXECUTE, _READ_EXECUTE = 1, 5
_MOST_HEADERS = 4096 // _PROGRAM_HEADER.size  # an older load_elf_phdrs takes no table larger than a page
_PAGE = 4096
_HIGHEST = 1 << 47  # user space of x86_64, and of aarch64 with the smallest address space that distributions use
_MOST_ZEROS = 64 << 20  # bytes between a file's end and its new segment: as many as its variables without a value have
_CODE_ALIGN = 16
_POINTER, _STACK_ALIGN = 8, 16


class _Segment(NamedTuple):
    """One program header; see elf(5)."""

    kind: int
    flags: int
    offset: int
    address: int
    physical: int
    file_size: int
    memory_size: int
    align: int


class _Program(NamedTuple):
    """The ELF header's fields, and the program headers."""

    header: tuple[bytes | int, ...]
    machine: int
    entry: int
    segments: tuple[_Segment, ...]

    @property
    def loaded(self) -> list[_Segment]:
        return [segment for segment in self.segments if segment.kind == _PT_LOAD]


def check_settings(settings: Mapping[str, str]) -> None:
    """Raise FormatError, which names the setting, if a program cannot carry these."""
    if not settings:
        raise FormatError("no setting is given: write at least one, like QEMU_CPU=max")
    if len(settings) > MOST_SETTINGS:
        raise FormatError(f"there are {len(settings)} settings: use {MOST_SETTINGS} at most")
    for name, value in settings.items():
        if _NAME.fullmatch(name) is None:
            raise FormatError(f"{name!r} cannot be the name of a setting: use capital letters, digits and _")
        if name.startswith("LD_"):
            raise FormatError(
                f"{name} cannot be a setting: a static emulator does not read it, but the programs in it would"
            )
        if "\0" in value:
            raise FormatError(f"the value of {name} contains a NUL, which ends the value of a variable: leave it out")
    size = sum(len(text) for text in _texts(settings))
    if size > MOST_BYTES:
        raise FormatError(f"the settings have {size} bytes: use {MOST_BYTES} at most")


def add_settings(content: bytes, settings: Mapping[str, str]) -> bytes:
    """Return the program that finds these variables set.

    Raises FormatError if the file cannot carry them (the message does not name it), or a setting is not allowed.
    """
    check_settings(settings)
    size = len(content)
    program = _program(lambda offset, count: content[offset : offset + count])
    code = ENTRY_CODE[program.machine]
    loaded = program.loaded
    align = max(_PAGE, *(segment.align for segment in loaded))
    shift = loaded[0].address - loaded[0].offset
    if shift % align or align & (align - 1):
        raise FormatError("its segments are not aligned as the kernel requires it: it is damaged")
    end = max(segment.address + segment.memory_size for segment in loaded)
    address = _up(max(end, size + shift), align)
    offset = address - shift
    if address >= _HIGHEST:
        raise FormatError("its segments lie where no program can be loaded: it is damaged")
    if offset - size > _MOST_ZEROS:
        raise FormatError(f"it would get {offset - size} bytes of zeros, and {_MOST_ZEROS} are allowed")
    count = len(program.segments) + 1
    if count > _MOST_HEADERS:
        raise FormatError(f"it has {count - 1} program headers, and older kernels take {_MOST_HEADERS}: none is free")
    table_size = _up(count * _PROGRAM_HEADER.size, _CODE_ALIGN)
    entry = address + table_size
    behind = code.jumping(program.entry - entry) + _settings_table(settings)
    data_size = table_size + len(behind)
    added = _Segment(_PT_LOAD, _READ_EXECUTE, offset, address, address, data_size, data_size, align)
    headers = b"".join(_PROGRAM_HEADER.pack(*each) for each in _with_segment(program.segments, added, count))
    ident, e_type, machine, version, _, _, sections, flags, header_size, phentsize, _, *rest = program.header
    header = _HEADER.pack(
        ident, e_type, machine, version, entry, offset, sections, flags, header_size, phentsize, count, *rest
    )
    zeros = bytes(offset - size)
    return b"".join((header, memoryview(content)[len(header) :], zeros, headers.ljust(table_size, b"\0"), behind))


def settings_of(read: Read) -> dict[str, str]:
    """Return the settings that ``add_settings`` has added to a file, all of them; empty for any other file."""
    found: dict[str, str] = {}
    try:
        program = _program(read)
        for _ in program.segments:  # each addition has one
            code = ENTRY_CODE[program.machine]
            place = _place(program, program.entry)
            if place is None or not code.is_in(head := read(place, len(code.code))):
                break
            for text in _read_table(read, place + len(code.code)):
                name, _, value = text.partition("=")
                found.setdefault(name, value)
            program = program._replace(entry=program.entry + code.target(head))
    except FormatError:
        return found
    return found


def _program(read: Read) -> _Program:
    """Read the headers.  Raises FormatError unless it is a static program that can carry settings."""
    elf = parse_elf(read)
    if elf is None:
        raise FormatError("it is not an ELF program")
    if elf.damage is not None:
        raise FormatError(f"it is damaged: {elf.damage}")
    if elf.machine not in ENTRY_CODE or (elf.bits, elf.byte_order) != (64, "little"):
        raise FormatError("it is for another machine than x86_64 and aarch64, and only those can carry settings")
    if elf.e_type not in (ET_EXEC, ET_DYN):
        raise FormatError("it is not a program")
    if elf.linker is not None:
        raise FormatError(f"it is dynamic (it needs {elf.linker}): only a static program can carry settings")
    header = _HEADER.unpack(read(0, _HEADER.size))
    table, count = header[5], header[10]
    segments = tuple(
        _Segment(*fields) for fields in _PROGRAM_HEADER.iter_unpack(read(table, count * _PROGRAM_HEADER.size))
    )
    program = _Program(header, elf.machine, elf.entry, segments)
    addresses = [segment.address for segment in program.loaded]
    if addresses != sorted(addresses) or _place(program, elf.entry) is None:
        raise FormatError("it is damaged: its entry point is in none of its segments, or these are not in order")
    return program


def _place(program: _Program, address: int) -> int | None:
    """Return the offset of the code at an address, or None if it is in no segment that can be executed."""
    for segment in program.loaded:
        if segment.flags & _EXECUTE and 0 <= address - segment.address < segment.file_size:
            return address - segment.address + segment.offset
    return None


def _with_segment(segments: tuple[_Segment, ...], added: _Segment, count: int) -> Iterator[_Segment]:
    """Yield the program headers in their order, with the new one behind the last PT_LOAD."""
    last = max(place for place, segment in enumerate(segments) if segment.kind == _PT_LOAD)
    for place, segment in enumerate(segments):
        if segment.kind == _PT_PHDR:  # a C library may compute from it where the program was loaded
            size = count * _PROGRAM_HEADER.size
            yield segment._replace(
                offset=added.offset, address=added.address, physical=added.address, file_size=size, memory_size=size
            )
        else:
            yield segment
        if place == last:
            yield added


def _settings_table(settings: Mapping[str, str]) -> bytes:
    texts = _texts(settings)
    strings = 2 * _NUMBER.size + len(texts) * _SETTING.size
    table = _NUMBER.pack(_up(len(texts) * _POINTER, _STACK_ALIGN))
    for text in texts:
        table += _SETTING.pack(text.index(b"=") + 1, strings)
        strings += len(text)
    return table + _NUMBER.pack(0) + b"".join(texts)


def _texts(settings: Mapping[str, str]) -> list[bytes]:
    return [f"{name}={value}\0".encode("utf-8", "surrogateescape") for name, value in settings.items()]


def _read_table(read: Read, place: int) -> Iterator[str]:
    """Yield each setting of a table as ``NAME=VALUE``; of a table that is cut off those that are there."""
    data = read(place, 2 * _NUMBER.size + MOST_SETTINGS * _SETTING.size + MOST_BYTES)
    for cursor in range(_NUMBER.size, len(data) - _SETTING.size, _SETTING.size):
        length, offset = _SETTING.unpack_from(data, cursor)
        if not length:
            return
        yield data[offset:].partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _up(number: int, align: int) -> int:
    return -(-number // align) * align
