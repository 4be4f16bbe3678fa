"""The programs of `probe --deep`: the source gives the same bytes again, and their headers are as the checks need."""

import re
import struct
from pathlib import Path
from types import ModuleType

import pytest
from support.cli import CHECKOUT
from support.dynamic_programs import build_module

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.deep_checks import CHECKS, DEEP_PROGRAMS, FIXED, PIE, DeepProgram
from binfmtd.formats.elf import ET_DYN, ET_EXEC, parse_elf
from binfmtd.host.deep_files import deep_program
from binfmtd.model.match import takes

SOURCE = CHECKOUT / "binfmtd" / "host" / "deep_programs" / "source"
MOST_BYTES = 200_000  # of all together, in each package and image
HARD_FLOAT = 0x400  # EF_ARM_ABI_FLOAT_HARD, of the ELF for the Arm Architecture


@pytest.fixture(scope="module")
def build() -> ModuleType:
    return build_module()


def programs(build: ModuleType) -> list[Path]:
    return [path for path in build.PROGRAMS.iterdir() if path.is_file()]


def test_the_source_gives_these_bytes(build: ModuleType, tmp_path: Path) -> None:
    """Compiled again by the same compiler, each program has the same bytes."""
    if (version := build.compiler_version()) != build.VERSION:
        pytest.skip(f"takes clang-19 and lld-19 {build.VERSION} (here: {version or 'none'}), those of Debian 13")
    made = build.build(tmp_path)
    assert {path.name for path in made} == {path.name for path in programs(build)}
    different = [path.name for path in made if path.read_bytes() != (build.PROGRAMS / path.name).read_bytes()]
    assert different == [], "run `make deep-programs` after a change of its source"


def test_each_program_exists(build: ModuleType) -> None:
    """The catalog and the build name the same programs, which together are small."""
    wanted = {f"{program.file}-{kind}" for program in DEEP_PROGRAMS for kind in (PIE, FIXED)}
    assert {path.name for path in programs(build)} == wanted
    assert {f"{machine}-{kind}" for machine in build.TARGETS for kind in build.BUILDS} == wanted
    assert sum(path.stat().st_size for path in programs(build)) <= MOST_BYTES


def test_the_source_has_each_check() -> None:
    """The source and the catalog name the same checks; ``nothing`` is what a program executes itself with."""
    named = set(re.findall(r'is\(name, "(\w+)"\)', (SOURCE / "checks.c").read_text("utf-8")))
    assert named == {check.name for check in CHECKS} | {"nothing"}


def loaded_at(program: bytes) -> int:
    """Return the lowest address of the segments that the kernel loads."""
    order, wide = "<" if program[5] == 1 else ">", program[4] == 2
    (table,) = struct.unpack_from(order + "Q" if wide else order + "I", program, 32 if wide else 28)
    size, count = struct.unpack_from(f"{order}HH", program, 54 if wide else 42)
    layout = struct.Struct(order + ("I12xQ" if wide else "I4xI"))  # p_type and p_vaddr
    segments = [layout.unpack_from(program, place) for place in range(table, table + size * count, size)]
    return int(min(address for kind, address in segments if kind == 1))  # PT_LOAD


@pytest.mark.parametrize("program", DEEP_PROGRAMS, ids=lambda program: program.file)
def test_headers(program: DeepProgram, build: ModuleType) -> None:
    """Programs are static, of their architecture, and taken by its match; one is a PIE, one has a low address."""
    architecture = CATALOG[program.architecture]
    for kind, e_type in ((PIE, ET_DYN), (FIXED, ET_EXEC)):
        content = deep_program(program, kind)
        elf = parse_elf(lambda offset, size, content=content: content[offset : offset + size])  # type: ignore[misc]
        assert elf is not None
        assert (elf.e_type, elf.linker, elf.damage) == (e_type, None, None)
        header = architecture.header
        assert (elf.bits, elf.byte_order, elf.machine) == (header.bits, header.byte_order, header.e_machine)
        assert takes(architecture.match, content)
        assert build.needs_no_relocation(content)
        assert program.architecture != "arm" or elf.e_flags & HARD_FLOAT
        assert loaded_at(content) == (0x10000 if kind == FIXED else 0)
        assert b"/work" not in content
        assert b"/tmp" not in content


def test_two_arm_programs() -> None:
    """The program for Armv6 consists of ARM instructions, the one for Armv7 of Thumb's: its entry point is odd."""
    entries = {
        program.file: struct.unpack_from("<I", deep_program(program, FIXED), 24)[0] & 1
        for program in DEEP_PROGRAMS
        if program.architecture == "arm"
    }
    assert entries == {"armv6": 0, "armv7": 1}


MACHINES = {  # the condition in machine.h, and the headers of Linux for it, below the directory of linux-libc-dev
    "defined(__x86_64__)": ["x86/asm/unistd_64.h"],
    "defined(__i386__)": ["x86/asm/unistd_32.h"],
    "defined(__aarch64__) || (defined(__riscv) && __riscv_xlen == 64)": [
        "arm64/asm/unistd_64.h",
        "riscv/asm/unistd_64.h",
    ],
    "defined(__arm__)": ["arm/asm/unistd-eabi.h"],
    "defined(__powerpc64__)": ["powerpc/asm/unistd_64.h"],
    "defined(__s390x__)": ["s390/asm/unistd_64.h"],
}
OTHER_NAMES = {"mmap": "mmap2", "clock_gettime": "clock_gettime64"}  # on 32 bits; machine.h says so
OF_ONE_MACHINE = {"cacheflush", "riscv_flush_icache"}  # in other headers


def test_the_numbers_of_system_calls() -> None:
    """The numbers in machine.h are those of Linux's headers, where Debian 13's linux-libc-dev has all machines'."""
    headers = Path("/usr/lib/linux/uapi")
    if not headers.is_dir():
        pytest.skip("takes the headers of all machines: apt-get install linux-libc-dev (Debian 13)")
    text = (SOURCE / "machine.h").read_text("utf-8")
    common, *parts = re.split(r"(?m)^#(?:el)?if (.*)\n\n#define SYS_", text)
    defined = re.compile(r"(?m)^(?:#define SYS_)?(\w+) (0x\w+|\d+)")
    equal = {name: int(value, 0) for name, value in re.findall(r"#define SYS_(\w+) (\d+)", common)}
    compared = set()
    for condition, body in zip(parts[::2], parts[1::2], strict=True):
        first = defined.match(body)
        assert first is not None
        ours = {first[1]: int(first[2], 0)} | equal
        ours |= {name: int(value, 0) for name, value in re.findall(r"#define SYS_(\w+) (0x\w+|\d+)", body)}
        for header in MACHINES[condition]:
            found = (headers / header).read_text("ascii")
            numbers = re.findall(r"#define __NR_(\w+) \(?(?:__NR_SYSCALL_BASE ?\+ ?)?(\d+)\)?", found)
            theirs = {name: int(value) for name, value in numbers}
            for name, value in ours.items():
                other = OTHER_NAMES.get(name, name) if "_32" in header or "eabi" in header else name
                if name not in OF_ONE_MACHINE:
                    assert theirs[other] == value, f"{header}: {other}"
        compared.add(condition)
    assert compared == MACHINES.keys()
