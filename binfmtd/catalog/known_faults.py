"""Known faults of emulators: which version on which host fails in which way, and what helps.

Each row is a fact with its source, which ``link`` names.  The releases of QEMU that contain a fix were read from its
history (the first release commit that contains the commit), those of its stable series from Debian's changelogs of
qemu.  docs/known-faults.md shows all rows; a test compares the two.

For example, QEMU 8.2.2 has the fault ``qemu-arm64-ldconfig``, which begins with 8.1.1 and ends with 9.2.2.  7.2.19 does
not have ``qemu-fork-fd-lock``: the fault ends with 10.1, but the stable release 7.2.19 contains the fix, too.
"""

from enum import StrEnum
from typing import NamedTuple

from binfmtd.model.handler import Flags

Version = tuple[int, ...]

_COMMIT = "https://gitlab.com/qemu-project/qemu/-/commit/"
_ISSUE = "https://gitlab.com/qemu-project/qemu/-/issues/"
_SMALLEST_PAGE = 4096


class Emulator(StrEnum):
    """A family of emulators."""

    QEMU = "QEMU"
    FEX = "FEX"
    BOX64 = "box64"


class Effect(StrEnum):
    """The way in which a program fails."""

    CRASH = "crash"  # it is killed by a signal
    REFUSAL = "refusal"  # the emulator ends before it starts the program
    HANG = "hang"
    ENOSYS = "enosys"  # a system call fails with ENOSYS
    ARGUMENTS = "arguments"  # the program gets wrong arguments
    PATHS = "paths"  # a file that the emulator needs is not found


class HostConditions(NamedTuple):
    """The facts about a host on which a fault can depend; the defaults of a fact that is unknown meet no condition."""

    machine: str = ""  # as `uname -m` prints it
    kernel: tuple[int, int] = (0, 0)
    page_size: int = _SMALLEST_PAGE  # bytes
    randomized: bool = False  # kernel.randomize_va_space is not 0
    selinux: bool = False  # SELinux enforces its policy


class Emulation(NamedTuple):
    """An emulator as an entry uses it."""

    emulator: Emulator
    version: Version = ()  # empty if unknown: then it has no fault that depends on the version
    fixed_address: bool = False  # its file is linked to a fixed address (ET_EXEC), not as a PIE
    dynamic: bool = False  # its file needs a dynamic linker
    flags: Flags = Flags.NONE  # of the entry


class KnownFault(NamedTuple):
    """A fault, and the conditions under which an emulation has it; all of them have to be met.

    ``fixed`` is the first release of the main line without the fault.  ``backports`` are the releases of older stable
    series that contain the fix, so later ones of the same series do as well.  Both are empty if no release does.
    """

    id: str
    emulator: Emulator
    effect: Effect
    symptom: str  # sentences about what a user sees
    remedy: str  # sentences
    link: str
    first: Version = ()  # the first release with the fault; empty if no release was found without it
    fixed: Version = ()
    backports: tuple[Version, ...] = ()
    targets: tuple[str, ...] = ()  # the catalog's names of the programs' architectures; empty: all
    machines: tuple[str, ...] = ()  # of the host; empty: all
    kernel_before: tuple[int, int] | None = None
    flags: Flags = Flags.NONE  # which the entry has
    fixed_address: bool = False
    dynamic: bool = False
    large_pages: bool = False  # pages of more than 4 KiB
    randomized: bool = False
    selinux: bool = False
    pie: bool = False  # only position-independent programs have it
    special: bool = False  # only programs in one language, or packed ones, have it
    pattern: str = ""  # a regular expression for what is printed
    system_call: str = ""  # the one that fails with ENOSYS
    checked_by: str = ""  # a check of `doctor` on entries that reports the fault already

    @property
    def depends_on_version(self) -> bool:
        """True if some versions of the emulator are known not to have the fault."""
        return bool(self.first or self.fixed)


_UNCAUGHT = r"uncaught target signal 11"
_NOT_PIE = (
    "The emulator is linked to a fixed address, which often collides with memory of the emulated program, most of all "
    "on kernels since the end of 2024. Programs crash at random."
)
_BRK = (
    "The heap of a position-independent arm64 program cannot grow by more than a page, since QEMU maps its own pages "
    "right behind it. Static ones, like ldconfig of Debian 11, crash in about one of 50 runs, and the installation of "
    "packages with them."
)
_OLD_GO = (
    "madvise(MADV_DONTNEED) has no effect, though programs count on pages of zeros after it. Programs built with Go "
    "crash at random, the Go compiler among them."
)
_GO_POINTERS = (
    "Programs built with Go before 1.25.4 crash soon after their start, because QEMU gives them addresses above those "
    "that they can pack into a pointer."
)

