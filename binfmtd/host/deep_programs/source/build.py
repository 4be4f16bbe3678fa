"""Compile the programs of ``binfmtd probe --deep`` into the directory above this one.

    python3 binfmtd/host/deep_programs/source/build.py [DIRECTORY]

One compiler makes all of them: Debian 13's clang-19 and lld-19, which have every machine as a target.  So the same
source gives the same bytes on each machine, and tests/unit/test_deep_programs.py compares them.
"""

import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = HERE.parent
CLANG, LLD = "clang-19", "ld.lld-19"
VERSION = "19.1.7"  # another one makes other bytes
LOW = 0x10000  # the default of vm.mmap_min_addr, the lowest address that a program may have
# The processors are the oldest that Debian's and Docker's systems of these names require.
TARGETS = {
    "x86_64": ["--target=x86_64-linux-gnu", "-march=x86-64"],
    "aarch64": ["--target=aarch64-linux-gnu", "-mno-outline-atomics"],
    # Hard float in both: ARM instructions and VFPv2 as in Alpine's armhf, Thumb-2 and VFPv3 as in Debian's armhf.
    "armv6": ["--target=armv6-linux-gnueabihf", "-mcpu=arm1176jzf-s", "-marm"],
    "armv7": ["--target=armv7a-linux-gnueabihf", "-mfpu=vfpv3-d16", "-mthumb"],
    "i386": ["--target=i686-linux-gnu", "-march=i686", "-msse2", "-mfpmath=sse"],
    "ppc64le": ["--target=powerpc64le-linux-gnu", "-mcpu=power8"],
    "riscv64": ["--target=riscv64-linux-gnu", "-march=rv64gc", "-mno-relax"],
    "s390x": ["--target=s390x-linux-gnu", "-march=z10"],
}
COMPILE = [
    *("-std=gnu11", "-Os", "-ffreestanding", "-fno-math-errno", "-fomit-frame-pointer", "-fvisibility=hidden"),
    *("-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fno-ident", "-nostdinc"),
    *("-Wall", "-Wextra", "-Werror", "-c"),
]
# Pages of 64 KiB, the largest that distributions use: the files load under any smaller ones.
LINK = ["--entry=begin", "--strip-all", "--build-id=none", "-z", "max-page-size=65536", "-z", "norelro"]
LINK += ["-z", "noseparate-code", "-z", "noexecstack", "--hash-style=gnu"]
BUILDS = {
    "pie": (["-fPIE"], ["-pie", "--no-dynamic-linker"]),
    "fixed": (["-fno-pie"], ["-no-pie", f"--image-base={LOW:#x}"]),
}
_PT_DYNAMIC, _RELOCATIONS = 2, {7, 17, 23, 36}  # DT_RELA, DT_REL, DT_JMPREL, DT_RELR


def build(directory: Path) -> list[Path]:
    """Compile all programs into a directory and return their paths.  Raises CalledProcessError."""
    directory.mkdir(parents=True, exist_ok=True)
    made = []
    for machine, target in TARGETS.items():
        for kind, (compile_as, link_as) in BUILDS.items():
            path = directory / f"{machine}-{kind}"
            compiled = path.with_suffix(".o")
            # The name of the directory must not get into the files.
            _run([CLANG, *target, *COMPILE, *compile_as, "checks.c", "-o", str(compiled.absolute())])
            _run([LLD, *LINK, *link_as, str(compiled.absolute()), "-o", str(path.absolute())])
            compiled.unlink()
            if not needs_no_relocation(path.read_bytes()):
                raise SystemExit(f"{path}: it contains relocations, which no code of ours makes: change checks.c")
            made.append(path)
    return made


def needs_no_relocation(program: bytes) -> bool:
    """Return True if a program's dynamic section, if it has one, names no relocations."""
    order, word = "<" if program[5] == 1 else ">", "I" if program[4] == 1 else "Q"
    (table,) = struct.unpack_from(order + word, program, 28 if word == "I" else 32)
    size, count = struct.unpack_from(f"{order}HH", program, 42 if word == "I" else 54)
    for at in range(table, table + size * count, size):
        kind, offset, length = struct.unpack_from(order + ("II8xI" if word == "I" else "I4xQ16xQ"), program, at)
        if kind == _PT_DYNAMIC:
            pair = struct.Struct(f"{order}2{word}")
            tags = {tag for tag, _ in pair.iter_unpack(program[offset : offset + length // pair.size * pair.size])}
            return not tags & _RELOCATIONS
    return True


def compiler_version() -> str:
    """Return the version of the compiler; "" if it, or its linker, is not installed."""
    try:
        text = _run([CLANG, "--version"])
        _run([LLD, "--version"])
    except FileNotFoundError:
        return ""
    return text.partition("version ")[2].split()[0]


def _run(command: Sequence[str]) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, cwd=HERE, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    if compiler_version() != VERSION:
        sys.exit(f"{CLANG} and {LLD} of version {VERSION} are not here: apt-get install clang-19 lld-19 (Debian 13)")
    for each in build(Path(sys.argv[1]) if len(sys.argv) > 1 else PROGRAMS):
        print(each, each.stat().st_size)
