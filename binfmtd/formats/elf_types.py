"""The kind of an ELF file: its architecture in the catalog's words, the C library that it needs, and how to run it."""

from binfmtd.catalog.architectures import CATALOG, Architecture
from binfmtd.formats.elf import ET_CORE, ET_DYN, ET_EXEC, ET_REL, ElfFile
from binfmtd.formats.escapes import encode
from binfmtd.formats.file_types import Kind
from binfmtd.model.match import takes

# How a dynamic linker's file name begins, and the C library that it belongs to.
_LIBCS = (
    ("ld-musl-", "musl"),
    ("ld-linux", "glibc"),
    ("ld64.so", "glibc"),
    ("ld.so.1", "glibc"),
    ("ld-uClibc", "uClibc"),
    ("linker", "Android's bionic"),
    ("ld-elf", "FreeBSD's"),
    ("ld.elf_so", "NetBSD's"),
    ("ld.so", "a BSD's"),
    ("ld64-uClibc", "uClibc"),
)
_SYSTEMS = {2: "NetBSD", 6: "Solaris", 9: "FreeBSD", 12: "OpenBSD"}  # EI_OSABI; 0 and 3 are Linux's
_TYPES = {ET_REL: "an object file, not linked", ET_CORE: "a core dump"}
_APPIMAGE = (b"AI\x01", b"AI\x02")  # in the padding of e_ident, where other files have zeros
_EM_ARM, _HARD_FLOAT, _SOFT_FLOAT = 40, 0x400, 0x200


def architecture_of(head: bytes) -> Architecture | None:
    """Return the catalog's architecture for a file that begins with ``head``; an AppImage's own bytes do not count."""
    plain = head[:8] + bytes(3) + head[11:] if head[8:11] in _APPIMAGE else head
    return next((row for row in CATALOG.values() if takes(row.match, plain)), None)


def libc_of(linker: str) -> str:
    """Return the C library that a dynamic linker belongs to, by its path; empty if unknown."""
    name = linker.rpartition("/")[2]
    if linker.startswith("/nix/store/"):
        return "glibc, of Nix"
    return next((libc for begin, libc in _LIBCS if name.startswith(begin)), "")


def elf_kind(elf: ElfFile, head: bytes) -> Kind:  # noqa: PLR0911  each case has its own answer
    """Return the kind of an ELF file, with the remedy that makes it run."""
    architecture = architecture_of(head)
    what = _description(elf, architecture)
    word = "appimage" if head[8:11] in _APPIMAGE else "elf"
    name = architecture.name if architecture else None
    if elf.damage:
        remedy = "get the file again: it is damaged and runs on no system"
        return Kind(word, f"{what}; {elf.damage}", remedy, architecture=name)
    if elf.e_type not in (ET_EXEC, ET_DYN):
        kind = _TYPES.get(elf.e_type, f"e_type {elf.e_type}")
        return Kind("elf-object", f"{what}: {kind}", "this is not a program: link it", architecture=name)
    if _is_library(elf):
        return Kind("elf-library", f"{what}: a shared library", "this is not a program", architecture=name)
    if system := _SYSTEMS.get(elf.osabi):
        return Kind(word, f"{what}, for {system}", f"run it on {system}: QEMU's emulators run only Linux programs")
    if architecture is None:
        return Kind(word, what, "QEMU has no emulator for Linux programs of this machine")
    if word == "appimage":
        return Kind(
            word,
            f"an AppImage: {what}",
            "install QEMU's emulators, and declare a handler whose mask ignores bytes 8 to 10 of the file: they are an "
            "AppImage's own, and QEMU's usual magic requires zeros there",
            _appimage_config(architecture),
            name,
        )
    return Kind(
        word,
        what,
        "install QEMU's emulators",
        f'architectures = ["{architecture.goarch or architecture.name}"]',
        name,
    )


def _description(elf: ElfFile, architecture: Architecture | None) -> str:
    machine = f"machine {elf.machine}, which is not in the catalog" if architecture is None else architecture.name
    also = architecture.debian[:1] if architecture else ()
    if elf.machine == _EM_ARM and elf.e_flags & (_HARD_FLOAT | _SOFT_FLOAT):
        also = ("armhf",) if elf.e_flags & _HARD_FLOAT else ("armel",)
    names = "".join(f" ({name})" for name in also if name != machine)
    level = f", {elf.level} at least" if elf.level else ""
    return f"an ELF file for {machine}{names}{level}, {elf.bits} bits, {elf.byte_order} endian{_linking(elf)}"


def _is_library(elf: ElfFile) -> bool:
    return elf.e_type == ET_DYN and elf.linker is None and not elf.entry


def _linking(elf: ElfFile) -> str:
    if elf.damage or elf.e_type not in (ET_EXEC, ET_DYN) or _is_library(elf):
        return ""
    if elf.linker is None:
        return ", static"
    libc = libc_of(elf.linker)
    return f", dynamic, loaded by {elf.linker}" + (f" ({libc})" if libc else "")


def _appimage_config(architecture: Architecture) -> str:
    """Return a handler's config whose mask leaves out an AppImage's bytes."""
    match = architecture.match
    mask = bytearray(match.mask or b"\xff" * len(match.magic))
    mask[8:11] = bytes(3)
    magic, wide = encode(match.magic).decode(), encode(bytes(mask)).decode()
    return (
        f"[handlers.appimage-{architecture.name}]\nmagic = '{magic}'\nmask = '{wide}'\n"
        f'interpreter = "/usr/bin/qemu-{architecture.name}"\nflags = "POF"'
    )