KNOWN_FAULTS = (
    KnownFault(
        "qemu-fixed-address",
        Emulator.QEMU,
        Effect.CRASH,
        _NOT_PIE,
        "Use emulators that are linked as static PIE: those of Debian 13, of Debian 12 from 7.2+dfsg-7+deb12u9 on, or "
        "images of tonistiigi/binfmt since 2025.",
        # Debian #1087822 (qemu's changelog, 7.2+dfsg-7+deb12u9), LP #2096782, QEMU's issue 1912, tonistiigi/binfmt#219.
        "https://github.com/tonistiigi/binfmt/issues/215",
        machines=("x86_64",),
        fixed_address=True,
        pattern=_UNCAUGHT,
    ),
    KnownFault(
        "qemu-arm64-ldconfig",
        Emulator.QEMU,
        Effect.CRASH,
        "Some arm64 programs crash at each start, ldconfig of Ubuntu 22.04 and Debian 11 among them, so packages like "
        "libc-bin cannot be configured.",
        "Use QEMU 9.2.2 or later, or 8.0 or earlier.",
        f"{_ISSUE}1913",  # fixed by 4b7b20a3b7, in 9.2.2 as dffec2ddd0; issue 2377, tonistiigi/binfmt#231, #240, #243
        first=(8, 1, 1),
        fixed=(9, 2, 2),
        targets=("aarch64",),
        pattern=_UNCAUGHT,
    ),
    KnownFault(
        "qemu-arm64-brk",
        Emulator.QEMU,
        Effect.CRASH,
        _BRK,
        "No release has a fix. QEMU 7.2 and 8.0 do not crash so. On a machine that only builds, `sysctl -w "
        "kernel.randomize_va_space=0` avoids it, and weakens the protection of all programs.",
        # Begins with aec338d63b, which 8.1.1 contains.  The share was measured with 10.0.13 and 11.1.3 on Linux 6.18:
        # 13 of 600 runs, none with 7.2.22 or without randomization.
        "https://gitlab.com/qemu-project/qemu/-/work_items/4645",
        first=(8, 1, 1),
        targets=("aarch64",),
        machines=("x86_64",),
        randomized=True,
        pie=True,
        pattern=_UNCAUGHT,
    ),
    KnownFault(
        "qemu-go-madvise",
        Emulator.QEMU,
        Effect.CRASH,
        _OLD_GO,
        "Use QEMU 7.1 or later, or set GODEBUG=madvdontneed=0 for the program.",
        "https://github.com/golang/go/issues/77572",  # fixed by 892a4f6a75; QEMU's issue 326
        fixed=(7, 1),
        special=True,
        pattern=r"found bad pointer in Go heap",
    ),
    KnownFault(
        "qemu-go-x86-64",
        Emulator.QEMU,
        Effect.CRASH,
        _GO_POINTERS,
        "Build the program with Go 1.25.4 or later, or use QEMU 8.0.",
        # Begins with 2d708164e0; with 10.0.4: tonistiigi/binfmt#269; Go: editorconfig-checker/editorconfig-checker#613.
        f"{_ISSUE}2027",
        first=(8, 1),
        targets=("x86_64",),
        machines=("aarch64",),
        special=True,
        pattern=r"(lfstack\.push|taggedPointerPack) invalid packing",
    ),
    KnownFault(
        "qemu-upx",
        Emulator.QEMU,
        Effect.CRASH,
        "Programs that were packed with UPX crash at their start.",
        "Use QEMU 8.0.4 or later.",
        "https://github.com/upx/upx/issues/683",  # begins with 86f04735ac, fixed by 15ad98536a and dfe49864af
        first=(8, 0),
        fixed=(8, 0, 4),
        special=True,
        pattern=_UNCAUGHT,
    ),
    KnownFault(
        "qemu-selinux-guest-base",
        Emulator.QEMU,
        Effect.REFUSAL,
        "QEMU ends before the program starts, because it does not know which addresses the policy of SELinux forbids.",
        "Use QEMU 9.2 or later.",
        f"{_ISSUE}2598",  # fixed by fb7f3572b1
        fixed=(9, 2),
        targets=("i386",),
        selinux=True,
        pattern=r"Unable to find a guest_base to satisfy all guest address mapping requirements",
    ),
    KnownFault(
        "qemu-fork-fd-lock",
        Emulator.QEMU,
        Effect.HANG,
        "A process that a multi-threaded program forks can hang for ever, like those of uv while it compiles Python's "
        "bytecode.",
        "Use QEMU 10.1 or later, or 10.0.3 or 7.2.19.",
        f"{_ISSUE}2846",  # begins with c093364f4d, fixed by e4e839b2ee; astral-sh/uv#6105
        first=(6, 1),
        fixed=(10, 1),
        backports=((7, 2, 19), (10, 0, 3)),
    ),
    KnownFault(
        "qemu-fork-clone-lock",
        Emulator.QEMU,
        Effect.HANG,
        "A process that a multi-threaded program forks can hang for ever, if another thread forks or ends meanwhile.",
        "Use QEMU 11.0 or later, or 10.0.8.",
        f"{_ISSUE}3226",  # fixed by d22e9aec57
        fixed=(11, 0),
        backports=((10, 0, 8),),
    ),
    KnownFault(
        "qemu-no-faccessat2",
        Emulator.QEMU,
        Effect.ENOSYS,
        "Programs for loongarch64 find no file readable, since that architecture has no older system call for it: "
        "`test -r` of bash fails.",
        "Use QEMU 7.2 or later.",
        f"{_ISSUE}1261",  # fixed by 35a2c85f7d
        fixed=(7, 2),
        targets=("loongarch64",),
        system_call="faccessat2",
    ),
    KnownFault(
        "qemu-no-openat2",
        Emulator.QEMU,
        Effect.ENOSYS,
        "tar of Ubuntu 26.04 extracts nothing, and ostree and bootc fail: Function not implemented.",
        "Use QEMU 9.2 or later.",
        f"{_COMMIT}9651cead2f1b",  # abiosoft/colima#1613, armbian/build#10713, osbuild/bootc-image-builder#619
        fixed=(9, 2),
        pattern=r"Cannot (open|mkdir): Function not implemented",
        system_call="openat2",
    ),
    KnownFault(
        "qemu-no-fchmodat2",
        Emulator.QEMU,
        Effect.ENOSYS,
        "chmod fails in systems whose C library has no other way: changing permissions: Function not implemented.",
        "Use QEMU 10.1 or later, or 10.0.3.",
        f"{_ISSUE}3019",  # fixed by 6a3e132a1b
        fixed=(10, 1),
        backports=((10, 0, 3),),
        pattern=r"chmod: changing permissions of .*: Function not implemented",
        system_call="fchmodat2",
    ),
    KnownFault(
        "qemu-no-mount-setattr",
        Emulator.QEMU,
        Effect.ENOSYS,
        "Units of an emulated systemd that get credentials fail with the exit status CREDENTIALS.",
        "Use QEMU 11.1.1 or later, or 10.0.13.",
        f"{_COMMIT}4713988da1",
        fixed=(11, 1, 1),
        backports=((10, 0, 13),),
        system_call="mount_setattr",
    ),
    KnownFault(
        "qemu-p-unseen",
        Emulator.QEMU,
        Effect.ARGUMENTS,
        "QEMU does not see the entry's flag P, so each program gets its own name as an extra argument.",
        "Register the entry without P, or use QEMU 6.0 or later.",
        f"{_COMMIT}6e1c0d7b951e",
        fixed=(6, 0),
        flags=Flags.P,
        checked_by="p_unseen",
    ),
    KnownFault(
        "kernel-p-unseen",
        Emulator.QEMU,
        Effect.ARGUMENTS,
        "A kernel before 5.12 does not tell the emulator of the entry's flag P, so each program gets its own name as "
        "an extra argument.",
        "Register the entry without P, or use Linux 5.12 or later.",
        "https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/commit/?id=2347961b11d4",
        kernel_before=(5, 12),
        flags=Flags.P,
        checked_by="p_unseen",
    ),
    KnownFault(
        "fex-page-size",
        Emulator.FEX,
        Effect.CRASH,
        "FEX requires pages of 4 KiB, and crashes at its start on a kernel with larger ones, like Asahi Linux.",
        "Boot a kernel with pages of 4 KiB, or run the programs in a virtual machine that has one.",
        "https://github.com/FEX-Emu/FEX/issues/3496",
        large_pages=True,
        pattern=r"<jemalloc>: Unsupported system page size",
    ),
    KnownFault(
        "box64-flag-f",
        Emulator.BOX64,
        Effect.PATHS,
        "A box64 that is not static still needs its libraries in each chroot and container, although flag F opens it.",
        "Install box64 in the chroot or the image, or build it as a static program.",
        "https://github.com/ptitSeb/box64/issues/1361",
        flags=Flags.F,
        dynamic=True,
        checked_by="dynamic",
    ),
)
"""All known faults; those that crash programs come first."""


