"""Levels of an architecture: further instructions, which the ELF header does not show.

A tiny program of each level shows if it runs.

* x86-64: v2, v3 and v4 are sets of CPU features (x86-64 psABI, "Micro-Architecture Levels").  The program checks each
  feature with CPUID and, for the registers that the system has to save, XGETBV.  Under an emulator these instructions
  report the emulator's features.
* Arm: v6 and v7.  The program executes one instruction that the version before does not have (Arm ARM, A8.8).
"""

from collections.abc import Mapping
from types import MappingProxyType

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program

_code = bytes.fromhex

# Bits of CPUID's leaves, by the psABI's names; each level includes those below.
_LEAF_1_ECX = {
    "v2": 1 << 0 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23,  # SSE3 SSSE3 CMPXCHG16B SSE4.1 SSE4.2 POPCNT
    "v3": 1 << 12 | 1 << 22 | 1 << 27 | 1 << 28 | 1 << 29,  # FMA MOVBE OSXSAVE AVX F16C
}
_LEAF_7_EBX = {
    "v3": 1 << 3 | 1 << 5 | 1 << 8,  # BMI1 AVX2 BMI2
    "v4": 1 << 16 | 1 << 17 | 1 << 28 | 1 << 30 | 1 << 31,  # AVX512F AVX512DQ AVX512CD AVX512BW AVX512VL
}
_LEAF_80000001_ECX = {"v2": 1 << 0, "v3": 1 << 5}  # LAHF; LZCNT
_XCR0 = {"v3": 1 << 1 | 1 << 2, "v4": 1 << 5 | 1 << 6 | 1 << 7}  # XMM YMM; opmask, both halves of ZMM

_AND_ECX, _AND_EBX = _code("f7d1 81e1"), _code("f7d3 81e3")  # not ecx; and ecx, … / not ebx; and ebx, …
_OR_ECX, _OR_EBX = _code("4109c8"), _code("4109d8")  # or r8d, ecx / or r8d, ebx


def _x86_64(level: str) -> bytes:
    """Return machine code that exits with 42 if all features exist, else with 0; r8d collects the missing bits."""
    levels = ("v2", "v3", "v4")[: int(level[1:]) - 1]

    def bits(table: Mapping[str, int]) -> bytes:
        return sum(table.get(name, 0) for name in levels).to_bytes(4, "little")

    def cpuid(leaf: int) -> bytes:
        return _code("b8") + leaf.to_bytes(4, "little") + _code("31c9 0fa2")  # mov eax, leaf; xor ecx, ecx; cpuid

    code = _code("4531c0")  # xor r8d, r8d
    code += cpuid(1) + _AND_ECX + bits(_LEAF_1_ECX) + _OR_ECX
    code += cpuid(0x80000001) + _AND_ECX + bits(_LEAF_80000001_ECX) + _OR_ECX
    if level != "v2":
        code += cpuid(7) + _AND_EBX + bits(_LEAF_7_EBX) + _OR_EBX
        # xor ecx, ecx; xgetbv, which raises SIGILL without OSXSAVE; not eax; and eax, …; or r8d, eax
        code += _code("31c9 0f01d0 f7d0 25") + bits(_XCR0) + _code("4109c0")
    # xor edi, edi; test r8d, r8d; sete dil; imul edi, edi, 42; mov eax, 60; syscall
    return code + _code("31ff 4585c0 400f94c7 6bff2a b83c000000 0f05")


_LEVELS = {
    "x86_64": {level: _x86_64(level) for level in ("v2", "v3", "v4")},
    "arm": {
        "v7": _code("0170a0e3 2a00a0e3 5ff07ff5 000000ef"),  # mov r7, 1; mov r0, 42; dmb sy; svc 0
        "v6": _code("0170a0e3 2a00a0e3 7000efe6 000000ef"),  # mov r7, 1; mov r0, 42; uxtb r0, r0; svc 0
    },
}

LEVELS: Mapping[str, Mapping[str, bytes]] = MappingProxyType(
    {
        name: MappingProxyType(
            {level: tiny_program(CATALOG[name]._replace(exit42=code)) for level, code in levels.items()}
        )
        for name, levels in _LEVELS.items()
    }
)
"""Architecture -> level, a variant of its OCI platform -> an executable file that exits with 42 where that runs."""
