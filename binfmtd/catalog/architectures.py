"""The catalog: QEMU's 33 Linux targets.

Header fields and matches are those of QEMU's scripts/qemu-binfmt-conf.sh, with microblaze as Debian corrected it
(QEMU's own can never match).  Twenty-one follow the general rule; each other row specifies what it compares instead.

The order is by family; of two architectures with equal priority the later one counts as declared later.
"""

from collections.abc import Mapping
from types import MappingProxyType

from binfmtd.catalog.architecture import Architecture
from binfmtd.catalog.elf import Compared, ElfHeader

__all__ = ["CATALOG", "Architecture"]


# EI_DATA and EI_VERSION may also be 0 (ELFDATANONE, EV_NONE).
_LAX_IDENT = Compared(ei_data=0xFE, ei_version=0xFE)
_LAX_VERSION = Compared(ei_version=0xFE)
# OSABI 0 to 3 (none, HP-UX, NetBSD, Linux) with any ABI version.
_LOW_OSABI = Compared(ei_osabi=0xFC, ei_abiversion=0)
# Linkers put into EI_ABIVERSION what a MIPS program requires of the C library (non-PIC calls, FP64).
_ANY_ABI_VERSION = Compared(ei_abiversion=0)
# EF_MIPS_ABI2: the only bit in which the n32 ABI differs from o32.
_ABI2 = 0x20
_MIPS_32 = Compared(ei_abiversion=0, e_flags=_ABI2)
# QEMU compares one byte of e_machine, which no other little-endian machine of 64 bits in the catalog has there.
_LOW_MACHINE = Compared(e_machine=0x00FF)

_code = bytes.fromhex