def known_faults(emulation: Emulation, architecture: str, host: HostConditions) -> list[KnownFault]:
    """Return the known faults that an emulation of an architecture's programs has on a host, in the table's order."""
    return [fault for fault in KNOWN_FAULTS if _has(fault, emulation, architecture, host)]


def _has(fault: KnownFault, emulation: Emulation, architecture: str, host: HostConditions) -> bool:
    return (
        fault.emulator is emulation.emulator
        and _in_range(fault, emulation.version)
        and architecture in (fault.targets or (architecture,))
        and host.machine in (fault.machines or (host.machine,))
        and (fault.kernel_before is None or (0, 0) < host.kernel < fault.kernel_before)
        and not fault.flags & ~emulation.flags
        and (emulation.fixed_address or not fault.fixed_address)
        and (emulation.dynamic or not fault.dynamic)
        and (host.page_size > _SMALLEST_PAGE or not fault.large_pages)
        and (host.randomized or not fault.randomized)
        and (host.selinux or not fault.selinux)
    )


def _in_range(fault: KnownFault, version: Version) -> bool:
    if not fault.depends_on_version:
        return True
    if not version or version < fault.first or (fault.fixed and version >= fault.fixed):
        return False
    return not any(
        version[: len(series := release[:-1])] == series and version >= release for release in fault.backports
    )