_ROWS = (
    Architecture(
        "aarch64",
        ElfHeader(64, "little", 183),
        _code("a80b80d2 400580d2 010000d4"),  # mov x8, 93; mov x0, 42; svc 0
        goarch="arm64",
        variants=("v8", "v9"),
        debian=("arm64",),
        gnu=("aarch64",),
        other=("arm64v8",),
    ),
    Architecture(
        "aarch64_be",
        ElfHeader(64, "big", 183),
        _code("a80b80d2 400580d2 010000d4"),  # code is little-endian in either data order
        gnu=("aarch64_be",),
        other=("arm64be", "arm64_be", "aarch64be"),
    ),
    Architecture(
        "alpha",
        ElfHeader(64, "little", 0x9026),
        _code("2a001f22 01001f20 83000000"),  # lda $16, 42; lda $0, 1; call_pal callsys
        compared=_LAX_IDENT,
        debian=("alpha",),
    ),
    Architecture(
        "arm",
        ElfHeader(32, "little", 40, e_flags=0x05000000),  # EABI version 5
        _code("0170a0e3 2a00a0e3 000000ef"),  # mov r7, 1; mov r0, 42; svc 0
        goarch="arm",
        variants=("v5", "v6", "v7", "v8"),
        debian=("armhf", "armel"),
        gnu=("armv7l", "armv6l", "armv5tel", "armv5tejl", "armv4tl", "armv8l"),
        other=("armv5", "armv6", "armv7", "armv6hl", "armv7hl", "armv7hnl", "armhfp", "arm32v5", "arm32v6", "arm32v7"),
    ),
    Architecture(
        "armeb",
        ElfHeader(32, "big", 40, e_flags=0x05000000),  # no EF_ARM_BE8: code is big-endian, too (BE32)
        _code("e3a07001 e3a0002a ef000000"),
        debian=("armeb",),
        gnu=("armv7b", "armv5teb"),
        other=("armbe",),
    ),
    Architecture(
        "hexagon",
        ElfHeader(32, "little", 164, e_flags=0x68),  # the flags name a CPU: v68
        _code("40c50078 a6cb0078 04c00054"),  # r0 = 42; r6 = 93; trap0(1)
    ),
    Architecture(
        "hppa",
        ElfHeader(32, "big", 15, e_flags=0x210),  # PA-RISC 1.1
        _code("341a0054 e4008200 34140002"),  # ldi 42, r26; be,l 0x100(sr2, r0); in its delay slot: ldi 1, r20
        debian=("hppa",),
        gnu=("parisc", "hppa1.1", "hppa2.0"),
    ),
    Architecture(
        "i386",
        ElfHeader(32, "little", 3),
        _code("b801000000 bb2a000000 cd80"),  # mov eax, 1; mov ebx, 42; int 0x80
        compared=_LAX_IDENT,
        goarch="386",
        debian=("i386",),
        gnu=("i686", "i586", "i486"),
        other=("x86", "x86_32", "ia32"),
    ),
    Architecture(
        "x86_64",
        ElfHeader(64, "little", 62),
        _code("b83c000000 bf2a000000 0f05"),  # mov eax, 60; mov edi, 42; syscall
        compared=_LAX_IDENT,
        goarch="amd64",
        variants=("v1", "v2", "v3", "v4"),
        debian=("amd64",),
        other=("x86-64", "x64", "x86_64_v2", "x86_64_v3", "x86_64_v4", "x86-64-v2", "x86-64-v3", "x86-64-v4"),
    ),
    Architecture(
        "loongarch64",
        ElfHeader(64, "little", 258, e_flags=0x43),  # object ABI 1, double float
        _code("04a88003 0b748103 00002b00"),  # ori a0, zero, 42; ori a7, zero, 93; syscall 0
        compared=_LOW_OSABI,
        goarch="loong64",
        debian=("loong64",),
        other=("loong",),
    ),
    Architecture(
        "m68k",
        ElfHeader(32, "big", 4),
        _code("722a 7001 4e40"),  # moveq 42, d1; moveq 1, d0; trap 0
        compared=_LAX_VERSION,
        debian=("m68k",),
    ),
    Architecture(
        "microblaze",
        ElfHeader(32, "big", 0xBAAB),  # in use before 189 was assigned, and the only one in QEMU's script
        _code("30a0002a 31800001 b9cc0008"),  # addik r5, r0, 42; addik r12, r0, 1; brki r14, 8
        other=("microblazebe", "microblazeeb"),
    ),
    Architecture(
        "microblazeel",
        ElfHeader(32, "little", 0xBAAB),
        _code("2a00a030 01008031 0800ccb9"),
    ),
    Architecture(
        "mips",
        ElfHeader(32, "big", 8, e_flags=0x50001000),  # MIPS32, o32
        _code("2404002a 24020fa1 0000000c"),  # li a0, 42; li v0, 4001; syscall
        compared=_MIPS_32,
        goarch="mips",
        debian=("mips", "mipsr6"),
        gnu=("mipseb", "mipsisa32r6"),
    ),
    Architecture(
        "mipsel",
        ElfHeader(32, "little", 8, e_flags=0x50001000),
        _code("2a000424 a10f0224 0c000000"),
        compared=_MIPS_32,
        goarch="mipsle",
        debian=("mipsel", "mipsr6el"),
        gnu=("mipsisa32r6el",),
    ),
    Architecture(
        "mips64",
        ElfHeader(64, "big", 8, e_flags=0x60000000),  # MIPS64, n64
        _code("2404002a 240213c2 0000000c"),  # li a0, 42; li v0, 5058; syscall
        compared=_ANY_ABI_VERSION,
        goarch="mips64",
        debian=("mips64", "mips64r6"),
        gnu=("mips64eb", "mipsisa64r6"),
    ),
    Architecture(
        "mips64el",
        ElfHeader(64, "little", 8, e_flags=0x60000000),
        _code("2a000424 c2130224 0c000000"),
        compared=_ANY_ABI_VERSION,
        goarch="mips64le",
        debian=("mips64el", "mips64r6el"),
        gnu=("mipsisa64r6el",),
    ),
    Architecture(
        "mipsn32",
        ElfHeader(32, "big", 8, e_flags=0x60000000 | _ABI2),
        _code("2404002a 240217aa 0000000c"),  # li a0, 42; li v0, 6058; syscall
        compared=_MIPS_32,
        debian=("mipsn32",),
        other=("mips64p32",),
    ),
    Architecture(
        "mipsn32el",
        ElfHeader(32, "little", 8, e_flags=0x60000000 | _ABI2),
        _code("2a000424 aa170224 0c000000"),
        compared=_MIPS_32,
        debian=("mipsn32el",),
        other=("mips64p32le",),
    ),
    Architecture(
        "or1k",
        ElfHeader(32, "big", 92),
        _code("9c60002a 9d60005d 20000001"),  # l.addi r3, r0, 42; l.addi r11, r0, 93; l.sys 1
        debian=("or1k",),
        other=("openrisc",),
    ),
    Architecture(
        "ppc",
        ElfHeader(32, "big", 20),
        _code("3860002a 38000001 44000002"),  # li r3, 42; li r0, 1; sc
        debian=("powerpc",),
        other=("ppc32", "powerpc32"),
    ),
    Architecture(
        "ppc64",
        ElfHeader(64, "big", 21, e_flags=2),  # ABI version 2: e_entry is code, not a function descriptor
        _code("3860002a 38000001 44000002"),
        goarch="ppc64",
        debian=("ppc64",),
        gnu=("powerpc64",),
        other=("ppc64be",),
    ),
    Architecture(
        "ppc64le",
        ElfHeader(64, "little", 21, e_flags=2),
        _code("2a006038 01000038 02000044"),
        compared=_LOW_MACHINE,
        goarch="ppc64le",
        debian=("ppc64el",),
        gnu=("powerpc64le",),
        other=("powerpc64el",),
    ),
    Architecture(
        "riscv32",
        ElfHeader(32, "little", 243),
        _code("1305a002 9308d005 73000000"),  # li a0, 42; li a7, 93; ecall
        other=("riscv32gc", "rv32"),
    ),
    Architecture(
        "riscv64",
        ElfHeader(64, "little", 243),
        _code("1305a002 9308d005 73000000"),
        goarch="riscv64",
        variants=("rva20u64", "rva22u64", "rva23u64"),
        debian=("riscv64",),
        other=("riscv64gc", "rv64"),
    ),
    Architecture(
        "s390x",
        ElfHeader(64, "big", 22),
        _code("a729002a 0a01"),  # lghi r2, 42; svc 1
        goarch="s390x",
        debian=("s390x",),
    ),
    Architecture(
        "sh4",
        ElfHeader(32, "little", 42, e_flags=9),  # SH4
        _code("2ae4 01e3 11c3"),  # mov 42, r4; mov 1, r3; trapa 0x11
        debian=("sh4",),
        gnu=("sh4a",),
    ),
    Architecture(
        "sh4eb",
        ElfHeader(32, "big", 42, e_flags=9),
        _code("e42a e301 c311"),
        debian=("sh4eb",),
        gnu=("sh4aeb",),
    ),
    Architecture(
        "sparc",
        ElfHeader(32, "big", 2),
        _code("9010202a 82102001 91d02010"),  # mov 42, o0; mov 1, g1; ta 0x10
        debian=("sparc",),
        gnu=("sparcv8",),
    ),
    Architecture(
        "sparc32plus",
        ElfHeader(32, "big", 18, e_flags=0x100),  # EF_SPARC_32PLUS
        _code("9010202a 82102001 91d02010"),
        other=("sparcv8plus",),
    ),
    Architecture(
        "sparc64",
        ElfHeader(64, "big", 43),
        _code("9010202a 82102001 91d0206d"),  # mov 42, o0; mov 1, g1; ta 0x6d
        debian=("sparc64",),
    ),
    Architecture(
        "xtensa",
        ElfHeader(32, "little", 94, e_flags=0x300),
        _code("62a02a 22a076 005000"),  # movi a6, 42; movi a2, 118; syscall
        other=("xtensael",),
    ),
    Architecture(
        "xtensaeb",
        ElfHeader(32, "big", 94, e_flags=0x300),
        _code("260a2a 220a76 000500"),
    ),
)

CATALOG: Mapping[str, Architecture] = MappingProxyType({row.name: row for row in _ROWS})
